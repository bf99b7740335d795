"""What is known: claims about adapters, the records that bear on them, and how strong that makes a claim.

Both are data (`data/evidence.toml`). Nothing there is a measurement of lorascope's own, but for one marked simulation.
"""

from __future__ import annotations

import functools
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError, did_you_mean

# A path, not importlib.resources, which takes a tenth of the time that a whole command does.
_FILE = Path(__file__).parent.parent / "data" / "evidence.toml"

# From the best to the worst ground for a choice, see `strength_of`.
Strength = Literal["strong", "moderate", "weak", "contested", "untested", "contradicted"]
STRENGTHS: tuple[Strength, ...] = get_args(Strength)

# What the words of a record may be; the head of the file says what they mean.
KINDS = ("measured", "shown", "derived", "stated")
READINGS = ("full text", "abstract", "notes of others", "code", "recorded data")
BUDGETS = ("matched", "not matched", "not said", "none")
RATES = ("tuned", "one for all", "not said", "none")

_URL = re.compile(r"https://[a-z0-9.-]+\.[a-z]+/\S*")
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# So many runs, or a spread, make a number more than one run's luck.
_SEVERAL = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """Numbers of a record: what they are, and in which unit."""

    what: str
    values: tuple[float, ...]
    unit: str


@dataclasses.dataclass(frozen=True, slots=True)
class Bearing:
    """What a record says of a claim: whether it speaks for it, how much, and whether it tests only something near it."""

    claim: str
    supports: bool
    size: str
    indirect: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One thing that was measured, shown, derived or stated, with its source and its limits.

    Attributes:
        id: Its name here.
        title: Of the source.
        by: Its authors; the number of a paper whose authors were not noted.
        year: Of the source.
        url: Where it is.
        section: Where in it.
        kind: One of `KINDS`.
        read: What of it was read: one of `READINGS`.
        models: The models.
        data: The data.
        budget: Whether the compared adapters have equally many parameters: one of `BUDGETS`.
        rate: How the learning rate was chosen: one of `RATES`.
        runs: Runs for each number, 0 where it is not said.
        spread: How far runs lie apart, where that is known.
        limits: What it does not show.
        figures: Its numbers.
        bears: The claims that it speaks for or against.
    """

    id: str
    title: str
    by: str
    year: int
    url: str
    section: str
    kind: str
    read: str
    models: tuple[str, ...]
    data: str
    budget: str
    rate: str
    runs: int
    spread: str
    limits: tuple[str, ...]
    figures: tuple[Figure, ...]
    bears: tuple[Bearing, ...]

    @property
    def grade(self) -> int:
        """How far a record carries: 0 where nothing was measured, else 1 to 4.

        1, and one more for each of: equal budgets (or none to compare), learning rates tuned for each (or none to
        tune), several runs or a known spread. One less for a figure without numbers, and for what is derived without
        training; one less for what was read second hand or as an abstract.
        """
        if self.kind == "stated":
            return 0
        controlled = (
            self.budget in ("matched", "none"),
            self.rate in ("tuned", "none"),
            self.runs >= _SEVERAL or bool(self.spread),
        )
        doubted = (self.kind in ("shown", "derived"), self.read in ("abstract", "notes of others"))
        return max(1, 1 + sum(controlled) - sum(doubted))


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """One sentence that can be true or false, and that advice rests on."""

    id: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """All claims by their ids, and all records."""

    claims: Mapping[str, Claim]
    records: tuple[Record, ...]


@functools.cache
def load_evidence() -> Evidence:
    """What the package knows."""
    return read_evidence(_FILE.read_text(encoding="utf-8"))


def for_and_against(claim: str) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """The records that speak for a claim, and those that speak against it, the best first.

    Raises:
        LorascopeError: There is no such claim.
    """
    known = load_evidence()
    if claim not in known.claims:
        hint = did_you_mean(claim, known.claims) or f"The claims are {', '.join(known.claims)}."
        raise LorascopeError(f"{claim!r} is no claim that anything is known about", hint=hint)
    ranked = sorted(known.records, key=lambda record: -record.grade)
    said = [(record, bearing) for record in ranked for bearing in record.bears if bearing.claim == claim]
    pro = tuple(record for record, bearing in said if bearing.supports)
    return pro, tuple(record for record, bearing in said if not bearing.supports)


def strength(claim: str) -> Strength:
    """How strong a claim is, by the rule of `strength_of`."""
    pro, contra = for_and_against(claim)
    return strength_of(claim, pro, contra)


def strength_of(claim: str, pro: Iterable[Record], contra: Iterable[Record]) -> Strength:
    """How strong records for and against it make a claim, in a word.

    Each author counts once on each side, with the best grade among their records (`Record.grade`, 0 to 4); a record
    that tests only something near the claim counts 1 at most. With the sums of both sides:

    - untested: nothing but statements on either side, or nothing at all;
    - contradicted: the sum against is at least twice that for;
    - contested: it is at least half of that for;
    - strong: at least 6, with two authors of grade 2 or more among them;
    - moderate: at least 3;
    - weak: less.
    """
    best_for, best_against = (_best_of_each(claim, side) for side in (pro, contra))
    supported, opposed = sum(best_for.values()), sum(best_against.values())
    if supported == opposed == 0:
        return "untested"
    if opposed >= 2 * supported:
        return "contradicted"
    if opposed >= supported / 2:
        return "contested"
    if supported >= 6 and sum(grade >= 2 for grade in best_for.values()) >= 2:
        return "strong"
    return "moderate" if supported >= 3 else "weak"


def _best_of_each(claim: str, records: Iterable[Record]) -> dict[str, int]:
    """The best grade of each author who measured anything."""
    best: dict[str, int] = {}
    for record in records:
        indirect = any(bearing.indirect for bearing in record.bears if bearing.claim == claim)
        grade = min(1, record.grade) if indirect else record.grade
        if grade:
            best[record.by] = max(best.get(record.by, 0), grade)
    return best


def checked_toml(text: str, faults_of: Callable[[dict[str, Any]], Iterable[str]], where: str) -> dict[str, Any]:
    """The tables of a TOML text without faults.

    Raises:
        LorascopeError: With every fault of it.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LorascopeError(f"not TOML: {error}", where=where) from None
    faults = list(faults_of(data))
    if faults:
        raise LorascopeError(*faults, where=where, hint="What each key means stands at the head of the file.")
    return data


