"""What few people set, against the installed PEFT: every field of LoraConfig, by label, on models with weights.

Each pair of a model and a configuration must be refused by both, or agree in every adapted weight, its rank, alpha and
scale, and in the number of trainable parameters. Where the rules say that they do not cover it, that is counted.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import math
import warnings
from typing import Any

import peft
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch import nn

from lorascope.checks.check import check
from lorascope.model.json import map_from_json, map_to_json
from lorascope.peft_rules.differences import read_differently
from lorascope.peft_rules.lora_config import to_peft
from lorascope.peft_rules.options import OPTIONS
from lorascope.peft_rules.releases import parse_release
from lorascope.peft_rules.state_dict import PREFIX, saved_tensors
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plans.verify import adapter_config, verify
from lorascope.sources.transformers.meta_model import map_module
from tests.helpers import peft_models as zoo
from tests.helpers.oracle import RARE, adapted_weights
from tests.helpers.peft_comparison import compare_rare
from tests.helpers.random_configs import LABELS, rare_configurations
from tests.helpers.samples import fails

RELEASE = parse_release(peft.__version__) or ()
MODELS = (
    "normed",
    "llama-tied",
    "gpt2",
    "bert-tokens",
    "qwen3_next",
    "mixtral",
    "gpt_oss",
    "jetmoe",
    "t5",
    "plain",
    "qwen3_moe",
    "llama-classifier",
)
QUICK = ("normed", "llama-tied")
# Of each label on each model.
PER_LABEL = 11
PAIRS = 5_000
# Of 132 pairs of a label, how many may be such that the rules say they do not cover them: under 5 % of all pairs. In one run
# 36 of 5,280 were: 2,736 were adapted alike, 2,462 refused by both, 46 agree but for a count that is called an estimate.
MOST_UNCOVERED = {"ensure_weight_tying": 12}


def tried(name: str, label: str, count: int) -> collections.Counter[str]:
    """How it went on so many different configurations."""
    results: collections.Counter[str] = collections.Counter()

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(rare_configurations(zoo.mapped(name), label))
    def run(values: dict[str, Any]) -> None:
        results[compare_rare(name, values)] += 1

    run()
    assert results.total() >= count
    return results


def test_enough_is_tried() -> None:
    assert len(MODELS) * len(LABELS) * PER_LABEL >= PAIRS
    assert len(QUICK) * len(LABELS) * 4 >= 300
    labeled = {label.partition("=")[0] for label in LABELS}
    assert 6 * len(LABELS) + sum(MOST_UNCOVERED.values()) <= 0.05 * len(MODELS) * len(LABELS) * PER_LABEL
    # All that is rare is tried, but for what only goes with another.
    assert RARE - labeled <= {"qalora_group_size"}


@pytest.mark.parametrize("label", LABELS)
def test_some_pairs(label: str) -> None:
    for name in QUICK:
        tried(name, label, 4)


@pytest.mark.slow
@pytest.mark.parametrize("label", LABELS)
def test_pairs(label: str) -> None:
    results: collections.Counter[str] = collections.Counter()
    for name in MODELS:
        results += tried(name, label, PER_LABEL)
    assert results.total() >= len(MODELS) * PER_LABEL
    assert results["uncovered"] <= MOST_UNCOVERED.get(label, 6), results
    assert results["adapted"] >= 5 or label in NEVER, results


# What get_peft_model refuses on all but embeddings, or always.
NEVER = frozenset(
    {
        "arrow_config",
        "init_lora_weights=pissa_niter_x",
        "init_lora_weights=pissa_4",
        "init_lora_weights=nonsense",
        "loftq_config",
    }
)


# Every field.


@pytest.mark.skipif(RELEASE < (0, 21), reason="the table is of the newest release")
def test_the_table_has_every_field_of_the_installed_peft() -> None:
    fields = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert fields == OPTIONS.keys()
    assert len(OPTIONS) == 42
    covered = {name for name, rule in OPTIONS.items() if rule.standing in ("exact", "partly")}
    assert covered - {"peft_type"} == {field.name for field in dataclasses.fields(AdapterConfig)}


@pytest.mark.skipif(RELEASE < (0, 21), reason="the table is of the newest release")
@pytest.mark.parametrize("name", [name for name, rule in OPTIONS.items() if rule.standing == "neutral"])
def test_neutral_fields_change_nothing(name: str) -> None:
    values = {"auto_mapping": {"a": "b"}, "peft_version": "0.1", "runtime_config": peft.LoraRuntimeConfig()}
    given_ = {"target_modules": ["q_proj"], name: values.get(name, "some-text")}
    found = verify(zoo.mapped("llama"), peft.LoraConfig(**given_))
    assert found == verify(zoo.mapped("llama"), {"target_modules": ["q_proj"]})
    assert compare_rare("llama", given_) == "adapted"


@pytest.mark.parametrize("field", ["megatron_config", "layer_replication"])
def test_empty_settings_change_nothing(field: str) -> None:
    for nothing in (None, [], {}):
        assert verify(zoo.mapped("llama"), {field: nothing}) == verify(zoo.mapped("llama"), {})


# Samples with their figures.


@pytest.mark.parametrize(
    ("model", "values", "trainable"),
    [
        ("llama", {"r": 40, "init_lora_weights": "pissa"}, 16 * (16 + 16) * 3 + 8 * (16 + 8) * 3),
        ("llama", {"r": 40, "init_lora_weights": "pissa_niter_2"}, 16 * (16 + 16) * 3 + 8 * (16 + 8) * 3),
        ("llama", {"r": 40, "init_lora_weights": "OLoRA"}, 16 * (16 + 16) * 3 + 8 * (16 + 8) * 3),
        ("llama", {"r": 4, "init_lora_weights": "mica"}, 4 * 16 * 6),
        ("llama", {"r": 4, "init_lora_weights": "MiCA"}, 4 * (32 + 24) * 3),
        ("llama", {"r": 9, "init_lora_weights": "mica"}, None),
        ("llama", {"r": 3, "init_lora_weights": "orthogonal"}, None),
        ("llama", {"r": 4, "init_lora_weights": "orthogonal", "rank_pattern": {"layers.0.*": 3}}, None),
        ("llama", {"r": 4, "kasa_config": {}}, (4 * (32 + 24) + 2 * 4) * 3),
        ("llama", {"r": 4, "monteclora_config": {"buffer_size": 1}}, (4 * (32 + 24) + 2 * (4 + 8)) * 3),
        (
            "llama",
            {"r": 4, "use_bdlora": {"target_modules_bd_a": ["q"], "target_modules_bd_b": ["v"], "nblocks": 2}},
            (4 * 8 + 16 * 4 + 4 * 16 + 8 * 2) * 3,
        ),
        ("llama", {"r": 4, "velora_config": {}}, 4 * (32 + 24) * 3),
        ("llama", {"r": 4, "alora_invocation_tokens": [1]}, 4 * (32 + 24) * 3),
        ("llama", {"r": 4, "arrow_config": {}}, None),
        ("llama", {"r": 4, "inference_mode": True}, 0),
        ("llama", {"r": 4, "lora_dropout": math.nan}, 4 * (32 + 24) * 3),
        ("llama", {"r": 4, "trainable_token_indices": [1, -1]}, 4 * (32 + 24) * 3 + 2 * 16),
        ("llama", {"r": 4, "trainable_token_indices": [64]}, None),
        ("llama", {"r": 2**62}, None),
        ("gpt2", {"r": 4, "init_lora_weights": "olora", "use_dora": True, "target_modules": ["mlp.c_fc"]}, None),
        ("qwen3_next", {"r": 8, "init_lora_weights": "pissa", "target_modules": ["shared_expert_gate"]}, 17 * 4),
    ],
    ids=str,
)
def test_figures(model: str, values: dict[str, Any], trainable: int | None) -> None:
    if values.get("r", 0) < 2**40:
        assert compare_rare(model, {"target_modules": ["q_proj", "v_proj"], **values}) != "uncovered"
    found = verify(zoo.mapped(model), {"target_modules": ["q_proj", "v_proj"], **values})
    assert (None if found.refusal is not None else found.trainable) == trainable


def test_what_loads_as_a_file_may_be_frozen() -> None:
    """PEFT writes inference_mode=true into every file, whatever it trained."""
    arguments = {"target_modules": ["q_proj"], "inference_mode": True}
    model = zoo.mapped("llama")
    assert verify(model, arguments).trainable == verify(model, peft.LoraConfig(**arguments)).trainable == 0
    assert verify(model, {**arguments, "peft_type": "LORA"}).trainable == 8 * 32 * 3
    frozen = check(model, arguments)
    assert [finding.code for finding in frozen.findings if finding.severity == "warning"][:1] == ["frozen"]
    assert frozen.matters


def test_what_an_initialization_needs_and_changes_is_said() -> None:
    for value, words in {
        "pissa": ["changes the base weights"],
        "corda": ["preprocess_corda", "changes the base weights"],
        "eva": ["redistributes the ranks"],
        "gaussian": [],
    }.items():
        found = check(zoo.mapped("llama"), {"target_modules": ["q_proj"], "init_lora_weights": value}).findings
        said = [finding.message for finding in found if finding.code == "initialization"]
        assert len(said) == len(words)
        assert all(any(word in one for one in said) for word in words)


def test_every_refusal_has_a_finding_of_its_own() -> None:
    for values, code in (
        ({"init_lora_weights": "nonsense"}, "initialization"),
        ({"use_dora": True, "kasa_config": {}}, "variant"),
        ({"trainable_token_indices": {"wte": [1]}}, "tokens"),
    ):
        found = check(zoo.mapped("llama"), {"target_modules": ["q_proj"], **values})
        assert code in {finding.code for finding in found.findings if finding.severity == "error"}
    old = check(zoo.mapped("llama"), {"target_modules": ["q_proj"], "kasa_config": {}}, peft="0.20.0")
    assert "option-release" in {finding.code for finding in old.findings}


def test_releases_that_the_rules_do_not_cover_are_no_difference() -> None:
    config = AdapterConfig(target_modules=("q_proj",), alora_invocation_tokens=(3, 1))
    assert read_differently(zoo.mapped("llama"), config, "0.21.2") == ()
    with fails("alora_invocation_tokens is covered by the rules of PEFT 0.20 and later only"):
        verify(zoo.mapped("llama"), config, peft="0.19.1")


@pytest.mark.skipif(RELEASE < (0, 21), reason="older releases know fewer fields")
def test_rare_fields_to_peft_and_back() -> None:
    config = AdapterConfig(
        target_modules=("q_proj",),
        task_type="CAUSAL_LM",
        init_lora_weights="pissa",
        alora_invocation_tokens=(3, 1, 2),
        kasa_config={"beta": 0.5, "gamma": 1e-3},
        trainable_token_indices={"embed_tokens": (1, 2)},
        inference_mode=True,
    )
    lora = to_peft(config)
    assert lora.alora_invocation_tokens == [3, 1, 2]
    assert adapter_config(lora) == config


# Modules that compute their weights.


def test_maps_of_computed_weights_survive_being_saved() -> None:
    mapped = zoo.mapped("normed")
    assert map_from_json(map_to_json(mapped)).modules == mapped.modules
    traits = {module.name: set(module.traits) for module in mapped.modules if module.traits}
    assert traits["q_proj"] == {"parametrized"}
    assert traits["pruned"] == traits["older"] == {"uncopyable"}
    assert traits["cut"] == {"uncopyable", "untrainable-bias"}
    assert traits["recurrent"] == traits["cell"] == {"untrainable-bias"}
    assert dict(mapped.module_by_name["conv"].computed) == {"weight": (8, 4, 5)}


@pytest.mark.parametrize(
    "values",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ["conv", "q_proj", "v_proj", "square", "pruned", "cut", "older", "rows"], "bias": "all"},
        {"target_modules": ["attention"]},
        {"target_modules": ["attention_normed"]},
        {"target_modules": [], "target_parameters": ["q_proj.weight"]},
        {"target_modules": [], "target_parameters": ["weight"]},
        {"target_modules": [], "target_parameters": ["default.weight"]},
        {"target_modules": ["o_proj"], "target_parameters": ["default.weight"]},
        {"target_modules": ["o_proj"], "target_parameters": ["lora_A.default.weight"]},
        {"target_modules": [], "target_parameters": ["weight_ih_l0", "weight_hh"]},
        {"target_modules": [], "target_parameters": ["weight_ih_l0"], "bias": "lora_only"},
        {"target_modules": ["gate"], "bias": "lora_only"},
        {"target_modules": ["cut"], "bias": "lora_only"},
        {"target_modules": ["gate"], "modules_to_save": ["pruned"]},
        {"target_modules": ["gate"], "modules_to_save": ["q_proj"]},
    ],
    ids=str,
)
def test_computed_weights(values: dict[str, Any]) -> None:
    assert compare_rare("normed", {"r": 4, **values}) in ("adapted", "refused")


class Quantized(nn.Linear):
    """A linear layer whose weight is packed, as a quantized one's is: its features are in its attributes."""

    def __init__(self) -> None:
        super().__init__(8, 6)
        self.weight = nn.Parameter(torch.zeros(24, 1), requires_grad=False)


