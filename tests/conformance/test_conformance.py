"""Real PEFT, on the meta device, adapts exactly the plan's weights: every architecture, every recipe, two odd rules."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import architectures
import pytest

from lorascope.sources.builtin import load_builtin
from tests.conformance.verdicts import RULES, built, measure_pasted, measure_plans, recorded

pytestmark = pytest.mark.slow

ENTRIES = [*architectures.entries(), *architectures.layouts()]
# layoutlmv2 is not among the promised types; no other head is left out.
_PROMISED = {entry.model_type for entry in ENTRIES}
HEADS = [entry for entry in architectures.entries("sequence-classification") if entry.model_type in _PROMISED]
RESULTS = json.loads(Path(__file__).with_name("results.json").read_text(encoding="utf-8"))
# Why a plan may be refused: each is something that PEFT, or the model, really does not have.
TRUE_REASONS = (
    "selects nothing in",
    "get_input_embeddings() is not implemented",
    "PEFT takes the first dimension of a 3-D parameter for experts",
    "is a convolution with 4 groups: its rank must be a multiple of that",
)


def test_every_promised_architecture_is_here() -> None:
    heads = Counter(entry.head for entry in architectures.entries())
    assert heads == {"causal-lm": 189, "image-text-to-text": 97, "seq2seq-lm": 37, "masked-lm": 51}
    assert len(list(architectures.layouts())) == 12
    assert len(RULES) == 7
    assert len(HEADS) == 122
    assert len(RESULTS["entries"]) == 386
    assert len({(entry.head, entry.label) for entry in ENTRIES}) == len(ENTRIES) == 386


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.head}-{entry.label}")
def test_what_peft_does(entry: architectures.Entry) -> None:
    module, model = built(entry)
    if not entry.layout:
        of_gallery = load_builtin(entry.model_type, entry.head)
        same = {"model": of_gallery.model, "source": of_gallery.source}
        assert dataclasses.replace(model, **same) == of_gallery, "stale: run python tools/build_builtin_models.py"
    plans = list(measure_plans(module, model))
    assert [outcome.what for outcome in plans] == list(RULES)
    assert not [f"{outcome.what}: {outcome.reason}" for outcome in plans if outcome.verdict == "different"]
    for outcome in plans:
        if outcome.verdict == "refused":
            assert any(reason in outcome.reason for reason in TRUE_REASONS), outcome
    pasted = list(measure_pasted(module, model))
    assert not [outcome for outcome in pasted if not outcome.agrees]
    assert recorded(plans, pasted) == RESULTS["entries"][f"{entry.head}/{entry.label}"], "stale: see CONTRIBUTING.md"


@pytest.mark.parametrize("entry", HEADS, ids=lambda entry: entry.label)
def test_sequence_classification_heads(entry: architectures.Entry) -> None:
    module, model = built(entry)
    (outcome,) = measure_plans(module, model, rules={"qv+ffn": RULES["qv+ffn"]})
    assert outcome.verdict == "exact" or any(reason in outcome.reason for reason in TRUE_REASONS), outcome
