"""A real checkpoint of every architecture, read by its headers, gives the map of the model that wrote it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import architectures
import pytest

from tests.conformance.checkpoints import PLANS, REASONS, measure_checkpoint

pytestmark = pytest.mark.slow

ENTRIES = [*architectures.entries(), *architectures.layouts()]
RESULTS = json.loads(Path(__file__).with_name("checkpoints.json").read_text(encoding="utf-8"))["entries"]


def test_every_promised_architecture_is_here() -> None:
    heads = Counter(entry.head for entry in architectures.entries())
    assert heads == {"causal-lm": 196, "image-text-to-text": 100, "seq2seq-lm": 38, "masked-lm": 51}
    assert RESULTS.keys() == {f"{entry.head}/{entry.label}" for entry in ENTRIES}
    assert len(RESULTS) == 397


def test_counts_of_what_was_compared() -> None:
    saved = [row for row in RESULTS.values() if "unsaved" not in row]
    assert len(saved) == 396
    assert sum(not row["differ"] for row in saved) == 384
    assert Counter(row["bare"] for row in saved) == {"yes": 316, "none": 63, "neither": 17}
    verdicts = Counter(row["plans"][plan][0] for row in saved for plan in PLANS)
    assert verdicts == {"exact": 771, "refused": 20, "different": 1}


def test_what_differs_has_a_reason() -> None:
    odd = {label for label, row in RESULTS.items() if row.get("differ") or "unsaved" in row or row["bare"] == "no"}
    assert odd == {f"{head}/{label}" for head, label in REASONS}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.head}-{entry.label}")
def test_headers_give_the_map_of_the_model(entry: architectures.Entry) -> None:
    found = json.loads(json.dumps(measure_checkpoint(entry)))
    if "weights" not in found.get("differ", ()):
        assert not [plan for plan in found.get("plans", {}).values() if plan[0] == "different"]
    assert found == RESULTS[f"{entry.head}/{entry.label}"], (
        "stale: run python tools/build_docs.py --measure-checkpoints"
    )
