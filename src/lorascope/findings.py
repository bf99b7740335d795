"""Findings: one fault or note each, with severity and fix."""

from __future__ import annotations

from typing import Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.peft_rules.diagnostics import Diagnostic

# How much a finding matters, see `Finding`.
Severity = Literal["error", "warning", "note"]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One fault or note of a check.

    Attributes:
        code: Which kind of finding it is; stable.
        severity: `error` (training fails or trains nothing there), `warning` (it does something else than most people
            mean by it), or `note` (worth knowing, and no reason to stop).
        where: The file or the weights.
        message: What is so.
        fix: What to do.
        diagnostic: What PEFT or a tool says, where the message is that or quotes it.
    """

    code: str
    severity: Severity
    where: str
    message: str
    fix: str
    diagnostic: Diagnostic | None = None
