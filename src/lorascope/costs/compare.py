"""Recipes and rules side by side on one model: what each adapts, and what that costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from lorascope.costs.adapter_file import adapter_file_size
from lorascope.costs.memory import Memory, training_memory
from lorascope.costs.training_run import Training
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.plans.arguments import require_kinds, require_map, require_texts
from lorascope.plans.planner import plan
from lorascope.plans.recipes import RECIPES
from lorascope.plans.rules import MAIN_BLOCKS, covered_blocks
from lorascope.plans.types import Plan


@dataclasses.dataclass(frozen=True)
class Compared:
    """One side of a comparison.

    Attributes:
        name: The recipe, or the rules.
        plan: Its plan; None where there is none.
        refusal: Why there is none, or empty.
        file_size: Bytes of the saved adapter.
        memory: What training takes.
        coverage: Block (`attention`, `ffn`, `mixer`) to the part of its parameters that lies in adapted weights, from
            0 to 1; only blocks that the model has.
    """

    name: str
    plan: Plan | None
    refusal: str = ""
    file_size: int = 0
    memory: Memory | None = None
    coverage: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Recipes and rules side by side.

    Attributes:
        model: The map.
        training: How all of them are trained.
        sides: In the order in which they were asked for.
    """

    model: ModelMap
    training: Training
    sides: tuple[Compared, ...]


def compare(
    model: ModelMap, *sides: str | Sequence[str], training: Training | None = None, **options: Any
) -> Comparison:
    """What each side adapts on a model, and what it costs.

    Args:
        model: The map.
        sides: A recipe, a rule, or several rules in one text with spaces between them; every recipe if there is none.
        training: How all are trained; the defaults of `Training` if not given.
        options: Options of `plan` that hold for all.

    Raises:
        LorascopeError: No side can be planned, with the reasons of all. One that cannot be, among others that can, has
            its refusal instead of a plan.
    """
    require_map(model, "compare")
    for side in sides:
        require_texts("compare", "a side", side)
    require_kinds("compare", training=(training, (Training, type(None)), "a Training"))
    how = training or Training()
    texts = [tuple(side.split()) if isinstance(side, str) else tuple(side) for side in sides] or [
        (name,) for name in RECIPES
    ]
    found = tuple(_compared(model, text, how, options) for text in texts)
    if all(side.plan is None for side in found):
        reasons = list(dict.fromkeys(f"{side.name}: {side.refusal}" for side in found))
        raise LorascopeError(*reasons, where=f"compare {model.model}")
    return Comparison(model, how, found)


def _compared(model: ModelMap, texts: tuple[str, ...], training: Training, options: dict[str, Any]) -> Compared:
    name = " ".join(texts)
    try:
        made = plan(model, *texts, **options)
    except LorascopeError as error:
        return Compared(name, None, "; ".join(error.faults))
    return Compared(
        name=name,
        plan=made,
        file_size=adapter_file_size(made, training.dtype),
        memory=training_memory(made, training),
        coverage=_coverage(made),
    )


def _coverage(made: Plan) -> tuple[tuple[str, float], ...]:
    found = covered_blocks(made.model, {target.weight.name for target in made.targets})
    return tuple((block, found[block][0] / found[block][1]) for block in MAIN_BLOCKS if found.get(block, (0, 0))[1])
