"""Adapters that train only as long as no fused kernel reads their weight."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.exclusions import fix_without
from lorascope.checks.phrases import places, plural
from lorascope.checks.rule import FindingRule, finds
from lorascope.findings import Finding
from lorascope.model.types import Weight
from lorascope.peft_rules.dead_weights import why_dead_with_kernels
from lorascope.peft_rules.diagnostics import Diagnostic

DEAD_WITH_KERNELS = FindingRule(
    "dead-with-kernels",
    "warning",
    "fused kernels read a weight past its adapter",
    "With the kernels installed, such an adapter gets no gradient in training; without them it trains.",
)


@finds(DEAD_WITH_KERNELS)
def find_read_by_kernels(context: CheckContext) -> Iterator[Finding]:
    """Adapted weights that modeling code hands to an optional fused kernel."""
    groups: dict[Diagnostic, list[Weight]] = {}
    for weight in context.adapted_weights:
        if why := why_dead_with_kernels(context.model, weight):
            groups.setdefault(why, []).append(weight)
    for why, weights in groups.items():
        message = f"{plural(len(weights), 'adapter')} may stay untrained: {why}"
        yield DEAD_WITH_KERNELS.finding(places(weights), message, fix_without(context, weights))
