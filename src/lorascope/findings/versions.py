"""Other releases of PEFT that read the configuration differently."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.compiling import NEWEST
from lorascope.findings.case import Case
from lorascope.findings.unmatched import planning_command
from lorascope.peft_rules.releases import read_differently
from lorascope.records import Finding


def version_findings(case: Case) -> Iterator[Finding]:
    """`version-dependent`."""
    peft = case.peft or NEWEST
    for difference in read_differently(case.model, case.config, peft):
        if case.resolution.error:
            fix = f"Train with that release: pip install peft=={difference.releases[-1]}"
        else:
            fix = f"Say which PEFT the adapter is for (peft=={peft}), or let one be written that all read alike: {planning_command(case)}"
        yield Finding("version-dependent", "note", f"PEFT {', '.join(difference.releases)}", difference.message, fix)
