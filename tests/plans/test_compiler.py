"""Targets to configurations: the exact forms, and over all built-in models that each means what it says."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.peft_rules.addresses import as_parameter, peft_name
from lorascope.peft_rules.lora_config import peft_arguments
from lorascope.peft_rules.releases import SUPPORTED_PEFT
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plan_api import plan
from lorascope.plans.compiler import compile_targets, size_difference
from lorascope.plans.types import Assignment, Options, Plan
from lorascope.sources.builtin import builtin_models, load_builtin
from tests.helpers.samples import fails, sample
from tests.helpers.shallow_models import shallow_map

COMMON = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "bias": "none", "task_type": "CAUSAL_LM"}
BARE = COMMON | {"target_modules": [], "lora_dropout": 0.0}
EVEN = "(" + "|".join(map(str, range(0, 32, 2))) + ")"

FORMS: list[tuple[str, list[str], dict[str, Any]]] = [
    # A list of endings.
    ("llama", ["qv"], COMMON | {"target_modules": ["q_proj", "v_proj"]}),
    ("bert", ["qv"], {k: v for k, v in COMMON.items() if k != "task_type"} | {"target_modules": ["query", "value"]}),
    ("t5", ["qv"], COMMON | {"target_modules": ["q", "v"], "task_type": "SEQ_2_SEQ_LM"}),
    ("gpt2", ["qv"], COMMON | {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    # As long an ending as it takes.
    ("gpt2", ["attention.o"], COMMON | {"target_modules": ["attn.c_proj"], "fan_in_fan_out": True}),
    ("gpt2", ["ffn.down"], COMMON | {"target_modules": ["mlp.c_proj"], "fan_in_fan_out": True}),
    # Ranks.
    (
        "llama",
        ["qv+ffn"],
        COMMON
        | {"target_modules": ["down_proj", "gate_proj", "q_proj", "up_proj", "v_proj"]}
        | {"rank_pattern": {"down_proj": 4, "gate_proj": 4, "up_proj": 4}}
        | {"alpha_pattern": {"down_proj": 16, "gate_proj": 16, "up_proj": 16}},
    ),
    (
        "llama",
        ["attention.q", "attention.q[0:4]=4/2"],
        COMMON
        | {"target_modules": ["q_proj"]}
        | {"rank_pattern": {r"^(model\.layers\.(0|1|2|3)\.self_attn\.q_proj)": 4}}
        | {"alpha_pattern": {r"^(model\.layers\.(0|1|2|3)\.self_attn\.q_proj)": 2}},
    ),
    (
        "llama",
        ["attention.q", "attention.v=8/4"],
        COMMON | {"target_modules": ["q_proj", "v_proj"], "alpha_pattern": {"v_proj": 4}},
    ),
    # Layers.
    (
        "llama",
        ["attention.q,v[-4:]"],
        COMMON | {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [28, 29, 30, 31]},
    ),
    (
        "llama",
        ["attention.q[5]", "attention.q[0]"],
        COMMON | {"target_modules": ["q_proj"], "layers_to_transform": [0, 5]},
    ),
    # Exclusions, and both.
    ("llava", ["qv"], COMMON | {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r"model\.vision_tower\..*"}),
    (
        "llava",
        ["vision.attention.q"],
        COMMON | {"target_modules": ["q_proj"], "exclude_modules": r"model\.language_model\..*"},
    ),
    (
        "llava",
        ["attention.q[0]"],
        COMMON
        | {"target_modules": ["q_proj"], "exclude_modules": r"model\.vision_tower\..*", "layers_to_transform": [0]},
    ),
    # One regular expression.
    (
        "llama",
        ["attention.q", "attention.v[0]=4/2"],
        COMMON
        | {"target_modules": r"model\.layers\.0\.self_attn\.v_proj|model\.layers\.\d+\.self_attn\.q_proj"}
        | {"rank_pattern": {"v_proj": 4}, "alpha_pattern": {"v_proj": 2}},
    ),
    (
        "llama",
        ["attention.q,k", "attention.o[::2]"],
        COMMON
        | {
            "target_modules": rf"model\.layers\.{EVEN}\.self_attn\.o_proj"
            r"|model\.layers\.\d+\.self_attn\.(k_proj|q_proj)"
        },
    ),
    # Parameters.
    ("mixtral", ["ffn.expert=8"], BARE | {"target_parameters": ["down_proj", "gate_up_proj"]}),
    (
        "mixtral",
        ["ffn.expert[0]"],
        BARE | {"target_parameters": ["layers.0.mlp.experts.down_proj", "layers.0.mlp.experts.gate_up_proj"]},
    ),
    (
        "mixtral",
        ["attention.q", "ffn.expert.down=2/4"],
        COMMON
        | {"target_modules": ["q_proj"], "target_parameters": ["down_proj"], "lora_dropout": 0.0}
        | {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"down_proj": 4}},
    ),
    ("mixtral", ["router"], BARE | {"target_parameters": ["gate.weight"]}),
    # Linear layers that PEFT would take for experts.
    (
        "deepseek_v3",
        ["ffn.shared"],
        BARE
        | {
            "target_parameters": [
                "shared_experts.down_proj.weight",
                "shared_experts.gate_proj.weight",
                "shared_experts.up_proj.weight",
            ]
        },
    ),
    (
        "deepseek_v3",
        ["ffn.dense[0]"],
        BARE
        | {
            "target_parameters": [
                "layers.0.mlp.down_proj.weight",
                "layers.0.mlp.gate_proj.weight",
                "layers.0.mlp.up_proj.weight",
            ]
        },
    ),
]


@pytest.mark.parametrize(("model", "rules", "arguments"), FORMS, ids=lambda v: v if isinstance(v, str) else None)
def test_forms(model: str, rules: list[str], arguments: dict[str, Any]) -> None:
    made = plan(sample(model), *rules)
    assert peft_arguments(made.config) == arguments


def sizes(made: Plan) -> dict[str, tuple[int, float]]:
    return {peft_name(made.model, target.weight): (target.rank, target.alpha) for target in made.targets}


def differences(made: Plan, config: AdapterConfig) -> list[str]:
    """What any supported PEFT makes of the configuration that is not the plan's."""
    found = []
    for peft in SUPPORTED_PEFT:
        tried = config if peft in made.releases else dataclasses.replace(config, task_type=None)
        resolution = resolve(made.model, tried, peft)
        found.append(str(resolution.refusal or "") or size_difference(resolution, sizes(made), peft))
    return [difference for difference in found if difference]


