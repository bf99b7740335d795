"""Other releases of PEFT that read the configuration differently."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import Case
from lorascope.checks.rules.unmatched import planning_command
from lorascope.findings import Finding
from lorascope.peft_rules.differences import read_differently
from lorascope.peft_rules.releases import NEWEST


def version_findings(case: Case) -> Iterator[Finding]:
    """`version-dependent`."""
    peft = case.peft or NEWEST
    for difference in read_differently(case.model, case.config, peft):
        if case.resolution.error:
            fix = f"Train with that release: pip install peft=={difference.releases[-1]}"
        else:
            fix = f"Say which PEFT the adapter is for (peft=={peft}), or let one be written that all read alike: {planning_command(case)}"
        yield Finding("version-dependent", "note", f"PEFT {', '.join(difference.releases)}", difference.message, fix)
