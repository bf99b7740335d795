"""Findings: one fault or note each, with severity and fix."""

from __future__ import annotations

from typing import Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.peft_rules.diagnostics import Diagnostic

# How much a finding matters, see `Finding`.
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One fault or note of a check.

    Attributes:
        code: Which kind of finding it is; stable.
        severity: `error` (training fails, or the entry has no effect), `warning` (probably not what was meant), or `note`
            (good to know).
        where: The file, the setting or the weights.
        message: What is wrong, and why it matters.
        fix: What to do.
        diagnostic: What PEFT or a tool says, where the message is that or quotes it.
    """

    code: str
    severity: Severity
    where: str
    message: str
    fix: str
    diagnostic: Diagnostic | None = None
