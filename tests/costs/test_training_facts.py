"""Facts of transformers' classes that memory depends on and a map does not hold."""

from __future__ import annotations

import json

import build_training_facts
import pytest

import lorascope as ls
from lorascope.costs.activations import measured_share, training_facts
from lorascope.costs.memory import training_memory
from lorascope.costs.memory_estimate import MemoryEstimate
from lorascope.costs.training_run import Training
from tests.helpers.samples import sample


def test_counts() -> None:
    facts = training_facts()
    assert {name: len(keys) for name, keys in facts.items()} == {
        "eager": 112,
        "plain_loss": 158,
        "softcap": 22,
        "dropout": 172,
    }
    assert len(json.loads(build_training_facts.FACTS.read_text(encoding="utf-8"))["kept"]) == 249


@pytest.mark.slow
def test_facts_are_those_of_transformers() -> None:
    known = json.loads(build_training_facts.FACTS.read_text(encoding="utf-8"))
    assert {name: keys for name, keys in known.items() if name != "kept"} == build_training_facts.facts()


def test_examples() -> None:
    facts = training_facts()
    assert "causal-lm/gemma2" in facts["eager"] & facts["softcap"]
    assert "causal-lm/llama" not in facts["eager"] | facts["softcap"] | facts["dropout"] | facts["plain_loss"]
    assert {"masked-lm/bert", "seq2seq-lm/t5"} <= facts["plain_loss"] & facts["dropout"]


def test_a_text_model_stands_for_the_model_with_images() -> None:
    assert measured_share("image-text-to-text", "llama4") == measured_share("causal-lm", "llama4_text")
    assert measured_share("image-text-to-text", "llava") is None


@pytest.mark.parametrize("model_type", ["diffllama", "doge", "nanochat", "mamba2"])
def test_unexplained_activations_are_counted_and_noted(model_type: str) -> None:
    plan = ls.plan(sample(model_type), "all", rank=8, dropout=0.0)
    how = Training(seq_len=512)
    share = measured_share("causal-lm", model_type)
    assert share is not None and share > 1.1
    plain, corrected = MemoryEstimate(plan, how, corrected=False), MemoryEstimate(plan, how)
    bytes_of = [sum(sum(kept.values()) for _, kept in one.saved_by_place()) for one in (plain, corrected)]
    assert bytes_of[1] / bytes_of[0] == pytest.approx(share, rel=1e-6)
    (note,) = (note for note in training_memory(plan, how).notes if note.code == "scaled-activations")
    assert str(note).startswith(f"Activations scaled by {share:.2f}: ")


def test_an_architecture_without_a_measurement_is_noted() -> None:
    notes = training_memory(ls.plan(sample("llava"), "all", dropout=0.0), Training()).notes
    assert sum(note.code == "unmeasured-activations" for note in notes) == 1
