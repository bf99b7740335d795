"""Dead adapters: the packaged table against gradients that autograd gives, and against the plans that we make."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import architectures
import build_dead_weights
import peft
import pytest
import torch
from torch import nn

import lorascope as ls
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.packaged import load_json
from lorascope.peft_rules.adaptability import known_broken, why_not_adaptable
from lorascope.peft_rules.dead_weights import key_of, why_dead, why_dead_with_kernels
from lorascope.plans.recipes import RECIPES
from lorascope.sources.transformers.meta_model import map_module
from lorascope.tracing.calls.inputs import model_calls
from tests.conformance.gradients import Measured, measure
from tests.helpers.auto_models import auto_entries, builds
from tests.helpers.runnable_models import runnable
from tests.helpers.samples import sample

ENTRIES = {f"{entry.head}/{entry.label}": entry for entry in (*architectures.entries(), *architectures.layouts())}
BUILT_IN = [label for label, entry in ENTRIES.items() if not entry.layout]
MEASURED: dict[str, Any] = json.loads(build_dead_weights.MEASURED.read_text(encoding="utf-8"))
DEAD = ("read", "tied", "crashes")


def built_in(label: str) -> ModelMap:
    head, _, name = label.partition("/")
    return sample(name, head)


@pytest.mark.slow
def test_the_table_is_that_of_the_measurement_and_the_modeling_code() -> None:
    assert load_json("dead_weights.json") == build_dead_weights.build()


def test_what_was_measured() -> None:
    models = MEASURED["models"]
    assert set(ENTRIES) <= set(models)
    ran = [label for label in ENTRIES if "error" not in models[label]]
    assert set(ENTRIES) - set(ran) <= {"image-text-to-text/mllama"}  # whose smallest image takes minutes
    assert sum(models[label]["trained"] for label in ran) > 10_000
    others = [label for label in models if label.startswith("auto/") and "error" not in models[label]]
    assert len(others) >= 150
    dead = {key for row in models.values() for state in DEAD for key in row.get(state, ())}
    assert len(dead) >= 60


@pytest.mark.parametrize(
    ("model", "name", "word"),
    [
        ("mamba", "backbone.layers.0.mixer.dt_proj", "MambaMixer reads this weight"),
        ("falcon_mamba", "backbone.layers.0.mixer.dt_proj", "loaded quantized"),
        ("jamba", "model.layers.0.mamba.dt_proj", "loaded quantized"),
        ("mobilebert", "cls.predictions.dense", "MobileBertLMPredictionHead reads"),
        ("longcat_flash", "model.layers.0.mlp.router.classifier", "LongcatFlashTopkRouter reads"),
        ("t5", "shared", "T5ForConditionalGeneration never calls"),
        ("dbrx", "transformer.blocks.0.ffn.experts.mlp.w1", '"v1"'),
        ("jamba", "model.layers.0.mamba.A_log", "keyword arguments alone"),
        ("glm_moe_dsa", "model.layers.0.self_attn.indexer.wk", "only chooses"),
        (
            "zamba2",
            "model.layers.12.shared_transformer.feed_forward.gate_up_proj_adapter_list.0.0",
            "Zamba2MLP never calls",
        ),
    ],
)
def test_why(model: str, name: str, word: str) -> None:
    mapping = sample(model)
    reason = why_not_adaptable(mapping, mapping.weight_by_name[name])
    assert word in str(reason)


def test_a_list_in_a_shared_block_is_called_at_its_place() -> None:
    zamba2 = sample("zamba2")
    names = [name for name in zamba2.weight_by_name if "gate_up_proj_adapter_list" in name]
    alive = [name for name in names if why_dead(zamba2, name) is None]
    assert len(names) == 9 * 9 * 2
    assert len(alive) == 9 * 2


def test_a_quantized_layer_that_is_then_called_is_not_dead() -> None:
    jamba = sample("jamba")
    assert why_dead(jamba, "model.layers.0.mamba.dt_proj") is not None
    assert why_dead(jamba, "model.layers.0.mamba.dt_proj", "nf4") is None
    mamba = sample("mamba")
    assert why_dead(mamba, "backbone.layers.0.mixer.dt_proj", "nf4") is not None


class MambaMixer(nn.Module):
    """Another's module, under a name that transformers has too."""

    def __init__(self) -> None:
        super().__init__()
        self.dt_proj = nn.Linear(4, 4)


def test_a_class_of_other_code_is_not_judged_by_its_name() -> None:
    module = nn.Sequential(MambaMixer())
    assert why_dead(map_module(module), "0.dt_proj") is None


def dead_names(label: str, model: ModelMap) -> list[str]:
    """Weights whose key was dead on this architecture, by the measurement alone."""
    row = MEASURED["models"][label]
    trained = {key for key, types in MEASURED["trained"].items() if row["type"] in types}
    keys = {key for state in DEAD for key in row.get(state, ())} - trained
    return [weight.name for weight in model.weights if keys and key_of(model, weight.name) in keys]


