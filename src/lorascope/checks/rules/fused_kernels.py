"""Adapters that count only as long as no fused kernel reads their weight."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.exclusions import fix_without
from lorascope.checks.phrases import places, plural
from lorascope.checks.rule import FindingRule, finds
from lorascope.findings import Finding
from lorascope.peft_rules.dead_weights import read_by_kernels, why_ignored_in_eval

DEAD_WITH_KERNELS = FindingRule(
    "dead-with-kernels",
    "warning",
    "fused kernels read a weight past its adapter",
    "With the kernels installed, such an adapter gets no gradient in training; without them it trains.",
)


IGNORED_IN_EVAL = FindingRule(
    "ignored-in-eval",
    "warning",
    "torch's fast path leaves an adapter out in evaluation mode",
    "The adapter trains, and the evaluated model is the base model.",
)


@finds(DEAD_WITH_KERNELS)
def find_read_by_kernels(context: CheckContext) -> Iterator[Finding]:
    """Adapted weights that modeling code hands to an optional fused kernel."""
    for why, weights in read_by_kernels(context.model, context.adapted_weights).items():
        message = f"{plural(len(weights), 'adapter')} may stay untrained. {why}"
        yield DEAD_WITH_KERNELS.finding(places(weights), message, fix_without(context, weights))


@finds(IGNORED_IN_EVAL)
def find_ignored_in_eval(context: CheckContext) -> Iterator[Finding]:
    """Adapted weights of torch's own encoder layers."""
    reasons = {weight: why for weight in context.adapted_weights if (why := why_ignored_in_eval(context.model, weight))}
    if reasons:
        message = f"{plural(len(reasons), 'adapter')} may have no effect. {next(iter(reasons.values()))}"
        fix = "Call torch.backends.mha.set_fastpath_enabled(False) before evaluation, or merge the adapter."
        yield IGNORED_IN_EVAL.finding(places(reasons), message, fix)
