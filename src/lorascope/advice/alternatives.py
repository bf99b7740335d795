"""Alternatives to a recommended plan, with their cost on the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lorascope.advice.evidence import for_and_against, load_evidence, strength_of
from lorascope.advice.tasks import Advice, Task
from lorascope.advice.types import Alternative, Ground
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.number_text import share_text
from lorascope.plans.planner import plan_with, rules_at
from lorascope.plans.recipes import RECIPES
from lorascope.plans.rules import parse_rule
from lorascope.plans.types import Options, Plan

# The tutorial's balance, and its control: the same number of parameters where the shapes allow it.
_BALANCE = ("qv+ffn", 8)
_CONTROL = ("all", 4)

_Selection = tuple[tuple[str, ...], tuple[str, ...]]


class PlanCache:
    """Plans of one model, each made once for all tasks."""

    def __init__(self, model: ModelMap) -> None:
        self.model = model
        self._outcomes: dict[tuple[_Selection, int], int | LorascopeError] = {}
        self._plans: dict[_Selection, Plan] = {}

    def add(self, rules: tuple[str, ...], plan: Plan) -> None:
        """Take over a plan of these rules without exclusions."""
        self._plans.setdefault((rules, ()), plan)

    def trainable(self, rules: tuple[str, ...], rank: int, exclude: tuple[str, ...] = ()) -> int | LorascopeError:
        """Trainable parameters of these rules, or why there is no plan."""
        selection = (rules, exclude)
        key = (selection, rank)
        if key not in self._outcomes:
            self._outcomes[key] = self._count(selection, rank)
        return self._outcomes[key]

    def _count(self, selection: _Selection, rank: int) -> int | LorascopeError:
        rules, exclude = selection
        known = self._plans.get(selection)
        if known is not None and all(rule in RECIPES for rule in rules):
            return _trainable_at(known, rules, rank)
        try:
            plan = plan_with(self.model, rules, Options(rank=rank, exclude=tuple(map(parse_rule, exclude))))
        except LorascopeError as error:
            return error
        self._plans[selection] = plan
        return plan.resolution.trainable


def _trainable_at(plan: Plan, recipes: Sequence[str], rank: int) -> int:
    """Trainable parameters of a plan of recipes at another rank.

    Adapters grow with the rank, modules that are saved whole do not.
    """
    rules = rules_at(plan.model, recipes, rank)
    trainable = plan.resolution.trainable
    for target in plan.targets:
        own, adapted = rules[target.rule].rank or rank, target.adapted
        trainable += adapted.trainable // adapted.rank * own - adapted.trainable
    return trainable


def grounds_of(claims: Iterable[str]) -> tuple[Ground, ...]:
    """Claims with their records and strength."""
    known = load_evidence().claims
    grounds = []
    for claim in claims:
        pro, contra = for_and_against(claim)
        grounds.append(Ground(known[claim], strength_of(claim, pro, contra), pro, contra))
    return tuple(grounds)


def other_targets(plan: Plan, task: Task, advice: Advice, cache: PlanCache) -> Iterator[Alternative]:
    """The other recipes, and the control of the balance."""
    for name, recipe in advice.recipes.items():
        if name != task.recipe:
            rank = recipe.rank or plan.options.rank
            claims = [claim for claim in recipe.pro if task.name in advice.only.get(claim, (task.name,))]
            yield _alternative(plan, cache, [name], rank, claims=claims)
    name, rank = _CONTROL
    control = cache.trainable((name,), rank)
    if isinstance(control, int):
        note = _control_note(control, cache)
        yield _alternative(plan, cache, [name], rank, note=note, claims=["wide-before-deep"])


def other_ranks(plan: Plan, task: Task, cache: PlanCache) -> Iterator[Alternative]:
    """The task's other ranks."""
    for rank in dict.fromkeys(task.ranks):
        if rank != plan.options.rank:
            yield _alternative(plan, cache, [task.recipe], rank)


def other_expert_ranks(plan: Plan, task: Task, cache: PlanCache) -> Iterator[Alternative]:
    """Other ranks of routed experts, and none at all."""
    rank, experts = plan.options.rank, plan.model.dimensions.experts
    if experts:
        each = max(1, rank // experts)
        note = f"as PEFT documents: rank {rank} // {experts} experts{'' if rank >= experts else ', at least 1'}"
        rules = [task.recipe, f"ffn.expert={each}"]
        yield _alternative(plan, cache, rules, rank, note=note, claims=["expert-rank-by-all"])
    yield _alternative(plan, cache, [task.recipe, f"ffn.expert={rank}"], rank, note="full rank for every expert")
    yield _alternative(plan, cache, [task.recipe], rank, ("ffn.expert",), "routed experts not adapted")


def _alternative(
    plan: Plan,
    cache: PlanCache,
    rules: Sequence[str],
    rank: int,
    exclude: tuple[str, ...] = (),
    note: str = "",
    claims: Iterable[str] = (),
) -> Alternative:
    texts, grounds = tuple(rules), grounds_of(claims)
    trainable = cache.trainable(texts, rank, exclude)
    if isinstance(trainable, LorascopeError):
        return Alternative(texts, rank, exclude, None, None, refusal=trainable.faults[0], grounds=grounds)
    own = plan.resolution.trainable  # 0 where every matrix has a dimension of 0
    return Alternative(texts, rank, exclude, trainable, trainable / own if own else None, note, grounds=grounds)


def _control_note(control: int, cache: PlanCache) -> str:
    """Difference in parameters to the balance, which most shapes lack."""
    name, rank = _BALANCE
    balance = cache.trainable((name,), rank)
    if not isinstance(balance, int):
        return ""
    pair = f"control for {name} (ranks {rank} and {rank // 2})"
    difference = control - balance
    if not difference:
        return f"{pair}: same number of parameters"
    more = "more" if difference > 0 else "fewer"
    return f"{pair}: {abs(difference):,} parameters {more} ({share_text(abs(difference) / (balance or 1))})"
