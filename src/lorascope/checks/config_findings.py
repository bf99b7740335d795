"""All findings on one configuration, errors first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.registry import ADAPTER_FILES, CONFIGURATION, COVERAGE, REACH, RELEASES, run
from lorascope.checks.rules.refusals import REFUSED, refusal, unexplained
from lorascope.checks.suggestions import planning_command
from lorascope.findings import Finding

_SEVERITIES = ("error", "warning", "note")


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without repetitions, errors first."""
    return sorted(dict.fromkeys(findings), key=lambda finding: _SEVERITIES.index(finding.severity))


def configuration_findings(context: CheckContext) -> Iterator[Finding]:
    """The findings on a configuration, errors first; `refused` before the findings that explain it.

    Nothing that PEFT's rules report is lost: what no rule is about stands there in their own words.
    """
    findings = list(run(CONFIGURATION, context))
    findings += unexplained(context, findings)
    findings += run(RELEASES, context)
    yield from refusal(context, findings)
    yield from by_severity(findings)


def adapter_file_findings(context: CheckContext) -> Iterator[Finding]:
    """The findings on what the files of an adapter say beyond its configuration."""
    return run(ADAPTER_FILES, context)


def trainer_findings(context: CheckContext) -> Iterator[Finding]:
    """The findings on what a trainer without PEFT adapts: nothing, too much, or too little."""
    resolution = context.resolution
    if resolution.error:
        command = planning_command(context.model)
        fix = f"Name weights that the model has; lorascope export writes them from {command}"
        yield Finding(resolution.cause or REFUSED.code, "error", context.where, resolution.error, fix)
    yield from run(REACH, context)
    yield from run(COVERAGE, context.without_entries())
