"""Recommendations as data: choices for each task, with reasons.

`tasks.toml` holds them as people write them; `tools/build_advice.py` checks that and makes `tasks.json`, which is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError, did_you_mean
from lorascope.foreign_text import quoted
from lorascope.packaged import load_json

# Choices with the same reason for all tasks.
_SHARED = ("mixers", "experts", "alpha", "learning_rate", "first_rate", "batch", "dropout")


@dataclasses.dataclass(frozen=True, slots=True)
class Why:
    """A reason, with the claims that it rests on."""

    reason: str
    claims: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """Recommendations for a task.

    Attributes:
        name: As a user types it.
        purpose: Its meaning.
        recipe: Name of the recipe.
        rank: The plan's rank.
        ranks: Further ranks whose cost is shown.
        share: The rank is halved until it is at most the hidden size divided by this; 0 leaves it.
        heads: Heads that can do it.
        refused: Reason why a head cannot.
        how: Advice on a head.
        why: Reason of each choice.
        notes: Further facts.
        unknown: Open questions.
    """

    name: str
    purpose: str
    recipe: str
    rank: int
    ranks: tuple[int, ...]
    share: int
    heads: tuple[str, ...]
    refused: Mapping[str, str]
    how: Mapping[str, str]
    why: Mapping[str, Why]
    notes: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class RecipeClaims:
    """Claims for and against a recipe, and the rank of its cost."""

    pro: tuple[str, ...]
    contra: tuple[str, ...]
    rank: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class RateRule:
    """Formula of the first learning rate to try.

    base · multiple · (width / hidden size) ^ exponent (LoRA Without Regret, 2025).

    Attributes:
        base: Rate of full fine-tuning at hidden size `width`.
        multiple: LoRA's rate over that.
        short: The same for runs of less than 100 steps.
        width: Hidden size of the base.
        heads: Heads that it was fitted for.
        exponents: Model type to exponent.
    """

    base: float
    multiple: float
    short: float
    width: int
    heads: tuple[str, ...]
    exponents: Mapping[str, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Advice:
    """All recommendations: tasks, recipes, and what holds for all.

    Attributes:
        tasks: By name.
        recipes: By name.
        alpha: Alpha of every plan.
        batch: Upper limit of sequences per step.
        note: Effect of target modules on scores.
        hot: Advice where routed experts are most of the trainable parameters.
        capacity: Capacity of a parameter.
        bits: The same in bits.
        rate: First learning rate to try.
        heads: Open questions on a head, whatever the task.
        only: Claims that matter to some tasks only.
    """

    tasks: Mapping[str, Task]
    recipes: Mapping[str, RecipeClaims]
    alpha: int
    batch: int
    note: Why
    hot: Why
    capacity: Why
    bits: int
    rate: RateRule
    heads: Mapping[str, str]
    only: Mapping[str, tuple[str, ...]]


@functools.cache
def load_advice() -> Advice:
    """All recommendations in the package."""
    return advice_from(load_json("tasks.json"))


def task_of(name: str) -> Task:
    """Task by name.

    Raises:
        LorascopeError: There is no such task.
    """
    tasks = load_advice().tasks
    if not isinstance(name, str) or name not in tasks:
        guess = did_you_mean(name, tasks) if isinstance(name, str) else ""
        raise LorascopeError(f"unknown task {quoted(name)}", hint=guess or f"The tasks are {', '.join(tasks)}.")
    return tasks[name]


def advice_from(data: Mapping[str, Any]) -> Advice:
    """Advice of the tables of `tasks.toml`, whose form is right."""
    shared = {name: _why(data["why"][name]) for name in _SHARED}
    rate = data["rate"]
    return Advice(
        tasks={name: _task(name, row, shared) for name, row in data["task"].items()},
        recipes={
            name: RecipeClaims(tuple(row["pro"]), tuple(row["contra"]), row.get("rank"))
            for name, row in data["recipe"].items()
        },
        alpha=data["alpha"]["value"],
        batch=data["batch"]["below"],
        note=_why(data["note"]),
        hot=_why(data["hot"]),
        capacity=_why(data["capacity"]),
        bits=data["capacity"]["bits"],
        rate=RateRule(**{**rate, "heads": tuple(rate["heads"])}),
        heads=data["head"],
        only={claim: tuple(tasks) for claim, tasks in data["only"].items()},
    )


def _why(row: Mapping[str, Any]) -> Why:
    return Why(row["reason"], tuple(row["claims"]))


def _task(name: str, row: Mapping[str, Any], shared: Mapping[str, Why]) -> Task:
    return Task(
        name=name,
        purpose=row["purpose"],
        recipe=row["recipe"],
        rank=row["rank"],
        ranks=tuple(row["ranks"]),
        share=row.get("share", 0),
        heads=tuple(row["heads"]),
        refused=row["refused"],
        how=row["how"],
        why={**shared, **{choice: _why(why) for choice, why in row["why"].items()}},
        notes=tuple(row.get("notes", ())),
        unknown=tuple(row["unknown"]),
    )
