"""Evidence: every record has a source and figures, and strength follows its rule; the form of the data."""

from __future__ import annotations

import dataclasses
import re

import pytest
from build_advice import built_files, read_evidence

from lorascope.advice.evidence import (
    STRENGTHS,
    Bearing,
    Record,
    Strength,
    evidence_from,
    for_and_against,
    load_evidence,
    strength,
    strength_of,
)
from tests.helpers.samples import fails

KNOWN = load_evidence()
UNTESTED = {
    "question-answer-format",
    "qv8-ffn4-balance",
    "router-frozen",
    "small-dropout",
    "style-needs-ffn",
    "style-unlike-facts",
}
_NUMBER = re.compile(r"(?<![\w.])[-+]?(\d*\.?\d+(?:e-?\d+)?)(?![\d.]*\d)")


def numbers(text: str) -> set[float]:
    return {float(number) for number in _NUMBER.findall(text.replace(",", " "))}


def figures(record: Record) -> set[float]:
    """The numbers of a record's figures, and what lies between any two of one unit."""
    values = [(value, figure.unit) for figure in record.figures for value in figure.values]
    between = {round(abs(one - other), 6) for one, unit in values for other, its in values if unit == its}
    return {value for value, _ in values} | between


# The data.


def test_counts() -> None:
    assert len(KNOWN.records) == 54
    assert len(KNOWN.claims) == 35
    assert sum(len(record.bears) for record in KNOWN.records) == 111
    assert sum(len(figure.values) for record in KNOWN.records for figure in record.figures) == 224
    assert sum(bool(record.figures) for record in KNOWN.records) == 42


@pytest.mark.parametrize("record", KNOWN.records, ids=lambda record: record.id)
def test_every_record_has_a_source_and_limits(record: Record) -> None:
    assert re.fullmatch(r"https://(arxiv\.org/abs/\d{4}\.\d{5}|[a-z0-9.-]+\.[a-z]{2,}/\S*)", record.url)
    assert record.title and record.by and record.section and record.limits and record.bears
    assert 2021 <= record.year <= 2026
    if "arxiv.org" in record.url:
        assert 0 <= record.year - (2000 + int(record.url.rpartition("/")[2][:2])) <= 1
    assert 0 <= record.grade <= 4
    assert (record.grade == 0) == (record.kind == "stated")


def test_one_source_is_always_called_the_same() -> None:
    named: dict[str, set[tuple[str, int]]] = {}
    for record in KNOWN.records:
        if "arxiv.org" in record.url and record.id not in ("adalora-elsewhere", "eva-alpha"):
            named.setdefault(record.url, set()).add((record.by, record.year))
    assert {url: names for url, names in named.items() if len(names) > 1} == {}


@pytest.mark.parametrize("record", KNOWN.records, ids=lambda record: record.id)
def test_sizes_follow_from_the_figures(record: Record) -> None:
    """What a record is said to show stands in its figures, or is the difference of two of them."""
    own = figures(record)
    own |= {number for figure in record.figures for number in numbers(figure.what)}
    own |= {number for text in (*record.models, record.data, *record.limits) for number in numbers(text)}
    for bearing in record.bears:
        said = numbers(re.sub(r"\br ?\d+|R-2|16-bit|on 70B", "", bearing.size))
        assert {number for number in said if round(number, 6) not in own} <= ALLOWED.get(record.id, set())


# Sizes in another unit than the figures, and what a record says in words.
ALLOWED: dict[str, set[float]] = {
    "lora-table-6": {1.0, 64.0},
    "qwen3-counter-example": {0.46},
    "tinker-sweep-nano": {0.0},
}


# Claims.


def test_every_claim_has_a_record_or_is_untested() -> None:
    untested = {claim for claim in KNOWN.claims if strength(claim) == "untested"}
    assert untested == UNTESTED
    for claim in KNOWN.claims:
        pro, contra = for_and_against(claim)
        measured = [record for record in (*pro, *contra) if record.grade]
        assert bool(measured) == (claim not in UNTESTED), claim


