"""Highest ranks that fit a budget of parameters, file size or memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.costs.adapter_file import adapter_file_size
from lorascope.costs.memory import training_memory
from lorascope.costs.rank_search import ScaledRanks
from lorascope.costs.training_run import QUANTIZATIONS, Training
from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap
from lorascope.number_text import bytes_text
from lorascope.plans.recipes import DEFAULT
from lorascope.plans.types import Options, Plan
from lorascope.texts import text_of

# parameters: trainable parameters. share: the same in percent of the model's. adapter: bytes of the saved file.
# memory: bytes at the peak of training.
Kind = Literal["parameters", "share", "adapter", "memory"]

_FORMS = "Write a number of parameters (20M), a share (0.5%), adapter=50MB or memory=24GB."
_AMOUNT = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(?P<unit>[A-Za-z%]*)")
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """Limit on a plan's cost.

    Attributes:
        kind: What is limited.
        amount: The limit: parameters, percent, or bytes.
        text: As the user wrote it.
    """

    kind: Kind
    amount: float
    text: str

    @property
    def unit(self) -> str:
        """Unit of the cost."""
        return "bytes" if self.kind in ("adapter", "memory") else "trainable parameters"


@dataclasses.dataclass(frozen=True)
class BudgetedPlan:
    """Plan with the highest ranks that fit a budget.

    Attributes:
        ranks: The rules at growing ranks.
        budget: The budget.
        max_rank: Rank of recipes and of the largest rule.
        limit: The budget in its unit.
        cost: Cost of the plan in that unit.
        next_cost: Cost at the next rank; None where the ranks cannot grow, or no more was wanted.
        limiting_weight: Weight whose smaller dimension lets no rank grow, or empty.
        training: Settings that decide memory and file size.
    """

    ranks: ScaledRanks
    budget: Budget
    max_rank: int
    limit: int
    cost: int
    next_cost: int | None
    limiting_weight: str
    training: Training

    def __str__(self) -> str:
        return text_of(self)

    @cached_property
    def plan(self) -> Plan:
        """The plan, compiled and checked."""
        return self.ranks.plan(self.max_rank)

    @property
    def remaining(self) -> int:
        """Unused part of the budget."""
        return self.limit - self.cost


def parse_budget(text: str) -> Budget:
    """Parse a budget: `20M`, `0.5%`, `adapter=50MB`, `memory=24GB`.

    1 GB is 10^9 bytes, 1 GiB is 2^30.

    Raises:
        LorascopeError: The text is not a budget.
    """
    kind, equals, amount = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not equals:
        kind, amount = "parameters", kind
    match = _AMOUNT.fullmatch(amount.strip())
    kind = kind.strip()
    if match is None or kind not in ("parameters", "adapter", "memory"):
        raise LorascopeError(f"invalid budget {quoted(text)}", hint=_FORMS)
    where = f"budget {text!r}"
    number, unit = float(match["number"]), match["unit"].lower()
    if kind == "parameters" and unit == "%":
        if not 0 < number <= 100:
            raise LorascopeError(f"{number:g} % is not above 0 and at most 100", where=where, hint=_FORMS)
        return Budget("share", number, text)
    units = _COUNTS if kind == "parameters" else _BYTES
    if unit not in units:
        known = ", ".join(name.upper().replace("IB", "iB") for name in units if name)
        counted = "parameters" if kind == "parameters" else "bytes"
        fault = f"unknown unit {match['unit']!r}" if match["unit"] else "a unit is missing"
        raise LorascopeError(f"{fault}; units of {counted}: {known}", where=where, hint=_FORMS)
    size = number * units[unit]
    if size < 1:
        raise LorascopeError("it is less than one", where=where, hint=_FORMS)
    kinds: dict[str, Kind] = {"parameters": "parameters", "adapter": "adapter", "memory": "memory"}
    return Budget(kinds[kind], size, text)


def budgeted_plan(
    model: ModelMap,
    rules: Sequence[str],
    budget: str | Budget,
    options: Options,
    *,
    training: Training | None = None,
    rank_cap: int | None = None,
) -> BudgetedPlan:
    """Plan with the highest ranks that fit a budget.

    Ranks grow together, see `ScaledRanks`.

    Args:
        model: The map.
        rules: Recipes and rules; the recipe `qv` if there is none.
        budget: A budget, or its text.
        options: Settings of the plan, without its rank.
        training: Settings of the training; the defaults of `Training` if not given.
        rank_cap: Highest rank to consider.

    Raises:
        LorascopeError: As `plan_with` and `parse_budget` do; or the smallest plan exceeds the budget.
    """
    ranks = ScaledRanks(model, tuple(rules) or (DEFAULT,), options)
    limit = parse_budget(budget) if isinstance(budget, str) else budget
    return fit_to_budget(ranks, limit, training or Training(), rank_cap)


def fit_to_budget(ranks: ScaledRanks, budget: Budget, training: Training, rank_cap: int | None = None) -> BudgetedPlan:
    """Find the highest ranks that fit; one `ScaledRanks` serves several budgets.

    Raises:
        LorascopeError: As `budgeted_plan` does.
    """
    cost_of = _cost_function(budget.kind, training)
    parameters = ranks.model.dimensions.parameters
    limit = int(parameters * budget.amount / 100) if budget.kind == "share" else int(budget.amount)
    least = cost_of(ranks.smallest)
    if least > limit:
        raise _too_small(budget, ranks.smallest, training, limit, least)
    last = ranks.rank_limit if rank_cap is None else min(max(1, rank_cap), ranks.rank_limit)
    max_rank, cost, next_cost = _highest_rank(lambda rank: cost_of(ranks.estimate(rank)), least, last, limit)
    return BudgetedPlan(
        ranks=ranks,
        budget=budget,
        max_rank=max_rank,
        limit=limit,
        cost=cost,
        next_cost=next_cost,
        limiting_weight=ranks.limiting_weight if max_rank == ranks.rank_limit else "",
        training=training,
    )


def _cost_function(kind: Kind, training: Training) -> Callable[[Plan], int]:
    if kind == "adapter":
        return lambda plan: adapter_file_size(plan, training.dtype)
    if kind == "memory":
        return lambda plan: training_memory(plan, training).total
    return lambda plan: plan.resolution.trainable


def _highest_rank(cost_of: Callable[[int], int], least: int, last: int, limit: int) -> tuple[int, int, int | None]:
    """Highest rank within the limit, its cost, and the next rank's.

    The next cost is None at the last rank. Costs grow almost linearly with the rank, so each try is where the line between known costs meets the limit.

    Args:
        cost_of: Cost of a rank, which never falls.
        least: Cost of rank 1, which is within the limit.
        last: The last rank.
        limit: The budget.
    """
    low, low_cost = 1, least
    high_cost = cost_of(last)
    if high_cost <= limit:
        return last, high_cost, None
    high = last
    while high - low > 1:
        line = low + (limit - low_cost) * (high - low) // (high_cost - low_cost)
        middle = min(max(line, low + 1), high - 1)
        cost = cost_of(middle)
        # The rank after one on the line is over, as a rule, and then ends the search.
        if cost <= limit:
            low, low_cost = middle, cost
            if high - low > 1 and (beyond := cost_of(low + 1)) > limit:
                high, high_cost = low + 1, beyond
        else:
            high, high_cost = middle, cost
    return low, low_cost, high_cost


def _too_small(budget: Budget, smallest: Plan, training: Training, limit: int, least: int) -> LorascopeError:
    needed = bytes_text(least) if budget.unit == "bytes" else f"{least:,} trainable parameters"
    fault = f"Budget {budget.text} is too small: these rules need {needed} at rank 1"
    if budget.kind != "memory":
        return LorascopeError(fault, hint="Raise the budget, or adapt fewer weights.")
    trials = _thriftier(training)
    for flags, thrifty in trials:
        total = training_memory(smallest, thrifty).total
        if total <= limit:
            return LorascopeError(fault, hint=f"Fits with {flags} ({bytes_text(total)}).")
    last = f" even with {trials[-1][0]}" if trials else ""
    return LorascopeError(fault, hint=f"Nothing fits{last}: choose a smaller model, or fewer tokens with --seq-len.")


def _thriftier(training: Training) -> list[tuple[str, Training]]:
    """Settings that take less memory, the smallest changes first."""
    trials: list[tuple[str, Training]] = []
    flags: list[str] = []
    changed = training
    if not training.gradient_checkpointing:
        changed = dataclasses.replace(changed, gradient_checkpointing=True)
        flags.append("--gradient-checkpointing")
        trials.append((" ".join(flags), changed))
    if training.batch > 1:
        changed = dataclasses.replace(changed, batch=1)
        flags.append("--batch 1")
        trials.append((" ".join(flags), changed))
    for kind in QUANTIZATIONS[QUANTIZATIONS.index(training.quantization) + 1 :]:
        trials.append((f"--quantization {kind}", dataclasses.replace(training, quantization=kind)))
        if flags:
            together = " ".join([*flags, f"--quantization {kind}"])
            trials.append((together, dataclasses.replace(changed, quantization=kind)))
    return trials
