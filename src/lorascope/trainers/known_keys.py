"""Known keys of each trainer, and findings on others.

The lists in `data/trainer_keys` come from the trainers' own parsers (`tools/trainer_keys`).
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator

from lorascope.errors import did_you_mean
from lorascope.findings import Finding, Severity
from lorascope.foreign_text import quoted
from lorascope.packaged import load_text

# So many unknown keys are explained one by one, and so many characters of each are shown.
_MOST_EXPLAINED = 20
_LONGEST_KEY = 100


@functools.lru_cache(maxsize=16)
def known_keys(trainer: str) -> frozenset[str]:
    """A trainer's keys or command-line options, without dashes."""
    text = load_text(f"trainer_keys/{trainer}.txt")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def unknown_key_findings(
    trainer: str, keys: Collection[str], where: str, *, consequence: str, severity: Severity = "error", fix: str = ""
) -> Iterator[Finding]:
    """Findings on keys that the trainer does not know.

    Args:
        trainer: Name of the list of keys.
        keys: Those of the configuration.
        where: The file.
        consequence: What the trainer does about it: `TRL stops at it`.
        severity: Of such a finding.
        fix: What to do; found out from the known keys if empty.
    """
    known = known_keys(trainer)
    unknown = [key for key in keys if key not in known]
    if rest := unknown[_MOST_EXPLAINED:]:
        message = f"{len(rest):,} more unknown keys, such as {quoted(rest[0])}: {consequence}"
        yield Finding("unknown-key", severity, where, message, "Leave them out.")
    for key in unknown[:_MOST_EXPLAINED]:
        what = fix or did_you_mean(key, known) or "Leave it out, or look it up in the trainer's documentation."
        yield Finding("unknown-key", severity, where, f"{_cut(key)} is an unknown key: {consequence}", what)


def _cut(key: str) -> str:
    return key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}…"