@pytest.mark.parametrize(
    ("claim", "word"),
    [
        ("ffn-beats-attention", "strong"),
        ("all-linear-default", "moderate"),
        ("vo-before-qk", "moderate"),
        ("ten-times-rate", "moderate"),
        ("rank-1-enough-rl", "weak"),
        ("full-wins-continued-pretraining", "weak"),
        ("attention-enough-classification", "contested"),
        ("placement-decides-little", "contested"),
        ("attention-enough-generation", "contradicted"),
        ("expert-rank-by-all", "contradicted"),
        ("qv8-ffn4-balance", "untested"),
        ("style-needs-ffn", "untested"),
    ],
)
def test_strength_of_the_claims_that_advice_turns_on(claim: str, word: str) -> None:
    assert strength(claim) == word


def test_for_and_against() -> None:
    pro, contra = for_and_against("attention-enough-generation")
    assert [record.id for record in pro] == ["qwen3-counter-example", "peft-defaults", "raschka-faq"]
    assert "without-regret-placement" in [record.id for record in contra]
    assert [record.grade for record in contra] == sorted((record.grade for record in contra), reverse=True)
    with fails("unknown claim 'attention-enough'", 'Did you mean "attention-enough-'):
        for_and_against("attention-enough")


# The rule.


def record(by: str, grade: int, *, indirect: bool = False) -> Record:
    base = KNOWN.records[0]
    kind = "stated" if grade == 0 else "measured"
    made = dataclasses.replace(
        base,
        by=by,
        kind=kind,
        read="full text",
        budget="matched" if grade > 1 else "not matched",
        rate="tuned" if grade > 2 else "not reported",
        runs=5 if grade > 3 else 1,
        spread="",
        bears=(Bearing("it", True, "-", indirect),),
    )
    assert made.grade == grade
    return made


@pytest.mark.parametrize(
    ("pro", "contra", "word"),
    [
        ([], [], "untested"),
        ([("a", 0), ("b", 0)], [], "untested"),
        ([("a", 0)], [("b", 1)], "contradicted"),
        ([("a", 1)], [], "weak"),
        ([("a", 2)], [], "weak"),
        ([("a", 3)], [], "moderate"),
        ([("a", 2), ("a", 2)], [], "weak"),  # an author counts once
        ([("a", 2), ("b", 1)], [], "moderate"),
        ([("a", 4), ("b", 2)], [], "strong"),
        ([("a", 4), ("b", 1), ("c", 1)], [], "moderate"),  # one author alone has a controlled measurement
        ([("a", 4), ("b", 2)], [("c", 2)], "strong"),
        ([("a", 4), ("b", 2)], [("c", 3)], "contested"),
        ([("a", 2)], [("c", 1)], "contested"),
        ([("a", 2)], [("c", 3)], "contested"),
        ([("a", 2)], [("c", 4)], "contradicted"),
        ([("a", 2)], [("c", 0)], "weak"),
    ],
)
def test_strength_follows_its_rule(pro: list[tuple[str, int]], contra: list[tuple[str, int]], word: Strength) -> None:
    assert word in STRENGTHS
    assert strength_of("it", [record(*one) for one in pro], [record(*one) for one in contra]) == word


def test_what_is_indirect_counts_one() -> None:
    assert strength_of("it", [record("a", 4, indirect=True), record("b", 1)], []) == "weak"
    assert strength_of("it", [record("a", 4), record("b", 1)], []) == "moderate"
    assert strength_of("it", [record("a", 0, indirect=True)], []) == "untested"


