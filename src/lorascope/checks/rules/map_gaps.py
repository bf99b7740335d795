"""Gaps of the map: what the checkpoint and its class do not share."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.rule import FindingRule, finds
from lorascope.findings import Finding
from lorascope.plans.map_gaps import map_gaps

UNEXPLAINED = FindingRule(
    "unexplained",
    "error",
    "tensors of the checkpoint have no place in the map",
    "The model has weights that the map does not show: PEFT may adapt more or fewer modules than stated.",
)
MISSING_MODULES = FindingRule(
    "missing-modules",
    "warning",
    "the checkpoint lacks modules of its class",
    "transformers adds them with random values, and PEFT may adapt them too.",
)


@finds(UNEXPLAINED, MISSING_MODULES)
def find_map_gaps(context: CheckContext) -> Iterator[Finding]:
    """Parts of the model that the map does not show."""
    yield from map_gaps(context.model)
