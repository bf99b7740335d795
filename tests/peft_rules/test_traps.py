"""What surprises people in PEFT, each case run with the installed PEFT and by the rules.

A case gives what PEFT is known to do: the number of adapted weights, the number of trainable parameters where that is
the point, and a word of the warning or the refusal that `resolve` owes the user.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import peft
import pytest

from lorascope.peft_rules.releases import release_of
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from tests.helpers import peft_models
from tests.helpers.peft_comparison import compare

RELEASE = release_of(peft.__version__)
# 0.18 adapts what is called so, and knows nothing of fused experts.
REWRITES = RELEASE >= (0, 19)
FULL = "model.layers.{}.self_attn.{}_proj"
FULL_NAMES = [FULL.format(layer, part) for layer in range(3) for part in "qkvo"]
NINE_MORE = [f"model.layers.{layer}.mlp.{part}_proj" for layer in range(3) for part in ("gate", "up", "down")]


@dataclasses.dataclass(frozen=True)
class Case:
    """A configuration and what PEFT does with it: `adapted` is None where it refuses."""

    model: str
    config: AdapterConfig
    adapted: int | None
    trainable: int | None = None
    says: str = ""


def case(model: str, adapted: int | None, *, trainable: int | None = None, says: str = "", **config: Any) -> Case:
    for key, value in config.items():
        if isinstance(value, list):
            config[key] = tuple(value)
    return Case(model, AdapterConfig(**config), adapted, trainable, says)


CASES: dict[str, Case] = {
    # Names.
    "a bare string is a regular expression for the whole name": case(
        "llama", None, target_modules="q_proj", says="regular expression"
    ),
    "anchors in the regular expression do no harm": case("llama", 3, target_modules=r"^.*\.q_proj$"),
    "an entry of a list is no regular expression": case("llama", None, target_modules=[".*q_proj"]),
    "an entry of a list starts after a dot": case("llama", None, target_modules=["proj"]),
    "unknown entries are ignored silently": case("llama", 3, target_modules=["q_proj", "NOPE"], says="NOPE"),
    "a block is no module that PEFT can adapt": case("llama", None, target_modules=["self_attn"], says="no adapter"),
    "a norm neither": case("llama", None, target_modules=["q_proj", "input_layernorm"], says="no adapter"),
    "all-linear in a list is a name": case("llama", None, target_modules=["all-linear"]),
    "all-linear in any case": case("llama", 21, target_modules="ALL-linear"),
    "all-linear leaves the output embedding out": case("llama", 21, target_modules="all-linear"),
    "lm_head in a list is adapted": case("llama", 4, target_modules=["q_proj", "lm_head"]),
    "all-linear takes vision towers and projectors": case("llava", 35, target_modules="all-linear"),
    "all-linear takes the head of a classifier": case("llama-classifier", 22, target_modules="all-linear"),
    "unless the task type says so": case("llama-classifier", 21, target_modules="all-linear", task_type="SEQ_CLS"),
    "all-linear adapts the dead output projections of torch's attention": case(
        "plain", 10, target_modules="all-linear", says="dead"
    ),
    "no target modules on an unknown model": case("plain", None, says="no default"),
    "no target modules on a known one": case("llama", 6, says="default for llama"),
    "parameters alone still bring the default modules": case(
        "llama", 9, target_parameters=["mlp.down_proj.weight"], says="besides the target_parameters"
    ),
    "an empty list does not": case("llama", 3, target_modules=[], target_parameters=["mlp.down_proj.weight"]),
    # Layers.
    "a full name is not subject to layers_to_transform": case(
        "llama", 12, target_modules=FULL_NAMES, layers_to_transform=0, says="full name"
    ),
    "twenty full names are, because PEFT shortens them": case(
        "llama", 7, target_modules=FULL_NAMES + NINE_MORE, layers_to_transform=0, says="shortens"
    ),
    "layers_to_transform drops what lies in no layer": case(
        "llama", 1, target_modules=["q_proj", "embed_tokens"], layers_to_transform=[0], says="embed_tokens"
    ),
    "a name without a dot is a full name": case(
        "llama", 2, target_modules=["q_proj", "lm_head"], layers_to_transform=[0]
    ),
    "an empty list of layers is all of them": case("llama", 3, target_modules=["q_proj"], layers_to_transform=[]),
    "a layer that does not exist": case("llama", 1, target_modules=["q_proj"], layers_to_transform=[1, 99], says="99"),
    "the layers of a bare model are not found": case(
        "llama-bare", None, target_modules=["q_proj"], layers_to_transform=[0], says="layers_pattern"
    ),
    "nor with a pattern before 0.21": case(
        "llama-bare",
        1 if RELEASE >= (0, 21) else None,
        target_modules=["q_proj"],
        layers_to_transform=[1],
        layers_pattern="layers",
    ),
    "a layer number counts in every tower": case("llava", 2, target_modules=["q_proj"], layers_to_transform=[0]),
    "a string with layers_to_transform": case(
        "llama", None, target_modules=".*q_proj", layers_to_transform=[0], says="Give a list"
    ),
    # Exclusions.
    "an excluded entry is a name": case("llama", 3, target_modules=["q_proj"], exclude_modules=["layers.0"]),
    "an excluded string is a regular expression": case(
        "llama", 2, target_modules=["q_proj"], exclude_modules=r".*layers\.0\..*"
    ),
    "excluded entries are no regular expressions": case(
        "llama", 3, target_modules=["q_proj"], exclude_modules=[".*layers.0.*"], says="matches no module"
    ),
    "exclusion does not reach parameters": case(
        "mixtral",
        2,
        target_modules=[],
        target_parameters=["experts.down_proj"],
        exclude_modules=r".*layers\.0.*",
        says="do not apply",
    ),
    "nor do layers": case(
        "mixtral", 2, target_modules=[], target_parameters=["experts.down_proj"], layers_to_transform=[1]
    ),
    "everything excluded": case("llama", None, target_modules=["q_proj"], exclude_modules=["q_proj"]),
    "modules_to_save takes out what lies below it": case(
        "llama", 3, target_modules=["q_proj", "up_proj"], modules_to_save=["self_attn"]
    ),
    # Patterns.
    "the first key in the dictionary wins": case(
        "llama",
        3,
        trainable=3 * 8 * 32,
        target_modules=["q_proj"],
        rank_pattern={"q_proj": 8, "layers.0.self_attn.q_proj": 16},
    ),
    "so that the specific one must come first": case(
        "llama",
        3,
        trainable=(8 + 8 + 16) * 32,
        target_modules=["q_proj"],
        rank_pattern={"layers.0.self_attn.q_proj": 16, "q_proj": 8},
    ),
    "a key reaches to the end of the name": case(
        "llama", 3, trainable=3 * 8 * 32, target_modules=["q_proj"], rank_pattern={"layers.0": 16}, says="layers.0"
    ),
    "a key starts after a dot": case(
        "llama", 3, trainable=3 * 8 * 32, target_modules=["q_proj"], rank_pattern={"proj": 16, "_proj": 16}
    ),
    "but it is a regular expression": case(
        "llama", 3, trainable=3 * 16 * 32, target_modules=["q_proj"], rank_pattern={".*proj": 16}
    ),
    "in which a dot is any character": case(
        "llama", 3, trainable=3 * 16 * 32, target_modules=["q_proj"], rank_pattern={"q.proj": 16}
    ),
    "rank 0 is refused": case("llama", None, target_modules=["q_proj"], rank_pattern={"q_proj": 0}, says="positive"),
    "keys match parameters by their own name": case(
        "mixtral",
        2,
        trainable=2 * 2 * 4 * (24 + 16),
        target_modules=[],
        target_parameters=["experts.down_proj"],
        rank_pattern={"experts": 16, "experts.down_proj": 2},
    ),
    # Counts.
    "Conv1D": case("gpt2", 3, trainable=3 * 8 * (16 + 48), target_modules=["c_attn"]),
    "an embedding": case("gpt2", 1, trainable=8 * (64 + 16), target_modules=["wte"], says="shares its weight"),
    "DoRA": case("llama", 3, trainable=3 * (8 * 32 + 16), target_modules=["q_proj"], use_dora=True),
    "DoRA on an embedding": case("gpt2", 1, trainable=8 * 80 + 16, target_modules=["wte"], use_dora=True),
    "a bias on B": case("llama", 3, trainable=3 * (8 * 32 + 16), target_modules=["q_proj"], lora_bias=True),
    "no bias on an embedding's B": case("gpt2", None, target_modules=["wte"], lora_bias=True),
    "a bias with DoRA": case("llama", None, target_modules=["q_proj"], lora_bias=True, use_dora=True),
    "a convolution": case("plain", 1, trainable=8 * 3 * 16 + 8 * 8, target_modules=["conv"]),
    "a convolution with groups": case(
        "plain", 1, trainable=8 * 8 * 3 + 8 * 2, target_modules=["grouped"], says="cannot be merged"
    ),
    "with DoRA too": case(
        "plain", 1, trainable=8 * 8 * 3 + 8 * 2 + 8, target_modules=["grouped"], use_dora=True, says="do not fit"
    ),
    "whose rank must fit": case("plain", None, target_modules=["grouped"], r=6, says="multiple"),
    "torch's attention gets both projections": case("siglip", 1, trainable=6 * 8 * 16, target_modules=["attention"]),
    "its output projection alone is dead": case("siglip", 1, target_modules=["head.attention.out_proj"], says="dead"),
    "attention with other widths": case("plain", None, target_modules=["other_width"], says="other widths"),
    "attention with DoRA": case("siglip", None, target_modules=["attention"], use_dora=True),
    "biases of adapted layers": case(
        "gpt2", 3, trainable=3 * (8 * 64 + 48), target_modules=["c_attn"], bias="lora_only"
    ),
    "an unknown bias": case("gpt2", None, target_modules=["c_attn"], bias="some"),
    # Saved modules.
    "an entry matches any end of a name": case(
        "plain",
        1,
        trainable=8 * 32 + 2 * 68,
        target_modules=["q_proj"],
        modules_to_save=["head"],
        says="out_head",
    ),
    "a classifier is saved by itself": case(
        "llama-classifier", 3, trainable=3 * 8 * 32 + 48, target_modules=["q_proj"], task_type="SEQ_CLS"
    ),
    "tied modules are both copied": case(
        "llama-tied",
        3,
        trainable=3 * 8 * 32 + 2 * 64 * 16,
        target_modules=["q_proj"],
        modules_to_save=["embed_tokens", "lm_head"],
    ),
    "an adapted head cannot be saved": case(
        "bert-tokens", None, target_modules="all-linear", task_type="TOKEN_CLS", says="already carries"
    ),
    "a list of layers cannot be saved": case("llama", None, target_modules=["lm_head"], modules_to_save=["layers"]),
    # Parameters.
    "parameters of two and three dimensions only": case(
        "llama", None, target_modules=[], target_parameters=["norm.weight"], says="2-D and 3-D"
    ),
    "no regular expression": case("mixtral", None, target_modules=[], target_parameters=[".*down_proj"]),
    "no dropout": case(
        "mixtral", None, target_modules=[], target_parameters=["down_proj"], lora_dropout=0.1, says="lora_dropout"
    ),
    "no DoRA": case("mixtral", None, target_modules=[], target_parameters=["down_proj"], use_dora=True),
    "no bias": case("mixtral", None, target_modules=[], target_parameters=["down_proj"], lora_bias=True),
    "not after a Conv1D": case(
        "gpt2", None, target_modules=["c_attn"], target_parameters=["mlp.c_fc.weight"], says="Conv1D"
    ),
    "though by themselves": case("gpt2", 3, target_modules=[], target_parameters=["mlp.c_fc.weight"]),
    "not in an attention with other widths before 0.19": case(
        "plain", 1 if RELEASE >= (0, 19) else None, target_modules=[], target_parameters=["other_width.q_proj_weight"]
    ),
    "not as a module and a parameter": case(
        "llama", None, target_modules=["q_proj"], target_parameters=["q_proj.weight"], says="as a module"
    ),
    "biases that look like weights": case(
        "gpt_oss", 2, target_modules=[], target_parameters=["down_proj_bias"], says="bias"
    ),
    "not below a parameter that is wrapped": case(
        "siglip", None, target_modules=[], target_parameters=["probe", "head.mlp.fc1.weight"], says="wrapper"
    ),
    # The guard for Mamba.
    "all-linear on Mamba": case("mamba", None, target_modules="all-linear", says="out_proj"),
    "in_proj on Mamba": case("mamba", 2, target_modules=["in_proj"]),
    "out_proj's parameter on Mamba": case(
        "mamba", None, target_modules=[], target_parameters=["out_proj.weight"], says="out_proj"
    ),
    # The rewrite for fused experts.
    "no default there": case("qwen3_moe", None),
    "one half of a fused pair": case(
        "qwen3_moe", None if REWRITES else 1, target_modules=["gate_proj"], says="up_proj" if REWRITES else ""
    ),
    "both halves at twice the rank": case(
        "mixtral",
        2 if REWRITES else None,
        trainable=2 * 4 * 16 * (16 + 48) if REWRITES else None,
        target_modules=["w1", "w3"],
        says="twice" if REWRITES else "match nothing",
    ),
    "full names of dense layers turn into experts": case(
        "qwen3_moe",
        2,
        trainable=2 * 4 * 16 * (16 + 16) if REWRITES else 2 * 8 * (16 + 24),
        target_modules=["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"],
        says="rewrites" if REWRITES else "",
    ),
    "the router comes along with all-linear": case(
        "qwen3_moe",
        {18: 12 + 3, 19: None}.get(RELEASE[1], 12 + 3 * 2),
        target_modules="all-linear",
    ),
    "a string loses its layers": case(
        "qwen3_moe", {18: 1, 19: None}.get(RELEASE[1], 3), target_modules=r".*layers\.1\.self_attn\.q_proj"
    ),
    "a list with layers keeps them": case("qwen3_moe", 1, target_modules=["q_proj"], layers_to_transform=[1]),
    "full names of attention keep them": case("qwen3_moe", 1, target_modules=[FULL.format(1, "q")]),
    "shared experts are reached as parameters": case(
        "deepseek_v3", 2, target_modules=[], target_parameters=["shared_experts.down_proj.weight"]
    ),
    "gpt_oss is not rewritten": case("gpt_oss", 2, target_modules=["q_proj"]),
    # Task types.
    "a task type that generates": case("bert", None, target_modules=["query"], task_type="CAUSAL_LM"),
    "no task type of PEFT": case("llama", None, target_modules=["q_proj"], task_type="NOPE"),
}


def ours(one: Case) -> Resolution:
    return resolve(peft_models.mapped(one.model), one.config, peft.__version__)


@pytest.mark.parametrize("label", CASES)
def test_trap(label: str) -> None:
    one = CASES[label]
    outcome = compare(one.model, one.config)
    found = ours(one)
    assert (outcome == "refused") == (one.adapted is None)
    if one.adapted is not None:
        assert len(found.adapted) == one.adapted
    if one.trainable is not None:
        assert found.trainable == one.trainable
    assert one.says in str(found.refusal) + " ".join(map(str, found.warnings))


def test_all_traps_are_here() -> None:
    assert len(CASES) >= 91


def test_a_parameter_of_the_model_itself() -> None:
    """0.18 and 0.19 wrap it without an error; its adapter does nothing. The rules refuse it with every release."""
    config = AdapterConfig(target_modules=(), target_parameters=("queries",))
    assert "itself" in str(resolve(peft_models.mapped("plain"), config, peft.__version__).refusal)
    if RELEASE >= (0, 20):
        assert compare("plain", config) == "refused"


@pytest.mark.parametrize("label", [label for label, one in CASES.items() if one.adapted is None])
def test_a_refusal_is_a_sentence(label: str) -> None:
    refusal = str(ours(CASES[label]).refusal)
    assert refusal.strip() == refusal
    assert len(refusal) > 20


def test_inputs_stay_as_they_were() -> None:
    """PEFT changes the configuration that it is given; `resolve` does not."""
    ranks = {"q_proj": 4}
    config = AdapterConfig(target_modules=("w1", "w3", "q_proj"), rank_pattern=ranks)
    before = repr(config)
    assert resolve(peft_models.mapped("mixtral"), config).adapted
    assert repr(config) == before
    assert ranks == {"q_proj": 4}
