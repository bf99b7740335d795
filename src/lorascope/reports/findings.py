"""Findings as text, and the gaps of a map that stand before every answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lorascope.findings import Finding, Severity
from lorascope.model.types import ModelMap
from lorascope.plans.map_gaps import map_gaps
from lorascope.reports.tables import wrapped

SIGNS: dict[Severity, str] = {"error": "✗", "warning": "!", "note": "·"}


def findings_text(findings: Iterable[Finding], subject: str = "") -> Iterator[str]:
    """Each finding under its sign, and its fix on a line of its own.

    Args:
        findings: The findings.
        subject: What they are about; a finding says only another place.
    """
    for finding in findings:
        where = "" if finding.where == subject else f"{finding.where}: "
        text = f"{finding.severity} ({finding.code}): {where}{finding.message}"
        yield wrapped(text, f"{SIGNS[finding.severity]} ", "  ")
        if finding.fix:
            yield wrapped(finding.fix, "  → ", "    ")


def gaps_text(model: ModelMap) -> list[str]:
    """The lines that stand before every answer on a map with gaps; none on others."""
    gaps = list(map_gaps(model))
    return [*findings_text(gaps, gaps[0].where), ""] if gaps else []


def gaps_json(model: ModelMap) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [finding_json(gap) for gap in map_gaps(model)]


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding: code, severity, place, message and fix."""
    return {key: getattr(finding, key) for key in ("code", "severity", "where", "message", "fix")}
