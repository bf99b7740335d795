"""All findings on one configuration, errors first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.registry import ADAPTER_FILES, CONFIGURATION, COVERAGE, MAP, REACH, RELEASES, apply_rules
from lorascope.checks.rules.refusals import REFUSED, explain_refusal, report_unexplained
from lorascope.checks.suggestions import planning_command
from lorascope.findings import SEVERITIES, Finding


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without repetitions, errors first."""
    return sorted(dict.fromkeys(findings), key=lambda finding: SEVERITIES.index(finding.severity))


def map_findings(context: CheckContext) -> Iterator[Finding]:
    """The findings on the map itself, before all others."""
    return apply_rules(MAP, context)


def configuration_findings(context: CheckContext) -> Iterator[Finding]:
    """The findings on a configuration: `refused`, then errors, warnings, notes.

    Nothing that PEFT's rules report is lost: what no rule is about stands there in their own words.
    """
    findings = list(apply_rules(CONFIGURATION, context))
    findings += report_unexplained(context, findings)
    findings += apply_rules(RELEASES, context)
    yield from explain_refusal(context, findings)
    yield from by_severity(findings)


def adapter_file_findings(context: CheckContext) -> Iterator[Finding]:
    """The findings on an adapter's files, beyond its configuration."""
    return apply_rules(ADAPTER_FILES, context)


def trainer_findings(context: CheckContext) -> Iterator[Finding]:
    """The findings on what a trainer without PEFT adapts."""
    if context.refusal:
        command = planning_command(context.model)
        fix = context.refusal.values.get("fix") or (
            f"Name weights that the model has; lorascope export writes them from {command}"
        )
        code, message = context.refusal.code or REFUSED.code, str(context.refusal)
        yield Finding(code, "error", context.where, message, fix, context.refusal)
    yield from apply_rules(REACH, context)
    yield from apply_rules(COVERAGE, context.without_entries())
