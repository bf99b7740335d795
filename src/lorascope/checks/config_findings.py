"""Everything that a configuration's own settings give to say, in order of consequence."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import Case
from lorascope.checks.entries import asked_targets
from lorascope.checks.rules.coverage import coverage_findings
from lorascope.checks.rules.entries import entry_findings
from lorascope.checks.rules.layers import layer_findings
from lorascope.checks.rules.modules_to_save import saved_findings
from lorascope.checks.rules.moe_rewrite import rewrite_findings
from lorascope.checks.rules.options import option_findings
from lorascope.checks.rules.ranks import size_findings
from lorascope.checks.rules.rare_options import rare_option_findings
from lorascope.checks.rules.reach import reach_findings
from lorascope.checks.rules.releases import version_findings
from lorascope.checks.rules.unmatched import planning_command, unmatched_findings
from lorascope.findings import Finding

_ORDER = {"error": 0, "warning": 1, "note": 2}


def configuration_findings(case: Case) -> Iterator[Finding]:
    """The findings on a configuration, errors first; `refused` before the findings that explain it.

    Nothing that PEFT's rules report is lost: what no room speaks of is told in their own words.
    """
    asked = asked_targets(case)
    found: list[Finding] = []
    for room in (
        unmatched_findings,
        entry_findings,
        option_findings,
        rare_option_findings,
        size_findings,
        layer_findings,
        rewrite_findings,
        reach_findings,
        coverage_findings,
        saved_findings,
    ):
        found += room(case, asked)
    codes = {finding.code for finding in found}
    for one in case.resolution.warnings:
        if one.code not in _ONLY_WHERE_IT_MATTERS and not codes & {one.code, *_TOLD_AS.get(one.code, ())}:
            fix = f"Write what is meant: {planning_command(case)} gives the form."
            found.append(Finding(one.code, "warning", ", ".join(one.names[:3]) or case.where, one.message, fix))
    found += version_findings(case)
    found = list(dict.fromkeys(found))
    if case.resolution.error:
        explaining = list(dict.fromkeys(finding.code for finding in found if finding.severity == "error"))
        fix = f"Start from: {planning_command(case)}"
        message = f"PEFT raises: {case.resolution.error}"
        if explaining:
            fix = f"What to do is said with {' and '.join(explaining)}."
        if any(case.resolution.error in finding.message for finding in found):
            message = "PEFT refuses the configuration."
        yield Finding("refused", "error", case.where, message, fix)
    yield from sorted(found, key=lambda finding: _ORDER[finding.severity])


def trainer_findings(case: Case) -> Iterator[Finding]:
    """The findings on what a trainer adapts that does not use PEFT: that it is nothing, too much, or too little."""
    asked = asked_targets(case)
    if case.resolution.error:
        fix = f"Name weights that there are: lorascope export writes them from {planning_command(case)}"
        yield Finding(case.resolution.cause or "refused", "error", case.where, case.resolution.error, fix)
    yield from reach_findings(case, asked)
    yield from coverage_findings(case, dataclasses.replace(asked, form="none", modules=(), parameters=()))


# What the rules report of every such configuration, and a finding says only where it matters: where a parameter escapes
# the layers or the exclusions, where a name that is not the model's own is dropped beside others, and where the rewrite
# changed what is adapted.
_ONLY_WHERE_IT_MATTERS = frozenset({"layers-dropped", "layers-ignored", "moe-rewrite"})
# Codes of the rules that findings tell under more special ones.
_TOLD_AS = {"no-match": ("regex-in-list", "string-not-list"), "pattern-unmatched": ("pattern-prefix",)}
