"""Limits of the map: quantization, names alone, guesses, traces that disagree."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.phrases import places, plural
from lorascope.checks.rule import FindingRule, finds
from lorascope.findings import Finding
from lorascope.model.types import Weight
from lorascope.plans.notes import describe_trace
from lorascope.plans.plan_notes import guess_notes, quantization_notes, untrainable_storage

QUANTIZED = FindingRule(
    "quantized", "note", "the stored weights need a library", "PEFT adapts them only if it is installed."
)
UNTRAINABLE = FindingRule(
    "quantization-untrainable",
    "warning",
    "transformers' Trainer refuses every adapter on the model as it is stored",
    "Its quantizer says that it cannot be trained; load the model dequantized.",
)
NAMES_ONLY = FindingRule(
    "names-only",
    "note",
    "the model is known by names alone",
    "Its code is not in transformers, so nobody has checked that it has these modules.",
)
TRACED_DOUBT = FindingRule(
    "traced-doubt",
    "note",
    "no forward pass confirms what an adapted weight does",
    "Its name and the dataflow disagree, or no call came to it.",
)


GUESSED_ROLE = FindingRule(
    "guessed-role",
    "note",
    "what an adapted weight does is a guess",
    "No known name confirms its role, and the shares of blocks rest on it.",
)


@finds(QUANTIZED)
def find_quantized(context: CheckContext) -> Iterator[Finding]:
    """Libraries that the quantized weights need."""
    for note in quantization_notes(context.model, context.adapted_weights):
        yield QUANTIZED.finding("the base model", str(note), "Install what it names before training.")


@finds(UNTRAINABLE)
def find_untrainable(context: CheckContext) -> Iterator[Finding]:
    """A quantization with which transformers' Trainer trains nothing."""
    for quantization, fix in untrainable_storage(context.model).items() if context.sizes else ():
        count = sum(module.quantization == quantization for module in context.model.modules)
        message = (
            f"{plural(count, 'module')} stored as {quantization}: transformers' Trainer refuses every adapter on the model "
            "while they are packed."
        )
        yield UNTRAINABLE.finding("the base model", message, fix)


@finds(NAMES_ONLY)
def find_unknown_code(context: CheckContext) -> Iterator[Finding]:
    """A model whose code nobody has."""
    model = context.model
    if model.basis == "names":
        message = (
            f'These findings rest on names alone: model type "{model.model_type}" is not known, so nobody has checked that '
            "its code has these modules."
        )
        fix = "Try the configuration on the loaded model: get_peft_model raises if a name is wrong."
        yield NAMES_ONLY.finding(model.source, message, fix)


@finds(GUESSED_ROLE)
def find_guessed_roles(context: CheckContext) -> Iterator[Finding]:
    """Adapted weights whose roles are guesses."""
    guesses = [weight for weight in context.adapted_weights if weight.guess]
    for note in guess_notes(context.model, guesses):
        fix = "Look at the modeling code before you rely on the role, or see what lorascope inspect --trace finds."
        yield GUESSED_ROLE.finding(places(guesses), note, fix)


@finds(TRACED_DOUBT)
def find_traced_doubts(context: CheckContext) -> Iterator[Finding]:
    """Adapted weights whose role a trace does not confirm."""
    traces = {trace.weight: trace for trace in context.model.traces}
    doubts: dict[str, list[Weight]] = {}
    for weight in context.adapted_weights if traces else ():
        trace = traces.get(weight.name)
        if trace is not None and (trace.disagrees or trace.status != "executed"):
            kind = "names and dataflow disagree" if trace.disagrees else "no forward pass confirms what they do"
            doubts.setdefault(f"{kind}: {describe_trace(trace)}: {trace.evidence}", []).append(weight)
    for doubt, weights in doubts.items():
        fix = "Look at the modeling code before you rely on the role."
        yield TRACED_DOUBT.finding(places(weights), f"{len(weights)} weights: {doubt}", fix)
