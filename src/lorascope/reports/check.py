"""A check, and what a server takes, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.types import Check
from lorascope.foreign_text import one_line, shown
from lorascope.names import listed
from lorascope.number_text import count_text, percent
from lorascope.peft_rules.addresses import weight_of
from lorascope.peft_rules.types import Adapted
from lorascope.plans.notes import label
from lorascope.plans.rules import covered_blocks
from lorascope.reports.model import heading
from lorascope.reports.tables import bullets, table
from lorascope.servers.types import Serving

# Names of one row; more of them are counted.
_MOST_NAMED = 6


def check_text(check: Check) -> str:
    """What is adapted, by role, how much of the model that is, the findings, and what a server takes."""
    resolution = check.resolution
    by = (
        f"{check.trainer}, PEFT {check.peft}" if check.trainer and check.peft else check.trainer or f"PEFT {check.peft}"
    )
    parts = [heading(check.model), f"checked: {one_line(check.subject)} (by the rules of {by})", ""]
    if resolution.adapted:
        parts += [_adapted(check), ""]
    total = percent(resolution.trainable, check.model.dimensions.parameters)
    parts.append(
        f"{resolution.trainable:,} trainable parameters, {total} of {count_text(check.model.dimensions.parameters)}"
    )
    if resolution.saved:
        parts.append(f"trained in full: {one_line(listed(resolution.saved, _MOST_NAMED))}")
    parts += list(_coverage(check))
    if check.findings:
        parts += ["", bullets(_findings(check))]
    else:
        parts += ["", "nothing to report"]
    if check.serving is not None:
        parts += ["", serving_text(check.serving)]
    return shown("\n".join(parts))


def serving_text(serving: Serving) -> str:
    """The answers on a server, worst first said in one line."""
    said = {"yes": "loads it", "no": "does not take it", "depends": "may take it"}[serving.answer]
    lines = [f"{serving.server} {serving.release} {said}"]
    if serving.flags:
        lines.append(f"start it with: {one_line(' '.join(serving.flags))}")
    answers = (f"{one.question}: {one.answer}: {one.reason} ({one.source})" for one in serving.answers)
    return shown("\n".join([*lines, bullets(answers)]))


def _findings(check: Check) -> Iterator[str]:
    for one in check.findings:
        where = "" if one.where == check.subject else f"{one.where}: "
        fix = f" → {one.fix}" if one.fix else ""
        yield f"{one.severity} ({one.code}): {where}{one.message}{fix}"


def _adapted(check: Check) -> str:
    groups: dict[tuple[str, int, float], list[Adapted]] = {}
    for one in check.resolution.adapted:
        weight = weight_of(check.model, one.name)
        groups.setdefault((label(weight) if weight else "?", one.rank, one.scale), []).append(one)
    rows = [
        (
            role,
            str(len(ones)),
            str(rank),
            f"{scale:.4g}",
            f"{sum(one.trainable for one in ones):,}",
            listed((one.name for one in ones), _MOST_NAMED),
        )
        for (role, rank, scale), ones in groups.items()
    ]
    return table(("role", "weights", "rank", "scale", "trainable", "names"), rows, right=(1, 2, 3, 4))


def _coverage(check: Check) -> Iterator[str]:
    """How much of each block of the model itself is adapted, by the size of the weights."""
    hit = {weight.name for one in check.resolution.adapted if (weight := weight_of(check.model, one.name))}
    blocks = covered_blocks(check.model, hit)
    shares = [f"{percent(covered, size)} of the {block}" for block, (covered, size) in blocks.items()]
    if shares and hit:
        yield f"adapted: {', '.join(shares)} (share of its parameters)"