def reordered(config: AdapterConfig, seed: int) -> AdapterConfig:
    """The pattern keys sorted (as saving does) for seed 0, and in some other order for each other."""

    def order(pattern: Any) -> dict[str, Any]:
        items = sorted(pattern.items())
        if seed:
            random.Random(seed).shuffle(items)
        return dict(items)

    return dataclasses.replace(
        config, rank_pattern=order(config.rank_pattern), alpha_pattern=order(config.alpha_pattern)
    )


SEVERAL_SIZES = [
    ("llama", ["attention.q=1", "attention.k=2", "attention.v=3", "attention.o=4", "ffn=5", "ffn[0]=6", "head=7"]),
    ("gpt2", ["attention=8", "ffn=4", "ffn[3]=2", "attention.o[3]=1"]),
    ("deepseek_v3", ["all", "ffn.shared[5]=3", "attention.q_a=2"]),
    ("t5", ["attention=8", "decoder.cross=4", "encoder.ffn.up=2"]),
    ("llava", ["attention=8", "vision.attention=4", "connector=2"]),
    ("mixtral", ["all", "ffn.expert.down[1]=1", "router=2"]),
]


@pytest.mark.parametrize(("model", "rules"), SEVERAL_SIZES, ids=lambda v: v if isinstance(v, str) else None)
def test_the_order_of_pattern_keys_is_irrelevant(model: str, rules: list[str]) -> None:
    made = plan(sample(model), *rules)
    assert len(made.config.rank_pattern) >= 2
    for seed in range(8):
        assert differences(made, reordered(made.config, seed)) == []


