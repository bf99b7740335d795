"""Biases, DoRA, dropout and long lists."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.rule import FindingRule, finds
from lorascope.findings import Finding, Severity
from lorascope.foreign_text import literal
from lorascope.names import listed
from lorascope.peft_rules.matchers import CONDENSED_FROM
from lorascope.peft_rules.parameter_count import Tensors, trained_biases
from lorascope.peft_rules.reasons import EMBEDDING_BIAS

BIAS = FindingRule(
    "bias",
    "note",
    "a bias setting is not possible, or trains something else than meant",
    "Trained biases are those of the base model, which then differs even with the adapter switched off.",
)
CONDENSED = FindingRule(
    "condensed",
    "warning",
    "a list has 20 names or more, which PEFT shortens to endings",
    "layers_to_transform applies to endings and not to full names, so it then drops layers.",
)
DORA = FindingRule("dora", "error", "DoRA does not fit", "PEFT has no DoRA for these layers or options, and raises.")
DROPOUT = FindingRule(
    "dropout", "error", "lora_dropout is not between 0 and 1", "It is the probability that an input is dropped."
)


@finds(BIAS)
def find_biases(context: CheckContext) -> Iterator[Finding]:
    """Biases that are refused, unmergeable, or the base model's."""
    config = context.config
    if context.refused_as("bias"):
        fix = f'Set {context.setting("bias", "none")}, "all" or "lora_only".'
        if context.refusal and context.refusal.reason is EMBEDDING_BIAS:
            fix = f"Set {context.setting('lora_bias', False)}, or leave embeddings out."
        yield BIAS.finding("bias", context.refusal, fix, "error")
        return
    for warning in context.warnings_of("bias"):
        fix = f"Set {context.setting('lora_bias', False)}, or do not merge the adapter."
        if warning.names:
            fix = "Write the full name of the weight: entries match every parameter whose name ends with them."
        where = listed(warning.names, 2) if warning.names else "lora_bias"
        yield BIAS.finding(where, warning, fix, "warning")
    if config.bias == "none" or not context.sizes:
        return
    modules = context.model.module_by_name
    owners = dict.fromkeys(name if name in modules else name.rpartition(".")[0] for name in context.sizes)
    tensors = Tensors(context.model)
    trained = trained_biases(context.model, config, owners, tensors, context.release)
    setting = f"bias={literal(config.bias, 200)}"
    if not trained:
        yield BIAS.finding(
            "bias",
            f"{setting} trains nothing: none of these layers has a bias.",
            f"Set {context.setting('bias', 'none')}.",
        )
        return
    message = (
        f"{setting} trains {len(trained)} biases of the base model ({tensors.size(trained):,} parameters), so the model "
        "changes even with the adapter switched off."
    )
    yield BIAS.finding(
        "bias", message, f"Nothing to do if that is meant; otherwise set {context.setting('bias', 'none')}."
    )


@finds(CONDENSED)
def find_condensed(context: CheckContext) -> Iterator[Finding]:
    """Lists of twenty names and more, which PEFT shortens."""
    entries, warnings = context.entries, context.warnings_of("condensed")
    for warning in warnings:
        fix = "Leave layers_to_transform out: full names hold the layers themselves."
        severity: Severity = "note" if entries.form == "all-linear" else "warning"
        yield CONDENSED.finding("target_modules", warning, fix, severity)
    if not warnings and entries.form == "list" and len(entries.modules) >= CONDENSED_FROM and context.sizes:
        message = (
            f"The list has {len(entries.modules)} names. PEFT shortens a list of {CONDENSED_FROM} or more to endings that "
            "match the same, and saves those."
        )
        fix = "Nothing to do; compare adapters by what they adapt, not by this list."
        yield CONDENSED.finding("target_modules", message, fix, "note")


@finds(DORA)
def find_refused_dora(context: CheckContext) -> Iterator[Finding]:
    """DoRA that PEFT refuses."""
    if context.refused_as("dora"):
        yield DORA.finding(
            "use_dora", context.refusal, f"Set {context.setting('use_dora', False)}, or leave these layers out."
        )


@finds(DROPOUT)
def find_bad_dropout(context: CheckContext) -> Iterator[Finding]:
    """A dropout that is not a probability."""
    if context.refused_as("dropout"):
        fix = "Set lora_dropout to a number from 0 to 1, such as 0.05."
        yield DROPOUT.finding("lora_dropout", context.refusal, fix)
