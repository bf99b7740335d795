"""Declarations of findings: code, severity, meaning and finder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import CheckContext
from lorascope.findings import Finding, Severity
from lorascope.peft_rules.diagnostics import Diagnostic

Find = Callable[[CheckContext], Iterator[Finding]]


@dataclasses.dataclass(frozen=True, slots=True)
class FindingRule:
    """One kind of finding.

    Attributes:
        code: Its stable code.
        severity: Its usual severity; a single finding may have another.
        meaning: What is wrong, as the table in docs/checking.md has it.
        why: Why that matters, or what to do, in one sentence for the same table.
    """

    code: str
    severity: Severity
    meaning: str
    why: str

    def finding(
        self, where: str, about: str | Diagnostic | None, fix: str, severity: Severity | None = None
    ) -> Finding:
        """A finding of this kind.

        Args:
            where: The file, the setting or the weights.
            about: What is wrong: a message, or the diagnostic that it reports.
            fix: What to do.
            severity: Another severity than usual.
        """
        diagnostic = None if isinstance(about, str) else about
        return Finding(self.code, severity or self.severity, where, str(about), fix, diagnostic)


@dataclasses.dataclass(frozen=True, slots=True)
class Finder:
    """A function that looks for findings of some rules.

    Attributes:
        rules: The rules of its findings.
        find: The function.
    """

    rules: tuple[FindingRule, ...]
    find: Find


def finds(*rules: FindingRule) -> Callable[[Find], Finder]:
    """Declares a function as the finder of these rules."""
    return lambda find: Finder(rules, find)
