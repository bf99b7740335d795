"""What is said here of a trainer's files, for the scripts that run that trainer's own code on the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.plan_api import plan
from lorascope.trainers.exports import export
from lorascope.trainers.registry import trainer_called

PlanOf = tuple[Sequence[str], Mapping[str, Any]]


def exported_plans(model: ModelMap, plans: Mapping[str, PlanOf], to: str) -> tuple[dict[str, str], list[str]]:
    """The files of those plans that the model has weights for, under "plan NAME", and why the others were refused."""
    texts, refused = {}, []
    for name, (rules, options) in plans.items():
        try:
            made = plan(model, *rules, **options)
        except LorascopeError:
            continue
        try:
            texts[f"plan {name}"] = export(made, to, base="folder")
        except LorascopeError as error:
            refused.append(str(error)[:300])
    return texts, refused


def said_of(model: ModelMap, trainer: str, text: str) -> dict[str, Any]:
    """What a file adapts as it is read here, in the form in which the scripts tell what its trainer does."""
    room = trainer_called(trainer)
    try:
        outcome = room.resolve(model, room.read(text, "file"))
    except LorascopeError as error:
        return {"error": str(error), "adapted": {}, "trainable": 0}
    return {
        "error": str(outcome.resolution.refusal or ""),
        "adapted": {one.name: [one.rank, one.alpha, one.scale] for one in outcome.resolution.adapted},
        "trainable": outcome.resolution.trainable,
    }


def agreed(models: Mapping[str, Any], written: Sequence[str]) -> dict[str, int]:
    """Asserts that a trainer does with every file what is said here; counts what was done, what stopped, and plans.

    Args:
        models: By name, the cases of each: what is said and what was done.
        written: Names of the files that every model was tried with.
    """
    counts = {"done": 0, "stopped": 0, "plans": 0}
    for name, model in models.items():
        assert model["cases"].keys() >= set(written)
        for case, both in model["cases"].items():
            ours, done = both["said"], both["done"]
            where = f"{name}, {case}: {ours['error'] or 'done'}, itself: {done['error'] or 'done'}"
            assert bool(ours["error"]) == bool(done["error"]), where
            counts["stopped" if done["error"] else "done"] += 1
            if done["error"]:
                continue
            assert ours["adapted"] == done["adapted"], where
            assert ours["trainable"] == done["trainable"], where
            counts["plans"] += case.startswith("plan ")
    return counts