def read_evidence(text: str) -> Evidence:
    """The claims and records of a TOML text.

    Raises:
        LorascopeError: With every fault of it.
    """
    data = checked_toml(text, _faults, where="evidence")
    return Evidence(
        claims={name: Claim(name, sentence) for name, sentence in data["claims"].items()},
        records=tuple(_record(row) for row in data["record"]),
    )


def _record(row: Mapping[str, Any]) -> Record:
    plain = {key: value for key, value in row.items() if key not in ("figures", "bears", "models", "limits", "spread")}
    return Record(
        **plain,
        spread=row.get("spread", ""),
        models=tuple(row["models"]),
        limits=tuple(row["limits"]),
        figures=tuple(Figure(one["what"], tuple(one["values"]), one["unit"]) for one in row.get("figures", ())),
        bears=tuple(Bearing(one["claim"], one["for"], one["size"], one.get("indirect", False)) for one in row["bears"]),
    )


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
    "kind": (_one_of(KINDS), f"one of {', '.join(KINDS)}"),
    "read": (_one_of(READINGS), f"one of {', '.join(READINGS)}"),
    "models": (_is_texts, "a list of texts"),
    "data": (_is_text, "a text"),
    "budget": (_one_of(BUDGETS), f"one of {', '.join(BUDGETS)}"),
    "rate": (_one_of(RATES), f"one of {', '.join(RATES)}"),
    "runs": (_is_count, "a whole number, 0 for not said"),
    "limits": (_is_texts, "a list of texts"),
    "bears": (lambda value: isinstance(value, list) and bool(value), "a list of at least one"),
}
_OPTIONAL = ("spread", "figures")


def _faults(data: Mapping[str, Any]) -> Iterator[str]:
    claims, records = data.get("claims"), data.get("record")
    for key in data.keys() - {"claims", "record"}:
        yield f"{key} is neither claims nor record"
    if not isinstance(claims, dict) or not isinstance(records, list):
        yield "there must be a table claims and a list of tables record"
        return
    for name, sentence in claims.items():
        if not _ID.fullmatch(name) or not _is_text(sentence):
            yield f"claim {name} is no sentence under words joined by dashes"
    seen: set[object] = set()
    for number, row in enumerate(records):
        name = row.get("id", f"number {number}")
        if name in seen:
            yield f"record {name} is there twice"
        seen.add(name)
        yield from (f"record {name}: {fault}" for fault in _record_faults(row, claims))


def _record_faults(row: Mapping[str, Any], claims: Mapping[str, str]) -> Iterator[str]:
    for key in row.keys() - _NEEDED.keys() - set(_OPTIONAL):
        yield f"{key} is no key of a record"
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
        yield "it is measured, and has no figures"
    spoken: set[object] = set()
    for bearing in _tables(row.get("bears", [])):
        claim = bearing.get("claim")
        if claim not in claims:
            yield f"claim {claim!r} is none. {did_you_mean(str(claim), claims)}".rstrip(" .")
        if claim in spoken:
            yield f"it bears twice on {claim}"
        spoken.add(claim)
        known = bearing.keys() - {"indirect"} == {"claim", "for", "size"}
        if not known or not _is_text(bearing["size"]) or not isinstance(bearing["for"], bool):
            yield f"bearing on {claim} is not claim, for (true or false) and size"


def _tables(value: object) -> list[dict[str, Any]]:
    """The tables of a list; what is none becomes an empty one, which has faults enough."""
    rows = value if isinstance(value, list) else [value]
    return [row if isinstance(row, dict) else {} for row in rows]


def _is_figure(figure: Mapping[str, Any]) -> bool:
    values = figure["values"]
    numbers = isinstance(values, list) and bool(values) and all(type(value) in (int, float) for value in values)
    return numbers and all(map(math.isfinite, values)) and _is_text(figure["what"]) and _is_text(figure["unit"])
