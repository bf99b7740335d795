"""PEFT's refusals, and reports that no other rule explains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.phrases import joined
from lorascope.checks.released_targets import excluded_elsewhere
from lorascope.checks.rule import FindingRule
from lorascope.checks.rules.exclusions import EXCLUDE_UNMATCHED
from lorascope.checks.suggestions import planning_command
from lorascope.findings import Finding
from lorascope.plans.map_gaps import GAP_CODES

REFUSED = FindingRule(
    "refused",
    "error",
    "PEFT, or the trainer, raises",
    "Nothing is trained; the findings after it say what to change.",
)

# What the rules report of every such configuration, and a finding says only where it matters: where a parameter escapes
# the layers or the exclusions, where a name that is not the model's own is dropped with others, and where the rewrite
# changed what is adapted.
_ONLY_WHERE_IT_MATTERS = frozenset({"layers-dropped", "layers-ignored", "moe-rewrite"})
# What the check says first, before it looks at the configuration.
_OF_THE_MAP = frozenset(GAP_CODES)
# Codes of the rules that findings have under more special ones.
_MORE_SPECIAL = {"no-match": ("regex-in-list", "string-not-list"), "pattern-unmatched": ("pattern-prefix",)}


def explain_refusal(context: CheckContext, findings: Iterable[Finding]) -> Iterator[Finding]:
    """That PEFT raises, and which findings explain it."""
    if not context.refusal:
        return
    codes = dict.fromkeys(finding.code for finding in findings if finding.severity == "error")
    # Some findings are the refusal, with what to do.
    repeated = any(finding.diagnostic == context.refusal for finding in findings)
    message = "PEFT refuses the configuration." if repeated else f"PEFT raises: {context.refusal}"
    fix = f"Start from: {planning_command(context.model)}"
    if codes:
        fix = f"For the fix, see {joined(codes)} below."
    yield REFUSED.finding(context.where, message, fix)


def report_unexplained(context: CheckContext, findings: Iterable[Finding]) -> Iterator[Finding]:
    """What PEFT does silently and no other finding covers."""
    codes = {finding.code for finding in findings}
    exclude = context.config.exclude_modules
    for warning in context.resolution.warnings:
        if warning.code in _ONLY_WHERE_IT_MATTERS | _OF_THE_MAP:
            continue
        if warning.code == EXCLUDE_UNMATCHED.code and exclude and excluded_elsewhere(context, exclude):
            continue
        if not codes & {warning.code, *_MORE_SPECIAL.get(warning.code, ())}:
            fix = f"Write what you mean, or generate it: {planning_command(context.model)}"
            where = ", ".join(warning.names[:3]) or context.where
            yield Finding(warning.code, "warning", where, str(warning), fix, warning)
