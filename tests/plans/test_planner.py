"""From rules to targets, and what a plan says about them."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import pytest

from lorascope.model.types import ModelMap
from lorascope.plan_api import plan
from lorascope.plans.types import Plan
from tests.helpers.samples import fails, sample


def sizes(made: Plan) -> dict[str, set[tuple[int, float]]]:
    """Rank and alpha by the last word of the name."""
    found: dict[str, set[tuple[int, float]]] = {}
    for target in made.targets:
        found.setdefault(target.weight.name.rpartition(".")[2], set()).add((target.rank, target.alpha))
    return found


def notes(made: Plan) -> str:
    return "\n".join(map(str, made.notes))


# Rules.


def test_the_default_is_query_and_value_at_rank_8() -> None:
    made = plan(sample("mistral"))
    assert sizes(made) == {"q_proj": {(8, 16)}, "v_proj": {(8, 16)}}
    assert made.options.recipe == "qv"
    assert made.resolution.trainable == 32 * 8 * (4096 + 4096 + 4096 + 1024)


def test_a_later_rule_wins_weight_by_weight() -> None:
    made = plan(sample("llama"), "attention=8", "attention.q[:4]=4/2", "attention.q[0]=2", "attention.v[-1]=1")
    ranks = {(t.weight.role.part, t.weight.layer): (t.rank, t.alpha, t.rule) for t in made.targets}
    assert len(ranks) == 128
    assert ranks["q", 0] == (2, 16, 2)
    assert [ranks["q", layer] for layer in (1, 2, 3)] == [(4, 2, 1)] * 3
    assert ranks["q", 4] == ranks["k", 0] == ranks["v", 30] == (8, 16, 0)
    assert ranks["v", 31] == (1, 16, 3)


def test_the_order_of_rules_matters() -> None:
    assert sizes(plan(sample("llama"), "attention.q=2", "attention=8"))["q_proj"] == {(8, 16)}
    assert sizes(plan(sample("llama"), "attention=8", "attention.q=2"))["q_proj"] == {(2, 16)}


def test_targets_are_in_the_order_of_the_model() -> None:
    made = plan(sample("llama"), "ffn=4", "attention=8")
    order = {weight.name: index for index, weight in enumerate(made.model.weights)}
    found = [order[target.weight.name] for target in made.targets]
    assert found == sorted(found)


def test_a_rule_without_rank_gets_the_plans() -> None:
    assert sizes(plan(sample("llama"), "attention.q", "attention.k=3", rank=5)) == {
        "q_proj": {(5, 16)},
        "k_proj": {(3, 16)},
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {"q_proj": {(8, 16)}, "down_proj": {(4, 16)}}),
        ({"alpha": 3.5}, {"q_proj": {(8, 3.5)}, "down_proj": {(4, 3.5)}}),
        ({"scale": 2}, {"q_proj": {(8, 16)}, "down_proj": {(4, 8)}}),
        ({"scale": 2, "rslora": True}, {"q_proj": {(8, 2 * math.sqrt(8))}, "down_proj": {(4, 4)}}),
        ({"rslora": True}, {"q_proj": {(8, 16)}, "down_proj": {(4, 16)}}),
    ],
    ids=["constant", "own", "scale", "scale-rslora", "rslora"],
)
def test_alpha_policies(arguments: dict[str, Any], expected: dict[str, set[tuple[int, float]]]) -> None:
    made = plan(sample("llama"), "attention.q=8", "ffn.down=4", **arguments)
    assert sizes(made) == expected
    divide = math.sqrt if arguments.get("rslora") else float
    for target, adapted in zip(sorted(made.targets, key=lambda t: t.weight.name), made.resolution.adapted, strict=True):
        assert adapted.scale == pytest.approx(target.alpha / divide(target.rank))
        if "scale" in arguments:
            assert adapted.scale == pytest.approx(2)


def test_a_rules_own_alpha_wins_over_every_policy() -> None:
    for arguments in ({"alpha": 32}, {"scale": 4}, {"scale": 4, "rslora": True}):
        made = plan(sample("llama"), "attention.q=8/3", "attention.v=8", **arguments)
        assert sizes(made)["q_proj"] == {(8, 3)}
        assert sizes(made)["v_proj"] != {(8, 3)}


@pytest.mark.parametrize("arguments", [{}, {"alpha": 16}, {"scale": 2}, {"rslora": True}], ids=str)
@pytest.mark.parametrize(
    "rules", [("qv+ffn",), ("attention.q=8", "attention.v[0]=2"), ("attention=4", "ffn=3/4")], ids=str
)
@pytest.mark.parametrize("model", ["llama", "gpt2", "mixtral", "t5"])
def test_alpha_is_written_where_ranks_differ(model: str, rules: tuple[str, ...], arguments: dict[str, Any]) -> None:
    config = plan(sample(model), *rules, **arguments).config
    assert config.rank_pattern
    assert config.rank_pattern.keys() <= config.alpha_pattern.keys()


def test_one_rank_needs_no_patterns() -> None:
    config = plan(sample("llama"), "attention=8", "ffn=8").config
    assert (config.r, config.lora_alpha, dict(config.rank_pattern), dict(config.alpha_pattern)) == (8, 16, {}, {})


# Layers and exclusions.


def test_layers_hold_for_rules_without_layers() -> None:
    made = plan(sample("llama"), "attention.q", "attention.v[0]", layers=" -2: ")
    assert {(t.weight.role.part, t.weight.layer) for t in made.targets} == {("q", 30), ("q", 31), ("v", 0)}


def test_exclusions_come_last() -> None:
    made = plan(sample("llama"), "attention", "ffn", exclude=["attention.q,k", "ffn[1:]"])
    assert Counter(t.weight.role.part for t in made.targets) == {"v": 32, "o": 32, "gate": 1, "up": 1, "down": 1}
    assert (
        plan(sample("llama"), "attention", exclude="q").targets
        == plan(sample("llama"), "attention", exclude=["q"]).targets
    )


@pytest.mark.parametrize(
    ("exclude", "said"),
    [
        ("attention", ["the exclusions leave nothing to adapt", "Exclude less"]),
        ("vision", ["rule 'vision': selects nothing in llama", "attention.self"]),
        ("attention=4", ["exclude 'attention=4': an exclusion has no rank", "Write attention alone"]),
        ("atention", ["unknown word 'atention' in a selector", 'Did you mean "attention"']),
        ("attention[99]", ["there is no layer 99"]),
    ],
)
def test_bad_exclusions(exclude: str, said: list[str]) -> None:
    with fails(*said):
        plan(sample("llama"), "attention", exclude=exclude)


# Dropout and DoRA.


def test_the_default_dropout_gives_way() -> None:
    made = plan(sample("mixtral"), "ffn")
    assert made.config.lora_dropout == made.options.dropout == 0
    assert "Dropout is 0: PEFT cannot apply dropout to fused expert weights (target_parameters)." in notes(made)
    router = notes(plan(sample("mixtral"), "router"))
    assert "Dropout is 0: PEFT cannot apply dropout to target_parameters (32 here, such as model.layers.0.mlp" in router
    assert plan(sample("mixtral"), "attention").config.lora_dropout == 0.05
    assert "ropout" not in notes(plan(sample("mixtral"), "ffn", dropout=0))


@pytest.mark.parametrize("rules", [("ffn",), ("attention", "ffn.expert[0]=1"), ("router",)], ids=str)
def test_a_dropout_that_was_asked_for_is_an_error(rules: tuple[str, ...]) -> None:
    with fails("dropout 0.1 is not possible", "model.layers.0.mlp.", "--dropout 0"):
        plan(sample("mixtral"), *rules, dropout=0.1)


def test_dora() -> None:
    with fails("DoRA is not possible", "64 of these weights, such as model.layers.0.mlp.experts", "Leave out --dora"):
        plan(sample("mixtral"), "ffn", dora=True)
    with_dora = plan(sample("llama"), "attention.q", dora=True)
    assert with_dora.config.use_dora
    assert with_dora.resolution.trainable == plan(sample("llama"), "attention.q").resolution.trainable + 32 * 4096
    assert plan(sample("mixtral"), "all", dora=True, exclude="ffn.expert").config.use_dora


# Notes.


@pytest.mark.parametrize(
    ("model", "rules", "said"),
    [
        ("gpt2", ["attention.q,v"], "Also adapts k: attention.self.qkv is one fused matrix (12 modules)."),
        ("gpt2", ["attention.q"], "Also adapts k and v: attention.self.qkv is one fused matrix (12 modules)."),
        ("phi3", ["ffn.up"], "Also adapts gate: ffn.dense.gate_up is one fused matrix (32 modules)."),
        ("deepseek_v3", ["attention.v"], "Also adapts k: attention.self.kv_a is one fused matrix (61 modules)."),
        ("llama", ["qv"], "Not adapted: attention k and o (64 modules, half of the attention parameters)."),
        (
            "llama",
            ["attention", "ffn[0]"],
            "Not adapted: ffn.dense.gate, ffn.dense.up and ffn.dense.down (93 modules, 96.9 % of the FFN parameters).",
        ),
        (
            "qwen2_moe",
            ["ffn.shared"],
            "Not adapted: FFN expert gate_up and expert down (48 parameters, 93.8 % of the FFN parameters).",
        ),
        (
            "llava",
            ["vision.attention.q"],
            "Not adapted: vision attention k, v and o (72 modules, 75.0 % of the vision attention parameters).",
        ),
        (
            "mixtral",
            ["ffn.expert=4"],
            "Experts take 100 % of the trainable parameters: each of the 8 per layer gets rank 4. "
            "To leave them out: --exclude ffn.expert",
        ),
        (
            "falcon_mamba",
            ["mixer"],
            "Not adaptable: mixer.out (32 of them, such as backbone.layers.0.mixer.out_proj). PEFT refuses every module",
        ),
        (
            "deepseek_v3",
            ["ffn.dense"],
            "ffn.dense.gate, ffn.dense.up and ffn.dense.down (9, such as model.layers.0.mlp.gate_proj) are adapted through "
            "target_parameters: in target_modules PEFT would rewrite their names",
        ),
        (
            "dbrx",
            ["attention", "ffn.expert"],
            "Not adaptable: ffn.expert.gate, ffn.expert.up and ffn.expert.down (72 of them, such as "
            "transformer.blocks.0.ffn.experts.mlp.w1). An adapter here breaks the forward pass",
        ),
        (
            "t5",
            ["qv"],
            'PEFT before 0.21.2 cannot wrap a model of transformers 5.18 or later with task_type="SEQ_2_SEQ_LM"',
        ),
        (
            "t5",
            ["qv"],
            "Not adapted: attention k, o, cross k and cross o (36 modules, half of the attention parameters).",
        ),
        ("gpt2", ["head"], "lm_head shares its weight with transformer.wte: merging the adapter changes both."),
        (
            "gpt2",
            ["head", "embedding.token"],
            "and 1 more share one weight and get an adapter each: merging would add all",
        ),
    ],
)
def test_notes(model: str, rules: list[str], said: str) -> None:
    assert said in notes(plan(sample(model), *rules))


def test_no_notes_where_nothing_is_special() -> None:
    assert plan(sample("llama"), "attention", "ffn").notes == ()
    assert "Also adapts" not in notes(plan(sample("gpt2"), "attention.qkv"))
    assert "Also adapts" not in notes(plan(sample("gpt2"), "attention.q,k,v"))


def test_saved_heads_are_told() -> None:
    made = plan(sample("bert", "sequence-classification"), "qv")
    assert made.config.task_type == "SEQ_CLS"
    assert "Trained in full, without LoRA: classifier." in notes(made)
    assert made.resolution.trainable == 294_912 + 768 * 2 + 2


def test_nothing_reachable_is_an_error() -> None:
    with fails("falcon_mamba: PEFT cannot adapt what the rules select", "fused kernels", "lorascope inspect"):
        plan(sample("falcon_mamba"), "mixer.out")


def test_a_model_that_peft_cannot_wrap() -> None:
    model = dataclasses.replace(sample("llama"), refusal="it is made of glass")
    with fails("PEFT cannot wrap LlamaForCausalLM: it is made of glass"):
        plan(model)


def test_a_model_of_no_size_divides_by_nothing() -> None:
    model = sample("llama")
    empty = dataclasses.replace(
        model,
        modules=tuple(
            dataclasses.replace(m, parameters=tuple((name, tuple(0 for _ in shape)) for name, shape in m.parameters))
            for m in model.modules
        ),
        weights=tuple(dataclasses.replace(w, shape=tuple(0 for _ in w.shape)) for w in model.weights),
        dimensions=dataclasses.replace(model.dimensions, parameters=0),
    )
    made = plan(empty)
    assert made.resolution.trainable == 0
    assert "0 trainable parameters, 0 % of 0" in str(made)


# Faults.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rank": 0}, "rank 0 is not a whole number from 1"),
        ({"rank": -8}, "rank -8 is not a whole number from 1"),
        ({"rank": 2.5}, "rank 2.5 is not a whole number from 1"),
        ({"rank": "8"}, "rank '8' is not a whole number from 1"),
        ({"rank": True}, "rank True is not a whole number from 1"),
        ({"rank": 10**6}, "rank 1000000 is not a whole number from 1 to 999999"),
        ({"alpha": 0}, "alpha 0 is not a number above 0"),
        ({"alpha": math.nan}, "alpha nan is not a number above 0"),
        ({"alpha": math.inf}, "alpha inf is not a number above 0"),
        ({"alpha": True}, "alpha True is not a number above 0"),
        ({"scale": -1}, "scale -1 is not a number above 0"),
        ({"scale": "2"}, "scale '2' is not a number above 0"),
        ({"alpha": 16, "scale": 2}, "alpha and scale are both given"),
        ({"dropout": 1}, "dropout 1 is not a number from 0 up to, but not including, 1"),
        ({"dropout": -0.1}, "dropout -0.1 is not a number"),
        ({"dropout": math.nan}, "dropout nan is not a number"),
        ({"bias": "some"}, "bias 'some' is not one of none, all, lora_only"),
        ({"bias": None}, "bias None is not one of none, all, lora_only"),
        ({"layers": "x"}, "layers 'x' is neither a number nor a slice"),
        ({"layers": 3}, "layers 3 is not a text"),
    ],
    ids=str,
)
def test_bad_options(arguments: dict[str, Any], said: str) -> None:
    with fails("options: ", said, "The defaults are rank 8, alpha 16, dropout 0.05, bias none."):
        plan(sample("llama"), **arguments)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("qv=16", ["'qv=16': qv is a recipe, which takes neither rank nor layers of its own", "--rank"]),
        ("all[3]", ["all is a recipe", "--layers"]),
        ("qv+ffn=4", ["qv+ffn is a recipe"]),
        ("foo", ["'foo' is neither a recipe nor a rule", "The recipes are"]),
        (["attention"], ["['attention'] is not a rule", "such as attention.q,v=8"]),
        (None, ["None is not a rule"]),
    ],
    ids=str,
)
def test_bad_rules(rule: Any, said: list[str]) -> None:
    with fails(*said):
        plan(sample("llama"), rule)


def test_all_faults_of_the_arguments_at_once() -> None:
    with fails(
        *("rank 0 is", "alpha -1 is", "alpha and scale are both given", "dropout 2 is", "bias 'x' is", "layers 'y' is"),
        *(
            "rule 'foo.bar=0': 3 faults",
            "'qvv' is neither a recipe nor a rule",
            "exclude 'ffn=3': an exclusion has no rank",
        ),
    ):
        plan(
            sample("llama"),
            *("foo.bar=0", "qvv", "attention"),
            rank=0,
            alpha=-1,
            scale=1,
            dropout=2,
            bias="x",
            layers="y",
            exclude="ffn=3",
        )


def test_all_rules_that_find_nothing_at_once() -> None:
    with fails("3 faults", "rule 'mixer'", "rule 'ffn[99]=2': there is no layer 99", "rule 'vision'"):
        plan(sample("llama"), "mixer", "attention", "ffn[99]=2", exclude="vision")


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2", "t5", "bert", "llava", "falcon_mamba", "deepseek_v3"])
def test_a_plan_is_what_its_resolution_says(name: str) -> None:
    model: ModelMap = sample(name)
    made = plan(model, "all")
    assert len(made.resolution.adapted) == len(made.targets)
    assert made.resolution.refusal is None
    assert {t.weight.name for t in made.targets}.isdisjoint(weight.name for weight, _ in made.unreachable)
