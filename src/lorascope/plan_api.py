"""The public function for plans, with and without a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from lorascope.errors import LorascopeError
from lorascope.plans.arguments import require_kinds, require_map, require_texts
from lorascope.plans.planner import DEFAULT_RANK, parse_exclusions, plan_with, raise_all
from lorascope.plans.types import Options

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    from lorascope.costs.budget import Budget, BudgetedPlan
    from lorascope.costs.training_run import Training
    from lorascope.model.types import ModelMap
    from lorascope.plans.types import Plan

    class _Settings(TypedDict, total=False):
        """The settings of a plan that a budget leaves open."""

        alpha: float | None
        scale: float | None
        dropout: float | None
        bias: str
        rslora: bool
        dora: bool
        layers: str
        exclude: str | Sequence[str]


@overload
def plan(
    model: ModelMap,
    *rules: str,
    rank: int | None = None,
    budget: None = None,
    training: None = None,
    rank_cap: None = None,
    **settings: Unpack[_Settings],
) -> Plan: ...


@overload
def plan(
    model: ModelMap,
    *rules: str,
    rank: None = None,
    budget: str | Budget,
    training: Training | None = None,
    rank_cap: int | None = None,
    **settings: Unpack[_Settings],
) -> BudgetedPlan: ...


def plan(
    model: ModelMap,
    *rules: str,
    rank: int | None = None,
    alpha: float | None = None,
    scale: float | None = None,
    dropout: float | None = None,
    bias: str = "none",
    rslora: bool = False,
    dora: bool = False,
    layers: str = "",
    exclude: str | Sequence[str] = (),
    budget: str | Budget | None = None,
    training: Training | None = None,
    rank_cap: int | None = None,
) -> Plan | BudgetedPlan:
    """Plan LoRA for a model; later rules win, weight by weight.

    Args:
        model: The map.
        rules: Recipe names (`qv+ffn`) and rules (`ffn[-8:]=4/16`), in order; the recipe `qv` if there is none.
        rank: Rank of rules that name none, and the one that recipes start from (8).
        alpha: One alpha for all modules (16). With Adam it makes the first update independent of the rank, so that one
            learning rate works for every rank (LoRA Without Regret, Thinking Machines Lab 2025).
        scale: Instead of alpha: one scale for all modules, so that alpha follows the rank.
        dropout: Dropout on the adapters' inputs: 0.05 by default, 0 where PEFT cannot apply any.
        bias: Biases to train: `none`, `all` or `lora_only`.
        rslora: Scale by alpha / sqrt(rank) instead of alpha / rank.
        dora: Train a magnitude per output too.
        layers: Layers of rules that name none, such as `-8:`.
        exclude: Selectors to take out.
        budget: Fit the ranks to this: `20M` parameters, `0.5%` of the model, `adapter=50MB`, `memory=24GB`.
        training: Settings of the training that a budget depends on; the defaults of `Training` if not given.
        rank_cap: Highest rank to consider under a budget.

    Returns:
        The plan; with a budget a `BudgetedPlan`, which has the plan, its cost and what the next rank would cost.

    Raises:
        LorascopeError: A fault in the arguments or rules, a rule that selects nothing, something that PEFT cannot do
            for this model, or a budget that is too small.

    >>> import lorascope as ls
    >>> model = ls.inspect("mistral")
    >>> ls.plan(model, "qv", rank=4).resolution.trainable
    1703936
    >>> ls.plan(model, "qv", budget="20M").max_rank
    46
    """
    require_map(model, "plan")
    require_texts("plan", "exclude", exclude)
    faults: list[LorascopeError] = []
    excluded = parse_exclusions(exclude, faults)
    options = Options(
        "", DEFAULT_RANK if rank is None else rank, alpha, scale, dropout, bias, rslora, dora, layers, excluded
    )
    if budget is None and training is None and rank_cap is None:
        return plan_with(model, rules, options, faults)
    from lorascope.costs.budget import Budget, budgeted_plan  # a plan alone costs nothing to count
    from lorascope.costs.training_run import Training

    require_kinds(
        "plan",
        budget=(budget, (str, Budget), "a text such as 20M, or a Budget"),
        training=(training, (Training, type(None)), "a Training"),
        rank_cap=(rank_cap, (int, type(None)), "a whole number"),
    )
    if rank is not None:
        faults.append(LorascopeError("budget decides the ranks, and rank is given: leave one out", where="options"))
    raise_all(faults)
    assert budget is not None
    return budgeted_plan(model, rules, budget, options, training=training, rank_cap=rank_cap)
