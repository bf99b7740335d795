"""The tasks as data: which recipe, rank and further choices each gets, and the claims that they rest on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.advice.evidence import checked_toml, load_evidence
from lorascope.errors import LorascopeError, did_you_mean
from lorascope.plans.recipes import RECIPES

_FILE = Path(__file__).parent.parent / "data" / "tasks.toml"

# Choices for which each task has its own reason, and those for which all have the same.
_OWN = ("targets", "rank")
_SHARED = ("mixers", "experts", "alpha", "learning_rate", "first_rate", "batch", "dropout")
_HEADS = ("causal-lm", "image-text-to-text", "seq2seq-lm", "masked-lm", "sequence-classification", "unknown")


@dataclasses.dataclass(frozen=True, slots=True)
class Why:
    """A reason, and the claims that it rests on."""

    reason: str
    claims: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """What is recommended for a task.

    Attributes:
        name: As a user types it.
        purpose: What it is.
        recipe: Name of the recipe.
        rank: The plan's rank.
        ranks: Further ranks whose cost is shown beside it.
        share: The rank is halved until it is at most the hidden size divided by this; 0 leaves it.
        heads: Which heads can do it.
        refused: Why another head cannot.
        how: What to do with a head.
        why: The reason of each choice.
        notes: What else to know.
        unknown: What nobody has measured.
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
    """The claims that speak for a recipe and against it where they are true, and the rank that it is priced at."""

    pro: tuple[str, ...]
    contra: tuple[str, ...]
    rank: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class RateRule:
    """The first learning rate to try: base · multiple · (width / hidden size) ^ exponent (LoRA Without Regret, 2025).

    Attributes:
        base: Rate of full fine-tuning at hidden size `width`.
        multiple: What LoRA's is of that.
        short: The same for runs of less than 100 steps.
        width: The hidden size of the base.
        heads: Which heads it was fitted for.
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
    """Everything of the file: tasks and recipes by name, and what holds for all.

    Attributes:
        tasks: By name.
        recipes: By name.
        alpha: Of every plan.
        batch: Sequences in a step, below which to stay.
        note: On what placement decides at all.
        hot: What to say where routed experts are most of what is trained.
        capacity: On what a parameter can hold.
        bits: That, in bits.
        rate: The first learning rate to try.
        heads: What is not known of a head, whatever the task.
        only: Claims that matter to some tasks alone.
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
    """What the package recommends."""
    return read_advice(_FILE.read_text(encoding="utf-8"))


def task_of(name: str) -> Task:
    """The task of a name.

    Raises:
        LorascopeError: There is no such task.
    """
    tasks = load_advice().tasks
    if not isinstance(name, str) or name not in tasks:
        guess = did_you_mean(name, tasks) if isinstance(name, str) else ""
        raise LorascopeError(f"{name!r} is no task", hint=guess or f"The tasks are {', '.join(tasks)}.")
    return tasks[name]


def read_advice(text: str) -> Advice:
    """The advice of a TOML text.

    Raises:
        LorascopeError: With every fault of it.
    """
    data = checked_toml(text, _faults, where="tasks")
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


def _faults(data: Mapping[str, Any]) -> Iterator[str]:
    for key in ("task", "recipe", "why", "alpha", "batch", "note", "hot", "capacity", "rate", "head", "only"):
        if not isinstance(data.get(key), dict):
            yield f"there is no table {key}"
            return
    for name in _SHARED:
        yield from _why_faults(f"why.{name}", data["why"].get(name))
    for name in ("note", "hot", "capacity"):
        yield from _why_faults(name, data[name])
    for name, row in data["task"].items():
        yield from (f"task {name}: {fault}" for fault in _task_faults(row))
    for name in data["recipe"].keys() ^ RECIPES.keys():
        yield f"recipe {name} is in one of tasks.toml and recipes.py alone"
    for name, row in data["recipe"].items():
        for side in ("pro", "contra"):
            yield from _why_faults(f"recipe {name}: {side}", {"reason": "-", "claims": row.get(side)})
    for head in data["head"].keys() - set(_HEADS):
        yield f"head {head} is none"
    for claim, tasks in data["only"].items():
        yield from _why_faults("only", {"reason": "-", "claims": [claim]})
        yield from (f"only {claim}: {task!r} is no task" for task in tasks if task not in data["task"])


def _task_faults(row: Mapping[str, Any]) -> Iterator[str]:
    for key in ("purpose", "recipe", "rank", "ranks", "heads", "refused", "how", "why", "unknown"):
        if key not in row:
            yield f"{key} is missing"
    if row.get("recipe") not in RECIPES:
        yield f"{row.get('recipe')!r} is no recipe"
    ranks = (row.get("rank"), *row.get("ranks", ()), row.get("share", 1))
    yield from (f"{rank!r} is no whole number from 1" for rank in ranks if type(rank) is not int or rank < 1)
    heads, refused = set(row.get("heads", ())), set(row.get("refused", ()))
    yield from (f"head {head} is both able and refused" for head in sorted(heads & refused))
    yield from (f"head {head} is neither able nor refused" for head in sorted(set(_HEADS) - heads - refused))
    yield from (f"head {head} is none" for head in sorted((heads | refused | set(row.get("how", ()))) - set(_HEADS)))
    if not row.get("unknown"):
        yield "it says of nothing that it is unknown"
    for choice in _OWN:
        yield from _why_faults(f"why.{choice}", row.get("why", {}).get(choice))


def _why_faults(where: str, row: object) -> Iterator[str]:
    if not isinstance(row, dict) or not row.get("reason") or not row.get("claims"):
        yield f"{where} has no reason, or no claims"
        return
    claims = load_evidence().claims
    for claim in row["claims"]:
        if claim not in claims:
            yield f"{where}: {claim!r} is no claim. {did_you_mean(str(claim), claims)}".rstrip(" .")
