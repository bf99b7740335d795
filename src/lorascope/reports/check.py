"""Checks and servers' answers as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.types import Check
from lorascope.findings import SEVERITIES, Severity
from lorascope.foreign_text import one_line, shown
from lorascope.names import listed
from lorascope.number_text import count_text, percent
from lorascope.peft_rules.addresses import weight_of
from lorascope.peft_rules.types import Adapted
from lorascope.plans.map_gaps import GAP_CODES
from lorascope.plans.notes import label
from lorascope.plans.rules import covered_blocks
from lorascope.reports.findings import SIGNS, findings_text, folded_findings, gaps_text
from lorascope.reports.model import heading
from lorascope.reports.tables import bullets, table
from lorascope.servers.types import Serving

# Names of one row; more of them are counted.
_MOST_NAMED = 6
# Lines of a check that is not asked for whole, and rows of its table that are shown whatever the findings need.
_MOST_LINES = 30
_LEAST_ROWS = 6
_FEWEST_ROWS = 3  # the head, a row, and the number of the others
_MOST_OF_A_SERVER = 7


def check_text(check: Check, *, everything: bool = False) -> str:
    """A check: the verdict, what is trained, the findings, the modules by role, the server.

    Args:
        check: The check.
        everything: All of it; otherwise findings are folded by kind and rows cut, so that 30 lines are enough.
    """
    findings = [finding for finding in check.findings if finding.code not in GAP_CODES]
    rows = _adapted(check) if check.resolution.adapted else []
    serving = ["", *_serving_lines(check.serving, everything)] if check.serving else []
    top = [*gaps_text(check.model), *_heading(check)]
    if everything:
        found = "\n".join(findings_text(findings, check.subject)).splitlines()
    else:
        room = _MOST_LINES - sum(part.count("\n") + 1 for part in (*top, *serving)) - 2
        found = folded_findings(findings, check.subject, room - min(len(rows), _LEAST_ROWS))
        rows = _cut(rows, room - len(found))
    parts = [*top, *(["", *found] if found else []), *(["", *rows] if rows else []), *serving]
    return shown("\n".join(parts))


def _heading(check: Check) -> Iterator[str]:
    """The verdict, the model, what was checked, and what is trained."""
    resolution, parameters = check.resolution, check.model.dimensions.parameters
    rules = check.trainer or f"PEFT {check.peft}"
    if check.trainer and check.peft:
        rules = f"{check.trainer}, PEFT {check.peft}"
    yield _verdict(check)
    yield heading(check.model)
    yield f"checked: {one_line(check.subject)} (by the rules of {rules})"
    share = percent(resolution.trainable, parameters)
    yield f"{resolution.trainable:,} trainable parameters, {share} of {count_text(parameters)}"
    if resolution.saved:
        yield f"trained in full: {one_line(listed(resolution.saved, _MOST_NAMED))}"
    yield from _coverage(check)


def _cut(rows: list[str], most: int) -> list[str]:
    """The head and first rows of a table, and the number of the others."""
    if len(rows) <= most:
        return rows
    if most < _FEWEST_ROWS:
        return [f"… {len(rows) - 1} rows of adapted modules (--all shows them)"]
    return [*rows[: most - 1], f"… and {len(rows) - most + 1} more rows (--all shows them)"]


def _serving_lines(serving: Serving, everything: bool) -> list[str]:
    """What a server does; unless all is wanted, without the answers that are yes."""
    if everything:
        return serving_text(serving).splitlines()
    worse = tuple(answer for answer in serving.answers if answer.answer != "yes")
    lines = serving_text(dataclasses.replace(serving, answers=worse)).splitlines()
    if len(lines) <= _MOST_OF_A_SERVER:
        return lines
    return [*lines[: _MOST_OF_A_SERVER - 1], "… (--all shows the whole answer)"]


def serving_text(serving: Serving) -> str:
    """What a server does with an adapter: the verdict, then each answer."""
    verb = {"yes": "supports", "no": "does not support", "depends": "may support"}[serving.answer]
    lines = [f"{serving.title} {verb} the adapter"]
    if serving.flags:
        lines.append(f"start it with: {one_line(' '.join(serving.flags))}")
    answers = [f"{item.question}: {item.answer}: {item.reason} ({item.source})" for item in serving.answers]
    return shown("\n".join([*lines, *([bullets(answers)] if answers else [])]))


def _verdict(check: Check) -> str:
    """How many findings there are of each severity: `✗ 1 error, 2 warnings`."""
    counts = Counter(finding.severity for finding in check.findings)
    parts = [f"{counts[word]} {word}{'s' if counts[word] > 1 else ''}" for word in SEVERITIES if counts[word]]
    worst: Severity = next((word for word in SEVERITIES if counts[word]), "note")
    sign = "✓" if worst == "note" else SIGNS[worst]
    return f"{sign} {', '.join(parts) or 'nothing to report'}"


def _adapted(check: Check) -> list[str]:
    """The adapted modules by role, rank and scale: the lines of a table."""
    groups: dict[tuple[str, int, float], list[Adapted]] = {}
    for adapted in check.resolution.adapted:
        weight = weight_of(check.model, adapted.name)
        groups.setdefault((label(weight) if weight else "?", adapted.rank, adapted.scale), []).append(adapted)
    rows = [
        (
            role,
            str(len(weights)),
            str(rank),
            f"{scale:.4g}",
            f"{sum(adapted.trainable for adapted in weights):,}",
            listed((adapted.name for adapted in weights), _MOST_NAMED),
        )
        for (role, rank, scale), weights in groups.items()
    ]
    head = ("role", "count", "rank", "scale", "trainable", "names")
    return table(head, rows, right=(1, 2, 3, 4)).splitlines()


def _coverage(check: Check) -> Iterator[str]:
    """How much of each block of the model itself is adapted, by the size of the weights."""
    names = {weight.name for one in check.resolution.adapted if (weight := weight_of(check.model, one.name))}
    blocks = covered_blocks(check.model, names)
    shares = [
        f"{percent(covered, size)} of the {'FFN' if block == 'ffn' else block}"
        for block, (covered, size) in blocks.items()
    ]
    if shares and names:
        yield f"adapted: {', '.join(shares)} (share of its parameters)"
