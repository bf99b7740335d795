"""Options that fused experts, which PEFT adapts as parameters, do not take."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.phrases import in_quotes
from lorascope.checks.rule import FindingRule, finds
from lorascope.findings import Finding

PARAMETERS_OPTIONS = FindingRule(
    "parameters-options",
    "error",
    "dropout, DoRA or biases are set together with target_parameters",
    "PEFT has none of them where it adapts bare parameters (fused experts), and raises.",
)
_FREE_EXPERTS = "The experts that PEFT's rewrite turns into parameters"


@finds(PARAMETERS_OPTIONS)
def find_parameter_options(context: CheckContext) -> Iterator[Finding]:
    """All options that parameters do not take; PEFT names the first."""
    if not context.refused_as("parameters-options"):
        return
    config, entries = context.config, context.entries
    # Each with what it is and what it must be.
    present = {
        key: values
        for key, values in {
            "lora_dropout": (f"{config.lora_dropout:g}", 0.0),
            "use_dora": ("True", False),
            "lora_bias": ("True", False),
            "fan_in_fan_out": ("True", False),
        }.items()
        if getattr(config, key)
    }
    if not present:
        fix = "Adapt either the Conv1D layers or the parameters."
        yield PARAMETERS_OPTIONS.finding("target_parameters", context.refusal, fix)
        return
    rewritten = [entry.text for entry in entries.modules if entry.rewritten]
    given = [entry.text for entry in entries.parameters if entry.parameters]
    subject = f"target_parameters ({in_quotes(given)})" if given else _FREE_EXPERTS
    if rewritten and not given:
        subject += f" ({in_quotes(rewritten)} on this model type)"
    verb = "do" if len(present) > 1 or len(given) != 1 else "does"
    message = f"{subject} {verb} not go with {' and '.join(f'{key}={value}' for key, (value, _) in present.items())}."
    fix = f"Set {', '.join(context.setting(key, needed) for key, (_, needed) in present.items())}"
    fix += f", or take {in_quotes(rewritten or given)} out." if rewritten or given else "."
    yield PARAMETERS_OPTIONS.finding(", ".join(present), message, fix)
