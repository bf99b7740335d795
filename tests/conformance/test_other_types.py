"""Model types beyond the built-in models: traced whole or with every unreached part told, and planned as PEFT adapts them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from architectures import Entry

from tests.conformance.other_types import RECORDED, measured_apart, other_types

RESULTS: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text(encoding="utf-8"))
BUILT = {name: row for name, row in RESULTS.items() if "plans" in row}
TYPES = {entry.model_type: entry for entry in other_types()}


def test_every_type_is_here() -> None:
    assert RESULTS.keys() == TYPES.keys()
    assert {name: row["class"] for name, row in RESULTS.items()} == {
        name: entry.architecture for name, entry in TYPES.items()
    }


def test_counts_of_what_was_traced() -> None:
    assert (len(RESULTS), len(BUILT)) == (319, 291)
    assert Counter(row["traced"] for row in BUILT.values()) == {"whole": 205, "partly": 64, "not": 22}
    able = [row for row in BUILT.values() if row["ends"] or row["runs"]]
    assert Counter(row["traced"] for row in able) == {"whole": 205, "partly": 45, "not": 1}


def test_no_part_is_silently_unreached() -> None:
    partly = [row for row in BUILT.values() if row["traced"] == "partly"]
    assert all(row["told"] for row in partly)
    assert len(partly) == 64


def test_counts_of_what_was_planned() -> None:
    verdicts = Counter((what, verdict) for row in BUILT.values() for what, verdict in row["plans"].items())
    assert verdicts == {("qv", "exact"): 247, ("all", "exact"): 262, ("qv", "refused"): 44, ("all", "refused"): 29}
    assert Counter(row["all-linear"] for row in BUILT.values()) == {True: 291}


@pytest.mark.slow
@pytest.mark.parametrize("entry", [TYPES[name] for name in BUILT], ids=lambda entry: entry.model_type)
def test_a_type(entry: Entry) -> None:
    row = {name: value for name, value in RESULTS[entry.model_type].items() if name != "runs"}
    assert measured_apart(entry) == row, "stale: run python -m tests.conformance.other_types"
