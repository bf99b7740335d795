"""Budgets: what they are written as, the highest step that they pay for, and what is said where they pay for nothing."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import pytest

from lorascope.costs.adapter_file import adapter_file_size
from lorascope.costs.budget import budgeted_plan, fit_to_budget, parse_budget
from lorascope.costs.memory import training_memory
from lorascope.costs.rank_search import ScaledRanks
from lorascope.costs.training_run import Training
from lorascope.errors import LorascopeError
from lorascope.sources.builtin import builtin_models, load_builtin
from tests.helpers.samples import fails, sample

RECIPES = ("qv", "qv+ffn", "attention", "ffn", "all")
BUDGETS = ("300K", "20M", "0.1%", "1%", "adapter=50MB", "memory=24GB")


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("20M", "parameters", 20_000_000),
        ("1.5b", "parameters", 1_500_000_000),
        ("812", "parameters", 812),
        ("0.5%", "share", 0.5),
        ("100 %", "share", 100),
        ("adapter=50MB", "adapter", 50_000_000),
        ("adapter = 1.5 MiB", "adapter", 1_572_864),
        ("memory=24GB", "memory", 24_000_000_000),
        ("memory=24gib", "memory", 25_769_803_776),
        ("parameters=3K", "parameters", 3000),
    ],
)
def test_a_budget_is_read(text: str, kind: str, amount: float) -> None:
    budget = parse_budget(text)
    assert (budget.kind, budget.amount, budget.text) == (kind, amount, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no budget"),
        ("plenty", "is no budget"),
        ("-3M", "is no budget"),
        ("1e6", "is no budget"),
        ("disk=3GB", "is no budget"),
        ("memory=24", "'' is no unit of bytes"),
        ("memory=24M", "'M' is no unit of bytes: B, KB, MB, GB"),
        ("20MB", "'MB' is no unit of parameters: K, M, B"),
        ("0%", "no share above 0"),
        ("101%", "no share above 0"),
        ("0", "less than one"),
        ("memory=0GB", "less than one"),
        (None, "is no budget"),
        (5, "is no budget"),
    ],
)
def test_what_is_no_budget_is_refused(text: Any, said: str) -> None:
    with fails(said, "20M"):
        parse_budget(text)


def test_the_last_step_within_is_taken_and_the_next_is_over() -> None:
    llama = sample("llama")
    fitted = budgeted_plan(llama, "qv+ffn", budget="20M")
    assert fitted.spent == fitted.plan.resolution.trainable <= 20_000_000 < (fitted.next_cost or 0)
    assert [str(rule) for rule in fitted.plan.rules] == [f"attention.q,v={fitted.step}", f"ffn={fitted.step // 2}"]
    assert fitted.left == 20_000_000 - fitted.spent


def test_a_share_is_of_the_models_own_parameters() -> None:
    llama = sample("llama")
    fitted = budgeted_plan(llama, "all", budget="0.5%")
    assert fitted.most == llama.dimensions.parameters // 200


def test_options_hold_for_a_fitted_plan() -> None:
    fitted = budgeted_plan(
        sample("llama"), "attention", budget="5M", dora=True, scale=2.0, layers="-4:", exclude=["attention.k"]
    )
    assert fitted.plan.config.use_dora
    assert {one.scale for one in fitted.plan.resolution.adapted} == {2.0}
    assert {target.weight.layer for target in fitted.plan.targets} == {28, 29, 30, 31}
    assert fitted.spent <= 5_000_000 < (fitted.next_cost or 0)


def test_ranks_stop_at_the_smaller_side() -> None:
    fitted = budgeted_plan(sample("gpt2"), "qv", budget="100%")
    assert (fitted.step, fitted.next_cost, fitted.narrowest) == (768, None, "transformer.h.0.attn.c_attn")


def test_an_impossible_budget_names_the_smallest() -> None:
    with fails("is less than the smallest that these rules can have: 262,144 trainable parameters at rank 1"):
        budgeted_plan(sample("llama"), "attention.q", budget="1K")
    with fails("bytes at rank 1"):
        budgeted_plan(sample("llama"), "all", budget="adapter=1KB")


def test_memory_below_the_frozen_weights_says_what_would_fit() -> None:
    llama = sample("llama")  # 7B: 13.5 GB in bf16
    with fails("memory=12GB (12,000,000,000 bytes) is less than the smallest", "It would fit with", "--quantization"):
        budgeted_plan(llama, "qv", budget="memory=12GB")
    with fails("Nothing fits, not even --gradient-checkpointing --batch 1 --quantization nf4"):
        budgeted_plan(llama, "qv", budget="memory=1GB", training=Training(batch=4))


def test_what_would_fit_does() -> None:
    llama = sample("llama")
    with fails("It would fit with --gradient-checkpointing --quantization 8bit ("):
        budgeted_plan(llama, "qv", budget="memory=12GB")
    training = Training(quantization="8bit", checkpointing=True)
    fitted = budgeted_plan(llama, "qv", budget="memory=12GB", training=training)
    assert fitted.spent == training_memory(fitted.plan, training).total <= 12 * 10**9


def walk(pairs: list[tuple[str, str]]) -> dict[str, int]:
    """Asserts for every map, recipe and budget that the plan is within and the next step over; counts what came of them.

    Costs are those of sketches; for one budget of each recipe it is asserted that the plan itself costs the same.
    """
    counts = {"fitted": 0, "capped": 0, "impossible": 0, "no such plan": 0}
    for at, (model_type, head) in enumerate(pairs):
        model = load_builtin(model_type, head)
        for turn, recipe in enumerate(RECIPES, at):
            ladder = ScaledRanks(model, (recipe,))
            for budget in BUDGETS:
                counts[came_of(ladder, budget, planned=budget == BUDGETS[turn % len(BUDGETS)])] += 1
    return counts


def came_of(ladder: ScaledRanks, budget: str, *, planned: bool) -> str:
    where = (ladder.model.model, ladder.texts, budget)
    try:
        fitted = fit_to_budget(ladder, parse_budget(budget), Training())
    except LorascopeError as error:
        return "impossible" if "less than the smallest" in str(error) else "no such plan"
    assert 0 <= fitted.spent <= fitted.most, where
    if planned:
        sketch = ladder.sketch(fitted.step)
        assert fitted.plan.resolution == dataclasses.replace(
            sketch.resolution, warnings=fitted.plan.resolution.warnings
        )
        assert adapter_file_size(fitted.plan) == adapter_file_size(sketch), where
        assert training_memory(fitted.plan, Training()) == training_memory(sketch, Training()), where
    if fitted.next_cost is None:
        sides = {target.weight.name: min(target.weight.shape[-2:]) for target in fitted.ladder.first.targets}
        ranks = fitted.ladder.ranks(fitted.step)
        assert fitted.narrowest in sides, where
        assert all(ranks[name] <= side for name, side in sides.items()), where
        return "capped"
    assert fitted.next_cost > fitted.most, where
    return "fitted"


PAIRS = [(model_type, head) for model_type, heads in builtin_models().items() for head in heads]


def test_budgets_over_a_sample_of_the_built_in_models() -> None:
    assert walk(PAIRS[::50]) == {"fitted": 192, "capped": 18, "impossible": 90, "no such plan": 0}


# Of each quarter of the built-in models: fitted, capped, impossible, no such plan.
QUARTERS = ((2411, 340, 915, 54), (2341, 358, 925, 96), (2372, 291, 991, 66), (2354, 325, 963, 78))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_budgets_over_the_built_in_models(part: int) -> None:
    counts = collections.Counter(walk(PAIRS[part::8])) + collections.Counter(walk(PAIRS[part + 4 :: 8]))
    assert tuple(counts.values()) == QUARTERS[part]
    assert sum(counts.values()) == len(PAIRS) // 4 * len(RECIPES) * len(BUDGETS)
    assert sum(map(sum, QUARTERS)) == 496 * 5 * 6
