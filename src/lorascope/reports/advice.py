"""Recommendations as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lorascope.advice.evidence import Figure, Record
from lorascope.advice.types import Alternative, Choice, Ground, RecipeEvidence, Recommendation
from lorascope.foreign_text import one_line, shell_word, shown
from lorascope.number_text import count_text, percent
from lorascope.plans.notes import GUESSED_ROLE, NAMES_ONLY, TRACED_DOUBT
from lorascope.reports.findings import gaps_json, gaps_text
from lorascope.reports.json import SCHEMA, plan_json
from lorascope.reports.model import heading
from lorascope.reports.tables import bullets, table

Json = dict[str, Any]

_LABELS = {"learning_rate": "learning rate", "first_rate": "first learning rate", "batch": "effective batch size"}
_DOUBTS = (NAMES_ONLY, GUESSED_ROLE, TRACED_DOUBT)
_KINDS = {"shown": "read off a plot"}
_BUDGETS = {"none": "no budgets to match"}
_RATES = {
    "none": "no learning rate to tune",
    "tuned": "learning rates tuned",
    "one for all": "one learning rate for all",
    "not reported": "learning rates not reported",
}


def advice_text(recommendation: Recommendation, explain: bool = False) -> str:
    """Command, reasons, alternatives and open questions.

    Args:
        recommendation: The recommendation.
        explain: Add every source that a choice rests on.
    """
    task = recommendation.task
    trainable, total = recommendation.plan.resolution.trainable, recommendation.model.dimensions.parameters
    parts = [
        *gaps_text(recommendation.model),
        heading(recommendation.model),
        f"task {task.name}: {task.purpose}",
        "",
        f"run: {one_line(recommendation.command)}",
        f"{trainable:,} trainable parameters, {percent(trainable, total)} of {count_text(total)}",
        "",
        "why:",
        bullets(map(_choice_line, recommendation.choices)),
    ]
    if recommendation.warnings:
        parts += ["", "warning:", bullets(recommendation.warnings)]
    parts += ["", "alternatives:", _alternatives_table(recommendation)]
    parts += ["", "good to know:", bullets([*_doubts(recommendation), *recommendation.notes])]
    parts += ["", "untested:", bullets(_untested(recommendation))]
    if explain:
        parts += ["", *_sources(recommendation)]
    else:
        parts += ["", "sources for each choice: --explain"]
    return shown("\n".join(parts))


def choices_text(recommendation: Recommendation) -> str:
    """Each choice with its reason, to go with a plan."""
    name = recommendation.task.name
    return shown(
        "\n".join(
            [
                f"Why these settings (task: {name}; your own flags win):",
                bullets(map(_choice_line, recommendation.choices)),
                f"More: lorascope recommend {shell_word(recommendation.model.model)} --task {name}",
            ]
        )
    )


def advice_json(recommendation: Recommendation) -> Json:
    """`recommend --json`: the choices, their records, and the plan."""
    gaps = gaps_json(recommendation.model)
    return {"schema": SCHEMA, "gaps": gaps, **choices_json(recommendation), "plan": plan_json(recommendation.plan)}


def choices_json(recommendation: Recommendation) -> Json:
    """The same without the plan."""
    records: dict[str, Record] = {}
    for choice in recommendation.choices:
        for ground in _all_grounds(choice):
            records.update({record.id: record for record in (*ground.supporting, *ground.contradicting)})
    return {
        "task": recommendation.task.name,
        "command": recommendation.command,
        "rules": list(recommendation.rules),
        "rank": recommendation.rank,
        "alpha": recommendation.alpha,
        "choices": [_choice_json(choice) for choice in recommendation.choices],
        "warnings": list(recommendation.warnings),
        "notes": list(recommendation.notes),
        "unknown": list(_untested(recommendation)),
        "records": {name: _record_json(record) for name, record in sorted(records.items())},
    }


def recipe_evidence_text(evidence: RecipeEvidence) -> str:
    """Claims for and against a recipe, one a line."""
    parts = [f"{evidence.name}: {evidence.purpose}"]
    for verdict, grounds in (("supports", evidence.pro), ("contradicts", evidence.contra)):
        parts += [f"{verdict} it, if true:", bullets(f"{ground.claim.text} ({_counts(ground)})" for ground in grounds)]
    return shown("\n".join(parts))


def _choice_line(choice: Choice) -> str:
    note = f" ({choice.note})" if choice.note else ""
    return f"{_label(choice)} ({choice.strength}): {choice.value}{note}: {choice.reason}"


def _label(choice: Choice) -> str:
    return _LABELS.get(choice.name, choice.name)


def _doubts(recommendation: Recommendation) -> Iterator[str]:
    """Notes on modules whose role or kind is in doubt."""
    return (str(note) for note in recommendation.plan.notes if note.reason in _DOUBTS)


def _untested(recommendation: Recommendation) -> Iterator[str]:
    """Open questions, and each choice that rests on nothing measured."""
    yield from recommendation.unknown
    for choice in recommendation.choices:
        if any(ground.strength == "untested" for ground in choice.grounds):
            yield f"{_label(choice)} {choice.value} (no study found)"


def _alternatives_table(recommendation: Recommendation) -> str:
    rows = []
    for choice in recommendation.choices:
        for other in choice.alternatives:
            trainable = "-" if other.trainable is None else f"{other.trainable:,}"
            ratio = "-" if other.ratio is None else f"{other.ratio:.2f}x"
            rows.append((_label(choice), _rules(other), str(other.rank), trainable, ratio, _evidence(other)))
    head = ("choice", "rules", "rank", "trainable", "of the plan", "evidence")
    return table(head, rows, right=(2, 3, 4))


def _rules(other: Alternative) -> str:
    return " ".join([*other.rules, *(f"--exclude {selector}" for selector in other.exclude)])


def _evidence(other: Alternative) -> str:
    if other.refusal:
        return f"not possible: {other.refusal}"
    claims = (f"{ground.claim.id}: {ground.strength}" for ground in other.grounds)
    return "; ".join([*([other.note] if other.note else []), *claims])


def _all_grounds(choice: Choice) -> Iterator[Ground]:
    yield from choice.grounds
    for other in choice.alternatives:
        yield from other.grounds


def _sources(recommendation: Recommendation) -> Iterator[str]:
    """Each claim once with its records, under its first choice."""
    listed: set[str] = set()
    for choice in recommendation.choices:
        yield f"{_label(choice)} rests on:"
        for ground in _all_grounds(choice):
            if ground.claim.id in listed:
                yield bullets([f"{ground.claim.id}: see above"])
                continue
            listed.add(ground.claim.id)
            yield bullets([f"{ground.claim.id}: {ground.claim.text} ({_counts(ground)})"])
            for verdict, records in (("supports", ground.supporting), ("contradicts", ground.contradicting)):
                yield from (f"    {line}" for record in records for line in _record_lines(record, ground, verdict))
        yield ""


def _counts(ground: Ground) -> str:
    return f"{ground.strength}: {len(ground.supporting)} for, {len(ground.contradicting)} against"


def _record_lines(record: Record, ground: Ground, verdict: str) -> Iterator[str]:
    bearing = next(item for item in record.bears if item.claim == ground.claim.id)
    yield f"{verdict} (grade {record.grade}{', indirect' if bearing.indirect else ''}): {bearing.size}"
    yield f"    {record.title}, {record.by} {record.year}, {record.section}: {record.url}"
    yield f"    {setting_text(record)}"
    yield from (f"    {figure_text(figure)}" for figure in record.figures)
    yield f"    limits: {'; '.join(record.limits)}"


def setting_text(record: Record) -> str:
    """Setting of a comparison, in one line."""
    parts = [_KINDS.get(record.kind, record.kind), f"read: {record.read}", ", ".join(record.models), record.data]
    parts.append(_BUDGETS.get(record.budget, f"budgets {record.budget}"))
    parts.append(_RATES[record.rate])
    parts.append(f"runs {record.runs or 'not reported'}")
    if record.spread:
        parts.append(f"spread {record.spread}")
    return " · ".join(parts)


def figure_text(figure: Figure) -> str:
    """Numbers of a figure, in one line."""
    return f"{figure.what}: {', '.join(f'{value:.10g}' for value in figure.values)} {figure.unit}"


def _choice_json(choice: Choice) -> Json:
    return {
        "name": choice.name,
        "value": choice.value,
        "note": choice.note or None,
        "reason": choice.reason,
        "strength": choice.strength,
        "claims": [_ground_json(ground) for ground in choice.grounds],
        "alternatives": [_alternative_json(other) for other in choice.alternatives],
    }


def _alternative_json(other: Alternative) -> Json:
    return {
        "rules": list(other.rules),
        "rank": other.rank,
        "exclude": list(other.exclude),
        "trainable": other.trainable,
        "ratio": other.ratio,
        "refusal": other.refusal or None,
        "note": other.note or None,
        "claims": [_ground_json(ground) for ground in other.grounds],
    }


def _ground_json(ground: Ground) -> Json:
    return {
        "id": ground.claim.id,
        "claim": ground.claim.text,
        "strength": ground.strength,
        "for": _bearings(ground.supporting, ground),
        "against": _bearings(ground.contradicting, ground),
    }


def _bearings(records: Sequence[Record], ground: Ground) -> list[Json]:
    pairs = [(record, next(item for item in record.bears if item.claim == ground.claim.id)) for record in records]
    return [{"record": record.id, "size": item.size, "indirect": item.indirect} for record, item in pairs]


def _record_json(record: Record) -> Json:
    return {
        "id": record.id,
        "title": record.title,
        "by": record.by,
        "year": record.year,
        "url": record.url,
        "section": record.section,
        "kind": record.kind,
        "read": record.read,
        "models": record.models,
        "data": record.data,
        "budget": record.budget,
        "rate": record.rate,
        "runs": record.runs,
        "spread": record.spread,
        "limits": record.limits,
        "figures": [{"what": item.what, "values": item.values, "unit": item.unit} for item in record.figures],
        "grade": record.grade,
    }
