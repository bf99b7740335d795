"""Roles by dataflow where names say nothing: models written for it, and transformers' own under words without meaning.

`pytest -m "" -rP tests/tracing/test_held_out.py` prints what became of every role.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.conformance.held_out import (
    HONEST,
    LABELS,
    measure_held_out,
    traced_specimen,
    verdicts_of_renamed,
    verdicts_of_specimen,
)
from tests.helpers.families import FAMILIES
from tests.helpers.paths import ROOT
from tests.helpers.trace_verdicts import verdict
from tests.zoo import ZOO, Specimen

TOTALS = {"written": 1_351, "renamed": 10_322}
HOSTILE = [specimen for specimen in ZOO.values() if specimen.hostile]
RECORDED = json.loads((ROOT / "tests/conformance/held_out.json").read_text(encoding="utf-8"))

# Errors that are known, and how many weights have them. Whoever mends one takes it out.
WRONG = {
    "Packed": 1,  # a long skip, joined again before two heads
}
SILENT = {
    "OneMatrix": 6,  # the matrices are of attention and feed-forward both
    "Diffusion": 1,
    "DeepFeed": 2,  # a third matrix inside a feed-forward
    "TwoTowers": 2,  # two ends that are multiplied with each other
    "Parallel": 3,  # one matrix makes queries, keys, values and the inside of the feed-forward
    "Retrieval": 2,  # two ends that are multiplied with each other
    "Denoiser": 1,  # the first matrix of two that make a vector from the time
}
SILENT_RENAMED = {
    "causal-lm/zamba2": 189,  # adapters and the feed-forward of its shared block
}


def by_name(specimens: list[Specimen]) -> Any:
    return pytest.mark.parametrize("specimen", specimens, ids=[specimen.name for specimen in specimens])


@by_name(HONEST)
def test_of_a_model_of_the_zoo_nothing_is_wrong_that_is_not_known(specimen: Specimen) -> None:
    counts = Counter(found for _, found, _ in verdicts_of_specimen(specimen))
    assert counts.total() == sum(row not in specimen.unreached for row in specimen.rows.values())
    assert counts["wrong"] <= WRONG.get(specimen.name, 0)
    assert counts["ambiguous"] + counts["unexecuted"] <= SILENT.get(specimen.name, 0)


@by_name([specimen for specimen in HONEST if specimen.unreached])
def test_what_the_forward_pass_does_not_use_is_told(specimen: Specimen) -> None:
    unreached = [one for one in traced_specimen(specimen).traces if specimen.rows[one.weight] in specimen.unreached]
    assert unreached
    assert {trace.status for trace in unreached} == {"unexecuted"}


@by_name(HOSTILE)
def test_of_a_hostile_model_what_was_seen_is_right_and_the_rest_says_why(specimen: Specimen) -> None:
    traced = traced_specimen(specimen)
    assert len(traced.traces) == len(specimen.rows) == 10
    seen = [trace for trace in traced.traces if trace.status == "executed"]
    assert len(seen) >= 5
    assert {verdict(f"text.{specimen.roles[trace.weight]}", trace) for trace in seen} == {"right"}
    unseen = [trace for trace in traced.traces if trace.status != "executed"]
    assert unseen and all("hostile.py, line" in trace.evidence for trace in unseen)


FIRST_OF_EACH_FAMILY = {labels[0] for labels in FAMILIES.values()}


@pytest.mark.parametrize(
    "label",
    [pytest.param(one, marks=[] if one in FIRST_OF_EACH_FAMILY else [pytest.mark.slow]) for one in LABELS],
)
def test_of_a_renamed_model_nothing_is_wrong(label: str) -> None:
    counts = Counter(found for _, found, _ in verdicts_of_renamed(label))
    assert counts["right"] + counts["open"] + counts["coarse"] >= 10
    assert counts["wrong"] == 0
    assert counts["ambiguous"] + counts["unexecuted"] <= SILENT_RENAMED.get(label, 0)


def test_those_are_many_weights() -> None:
    assert (len(HONEST), len(HOSTILE), len(LABELS)) == (77, 3, 47)
    rows: Counter[str] = Counter()
    for specimen in HONEST:
        batch = "_".join(specimen.cls.__module__.rpartition(".")[2].split("_")[:2])
        rows[batch] += len(specimen.rows)
    assert rows == {"batch_1": 566, "batch_2": 263, "batch_3": 204, "batch_4": 333}
    totals = {kind: sum(sum(counts.values()) for counts in RECORDED[kind].values()) for kind in ("written", "renamed")}
    assert totals == TOTALS


@pytest.mark.slow
def test_the_figures_are_those_of_the_page() -> None:
    assert measure_held_out() == {kind: RECORDED[kind] for kind in ("written", "renamed")}, (
        "stale: run python tools/build_docs.py --measure-held-out"
    )
