"""Budgets: their forms, the highest ranks that fit, and errors for budgets that are too small."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import pytest

from lorascope.costs.adapter_file import adapter_file_size
from lorascope.costs.budget import fit_to_budget, parse_budget
from lorascope.costs.memory import training_memory
from lorascope.costs.rank_search import ScaledRanks
from lorascope.costs.training_run import Training
from lorascope.errors import LorascopeError
from lorascope.plan_api import plan
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
        ("", "invalid budget"),
        ("plenty", "invalid budget"),
        ("-3M", "invalid budget"),
        ("1e6", "invalid budget"),
        ("disk=3GB", "invalid budget"),
        ("memory=24", "a unit is missing; units of bytes: B, KB"),
        ("memory=24M", "unknown unit 'M'; units of bytes: B, KB, MB, GB"),
        ("20MB", "unknown unit 'MB'; units of parameters: K, M, B"),
        ("0%", "is not above 0 and at most 100"),
        ("101%", "is not above 0 and at most 100"),
        ("0", "less than one"),
        ("memory=0GB", "less than one"),
        (None, "invalid budget"),
        (5, "invalid budget"),
    ],
)
def test_what_is_no_budget_is_refused(text: Any, said: str) -> None:
    with fails(said, "20M"):
        parse_budget(text)


def test_the_next_rank_is_over_budget() -> None:
    llama = sample("llama")
    budgeted = plan(llama, "qv+ffn", budget="20M")
    assert budgeted.cost == budgeted.plan.resolution.trainable <= 20_000_000 < (budgeted.next_cost or 0)
    assert [str(rule) for rule in budgeted.plan.rules] == [
        f"attention.q,v={budgeted.max_rank}",
        f"ffn={budgeted.max_rank // 2}",
    ]
    assert budgeted.remaining == 20_000_000 - budgeted.cost
    assert str(budgeted).startswith(str(budgeted.plan))
    assert "budget 20M: " in str(budgeted)


def test_a_share_is_of_the_models_own_parameters() -> None:
    llama = sample("llama")
    budgeted = plan(llama, "all", budget="0.5%")
    assert budgeted.limit == llama.dimensions.parameters // 200


def test_options_hold_for_a_budgeted_plan() -> None:
    budgeted = plan(
        sample("llama"), "attention", budget="5M", dora=True, scale=2.0, layers="-4:", exclude=["attention.k"]
    )
    assert budgeted.plan.config.use_dora
    assert {one.scale for one in budgeted.plan.resolution.adapted} == {2.0}
    assert {target.weight.layer for target in budgeted.plan.targets} == {28, 29, 30, 31}
    assert budgeted.cost <= 5_000_000 < (budgeted.next_cost or 0)


def test_ranks_stop_at_the_smaller_side() -> None:
    budgeted = plan(sample("gpt2"), "qv", budget="100%")
    assert (budgeted.max_rank, budgeted.next_cost, budgeted.limiting_weight) == (
        768,
        None,
        "transformer.h.0.attn.c_attn",
    )


def test_an_impossible_budget_names_the_smallest() -> None:
    with fails("Budget 1K is too small: these rules need 262,144 trainable parameters at rank 1"):
        plan(sample("llama"), "attention.q", budget="1K")
    with fails("Budget adapter=1KB is too small: these rules need ", " MB at rank 1"):
        plan(sample("llama"), "all", budget="adapter=1KB")


def test_memory_below_the_frozen_weights_says_what_would_fit() -> None:
    llama = sample("llama")  # 7B: 13.5 GB in bf16
    with fails("Budget memory=12GB is too small: these rules need 25.62 GB at rank 1", "Fits with", "--quantization"):
        plan(llama, "qv", budget="memory=12GB")
    with fails("Nothing fits even with --gradient-checkpointing --batch 1 --quantization nf4"):
        plan(llama, "qv", budget="memory=1GB", training=Training(batch=4))


def test_what_would_fit_does() -> None:
    llama = sample("llama")
    with fails("Fits with --gradient-checkpointing --quantization 8bit ("):
        plan(llama, "qv", budget="memory=12GB")
    training = Training(quantization="8bit", gradient_checkpointing=True)
    budgeted = plan(llama, "qv", budget="memory=12GB", training=training)
    assert budgeted.cost == training_memory(budgeted.plan, training).total <= 12 * 10**9


def walk(pairs: list[tuple[str, str]]) -> dict[str, int]:
    """Asserts for every map, recipe and budget that the plan is within and the next step over; counts what came of them.

    Costs are those of estimatees; for one budget of each recipe it is asserted that the plan itself costs the same.
    """
    counts = {"fitted": 0, "capped": 0, "impossible": 0, "no such plan": 0}
    for at, (model_type, head) in enumerate(pairs):
        model = load_builtin(model_type, head)
        for turn, recipe in enumerate(RECIPES, at):
            scaled = ScaledRanks(model, (recipe,))
            for budget in BUDGETS:
                counts[came_of(scaled, budget, planned=budget == BUDGETS[turn % len(BUDGETS)])] += 1
    return counts


def came_of(scaled: ScaledRanks, budget: str, *, planned: bool) -> str:
    where = (scaled.model.model, scaled.texts, budget)
    try:
        budgeted = fit_to_budget(scaled, parse_budget(budget), Training())
    except LorascopeError as error:
        return "impossible" if "is too small" in str(error) else "no such plan"
    assert 0 <= budgeted.cost <= budgeted.limit, where
    if planned:
        estimate = scaled.estimate(budgeted.max_rank)
        assert budgeted.plan.resolution == dataclasses.replace(
            estimate.resolution, warnings=budgeted.plan.resolution.warnings
        )
        assert adapter_file_size(budgeted.plan) == adapter_file_size(estimate), where
        assert training_memory(budgeted.plan, Training()) == training_memory(estimate, Training()), where
    if budgeted.next_cost is None:
        sides = {target.weight.name: min(target.weight.shape[-2:]) for target in budgeted.ranks.smallest.targets}
        ranks = budgeted.ranks.ranks(budgeted.max_rank)
        assert budgeted.limiting_weight in sides, where
        assert all(ranks[name] <= side for name, side in sides.items()), where
        return "capped"
    assert budgeted.next_cost > budgeted.limit, where
    return "fitted"


PAIRS = [(model_type, head) for model_type, heads in builtin_models().items() for head in heads]


def test_budgets_over_a_sample_of_the_built_in_models() -> None:
    assert walk(PAIRS[::50]) == {"fitted": 216, "capped": 23, "impossible": 91, "no such plan": 0}


# Of each quarter of the built-in models: fitted, capped, impossible, no such plan.
QUARTERS = ((2411, 309, 970, 120), (2427, 278, 979, 126), (2368, 356, 1050, 36), (2447, 394, 921, 18))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_budgets_over_the_built_in_models(part: int) -> None:
    counts = collections.Counter(walk(PAIRS[part::8])) + collections.Counter(walk(PAIRS[part + 4 :: 8]))
    assert tuple(counts.values()) == QUARTERS[part]
    assert sum(counts.values()) == len(PAIRS[part::4]) * len(RECIPES) * len(BUDGETS)
    assert sum(map(sum, QUARTERS)) == 507 * 5 * 6
