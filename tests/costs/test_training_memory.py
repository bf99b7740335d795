"""Memory of a whole training step: parts, growth and notes."""

from __future__ import annotations

import dataclasses
import functools

import pytest

import lorascope as ls
from lorascope.costs.memory import PARTS, Memory, training_memory
from lorascope.costs.training_run import OPTIMIZERS, Training
from lorascope.plans.types import Plan
from lorascope.sources.builtin import builtin_models
from tests.helpers.samples import sample

BASE = Training(batch=2, seq_len=512)
TRAININGS = (
    BASE,
    Training(batch=1, seq_len=2048, dtype="fp32", optimizer="sgd"),
    Training(batch=4, seq_len=256, quantization="nf4", optimizer="adamw-8bit", gradient_checkpointing=True),
    Training(
        batch=2, seq_len=1024, dtype="fp16", quantization="8bit", optimizer="adafactor", gradient_checkpointing=True
    ),
)
# PEFT cannot wrap these.
REFUSED = ("pp_formulanet",)
SOME = ("llama", "mixtral", "bert", "t5", "gpt2", "mamba", "llava", "albert", "deepseek_v3", "qwen3_next")


@functools.cache
def planned(model_type: str, rules: str = "all", rank: int = 8) -> Plan:
    return ls.plan(sample(model_type), *rules.split(), rank=rank, dropout=0.0)


def said(memory: Memory, name: str) -> int:
    return next(part.size for part in memory.parts if part.name == name)


def check(model_type: str) -> int:
    """Everything that must hold for any model; how much was compared."""
    plan, larger = planned(model_type), planned(model_type, rank=32)
    compared = 0
    for how in TRAININGS:
        memory = training_memory(plan, how)
        assert tuple(part.name for part in memory.parts) == PARTS
        assert all(part.size >= 0 and part.formula for part in memory.parts), how
        assert memory.total == sum(part.size for part in memory.parts) > said(memory, "weights") > 0
        assert said(memory, "adapters") == 4 * plan.resolution.trainable
        assert memory.moment
        for grown in (
            dataclasses.replace(how, batch=how.batch * 2),
            dataclasses.replace(how, seq_len=how.seq_len * 2),
        ):
            assert training_memory(plan, grown).total > memory.total, grown
        assert training_memory(larger, how).total > memory.total
        full = dataclasses.replace(how, gradient_checkpointing=False)
        assert training_memory(plan, dataclasses.replace(how, gradient_checkpointing=True)).total <= (
            training_memory(plan, full).total
        )
        compared += 4
    by_kind = [
        said(training_memory(plan, dataclasses.replace(BASE, quantization=kind)), "weights")
        for kind in ("nf4", "8bit", "none")
    ]
    assert by_kind == sorted(by_kind)
    return compared


@pytest.mark.parametrize("model_type", SOME)
def test_what_holds_for_any_model(model_type: str) -> None:
    assert check(model_type) == 16


@pytest.mark.slow
def test_the_built_in_models() -> None:
    walked = [check(model_type) for model_type in builtin_models() if model_type not in REFUSED]
    assert len(walked) == 338
    assert sum(walked) == 16 * 338


def test_llama_7b_by_hand() -> None:
    """Llama-2-7B in bf16, query and value at rank 8, one sequence of 2048."""
    plan = planned("llama", "qv")
    memory = training_memory(plan, Training())
    trained = 32 * 2 * 8 * 2 * 4096
    assert said(memory, "weights") == 2 * 6_738_415_616
    assert said(memory, "adapters") == 4 * trained == 4 * 4_194_304
    assert said(memory, "optimizer states") == 8 * trained
    assert said(memory, "gradients") == 0
    assert memory.moment == "the loss's backward pass"
    tokens, width, inner = 2048, 4096, 11008
    assert said(memory, "logits") == tokens * 32000 * 12
    norms = 2 * (4 * width + 4)
    adapters = 2 * (4 * width + 4 * 8)
    layer = tokens * (norms + adapters + 2 * 4 * width + 4 * 32 + 2 * 3 * inner)
    first = layer - tokens * (4 * width + 4)  # its first normalization, whose input needs no gradient
    assert said(memory, "activations") == 31 * layer + first + tokens * (4 * width + 4)