@pytest.mark.parametrize(
    ("change", "grade"),
    [
        ({}, 4),
        ({"budget": "not matched"}, 3),
        ({"budget": "none"}, 4),
        ({"rate": "one for all"}, 3),
        ({"runs": 1}, 3),
        ({"runs": 1, "spread": "±0.1"}, 4),
        ({"kind": "shown"}, 3),
        ({"read": "abstract"}, 3),
        ({"kind": "shown", "read": "second-hand", "budget": "not reported", "rate": "not reported"}, 1),
        ({"kind": "stated"}, 0),
    ],
    ids=str,
)
def test_grades(change: dict[str, object], grade: int) -> None:
    assert dataclasses.replace(record("a", 4), **change).grade == grade  # type: ignore[arg-type]


# Reading.


GOOD = """
[claims]
one-claim = "It is so."
[[record]]
id = "a-record"
title = "T"
by = "B"
year = 2024
url = "https://example.org/x"
section = "1"
kind = "measured"
read = "full text"
models = ["m"]
data = "d"
budget = "matched"
rate = "tuned"
runs = 3
limits = ["one model"]
figures = [{ what = "w", values = [1, 2.5], unit = "points" }]
bears = [{ claim = "one-claim", for = true, size = "+1.5 points" }]
"""


def test_a_good_text() -> None:
    (only,) = evidence_from(read_evidence(GOOD)).records
    assert (only.grade, only.figures[0].values, only.bears) == (
        4,
        (1, 2.5),
        (Bearing("one-claim", True, "+1.5 points"),),
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('url = "https://example.org/x"', 'url = "example.org"', "url 'example.org' is not an https address"),
        ('url = "https://example.org/x"', "", "url is missing"),
        ("year = 2024", "year = 24", "year 24 is not a year"),
        ('kind = "measured"', 'kind = "rumoured"', "kind 'rumoured' is not one of measured, shown"),
        ('kind = "measured"', "kind = []", "kind [] is not one of"),
        ("runs = 3", "runs = true", "runs True is not a whole number"),
        ('limits = ["one model"]', "limits = []", "limits [] is not a list of texts"),
        ("figures = [{ w", "figure = [{ w", "unknown key figure"),
        ("values = [1, 2.5]", 'values = ["1"]', "is not what, values (numbers) and unit"),
        ("values = [1, 2.5]", "values = [nan]", "is not what, values (numbers) and unit"),
        ('figures = [{ what = "w", values = [1, 2.5], unit = "points" }]', "figures = 3", "is not what, values"),
        ('figures = [{ what = "w", values = [1, 2.5], unit = "points" }]', "", "measured without figures"),
        ('claim = "one-claim"', 'claim = "one-clam"', "unknown claim 'one-clam'. Did you mean \"one-claim\""),
        ("for = true", 'for = "yes"', "bearing on one-claim is not claim, for (true or false) and size"),
        ('bears = [{ claim = "one-claim", for = true, size = "+1.5 points" }]', "bears = []", "bears [] is not a list"),
        ('one-claim = "It is so."', 'one-claim = ""', "claim one-claim is not a sentence"),
        ("[claims]", "[claim]", "claim is neither claims nor record"),
        ("[claims]", "[claims", "not TOML"),
        ("[[record]]", "[record]", "a list of tables record"),
    ],
)
def test_faults(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with fails(said):
        read_evidence(GOOD.replace(old, new))


def test_the_json_is_that_of_the_toml() -> None:
    """`python tools/build_advice.py` makes it anew."""
    files = built_files()
    assert [path.name for path in files] == ["evidence.json", "tasks.json"]
    assert {path.name: path.read_text(encoding="utf-8") == text for path, text in files.items()} == {
        "evidence.json": True,
        "tasks.json": True,
    }


def test_all_faults_at_once() -> None:
    bad = GOOD.replace("year = 2024", "year = 1").replace('data = "d"', 'data = ""')
    bad += GOOD.partition("[[record]]")[2].join(["[[record]]", ""])
    with fails("3 faults", "record a-record: year 1", "record a-record: data ''", "record a-record is there twice"):
        read_evidence(bad)
