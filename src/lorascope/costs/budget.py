"""The largest ranks of some rules that a budget pays for: of parameters, of a file, or of memory."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

from lorascope.costs.adapter_file import adapter_file_size
from lorascope.costs.memory import training_memory
from lorascope.costs.rank_search import Ladder
from lorascope.costs.training_run import QUANTISATIONS, Training
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.plans.arguments import require_kinds, require_map
from lorascope.plans.recipes import DEFAULT
from lorascope.plans.types import Plan

# parameters: trainable parameters. share: the same in percent of the model's. adapter: bytes of the saved file.
# memory: bytes at the peak of training.
Kind = Literal["parameters", "share", "adapter", "memory"]

_FORMS = "Write a number of parameters (20M), a share (0.5%), adapter=50MB or memory=24GB."
_AMOUNT = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(?P<unit>[A-Za-z%]*)")
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent.

    Attributes:
        kind: On what.
        amount: How much: parameters, percent, or bytes.
        text: As the user wrote it.
    """

    kind: Kind
    amount: float
    text: str

    @property
    def unit(self) -> str:
        """What the amount counts."""
        return "bytes" if self.kind in ("adapter", "memory") else "trainable parameters"


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A plan that a budget pays for.

    Attributes:
        ladder: The rules at growing ranks.
        budget: The budget.
        step: On which step of the ladder it stands, the rank of recipes and of the largest rule.
        most: What the budget allows, in its unit.
        spent: What the plan takes of it.
        next_cost: What the next step would take; None if there is none, because it would give a weight more rank than
            its smaller side, or because no more was asked for.
        narrowest: That weight, or empty.
        training: How it is trained, which decides memory and files.
    """

    ladder: Ladder
    budget: Budget
    step: int
    most: int
    spent: int
    next_cost: int | None
    narrowest: str
    training: Training

    @cached_property
    def plan(self) -> Plan:
        """The plan, compiled and checked."""
        return self.ladder.plan(self.step)

    @property
    def left(self) -> int:
        """What is left of the budget."""
        return self.most - self.spent


def parse_budget(text: str) -> Budget:
    """The budget of a text: `20M`, `0.5%`, `adapter=50MB`, `memory=24GB`.

    Bytes are counted as they are written: 1 GB is 10^9, 1 GiB is 2^30.

    Raises:
        LorascopeError: It is none.
    """
    kind, equals, amount = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not equals:
        kind, amount = "parameters", kind
    match = _AMOUNT.fullmatch(amount.strip())
    kind = kind.strip()
    if match is None or kind not in ("parameters", "adapter", "memory"):
        raise LorascopeError(f"{text!r} is no budget", hint=_FORMS)
    number, unit = float(match["number"]), match["unit"].lower()
    if kind == "parameters" and unit == "%":
        if not 0 < number <= 100:
            raise LorascopeError(
                f"{number:g} % is no share above 0 and up to 100", where=f"budget {text!r}", hint=_FORMS
            )
        return Budget("share", number, text)
    units = _COUNTS if kind == "parameters" else _BYTES
    if unit not in units:
        known = ", ".join(name.upper().replace("IB", "iB") for name in units if name)
        raise LorascopeError(
            f"{match['unit']!r} is no unit of {'parameters' if kind == 'parameters' else 'bytes'}: {known}",
            where=f"budget {text!r}",
            hint=_FORMS,
        )
    found = number * units[unit]
    if found < 1:
        raise LorascopeError("it is less than one", where=f"budget {text!r}", hint=_FORMS)
    kinds: dict[str, Kind] = {"parameters": "parameters", "adapter": "adapter", "memory": "memory"}
    return Budget(kinds[kind], found, text)


def fitted_plan(
    model: ModelMap,
    *rules: str,
    budget: str | Budget,
    training: Training | None = None,
    at_most: int | None = None,
    **options: Any,
) -> Fitted:
    """The plan of the highest step of the rules' ladder (`Ladder`) that the budget pays for.

    Args:
        model: The map.
        rules: Recipes and rules, as `plan` takes them; the recipe `qv` if there is none.
        budget: A budget, or its text.
        training: How it is trained; the defaults of `Training` if not given.
        at_most: The last step to think of, where more rank is of no use.
        options: The other options of `plan`, without `rank`.

    Raises:
        LorascopeError: As `plan` and `parse_budget` do; or the smallest plan is over the budget, which names it.
    """
    require_map(model, "fitted_plan")
    require_kinds(
        "fitted_plan",
        budget=(budget, (str, Budget), "a text such as 20M, or a Budget"),
        training=(training, (Training, type(None)), "a Training"),
        at_most=(at_most, (int, type(None)), "a whole number"),
    )
    limit = parse_budget(budget) if isinstance(budget, str) else budget
    how = training or Training()
    return fitted_on(Ladder(model, rules or (DEFAULT,), options), limit, how, at_most)


def fitted_on(ladder: Ladder, budget: Budget, training: Training, at_most: int | None = None) -> Fitted:
    """The same on a ladder, whose first step and highest step are then known for other budgets too.

    Raises:
        LorascopeError: As `fitted_plan` does.
    """
    count = _costs(budget.kind, training)
    parameters = ladder.model.dimensions.parameters
    most = int(parameters * budget.amount / 100) if budget.kind == "share" else int(budget.amount)
    least = count(ladder.first)
    if least > most:
        raise _impossible(budget, ladder.first, training, most, least)
    last = ladder.highest if at_most is None else min(max(1, at_most), ladder.highest)
    step, spent, beyond = _highest(lambda at: count(ladder.sketch(at)), least, last, most)
    return Fitted(
        ladder=ladder,
        budget=budget,
        step=step,
        most=most,
        spent=spent,
        next_cost=beyond,
        narrowest=ladder.narrowest if step == ladder.highest else "",
        training=training,
    )


def _costs(kind: Kind, training: Training) -> Callable[[Plan], int]:
    if kind == "adapter":
        return lambda plan: adapter_file_size(plan, training.dtype)
    if kind == "memory":
        return lambda plan: training_memory(plan, training).total
    return lambda plan: plan.resolution.trainable


def _highest(cost: Callable[[int], int], least: int, last: int, most: int) -> tuple[int, int, int | None]:
    """The last step that costs no more than `most`, its cost, and that of the next; None if it is the last of all.

    Costs never fall, and grow almost by the same on every step, so that each try is where a straight line between the
    costs that are known would meet the budget.

    Args:
        cost: Of a step.
        least: Of step 1, which is within.
        last: The last step.
        most: The budget.
    """
    low, low_cost = 1, least
    high_cost = cost(last)
    if high_cost <= most:
        return last, high_cost, None
    high = last
    while high - low > 1:
        line = low + (most - low_cost) * (high - low) // (high_cost - low_cost)
        middle = min(max(line, low + 1), high - 1)
        tried = cost(middle)
        # The step after one that the line names is over, as a rule, and then ends the search.
        if tried <= most:
            low, low_cost = middle, tried
            if high - low > 1 and (beyond := cost(low + 1)) > most:
                high, high_cost = low + 1, beyond
        else:
            high, high_cost = middle, tried
    return low, low_cost, high_cost


def _impossible(budget: Budget, smallest: Plan, training: Training, most: int, least: int) -> LorascopeError:
    fault = (
        f"{budget.text} ({most:,} {budget.unit}) is less than the smallest that these rules can have: "
        f"{least:,} {budget.unit} at rank 1"
    )
    if budget.kind != "memory":
        return LorascopeError(fault, where="budget", hint="Give more, or choose fewer weights.")
    tried = _thriftier(training)
    for words, other in tried:
        total = training_memory(smallest, other).total
        if total <= most:
            return LorascopeError(fault, where="budget", hint=f"It would fit with {words} ({total:,} bytes).")
    last = tried[-1][0] if tried else "a batch of one"
    hint = f"Nothing fits, not even {last}: choose a smaller model, or fewer tokens with --seq-len."
    return LorascopeError(fault, where="budget", hint=hint)


def _thriftier(training: Training) -> list[tuple[str, Training]]:
    """Trainings that take less memory, those that change least first."""
    tried: list[tuple[str, Training]] = []
    words: list[str] = []
    changed = training
    if not training.checkpointing:
        changed = dataclasses.replace(changed, checkpointing=True)
        words.append("--gradient-checkpointing")
        tried.append((" ".join(words), changed))
    if training.batch > 1:
        changed = dataclasses.replace(changed, batch=1)
        words.append("--batch 1")
        tried.append((" ".join(words), changed))
    for kind in QUANTISATIONS[QUANTISATIONS.index(training.quantization) + 1 :]:
        tried.append((f"--quantization {kind}", dataclasses.replace(training, quantization=kind)))
        if words:
            together = " ".join([*words, f"--quantization {kind}"])
            tried.append((together, dataclasses.replace(changed, quantization=kind)))
    return tried
