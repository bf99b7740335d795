"""Findings on what a trainer's own search misses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lorascope.findings import Finding
from lorascope.model.types import ModelMap, Weight
from lorascope.names import listed
from lorascope.trainers.protocol import trainer_filter

MOST_NAMED = 4
_KINDS = {"conv1d": "Conv1D modules", "parameter": "bare parameters"}


def unseen_weights(model: ModelMap) -> list[Weight]:
    """The weights that a search for classes called Linear cannot see."""
    return [weight for weight in model.weights if weight.kind in _KINDS]


def unseen_findings(weights: Sequence[Weight], option: str, fix: str) -> Iterator[Finding]:
    """Weights that a search by modules' classes misses.

    Args:
        weights: Those that it misses.
        option: The option that makes the trainer search.
        fix: How to name them.
    """
    if weights:
        kinds = sorted({_KINDS[weight.kind] for weight in weights})
        message = f"{option} searches modules by class and misses {len(weights)} weights ({' and '.join(kinds)})"
        yield trainer_filter("warning", listed((weight.name for weight in weights), MOST_NAMED), message, fix)


def left_out_findings(names: Sequence[str], option: str, reason: str, fix: str) -> Iterator[Finding]:
    """Linear modules that a search passes over.

    Args:
        names: Those modules.
        option: The option that makes the trainer search.
        reason: Why it passes over them.
        fix: How to name them.
    """
    if names:
        message = f"{option} leaves out {len(names)} linear modules: {reason}"
        yield trainer_filter("note", listed(names, MOST_NAMED), message, fix)
