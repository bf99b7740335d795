"""A recommendation as text for a terminal and as JSON: what to run first, then why, then what nobody knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.advice.evidence import Bearing, Figure, Record
from lorascope.advice.recommend import Alternative, Choice, Ground, RecipeEvidence, Recommendation
from lorascope.foreign_text import one_line, shell_word, shown
from lorascope.reports.json import plan_json
from lorascope.reports.tables import bullets, percent, short, table
from lorascope.reports.terminal import heading

Json = dict[str, Any]

_LABELS = {"learning_rate": "learning rate", "first_rate": "first rate to try", "batch": "effective batch"}


def advice_text(recommendation: Recommendation, explain: bool = False) -> str:
    """What to run, each choice with its reason and strength, what others cost, and what is not known.

    Args:
        recommendation: What to show.
        explain: With every record that a choice rests on.
    """
    task, made = recommendation.task, recommendation.plan
    whole = recommendation.model.dimensions.parameters
    trainable = made.resolution.trainable
    parts = [
        heading(recommendation.model),
        f"task {task.name}: {task.purpose}",
        "",
        f"run: {one_line(recommendation.command)}",
        f"{trainable:,} trainable parameters, {percent(trainable, whole)} of {short(whole)}",
        "",
        bullets(map(_choice_line, recommendation.choices)),
    ]
    if recommendation.warnings:
        parts += ["", "warning:", bullets(recommendation.warnings)]
    parts += ["", "instead:", _instead(recommendation)]
    parts += ["", "also:", bullets(recommendation.notes)]
    parts += ["", "nobody knows:", bullets(_unknown(recommendation))]
    if explain:
        parts += ["", *_explained(recommendation)]
    else:
        parts += ["", "the records behind each choice: --explain"]
    return shown("\n".join(parts))


def choices_text(recommendation: Recommendation) -> str:
    """Each choice, for one who has the plan and wants to know how to train it."""
    name = recommendation.task.name
    more = f"all of it: lorascope recommend {shell_word(recommendation.model.model)} --task {name}"
    parts = [f"for {name}, before what you said beside it:", bullets(map(_choice_line, recommendation.choices)), more]
    return shown("\n".join(parts))


def advice_json(recommendation: Recommendation) -> Json:
    """`recommend --json`: the choices with the ids of their claims and records, the records, and the plan."""
    return {**choices_json(recommendation), "plan": plan_json(recommendation.plan)}


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
        "unknown": list(_unknown(recommendation)),
        "records": {name: _record_json(record) for name, record in sorted(records.items())},
    }


def recipe_evidence_text(evidence: RecipeEvidence) -> str:
    """What is said for a recipe and against it, one claim a line."""
    parts = [f"{evidence.name}: {evidence.purpose}"]
    for side, grounds in (("for it, where true", evidence.pro), ("against it, where true", evidence.contra)):
        parts += [f"{side}:", bullets(f"{ground.claim.text} ({_counted(ground)})" for ground in grounds)]
    return shown("\n".join(parts))


def _choice_line(choice: Choice) -> str:
    return f"{_label(choice)} ({choice.strength}): {choice.value}: {choice.reason}"


def _label(choice: Choice) -> str:
    return _LABELS.get(choice.name, choice.name)


def _unknown(recommendation: Recommendation) -> Iterator[str]:
    """What the recommendation says is unknown, and each of its choices that rests on nothing measured."""
    yield from recommendation.unknown
    for choice in recommendation.choices:
        for ground in choice.grounds:
            if ground.strength == "untested":
                yield f"{_label(choice)}: whether it is true that: {ground.claim.text}"


def _instead(recommendation: Recommendation) -> str:
    rows = []
    for choice in recommendation.choices:
        for other in choice.otherwise:
            cost = "-" if other.trainable is None else f"{other.trainable:,}"
            ratio = "-" if other.ratio is None else f"{other.ratio:.2f}x"
            rows.append((_label(choice), _rules(other), str(other.rank), cost, ratio, _said_of(other)))
    head = ("choice", "rules", "rank", "trainable", "of the plan", "what is said of it")
    return table(head, rows, right=(2, 3, 4))


def _rules(other: Alternative) -> str:
    return " ".join([*other.rules, *(f"--exclude {selector}" for selector in other.exclude)])


def _said_of(other: Alternative) -> str:
    claims = (f"{ground.claim.id}: {ground.strength}" for ground in other.grounds)
    return "; ".join([other.note] if other.trainable is None else [*([other.note] if other.note else []), *claims])


def _all_grounds(choice: Choice) -> Iterator[Ground]:
    yield from choice.grounds
    for other in choice.otherwise:
        yield from other.grounds


def _explained(recommendation: Recommendation) -> Iterator[str]:
    """Each claim once, under the first choice that rests on it, with its records."""
    told: set[str] = set()
    for choice in recommendation.choices:
        yield f"{_label(choice)} rests on:"
        for ground in _all_grounds(choice):
            if ground.claim.id in told:
                yield bullets([f"{ground.claim.id}: see above"])
                continue
            told.add(ground.claim.id)
            yield bullets([f"{ground.claim.id}: {ground.claim.text} ({_counted(ground)})"])
            for sign, records in (("for", ground.supporting), ("against", ground.contradicting)):
                yield from (f"    {line}" for record in records for line in _record_lines(record, ground, sign))
        yield ""


def _counted(ground: Ground) -> str:
    return f"{ground.strength}: {len(ground.supporting)} for, {len(ground.contradicting)} against"


def _record_lines(record: Record, ground: Ground, sign: str) -> Iterator[str]:
    bearing = next(one for one in record.bears if one.claim == ground.claim.id)
    near = ", of something near it" if bearing.indirect else ""
    yield f"{sign} (grade {record.grade}{near}): {bearing.size}"
    yield f"    {record.title}, {record.by} {record.year}, {record.section}: {record.url}"
    yield f"    {setting_text(record)}"
    yield from (f"    {figure_text(figure)}" for figure in record.figures)
    yield f"    limits: {'; '.join(record.limits)}"


def setting_text(record: Record) -> str:
    """What was compared how, in one line."""
    said = [record.kind, f"read: {record.read}", ", ".join(record.models), record.data]
    said.append({"none": "no budgets to match"}.get(record.budget, f"budget {record.budget}"))
    said.append({"none": "no rate to tune"}.get(record.rate, f"rate {record.rate}"))
    said.append(f"runs {record.runs or 'not said'}")
    if record.spread:
        said.append(f"spread {record.spread}")
    return " · ".join(said)


def figure_text(figure: Figure) -> str:
    """A figure's numbers in one line."""
    return f"{figure.what}: {', '.join(f'{value:.10g}' for value in figure.values)} {figure.unit}"


def _choice_json(choice: Choice) -> Json:
    return {
        "name": choice.name,
        "value": choice.value,
        "reason": choice.reason,
        "strength": choice.strength,
        "claims": [_ground_json(ground) for ground in choice.grounds],
        "otherwise": [_alternative_json(other) for other in choice.otherwise],
    }


def _alternative_json(other: Alternative) -> Json:
    return {
        "rules": list(other.rules),
        "rank": other.rank,
        "exclude": list(other.exclude),
        "trainable": other.trainable,
        "ratio": other.ratio,
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
    found: list[tuple[Record, Bearing]] = [
        (record, next(one for one in record.bears if one.claim == ground.claim.id)) for record in records
    ]
    return [{"record": record.id, "size": one.size, "indirect": one.indirect} for record, one in found]


def _record_json(record: Record) -> Json:
    plain = dataclasses.asdict(record)
    del plain["bears"]
    return {**plain, "grade": record.grade}