@pytest.mark.parametrize(("model", "rules"), SEVERAL_SIZES, ids=lambda v: v if isinstance(v, str) else None)
def test_pattern_keys_are_disjoint(model: str, rules: list[str]) -> None:
    """Each key alone reaches as many weights as it does among the others, so no weight has two."""
    made = plan(sample(model), *rules)
    plain = Counter(rank for rank, _ in sizes(made).values())
    reached = 0
    for key, rank in made.config.rank_pattern.items():
        alone = dataclasses.replace(made.config, rank_pattern={key: rank})
        adapted = resolve(made.model, alone, SUPPORTED_PEFT[-1]).adapted
        reached += sum(one.rank == rank for one in adapted)
    assert reached == sum(count for rank, count in plain.items() if rank != made.config.r)


def test_the_order_of_targets_is_irrelevant() -> None:
    made = plan(sample("llama"), "attention=8", "ffn[::3]=4", "attention.q[5]=2")
    assignments = [Assignment(t.weight, t.rank, t.alpha, t.rule) for t in reversed(made.targets)]
    backwards = compile_targets(made.model, assignments, made.options).config
    assert json.dumps(peft_arguments(backwards)) == json.dumps(peft_arguments(made.config))


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_the_same_text_whatever_the_hashes(seed: str) -> None:
    code = (
        "import json, lorascope as ls; from lorascope.plans.files import plan_to_json; "
        "print(json.dumps([plan_to_json(ls.plan(ls.inspect(m), 'all', 'attention.o[1]=3')) for m in ('llava', 'mixtral')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    from lorascope.plans.files import plan_to_json

    here = [plan_to_json(plan(sample(model), "all", "attention.o[1]=3")) for model in ("llava", "mixtral")]
    assert done.stdout == json.dumps(here) + "\n"


def test_arguments_leave_out_what_peft_takes_anyway() -> None:
    assert peft_arguments(AdapterConfig(target_modules=("b", "a"))) == {
        "target_modules": ["a", "b"],
        "r": 8,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "bias": "none",
    }


def test_options_are_handed_over() -> None:
    config = plan(sample("llama"), rslora=True, dora=True, bias="lora_only", dropout=0.2, alpha=0.5).config
    assert config.use_rslora
    assert config.use_dora
    assert (config.bias, config.lora_dropout, config.lora_alpha) == ("lora_only", 0.2, 0.5)


def test_what_cannot_be_exact_is_refused() -> None:
    """A router and a shared expert that PEFT can only reach one inside of the other's wrapper."""
    model = sample("llama")
    weight = model.weight_by_name["model.layers.0.self_attn.q_proj"]
    guarded = dataclasses.replace(
        model,
        model_type="mamba",
        modules=tuple(dataclasses.replace(m, name=m.name.replace("q_proj", "out_proj")) for m in model.modules),
    )
    renamed = dataclasses.replace(
        weight, name="model.layers.0.self_attn.out_proj", module="model.layers.0.self_attn.out_proj"
    )
    with fails("llama: PEFT cannot adapt exactly these 1 weights: PEFT 0.19.1: PEFT refuses", "--exclude"):
        compile_targets(guarded, [Assignment(renamed, 8, 16, 0)], Options())


# Hostile names: a module may be called nearly anything.

ODD_NAMES = ("a#b", "#", "(x", "x|y", "[0]", "007", "\\d", "q$", "^q", "*", "é", "{0-3}", "weight", "0", "١")


@pytest.mark.parametrize("chosen", list(itertools.combinations(range(0, len(ODD_NAMES), 3), 2)), ids=str)
def test_odd_names(chosen: tuple[int, ...]) -> None:
    model = odd_map()
    picked = {weight.name for index, weight in enumerate(model.weights) if index % len(ODD_NAMES) in chosen}
    targets = [
        Assignment(weight, 2 + index % 2, 4, 0) for index, weight in enumerate(model.weights) if weight.name in picked
    ]
    config = compile_targets(model, targets, Options()).config
    adapted = resolve(model, config).adapted
    assert {(one.name, one.rank) for one in adapted} == {(target.weight.name, target.rank) for target in targets}


def odd_map() -> ModelMap:
    llama = sample("llama")
    module = llama.module_by_name["model.layers.0.self_attn.q_proj"]
    weight = llama.weight_by_name[module.name]
    names = [f"layers.{layer}.{odd}" for layer in range(3) for odd in ODD_NAMES]
    return dataclasses.replace(
        llama,
        model_type="odd",
        modules=tuple(dataclasses.replace(module, name=name) for name in names),
        weights=tuple(dataclasses.replace(weight, name=name, module=name) for name in names),
        ties=(),
    )


# The whole gallery.

SWEPT = {
    "qv": ("qv",),
    "attention": ("attention",),
    "ffn": ("ffn",),
    "qv+ffn": ("qv+ffn",),
    "all": ("all",),
    "own alphas": ("attention.q,k=4/2", "ffn.down[1::2]=6", "attention.v[-1]=1/0.5"),
    "everywhere": ("attention[0]=3", "embedding=2", "attention,ffn,mixer[-1]=5/9"),
}
CHUNKS = {"causal-lm": 5, "image-text-to-text": 3, "seq2seq-lm": 1, "masked-lm": 1, "sequence-classification": 2}
# Why a plan may be refused: the model has no such weights, or PEFT cannot.
TRUE_REASONS = (
    "selects nothing in",
    "get_input_embeddings() is not implemented",
    "PEFT takes the first dimension of a 3-D parameter for experts",
    "groups: its rank must be a multiple of that",
    "An adapter here breaks the forward pass",
)
# (head, chunk) -> (exact, refused)
COUNTS = {
    ("causal-lm", 0): (264, 16),
    ("causal-lm", 1): (264, 9),
    ("causal-lm", 2): (258, 15),
    ("causal-lm", 3): (265, 8),
    ("causal-lm", 4): (262, 11),
    ("image-text-to-text", 0): (238, 0),
    ("image-text-to-text", 1): (224, 7),
    ("image-text-to-text", 2): (226, 5),
    ("seq2seq-lm", 0): (264, 2),
    ("masked-lm", 0): (349, 8),
    ("sequence-classification", 0): (415, 12),
    ("sequence-classification", 1): (423, 4),
}


def maps(head: str, chunk: int) -> Iterator[ModelMap]:
    """Built-in maps with every kind of their layers, and few of a kind."""
    names = [name for name, heads in builtin_models().items() if head in heads]
    for name in names[chunk :: CHUNKS[head]]:
        yield shallow_map(load_builtin(name, head))


def test_the_sweep_is_whole() -> None:
    heads = Counter(head for heads in builtin_models().values() for head in heads)
    assert heads.keys() == CHUNKS.keys()
    assert sum(heads.values()) == 507
    assert len(SWEPT) == 7
    assert set(COUNTS) == {(head, chunk) for head, chunks in CHUNKS.items() for chunk in range(chunks)}
    assert sum(sum(counts) for counts in COUNTS.values()) == 507 * 7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "chunk"), [(head, chunk) for head, chunks in CHUNKS.items() for chunk in range(chunks)]
)
def test_every_configuration_of_the_built_in_models_is_its_plan(head: str, chunk: int) -> None:
    exact = refused = 0
    for model in maps(head, chunk):
        for name, rules in SWEPT.items():
            try:
                made = plan(model, *rules)
            except LorascopeError as error:
                refused += 1
                assert any(reason in str(error) for reason in TRUE_REASONS), f"{model.model} {name}: {error}"
                continue
            assert differences(made, made.config) == [], f"{model.model} {name}"
            assert differences(made, reordered(made.config, 0)) == [], f"{model.model} {name}"
            if any(as_parameter(model, target.weight) for target in made.targets):
                assert made.config.lora_dropout == 0
            exact += 1
    assert (exact, refused) == COUNTS[head, chunk]