def test_features_are_those_that_the_class_states() -> None:
    model = nn.Sequential(Quantized())
    found = verify(map_module(model), {"target_modules": ["0"], "r": 2})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["0"], r=2))
    assert found.trainable == sum(one.numel() for one in wrapped.parameters() if one.requires_grad) == 2 * (8 + 6)
    assert adapted_weights(wrapped).keys() == {"0"}


# Files.


@pytest.mark.parametrize(
    "values",
    [
        {"init_lora_weights": "pissa", "r": 40},
        {"init_lora_weights": "mica"},
        {"kasa_config": {}},
        {"use_bdlora": {"target_modules_bd_a": ["o_proj"], "target_modules_bd_b": ["q_proj"], "nblocks": 2}},
        {"trainable_token_indices": [1, 5]},
        {"velora_config": {}},
        {"alora_invocation_tokens": [1]},
    ],
    ids=str,
)
@pytest.mark.skipif(RELEASE < (0, 21), reason="older releases know fewer fields")
def test_saved_tensors(values: dict[str, Any]) -> None:
    arguments = {"target_modules": ["q_proj", "o_proj"], "r": 4, **values}
    config = adapter_config(arguments)
    ours = saved_tensors(zoo.mapped("llama"), config, verify(zoo.mapped("llama"), config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(zoo.build("llama", "cpu"), peft.LoraConfig(**copy.deepcopy(arguments)))
        truth = peft.get_peft_model_state_dict(wrapped)
    shapes = {name: tuple(tensor.shape) for name, tensor in truth.items()}
    assert ours.tensors
    if ours.exact:
        assert {name: one.shape for name, one in ours.tensors.items()} == shapes
    else:
        assert {name: one.shape for name, one in ours.tensors.items()}.items() <= shapes.items()
    assert all(name.startswith(PREFIX) for name in ours.tensors)


# Quantized layers.

_PACKED: dict[str, tuple[dict[str, Any], int | None]] = {
    "plain": ({}, 40 * 96),
    "pissa": ({"init_lora_weights": "pissa"}, None),
    "olora": ({"init_lora_weights": "olora"}, 32 * 96),
    "mica": ({"init_lora_weights": "mica"}, None),
    "orthogonal": ({"init_lora_weights": "orthogonal"}, None),
    "eva": ({"init_lora_weights": "eva"}, 40 * 96),
    "kasa": ({"kasa_config": {}}, 40 * 96),
    "monteclora": ({"monteclora_config": {"buffer_size": 1}}, 40 * 96),
    "bdlora": ({"use_bdlora": {"target_modules_bd_a": ["q"], "nblocks": 2}}, 40 * 96),
    "velora": ({"velora_config": {}}, None),
    "dora": ({"use_dora": True}, 40 * 96 + 32),
    "alora": ({"alora_invocation_tokens": [1]}, 40 * 96),
    "qalora": ({"use_qalora": True}, 40 * 96),
}


@pytest.mark.skipif(RELEASE < (0, 21), reason="older releases know fewer fields")
@pytest.mark.parametrize("values", _PACKED)
def test_layers_of_bitsandbytes(values: str) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    options, trainable = _PACKED[values]
    model = nn.Module()
    model.q = bnb.nn.Linear4bit(64, 32, bias=False)
    model.q.weight = bnb.nn.Params4bit(torch.randn(32, 64), requires_grad=False, quant_type="nf4").to("cpu")
    model.is_loaded_in_4bit = True  # type: ignore[assignment]
    arguments = {"target_modules": ["q"], "r": 40, **options}
    found = verify(map_module(model), arguments)
    assert (None if found.refusal is not None else found.trainable) == trainable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wrapped = peft.get_peft_model(model, peft.LoraConfig(**copy.deepcopy(arguments)))
        except Exception:  # PEFT raises whatever it likes
            assert trainable is None
            return
    assert sum(one.numel() for one in wrapped.parameters() if one.requires_grad) == trainable
