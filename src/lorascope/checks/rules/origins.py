"""Notes on where an adapter comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lorascope.checks.rule import FindingRule
from lorascope.findings import Finding

ORIGIN = FindingRule(
    "origin", "note", "something about the files is good to know", "For example, tensors in a pickle are not read."
)


def note_origins(where: str, notes: Iterable[str]) -> Iterator[Finding]:
    """Notes of the reader of an adapter's files."""
    for note in notes:
        yield ORIGIN.finding(where, note, "")
