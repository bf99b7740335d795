"""`plan --task`, `plan --budget`, `plan --memory` and `recommend`: valid combinations and output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorascope.advice.recommend import recommend
from lorascope.cli.main import main
from lorascope.inspecting import inspect
from lorascope.plan_api import plan


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(list(words)) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_a_task_gives_the_plan_that_its_recommendation_has(capsys: pytest.CaptureFixture[str]) -> None:
    for task in ("classification", "instruction", "rl"):
        data = json.loads(printed(capsys, "plan", "llama", "--task", task, "--json"))
        advised = recommend(inspect("llama"), task)
        assert data["trainable"] == advised.plan.resolution.trainable
        assert data["peft"]["r"] == advised.rank
        assert data["peft"]["lora_alpha"] == advised.alpha
        assert (data["budget"], data["memory"]) == (None, None)
        assert data["advice"]["task"] == task


def test_the_recommended_command_makes_the_recommended_plan(capsys: pytest.CaptureFixture[str]) -> None:
    advised = recommend(inspect("mixtral"), "knowledge")
    words = advised.command.split()
    assert words[:2] == ["lorascope", "plan"]
    data = json.loads(printed(capsys, *words[1:], "--json"))
    assert data["trainable"] == advised.plan.resolution.trainable


def test_what_is_said_beside_a_task_holds(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", "llama", "--task", "instruction", "--rank", "4", "--scale", "2", "--dropout", "0", "--json")
    data = json.loads(printed(capsys, *words))
    assert (data["peft"]["r"], data["peft"]["lora_alpha"], data["peft"]["lora_dropout"]) == (4, 8, 0)


def test_a_task_within_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(printed(capsys, "plan", "llama", "--task", "instruction", "--budget", "20M", "--json"))
    assert data["trainable"] <= 20_000_000
    assert data["budget"]["cost"] == data["trainable"]
    assert data["budget"]["next"]["cost"] > 20_000_000


def test_a_budget_of_memory_tells_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", "llama", "all", "--budget", "memory=24GB", "--quantization", "nf4", "--gradient-checkpointing")
    out = printed(capsys, *words)
    assert "budget memory=24GB: " in out
    assert "Rank 480 would need 24.01 GB, 10.9 MB over budget." in out
    assert "at the peak" in out
    data = json.loads(printed(capsys, *words, "--json"))
    assert data["memory"]["total"] == data["budget"]["cost"] <= 24_000_000_000
    assert data["training"]["quantization"] == "nf4"


def test_memory_is_told_when_anything_of_training_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "at the peak" not in printed(capsys, "plan", "llama")
    assert "at the peak" in printed(capsys, "plan", "llama", "--memory")
    assert "batch 4 × 2048 tokens" in printed(capsys, "plan", "llama", "--batch", "4")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--task", "instruction", "qv"), ("--task decides the rules, and rules are given",)),
        (("--budget", "20M", "--rank", "8"), ("--budget decides the ranks, and --rank is given",)),
        (
            ("--budget", "20M", "--rank", "8", "--task", "style", "ffn"),
            ("--task decides the rules", "--budget decides the ranks"),
        ),
        (("--budget", "lots"), ("invalid budget 'lots'", "20M")),
        (("--budget", "1K"), ("Budget 1K is too small: these rules need 524,288 trainable parameters at rank 1",)),
        (("--budget", "memory=2GB"), ("Budget memory=2GB is too small", "Nothing fits")),
        (("--budget", "memory=12GB", "--batch", "zero"), ("batch 'zero' is not a whole number",)),
        (("--task", "instructions"), ("instruction",)),
        (("--alpha", "8", "--scale", "2", "--task", "style"), ("alpha and scale are both given",)),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: tuple[str, ...], parts: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    error = printed(capsys, "plan", "llama", *words, code=2)
    assert all(part in error for part in parts), error


def test_recommend_tells_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    short = printed(capsys, "recommend", "llama", "--task", "classification")
    long = printed(capsys, "recommend", "llama", "--task", "classification", "--explain")
    assert "run: lorascope plan llama" in short
    assert "https://" not in short
    assert "https://" in long or "arxiv.org" in long
    data = json.loads(printed(capsys, "recommend", "llama", "--task", "classification", "--json"))
    assert data["choices"]


def test_a_model_that_cannot_do_the_task_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    error = printed(capsys, "recommend", "bert", "--task", "instruction", code=2)
    assert "instruction" in error
    assert "→" in error


def test_a_budget_holds_for_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, "plan", "llama", "qv+ffn", "--budget", "20M", "-o", f"{tmp_path}/plan")
    from lorascope.plans.files import load_plan

    made = load_plan(f"{tmp_path}/plan")
    assert made.resolution == plan(inspect("llama"), "qv+ffn", rank=16).resolution
    assert made.resolution.trainable <= 20_000_000


@pytest.mark.parametrize(
    "words",
    [("plan", "llama", "--rank", "4", "qv", "attention.o"), ("plan", "llama", "qv", "--rank", "4", "attention.o")],
)
def test_rules_may_come_after_options(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert "rules: attention.q,v=4  attention.o" in printed(capsys, *words)


def test_a_plan_for_a_task_says_how_to_train_it(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "plan", "llama", "--task", "instruction")
    assert "- learning rate (" in out
    assert "lorascope recommend llama --task instruction" in out
    assert "learning rate" not in printed(capsys, "plan", "llama")


def test_a_comparison_tells_what_is_known_of_each_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "compare", "llama", "qv", "attention.o=4", "vo", "--explain")
    assert out.count("supports it, if true:") == 2
    assert "contradicted" in out
    assert "if true" not in printed(capsys, "compare", "llama", "qv")


def test_a_budget_gives_a_task_no_more_rank_than_it_asks_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", "llama", "--task", "instruction", "--budget", "2%")
    assert (
        "Rank stays at 16: no evidence that this task needs more. To go higher: lorascope plan llama all --rank 64"
        in printed(capsys, *words)
    )
    data = json.loads(printed(capsys, *words, "--json"))
    assert data["trainable"] == recommend(inspect("llama"), "instruction").plan.resolution.trainable
    assert (data["budget"]["rank"], data["budget"]["next"], data["budget"]["limiting_weight"]) == (16, None, None)
