"""Evidence on adapters: claims, and records for and against them.

`evidence.toml` holds it as people write it; `tools/build_advice.py` checks that and makes `evidence.json`, which is loaded.
Nothing there is a measurement of lorascope's own, but for one marked simulation.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError, did_you_mean
from lorascope.packaged import load_json

# From the best to the worst ground for a choice, see `strength_of`.
Strength = Literal["strong", "moderate", "weak", "contested", "untested", "contradicted"]
STRENGTHS: tuple[Strength, ...] = get_args(Strength)

# So many runs, or a spread, make a number more than one run's luck.
_SEVERAL = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """Numbers of a record, with their meaning and unit."""

    what: str
    values: tuple[float, ...]
    unit: str


@dataclasses.dataclass(frozen=True, slots=True)
class Bearing:
    """Support or contradiction of a claim, by how much.

    It is `indirect` where the record tests only something near the claim.
    """

    claim: str
    supports: bool
    size: str
    indirect: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One result of a source, with its limits.

    Attributes:
        id: Its name here.
        title: Of the source.
        by: Its authors, or the paper's number.
        year: Of the source.
        url: Where it is.
        section: Where in it.
        kind: `measured`, `shown` (in a plot), `derived` or `stated`.
        read: Part that was read: `full text`, `abstract`, `second-hand`, `code` or `recorded data`.
        models: The models.
        data: The data.
        budget: Whether the compared adapters have equally many parameters: `matched`, `not matched`, `not reported` or
            `none` to compare.
        rate: Learning rates: `tuned`, `one for all`, `not reported` or `none`.
        runs: Runs per number, 0 where not reported.
        spread: Spread of the runs, where reported.
        limits: What it does not show.
        figures: Its numbers.
        bears: The claims that it supports or contradicts.
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
        """Quality: 0 where nothing was measured, else 1 to 4.

        1, and one more for each of: equal budgets (or none to compare), learning rates tuned for each (or none to
        tune), several runs or a known spread. One less for a figure without numbers, and for what is derived without
        training; one less for what was read second-hand or as an abstract.
        """
        if self.kind == "stated":
            return 0
        controlled = (
            self.budget in ("matched", "none"),
            self.rate in ("tuned", "none"),
            self.runs >= _SEVERAL or bool(self.spread),
        )
        doubted = (self.kind in ("shown", "derived"), self.read in ("abstract", "second-hand"))
        return max(1, 1 + sum(controlled) - sum(doubted))


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, true or false, that advice rests on."""

    id: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """All claims by their ids, and all records."""

    claims: Mapping[str, Claim]
    records: tuple[Record, ...]


@functools.cache
def load_evidence() -> Evidence:
    """All evidence in the package."""
    return evidence_from(load_json("evidence.json"))


def evidence_from(data: Mapping[str, Any]) -> Evidence:
    """Claims and records of the tables of `evidence.toml`, whose form is right."""
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
        figures=tuple(Figure(part["what"], tuple(part["values"]), part["unit"]) for part in row.get("figures", ())),
        bears=tuple(
            Bearing(part["claim"], part["for"], part["size"], part.get("indirect", False)) for part in row["bears"]
        ),
    )


def for_and_against(claim: str) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Records that support a claim, and those that contradict it.

    The best come first.

    Raises:
        LorascopeError: There is no such claim.
    """
    known = load_evidence()
    if claim not in known.claims:
        hint = did_you_mean(claim, known.claims) or f"The claims are {', '.join(known.claims)}."
        raise LorascopeError(f"unknown claim {claim!r}", hint=hint)
    ranked = sorted(known.records, key=lambda record: -record.grade)
    bearings = [(record, bearing) for record in ranked for bearing in record.bears if bearing.claim == claim]
    pro = tuple(record for record, bearing in bearings if bearing.supports)
    return pro, tuple(record for record, bearing in bearings if not bearing.supports)


def strength(claim: str) -> Strength:
    """Strength of a claim, by the rule of `strength_of`."""
    pro, contra = for_and_against(claim)
    return strength_of(claim, pro, contra)


def strength_of(claim: str, pro: Iterable[Record], contra: Iterable[Record]) -> Strength:
    """Strength that records for and against a claim give it.

    Each author counts once on each side, with the best grade among their records (`Record.grade`, 0 to 4); a record
    that tests only something near the claim counts 1 at most. With the sums of both sides:

    - untested: only statements, or nothing;
    - contradicted: the sum against is at least twice that for it;
    - contested: it is at least half of that;
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
    """Best grade of each author who measured something."""
    best: dict[str, int] = {}
    for record in records:
        indirect = any(bearing.indirect for bearing in record.bears if bearing.claim == claim)
        grade = min(1, record.grade) if indirect else record.grade
        if grade:
            best[record.by] = max(best.get(record.by, 0), grade)
    return best
