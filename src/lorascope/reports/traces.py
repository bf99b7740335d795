"""What a forward pass showed, as text for a terminal: how many weights stand how, what roles rest on, what is open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from lorascope.model.types import ModelMap, Trace, Weight
from lorascope.names import listed
from lorascope.plans.notes import describe_trace, label
from lorascope.reports.tables import bullets, table

BOTH, FLOW = "by both", "only by dataflow"
DISAGREE, AMBIGUOUS, UNEXECUTED = "disagree", "ambiguous", "not executed"
STANDINGS = (BOTH, FLOW, DISAGREE, AMBIGUOUS, UNEXECUTED)

_HEADINGS = {
    DISAGREE: "names and dataflow disagree:",
    AMBIGUOUS: "dataflow leaves open, so that the name decides:",
    UNEXECUTED: "no call reached these, so that the name decides:",
}
_MOST_NAMES = 6


def standing(trace: Trace) -> str:
    """Which of `STANDINGS` a trace has."""
    if trace.disagrees:
        return DISAGREE
    if trace.status == "unexecuted":
        return UNEXECUTED
    if trace.status == "ambiguous" or trace.flow is None:
        return AMBIGUOUS
    return BOTH if trace.confidence == "high" else FLOW


def traces_text(model: ModelMap, weights: Sequence[Weight]) -> str:
    """The traces of some of a map's weights.

    The first line counts them by how they stand. A table says what roles rest on, and lists say of all others what
    the name says, what dataflow says, and what was seen.
    """
    chosen = {weight.name: weight for weight in weights}
    traces = [trace for trace in model.traces if trace.weight in chosen]
    standings: dict[str, list[Trace]] = {one: [] for one in STANDINGS}
    for trace in traces:
        standings[standing(trace)].append(trace)
    counts = [f"{len(found)} {one}" for one, found in standings.items()]
    missing = len(chosen) - len(traces)
    parts = [", ".join([f"traced: {len(traces)} weights", *counts, *([f"{missing} left out"] if missing else [])])]
    rows: dict[tuple[str, str], list[Trace]] = {}
    for same in _grouped([*standings[BOTH], *standings[FLOW]], lambda one: (chosen[one.weight].role, standing(one))):
        seen = Counter(trace.evidence for trace in same).most_common()
        more = f" (and {len(seen) - 1} more like it)" if len(seen) > 1 else ""
        rows.setdefault((standing(same[0]), f"{seen[0][0]}{more}"), []).extend(same)
    if rows:
        lines = []
        for (known, evidence), same in rows.items():
            roles = dict.fromkeys(label(chosen[trace.weight]) for trace in same)
            lines.append((", ".join(roles), str(len(same)), known, evidence))
        parts += ["", table(("roles", "weights", "known", "evidence"), lines, right=(1,))]
    for one, heading in _HEADINGS.items():
        doubts = []
        for same in _grouped(standings[one], lambda trace: (trace.named, trace.guess, trace.flow, trace.evidence)):
            names = listed((trace.weight for trace in same), _MOST_NAMES)
            kept = f"; listed as {label(chosen[same[0].weight])}" if one == DISAGREE else ""
            doubts.append(f"{names} ({len(same)}): {describe_trace(same[0])}{kept}: {same[0].evidence}")
        if doubts:
            parts += ["", heading, bullets(doubts)]
    return "\n".join(parts)


def _grouped(traces: Iterable[Trace], key: Callable[[Trace], object]) -> list[list[Trace]]:
    groups: dict[object, list[Trace]] = {}
    for trace in traces:
        groups.setdefault(key(trace), []).append(trace)
    return list(groups.values())