def test_no_recipe_selects_a_dead_weight() -> None:
    plans = dead = 0
    for label in BUILT_IN:
        model = built_in(label)
        names = set(dead_names(label, model))
        names |= {weight.name for weight in model.weights if why_dead_with_kernels(model, weight)}
        if not names:
            continue
        dead += len(names)
        for recipe in RECIPES:
            try:
                made = ls.plan(model, recipe)
            except LorascopeError:  # the model has no such block, or nothing in it can be adapted
                continue
            plans += 1
            assert not names.intersection(target.weight.name for target in made.targets), (label, recipe)
    assert plans >= 100
    assert dead >= 500


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("bamba", "mixer.out"),
        ("zamba2", "mixer.out"),
        ("granitemoehybrid", "mixer.out"),
        ("mamba", "mixer.x"),
    ],
)
def test_a_rule_that_names_the_part_is_honored(label: str, name: str) -> None:
    model = sample(label)
    by_recipe = ls.plan(model, "all")
    assert any("fused kernels of mamba_ssm" in str(note) and name in str(note) for note in by_recipe.notes)
    assert not any(str(target.weight.role).endswith(name) for target in by_recipe.targets)
    named = ls.plan(model, name)
    assert all(str(target.weight.role).endswith(name) for target in named.targets)
    assert named.notes[0].code == "dead-with-kernels"
    assert str(named.notes[0]).startswith(f"{len(named.targets)} modules may stay untrained")


# Labels whose measurement is repeated: each kind of fault, and models without any.
SAMPLE = (
    "causal-lm/mamba",
    "causal-lm/jamba",
    "causal-lm/falcon_mamba",
    "causal-lm/zamba2",
    "causal-lm/dbrx",
    "causal-lm/longcat_flash",
    "causal-lm/glm_moe_dsa",
    "causal-lm/bamba+attention",
    "causal-lm/llama",
    "causal-lm/gpt2",
    "causal-lm/qwen3_next",
    "masked-lm/mobilebert",
    "seq2seq-lm/t5",
    "seq2seq-lm/bart",
    "image-text-to-text/qwen3_vl",
    "auto/WavLMModel",
    "auto/WhisperModel",
    "auto/HubertModel",
    "auto/CLIPModel",
    "auto/ViTModel",
)


def measured_again(label: str) -> tuple[Measured, ModelMap]:
    if label.startswith("auto/"):
        entry = next(entry for entry in auto_entries() if entry.architecture == label.removeprefix("auto/"))
        return build_dead_weights.measure_auto(entry), map_module(next(builds(entry))())
    found = measure(lambda: runnable(ENTRIES[label]), model_calls)
    return found, map_module(runnable(ENTRIES[label]))


@pytest.mark.slow
@pytest.mark.parametrize("label", SAMPLE)
def test_the_rules_say_what_autograd_shows(label: str) -> None:
    found, model = measured_again(label)
    assert not found.failures
    for name, state in found.states.items():
        module = model.module_by_name.get(name)
        if module and "PositionalEmbedding" in module.class_name:
            continue  # an adapter looks up other rows than it does, which fails for some inputs
        said = (known_broken(module) if module else None) or why_dead(model, name)
        assert (said is not None) == (state in DEAD) or state in ("zero", "idle", "detached"), (name, state, str(said))
        assert said is None or state != "trained", (name, str(said))
    assert sum(state == "trained" for state in found.states.values()) >= 10


def factors(adapted: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in adapted.named_parameters() if ".lora_" in name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "label", [label for label in SAMPLE if label.split("/")[0] in ("causal-lm", "seq2seq-lm", "masked-lm")]
)
@pytest.mark.parametrize("recipe", ["qv+ffn", "all"])
def test_every_adapter_of_a_recipe_trains(label: str, recipe: str) -> None:
    torch.manual_seed(0)
    model = runnable(ENTRIES[label])
    mapping = map_module(model, head=ENTRIES[label].head)
    try:
        plan = ls.plan(mapping, recipe, rank=8)
    except LorascopeError:
        assert label == "causal-lm/mamba" or label == "causal-lm/falcon_mamba"  # which have no attention
        return
    calls = [call for call in model_calls(model, length=40) if call.method == "forward"]
    config = plan.to_peft()
    config.init_lora_weights = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(model, config)
    for call in calls:
        adapted.base_model(**call.arguments).logits.square().sum().backward()
    without = [name for name, parameter in factors(adapted) if parameter.grad is None]
    experts = [name for name in without if ".experts." in name]  # to which no token went
    assert without == experts
    assert sum(1 for _ in factors(adapted)) >= 2
