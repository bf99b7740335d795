"""Checks and servers' answers as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

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
from lorascope.reports.findings import SIGNS, findings_text, gaps_text
from lorascope.reports.model import heading
from lorascope.reports.tables import bullets, table
from lorascope.servers.types import Serving

# Names of one row; more of them are counted.
_MOST_NAMED = 6


def check_text(check: Check) -> str:
    """A check: gaps of the map, what is adapted by role, its share, the findings, the server."""
    resolution, parameters = check.resolution, check.model.dimensions.parameters
    rules = check.trainer or f"PEFT {check.peft}"
    if check.trainer and check.peft:
        rules = f"{check.trainer}, PEFT {check.peft}"
    findings = [finding for finding in check.findings if finding.code not in GAP_CODES]
    parts = [*gaps_text(check.model), heading(check.model)]
    parts += [f"checked: {one_line(check.subject)} (by the rules of {rules})", _verdict(check), ""]
    if resolution.adapted:
        parts += [_adapted(check), ""]
    share = percent(resolution.trainable, parameters)
    parts.append(f"{resolution.trainable:,} trainable parameters, {share} of {count_text(parameters)}")
    if resolution.saved:
        parts.append(f"trained in full: {one_line(listed(resolution.saved, _MOST_NAMED))}")
    parts += _coverage(check)
    if findings:
        parts += ["", *findings_text(findings, check.subject)]
    if check.serving is not None:
        parts += ["", serving_text(check.serving)]
    return shown("\n".join(parts))


def serving_text(serving: Serving) -> str:
    """What a server does with an adapter: the verdict, then each answer."""
    verb = {"yes": "supports", "no": "does not support", "depends": "may support"}[serving.answer]
    lines = [f"{serving.title} {verb} the adapter"]
    if serving.flags:
        lines.append(f"start it with: {one_line(' '.join(serving.flags))}")
    answers = (f"{item.question}: {item.answer}: {item.reason} ({item.source})" for item in serving.answers)
    return shown("\n".join([*lines, bullets(answers)]))


def _verdict(check: Check) -> str:
    """How many findings there are of each severity: `✗ 1 error, 2 warnings`."""
    counts = Counter(finding.severity for finding in check.findings)
    parts = [f"{counts[word]} {word}{'s' if counts[word] > 1 else ''}" for word in SEVERITIES if counts[word]]
    worst: Severity = next((word for word in SEVERITIES if counts[word]), "note")
    sign = "✓" if worst == "note" else SIGNS[worst]
    return f"{sign} {', '.join(parts) or 'nothing to report'}"


def _adapted(check: Check) -> str:
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
    return table(("role", "count", "rank", "scale", "trainable", "names"), rows, right=(1, 2, 3, 4))


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
