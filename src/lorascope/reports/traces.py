"""Traces as text: verdicts, evidence, doubts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from lorascope.model.types import ModelMap, Trace, Weight
from lorascope.names import listed
from lorascope.plans.notes import describe_trace, label
from lorascope.reports.tables import bullets, table

Verdict = Literal["confirmed", "by dataflow only", "disagree", "ambiguous", "not executed"]
VERDICTS: tuple[Verdict, ...] = ("confirmed", "by dataflow only", "disagree", "ambiguous", "not executed")
_DOUBTS: dict[Verdict, str] = {
    "disagree": "Names and dataflow disagree:",
    "ambiguous": "Dataflow is ambiguous; the name decides:",
    "not executed": "Not executed; the name decides:",
}
_MOST_NAMES = 6


def verdict(trace: Trace) -> Verdict:
    """How a trace and the name of its weight go together."""
    if trace.disagrees:
        return "disagree"
    if trace.status == "unexecuted":
        return "not executed"
    if trace.status == "ambiguous" or trace.flow is None:
        return "ambiguous"
    return "confirmed" if trace.confidence == "high" else "by dataflow only"


def traces_text(model: ModelMap, weights: Sequence[Weight]) -> str:
    """Traces of some weights: counts of verdicts, evidence, every doubt."""
    chosen = {weight.name: weight for weight in weights}
    traces = [trace for trace in model.traces if trace.weight in chosen]
    verdicts: dict[Verdict, list[Trace]] = {each: [] for each in VERDICTS}
    for trace in traces:
        verdicts[verdict(trace)].append(trace)
    counts = [f"{len(group)} {name}" for name, group in verdicts.items()]
    untraced = len(chosen) - len(traces)
    parts = [f"traced {len(traces)} weights: {', '.join(counts)}{f'; {untraced} not traced' if untraced else ''}"]
    if settled := [*verdicts["confirmed"], *verdicts["by dataflow only"]]:
        parts += ["", _evidence(settled, chosen)]
    for name, heading in _DOUBTS.items():
        if verdicts[name]:
            parts += ["", heading, bullets(_doubts(name, verdicts[name], chosen))]
    return "\n".join(parts)


def _evidence(traces: Sequence[Trace], weights: Mapping[str, Weight]) -> str:
    """Roles that rest on the same evidence, in one row."""
    rows: dict[tuple[str, str], list[Trace]] = {}
    for same in _grouped(traces, lambda trace: (weights[trace.weight].role, verdict(trace))):
        evidence = Counter(trace.evidence for trace in same).most_common()
        more = f" (and {len(evidence) - 1} more like it)" if len(evidence) > 1 else ""
        rows.setdefault((verdict(same[0]), f"{evidence[0][0]}{more}"), []).extend(same)
    lines = []
    for (name, evidence_text), same in rows.items():
        roles = dict.fromkeys(label(weights[trace.weight]) for trace in same)
        lines.append((", ".join(roles), str(len(same)), name, evidence_text))
    return table(("roles", "count", "verdict", "evidence"), lines, right=(1,))


def _doubts(name: Verdict, traces: Sequence[Trace], weights: Mapping[str, Weight]) -> Iterable[str]:
    for same in _grouped(traces, lambda trace: (trace.named, trace.guess, trace.flow, trace.evidence)):
        first = same[0]
        names = listed((trace.weight for trace in same), _MOST_NAMES)
        kept = f"; listed as {label(weights[first.weight])}" if name == "disagree" else ""
        yield f"{names} ({len(same)}): {describe_trace(first)}{kept}: {first.evidence}"


def _grouped(traces: Iterable[Trace], key: Callable[[Trace], object]) -> list[list[Trace]]:
    groups: dict[object, list[Trace]] = {}
    for trace in traces:
        groups.setdefault(key(trace), []).append(trace)
    return list(groups.values())
