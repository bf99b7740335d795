"""Models of other people's libraries: what names and dataflow make of them, in an environment that has the libraries."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.conformance.others import figures, run_others
from tests.helpers.paths import ROOT
from tests.others.models import MODELS
from tests.others.truths import facts_of

pytestmark = pytest.mark.slow

RECORDED = json.loads((ROOT / "tests/conformance/others.json").read_text(encoding="utf-8"))

# What dataflow gets wrong, and how many weights have it.
WRONG = {
    "timm_maxvit": 5,  # convolutional blocks
    "vp_crossvit": 8,  # an output and the projection behind it, taken for one of low rank
    "vp_mobile": 2,  # a convolutional block
    "vp_twins": 10,  # attention to a single position
    "df_stableaudio": 1,  # a convolution in front
}


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    return run_others()


def test_no_model_crashes_and_every_call_comes_to_its_end(rows: dict[str, Any]) -> None:
    assert rows.keys() == MODELS.keys()
    assert len(rows) == 44
    assert {name: row["failure"] for name, row in rows.items() if "failure" in row} == {}
    assert {name: row["notes"] for name, row in rows.items() if any("end" in note for note in row["notes"])} == {}
    assert sum(row["weights"] for row in rows.values()) == 1603


def test_dataflow_gets_nothing_wrong_that_is_not_known(rows: dict[str, Any]) -> None:
    wrong = Counter({name: sum(one["wrong"] for one in _counts(row["dataflow"])) for name, row in rows.items()})
    assert {name: number for name, number in wrong.items() if number} == WRONG


def test_a_feed_forward_never_holds_a_modulation_or_an_embedder(rows: dict[str, Any]) -> None:
    said = [(truth, flow) for row in rows.values() for _, truth, _, flow, _ in row["details"]]
    assert len(said) > 50
    assert [one for one in said if facts_of(one[0])[0] in ("modulation", "embedding") and ".ffn." in one[1]] == []


def test_the_figures_are_those_of_the_page(rows: dict[str, Any]) -> None:
    assert figures(rows) == {kind: RECORDED[kind] for kind in ("names", "dataflow")}, (
        "stale: run python tools/build_docs.py --measure-others"
    )


def _counts(roles: dict[str, dict[str, int]]) -> list[Counter[str]]:
    return [Counter(counts) for counts in roles.values()]
