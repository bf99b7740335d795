"""Other releases of PEFT that read the configuration differently."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.rule import FindingRule, finds
from lorascope.checks.suggestions import planning_command
from lorascope.findings import Finding
from lorascope.peft_rules.differences import read_differently

VERSION_DEPENDENT = FindingRule(
    "version-dependent",
    "note",
    "other releases of PEFT read it differently",
    "An adapter loaded by another release then has other weights, ranks or shapes, or does not load.",
)


@finds(VERSION_DEPENDENT)
def find_differing_releases(context: CheckContext) -> Iterator[Finding]:
    """What other releases refuse, adapt or train that this one does not."""
    release = context.release_name
    for difference in read_differently(context.model, context.config, release, context.own_resolution):
        if context.refusal:
            fix = f"Train with that release: pip install peft=={difference.releases[-1]}"
        else:
            fix = (
                f"Pin the release (peft=={release}), or use a configuration that all releases read alike: "
                f"{planning_command(context.model)}"
            )
        yield VERSION_DEPENDENT.finding(f"PEFT {', '.join(difference.releases)}", difference.message, fix)
