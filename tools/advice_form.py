"""Form of `evidence.toml` and `tasks.toml`: keys and their values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lorascope.errors import did_you_mean
from lorascope.plans.recipes import RECIPES

# Words of a record; the head of evidence.toml explains them.
_KINDS = ("measured", "shown", "derived", "stated")
_READINGS = ("full text", "abstract", "second-hand", "code", "recorded data")
_BUDGETS = ("matched", "not matched", "not reported", "none")
_RATES = ("tuned", "one for all", "not reported", "none")

_URL = re.compile(r"https://[a-z0-9.-]+\.[a-z]+/\S*")
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

# Choices with a reason for each task, and those with one for all.
_OWN = ("targets", "rank")
_SHARED = ("mixers", "experts", "alpha", "learning_rate", "first_rate", "batch", "dropout")
_HEADS = ("causal-lm", "image-text-to-text", "seq2seq-lm", "masked-lm", "sequence-classification", "unknown")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _one_of(words: tuple[str, ...]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and value in words


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


# Every key that a record must have, and what its value must be.
_NEEDED: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "id": (lambda value: isinstance(value, str) and bool(_ID.fullmatch(value)), "words joined by dashes"),
    "title": (_is_text, "a text"),
    "by": (_is_text, "a text"),
    "year": (lambda value: type(value) is int and 2015 <= value <= 2100, "a year"),
    "url": (lambda value: isinstance(value, str) and bool(_URL.fullmatch(value)), "an https address"),
    "section": (_is_text, "a text"),
    "kind": (_one_of(_KINDS), f"one of {', '.join(_KINDS)}"),
    "read": (_one_of(_READINGS), f"one of {', '.join(_READINGS)}"),
    "models": (_is_texts, "a list of texts"),
    "data": (_is_text, "a text"),
    "budget": (_one_of(_BUDGETS), f"one of {', '.join(_BUDGETS)}"),
    "rate": (_one_of(_RATES), f"one of {', '.join(_RATES)}"),
    "runs": (_is_count, "a whole number, 0 where not reported"),
    "limits": (_is_texts, "a list of texts"),
    "bears": (lambda value: isinstance(value, list) and bool(value), "a list of at least one"),
}
_OPTIONAL = ("spread", "figures")


def evidence_faults(data: Mapping[str, Any]) -> Iterator[str]:
    """Everything that is wrong with the tables of `evidence.toml`."""
    claims, records = data.get("claims"), data.get("record")
    for key in data.keys() - {"claims", "record"}:
        yield f"{key} is neither claims nor record"
    if not isinstance(claims, dict) or not isinstance(records, list):
        yield "there must be a table claims and a list of tables record"
        return
    for name, sentence in claims.items():
        if not _ID.fullmatch(name) or not _is_text(sentence):
            yield f"claim {name} is not a sentence under words joined by dashes"
    seen: set[object] = set()
    for number, row in enumerate(records):
        name = row.get("id", f"number {number}")
        if name in seen:
            yield f"record {name} is there twice"
        seen.add(name)
        yield from (f"record {name}: {fault}" for fault in _record_faults(row, claims))


def _record_faults(row: Mapping[str, Any], claims: Mapping[str, str]) -> Iterator[str]:
    for key in row.keys() - _NEEDED.keys() - set(_OPTIONAL):
        yield f"unknown key {key}"
    for key, (fits, wanted) in _NEEDED.items():
        if key not in row:
            yield f"{key} is missing"
        elif not fits(row[key]):
            yield f"{key} {row[key]!r} is not {wanted}"
    if "spread" in row and not _is_text(row["spread"]):
        yield f"spread {row['spread']!r} is not a text"
    for figure in _tables(row.get("figures", [])):
        if figure.keys() != {"what", "values", "unit"} or not _is_figure(figure):
            yield f"figure {figure} is not what, values (numbers) and unit"
    if row.get("kind") == "measured" and not row.get("figures"):
        yield "measured without figures"
    spoken: set[object] = set()
    for bearing in _tables(row.get("bears", [])):
        claim = bearing.get("claim")
        if claim not in claims:
            yield f"unknown claim {claim!r}. {did_you_mean(str(claim), claims)}".rstrip(" .")
        if claim in spoken:
            yield f"it bears twice on {claim}"
        spoken.add(claim)
        known = bearing.keys() - {"indirect"} == {"claim", "for", "size"}
        if not known or not _is_text(bearing["size"]) or not isinstance(bearing["for"], bool):
            yield f"bearing on {claim} is not claim, for (true or false) and size"


def _tables(value: object) -> list[dict[str, Any]]:
    """Tables of a list; an empty one for anything else."""
    rows = value if isinstance(value, list) else [value]
    return [row if isinstance(row, dict) else {} for row in rows]


def _is_figure(figure: Mapping[str, Any]) -> bool:
    values = figure["values"]
    numbers = isinstance(values, list) and bool(values) and all(type(value) in (int, float) for value in values)
    return numbers and all(map(math.isfinite, values)) and _is_text(figure["what"]) and _is_text(figure["unit"])


def tasks_faults(data: Mapping[str, Any], claims: Mapping[str, str]) -> Iterator[str]:
    """Everything that is wrong with the tables of `tasks.toml`."""
    for key in ("task", "recipe", "why", "alpha", "batch", "note", "hot", "capacity", "rate", "head", "only"):
        if not isinstance(data.get(key), dict):
            yield f"there is no table {key}"
            return
    for name in _SHARED:
        yield from _why_faults(claims, f"why.{name}", data["why"].get(name))
    for name in ("note", "hot", "capacity"):
        yield from _why_faults(claims, name, data[name])
    for name, row in data["task"].items():
        yield from (f"task {name}: {fault}" for fault in _task_faults(claims, row))
    for name in data["recipe"].keys() ^ RECIPES.keys():
        yield f"recipe {name} is not in both tasks.toml and recipes.py"
    for name, row in data["recipe"].items():
        for side in ("pro", "contra"):
            yield from _why_faults(claims, f"recipe {name}: {side}", {"reason": "-", "claims": row.get(side)})
    for head in data["head"].keys() - set(_HEADS):
        yield f"unknown head {head}"
    for claim, tasks in data["only"].items():
        yield from _why_faults(claims, "only", {"reason": "-", "claims": [claim]})
        yield from (f"only {claim}: unknown task {task!r}" for task in tasks if task not in data["task"])


def _task_faults(claims: Mapping[str, str], row: Mapping[str, Any]) -> Iterator[str]:
    for key in ("purpose", "recipe", "rank", "ranks", "heads", "refused", "how", "why", "unknown"):
        if key not in row:
            yield f"{key} is missing"
    if row.get("recipe") not in RECIPES:
        yield f"unknown recipe {row.get('recipe')!r}"
    ranks = (row.get("rank"), *row.get("ranks", ()), row.get("share", 1))
    yield from (f"{rank!r} is not a whole number from 1" for rank in ranks if type(rank) is not int or rank < 1)
    heads, refused = set(row.get("heads", ())), set(row.get("refused", ()))
    yield from (f"head {head} is both able and refused" for head in sorted(heads & refused))
    yield from (f"head {head} is neither able nor refused" for head in sorted(set(_HEADS) - heads - refused))
    yield from (f"unknown head {head}" for head in sorted((heads | refused | set(row.get("how", ()))) - set(_HEADS)))
    if not row.get("unknown"):
        yield "unknown is empty"
    for choice in _OWN:
        yield from _why_faults(claims, f"why.{choice}", row.get("why", {}).get(choice))


def _why_faults(claims: Mapping[str, str], where: str, row: object) -> Iterator[str]:
    if not isinstance(row, dict) or not row.get("reason") or not row.get("claims"):
        yield f"{where} has no reason, or no claims"
        return
    for claim in row["claims"]:
        if claim not in claims:
            yield f"{where}: unknown claim {claim!r}. {did_you_mean(str(claim), claims)}".rstrip(" .")