def test_layers_below_the_first_adapter_keep_nothing() -> None:
    every, last = planned("llama", "attention"), planned("llama", "attention[-8:]")
    kept = [said(training_memory(plan, Training()), "activations") for plan in (every, last)]
    assert 3.5 < kept[0] / kept[1] < 4.1
    # With checkpoints PEFT has the embeddings' output need a gradient, so that all layers are kept.
    kept = [said(training_memory(plan, Training(gradient_checkpointing=True)), "activations") for plan in (every, last)]
    assert kept[0] == kept[1]


def test_optimizers_differ_by_their_states() -> None:
    plan = planned("llama", rank=64)
    found = {name: training_memory(plan, Training(optimizer=name)) for name in OPTIMIZERS}
    states = {name: said(memory, "optimizer states") for name, memory in found.items()}
    trained = plan.resolution.trainable
    assert states["adamw"] == 8 * trained
    assert states["sgd"] == 0
    assert 2 * trained < states["adamw-8bit"] == states["paged-adamw-8bit"] < 2.1 * trained
    assert states["adafactor"] < 0.1 * trained
    assert any(note.code == "paged-optimizer" for note in found["paged-adamw-8bit"].notes)


@pytest.mark.parametrize(
    ("model_type", "training", "expected"),
    [
        ("llama", BASE, "cuda-context"),
        ("llama", BASE, "gradient-accumulation"),
        ("llama", Training(quantization="nf4"), "kbit-preparation"),
        ("mixtral", Training(quantization="nf4"), "unquantized-experts"),
        ("mixtral", BASE, "expert-copies"),
        ("mamba", BASE, "rough-mixers"),
        ("qwen3_next", BASE, "rough-mixers"),
        ("t5", BASE, "two-stacks"),
        ("gemma2", BASE, "saved-scores"),
    ],
)
def test_weak_spots_are_said(model_type: str, training: Training, expected: str) -> None:
    notes = training_memory(planned(model_type), training).notes
    assert sum(expected == note.code for note in notes) == 1


def test_notes_say_how_much() -> None:
    notes = {note.code: str(note) for note in training_memory(planned("mixtral"), Training(quantization="nf4")).notes}
    assert notes["unquantized-experts"] == (
        "bitsandbytes does not quantize fused experts: 45,097,156,608 parameters, 90.19 GB of the weights."
    )
    assert notes["kbit-preparation"].endswith("float32, which adds 90.72 GB.")
    assert notes["assumptions"] == "Assumes pure bf16 (no autocast) and full logits (no chunked loss)."
    assert notes["expert-copies"].endswith("copies of them: 90.30 GB, or 2.82 GB with gradient checkpointing.")
    paged = training_memory(planned("t5"), Training(seq_len=512, optimizer="paged-adamw-8bit"))
    assert str(next(note for note in paged.notes if note.code == "two-stacks")) == (
        "Encoder and decoder get 512 tokens each."
    )


def test_sure_estimates_have_few_notes() -> None:
    assert len(training_memory(planned("llama"), BASE).notes) == 3


def test_copies_of_adapted_experts_are_counted() -> None:
    """PEFT adds the adapters of fused experts to the weights: every layer keeps its experts once more."""
    memory = training_memory(planned("mixtral", "all"), Training())
    experts = 2 * 32 * 8 * 3 * 4096 * 14336
    assert said(memory, "activations") > experts
    assert said(training_memory(planned("mixtral", "attention"), Training()), "activations") < experts / 4
    assert (
        said(training_memory(planned("mixtral", "all"), Training(gradient_checkpointing=True)), "activations")
        < experts / 20
    )


def test_a_tower_is_given_its_own_positions() -> None:
    plan = ls.plan(sample("llava"), "vision.attention=8", dropout=0.0)
    short, long = (said(training_memory(plan, Training(seq_len=length)), "activations") for length in (512, 1024))
    assert short < long < 2 * short  # 577 patches, whatever the text's length
    assert not any(note.code.startswith("unknown-") for note in training_memory(plan, BASE).notes)


def test_classifiers_have_hardly_any_logits() -> None:
    plan = ls.plan(sample("bert", "sequence-classification"), "attention=8", dropout=0.0)
    assert said(training_memory(plan, BASE), "logits") < 100_000
