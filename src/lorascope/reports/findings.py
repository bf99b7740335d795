"""Findings as text, and the gaps of a map that stand before every answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lorascope.findings import Finding, Severity
from lorascope.model.types import ModelMap
from lorascope.plans.map_gaps import map_gaps
from lorascope.reports.tables import wrapped

# So much of the worst finding is shown, whatever the room.
_LEAST_LINES = 4

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


def folded_findings(findings: Sequence[Finding], subject: str, room: int) -> list[str]:
    """The lines of findings, within so many lines.

    Of every kind (code and severity) the first is shown, and the others while there is room; what is left out is counted.
    The worst kind is always shown.

    Args:
        findings: The findings, worst first.
        subject: What they are about.
        room: The most lines.
    """
    kinds: dict[tuple[str, Severity], list[list[str]]] = {}
    for finding in findings:
        lines = "\n".join(findings_text([finding], subject)).splitlines()
        kinds.setdefault((finding.code, finding.severity), []).append(lines)
    shown: dict[tuple[str, Severity], int] = {}
    for kind, blocks in kinds.items():
        rest = {key: kinds[key] for key in kinds if key not in shown and key != kind}
        own = room - (len(blocks) > 1) - len(list(_unshown_lines(rest)))
        if len(blocks[0]) > own:
            if shown:
                break
            blocks[0] = [*blocks[0][: max(own, _LEAST_LINES) - 1], "  … (--all shows it whole)"]
        room -= len(blocks[0]) + (len(blocks) > 1)
        shown[kind] = 1
    for kind in shown:
        for block in kinds[kind][1:] if len(shown) == len(kinds) else ():
            if len(block) > room:
                break
            room -= len(block)
            shown[kind] += 1
    return [*_shown_lines(kinds, shown), *_unshown_lines({key: kinds[key] for key in kinds if key not in shown})]


def _shown_lines(
    kinds: Mapping[tuple[str, Severity], Sequence[list[str]]], shown: Mapping[tuple[str, Severity], int]
) -> Iterator[str]:
    for kind, count in shown.items():
        for block in kinds[kind][:count]:
            yield from block
        if more := len(kinds[kind]) - count:
            yield f"  … and {more:,} more of this kind (--all lists them)"


def _unshown_lines(kinds: Mapping[tuple[str, Severity], Sequence[list[str]]]) -> Iterator[str]:
    if kinds:
        count = sum(map(len, kinds.values()))
        named = ", ".join(f"{severity} {code}" for code, severity in kinds)
        yield from wrapped(f"{count:,} more (--all shows them): {named}", "… ", "  ").splitlines()


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
