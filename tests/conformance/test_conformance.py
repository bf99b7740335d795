"""Real PEFT, on the meta device, adapts exactly the plan's weights: every architecture, every recipe, two odd rules.

PEFT does the same to a hundred layers of one kind, in a hundred times the time. So it gets each model with twelve layers
or one of each kind, and a few at full depth; at full depth our rules of PEFT must give what PEFT was recorded to do.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import architectures
import pytest

from lorascope.model.types import ModelMap
from lorascope.sources.builtin import load_builtin
from lorascope.sources.transformers.meta_model import map_module
from tests.conformance.verdicts import PASTED, RULES, built, measure_pasted, measure_plans, recorded
from tests.helpers.shallow_models import LAYERS, kept_layers, kind_of, shallow_map, shorten

pytestmark = pytest.mark.slow

ENTRIES = [*architectures.entries(), *architectures.layouts()]
# layoutlmv2 is not among the promised types; no other head is left out.
_PROMISED = {entry.model_type for entry in ENTRIES}
HEADS = [entry for entry in architectures.entries("sequence-classification") if entry.model_type in _PROMISED]
RESULTS = json.loads(Path(__file__).with_name("results.json").read_text(encoding="utf-8"))
# One for each way in which architectures differ for PEFT, through PEFT with all of their layers.
FULL_DEPTH = {
    *(
        ("causal-lm", label)
        for label in (
            "deepseek_v3",
            "falcon_h1",
            "gpt2",
            "gpt_oss",
            "jamba",
            "llama",
            "mamba2",
            "mixtral",
            "phi3",
            "qwen2_moe",
            "recurrent_gemma",
            "xlnet",
        )
    ),
    ("image-text-to-text", "llava"),
    ("image-text-to-text", "mllama"),
    ("seq2seq-lm", "led"),
    # Of twelve layers of these, none with an even number has what "layer slice" names.
    ("causal-lm", "bamba+attention"),
    ("seq2seq-lm", "nemo_speechlm"),
    ("seq2seq-lm", "t5"),
    ("masked-lm", "bert"),
    ("masked-lm", "deberta-v2"),
}
# Why a plan may be refused: each is something that PEFT, or the model, really does not have.
TRUE_REASONS = (
    "selects nothing in",
    "get_input_embeddings() is not implemented",
    "PEFT takes the first dimension of a 3-D parameter for experts",
    "is a convolution with 4 groups: its rank must be a multiple of that",
    "An adapter here breaks the forward pass",
)


def test_every_promised_architecture_is_here() -> None:
    heads = Counter(entry.head for entry in architectures.entries())
    assert heads == {"causal-lm": 196, "image-text-to-text": 100, "seq2seq-lm": 38, "masked-lm": 51}
    assert len(list(architectures.layouts())) == 12
    assert len(RULES) == 7
    assert len(HEADS) == 122
    assert len(FULL_DEPTH) == 20
    assert {(entry.head, entry.label) for entry in ENTRIES} >= FULL_DEPTH
    assert len(RESULTS["entries"]) == 397
    assert len({(entry.head, entry.label) for entry in ENTRIES}) == len(ENTRIES) == 397


def unnumbered(model: ModelMap) -> ModelMap:
    """A map in which every layer is layer 0: two stacks of one component count theirs together, by their new depths."""
    weights = (dataclasses.replace(weight, layer=weight.layer and 0) for weight in model.weights)
    return dataclasses.replace(model, weights=tuple(weights))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.head}-{entry.label}")
def test_what_peft_does(entry: architectures.Entry) -> None:
    module, model = built(entry)
    if not entry.layout:
        builtin = load_builtin(entry.model_type, entry.head)
        same = {"model": builtin.model, "source": builtin.source}
        assert dataclasses.replace(model, **same) == builtin, "stale: run python tools/build_builtin_models.py"
    by_rules = recorded(measure_plans(None, model), measure_pasted(None, model))
    record = RESULTS["entries"][f"{entry.head}/{entry.label}"]
    assert by_rules == record, "stale: see CONTRIBUTING.md"
    if (entry.head, entry.label) not in FULL_DEPTH:
        shallow = map_module(shorten(module), model=entry.label, head=entry.head)
        assert unnumbered(shallow_map(model)) == unnumbered(dataclasses.replace(shallow, dimensions=model.dimensions))
        model = shallow
    plans = list(measure_plans(module, model))
    assert [outcome.what for outcome in plans] == list(RULES)
    assert not [f"{outcome.what}: {outcome.reason}" for outcome in plans if outcome.verdict == "different"]
    for outcome in plans:
        if outcome.verdict == "refused":
            assert any(reason in outcome.reason for reason in TRUE_REASONS), outcome
    pasted = list(measure_pasted(module, model))
    assert [outcome.what for outcome in pasted] == list(PASTED)
    assert not [outcome for outcome in pasted if not outcome.agrees]
    by_peft = recorded(plans, pasted)
    if (entry.head, entry.label) in FULL_DEPTH:
        assert by_peft == record
    assert {kind: verdicts_of(rows) for kind, rows in by_peft.items()} == {
        kind: verdicts_of(rows) for kind, rows in record.items()
    }


def verdicts_of(rows: Mapping[str, list[Any]]) -> dict[str, str]:
    return {name: row[0] for name, row in rows.items()}


@pytest.mark.parametrize("entry", HEADS, ids=lambda entry: entry.label)
def test_sequence_classification_heads(entry: architectures.Entry) -> None:
    module, model = built(entry)
    rules = {"qv+ffn": RULES["qv+ffn"]}
    (by_rules,) = measure_plans(None, model, rules=rules)
    (outcome,) = measure_plans(module, map_module(shorten(module), model=entry.label, head=entry.head), rules=rules)
    assert by_rules.verdict == outcome.verdict
    assert outcome.verdict == "exact" or any(reason in outcome.reason for reason in TRUE_REASONS), outcome


def test_shallow_models_keep_every_kind_of_layer() -> None:
    entry = next(entry for entry in ENTRIES if entry.label == "deepseek_v3")
    layers = entry.build().model.layers
    assert len(layers) == 61
    kept = kept_layers([kind_of(layer) for layer in layers])
    assert kept == [*range(LAYERS - 1), 60]  # three dense ones, eight of experts, and the last
    assert len(shorten(entry.build()).model.layers) == LAYERS
