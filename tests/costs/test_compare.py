"""Candidates of a comparison are plans with their costs; the command prints them."""

from __future__ import annotations

import json

import pytest

from lorascope.cli.main import main
from lorascope.costs.adapter_file import adapter_file_size
from lorascope.costs.compare import compare
from lorascope.costs.memory import training_memory
from lorascope.costs.training_run import Training
from lorascope.errors import LorascopeError
from lorascope.number_text import bytes_text
from lorascope.plan_api import plan
from lorascope.plans.recipes import RECIPES
from lorascope.sources.builtin import builtin_models, load_builtin
from tests.helpers.samples import fails, sample


def test_a_candidate_is_its_plan() -> None:
    training = Training(batch=2, seq_len=512, quantization="nf4")
    found = compare(sample("mixtral"), "qv", "attention.q=8 ffn.expert=2", ["attention.o=4"], training=training)
    assert [side.name for side in found.candidates] == ["qv", "attention.q=8 ffn.expert=2", "attention.o=4"]
    for side, rules in zip(
        found.candidates, (["qv"], ["attention.q=8", "ffn.expert=2"], ["attention.o=4"]), strict=True
    ):
        made = plan(sample("mixtral"), *rules)
        assert side.plan is not None
        assert side.plan.resolution == made.resolution
        assert side.file_size == adapter_file_size(made, "bf16")
        assert side.memory == training_memory(made, training)


def test_coverage_is_of_the_models_own_weights() -> None:
    sides = {
        side.name: dict(side.coverage) for side in compare(sample("llava"), "attention", "ffn", "all", "qv").candidates
    }
    assert sides["attention"] == {"attention": 1, "ffn": 0}  # the language model's, not the tower's
    assert sides["ffn"] == {"attention": 0, "ffn": 1}
    assert sides["all"] == {"attention": 1, "ffn": 1}
    assert sides["qv"] == {"attention": 0.5, "ffn": 0}
    (mamba,) = compare(sample("mamba2"), "mixer.in").candidates  # PEFT would leave the others of a Mamba block dead
    weights = [w for w in sample("mamba2").weights if w.role.block == "mixer"]
    whole = sum(w.size for w in weights)
    assert dict(mamba.coverage) == {"mixer": sum(w.size for w in weights if w.role.part == "in") / whole}


def test_every_recipe_is_compared_where_none_is_named() -> None:
    assert [side.name for side in compare(sample("llama")).candidates] == list(RECIPES)


def test_an_impossible_candidate_has_its_refusal() -> None:
    found = compare(sample("mamba2"), "qv", "all")
    assert found.candidates[0].plan is None
    assert "selects nothing" in found.candidates[0].refusal
    assert found.candidates[1].plan is not None
    with fails("qv: ", "selects nothing", "attention.z: ", "compare mamba2"):
        compare(sample("mamba2"), "qv", "attention.z")


def test_the_command_prints_the_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "llama", "qv", "attention.q,v=8 ffn=4", "--batch", "2", "--seq-len", "512"]) == 0
    out = capsys.readouterr().out
    assert "training: batch 2 × 512 tokens, weights bf16, adamw, no gradient checkpointing" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["attention.q,v=8", "ffn=4", "9,994,240"] in [words[:3] for words in lines]
    assert main(["compare", "mamba2", "qv", "all"]) == 1
    out = capsys.readouterr().out
    assert "- qv: selects nothing in mamba2" in out


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "llama", "qv", "all", "--json", "--gradient-checkpointing"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["model"]["id"] == "llama"
    assert data["training"]["gradient_checkpointing"] is True
    qv, everything = data["candidates"]
    assert (qv["rules"], qv["trainable"], qv["coverage"]["attention"]) == ("qv", 4_194_304, 0.5)
    assert everything["memory"]["total"] == sum(part["bytes"] for part in everything["memory"]["parts"])
    assert everything["adapter_bytes"] > 4 * everything["trainable"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch", "0"], "batch 0 is not a whole number"),
        (["--seq-len", "x", "--optimizer", "adamv"], "seq_len 'x' is not"),
        (["--quantization", "int4"], "'int4' is not one of none, 8bit, nf4"),
        (["--rank", "0"], "rank 0 is not a whole number"),
        (["nonsense"], "neither a recipe nor a rule"),
    ],
)
def test_bad_words_are_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "llama", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (812, "812 B"), (4200, "4.2 kB"), (13_600_000, "13.6 MB"), (24 * 10**9, "24.00 GB")]
)
def test_bytes_are_written_as_people_say_them(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.slow
def test_every_built_in_model_can_be_compared() -> None:
    counts = {"compared": 0, "planned": 0, "refused": 0, "no side": 0}
    for model_type, heads in builtin_models().items():
        try:
            found = compare(load_builtin(model_type, heads[0]), "qv", "attention", "ffn", "all")
        except LorascopeError:  # PEFT cannot adapt it at all
            counts["no side"] += 1
            continue
        counts["compared"] += 1
        for side in found.candidates:
            counts["planned" if side.plan else "refused"] += 1
            assert bool(side.plan) != bool(side.refusal)
            assert all(0 <= part <= 1 for _, part in side.coverage)
            assert all(
                dict(side.coverage).get(block, 1) == 1
                for block in (side.name,)
                if side.plan and not side.plan.unreachable
            )
    assert counts == {"compared": 338, "planned": 1330, "refused": 22, "no side": 1}
