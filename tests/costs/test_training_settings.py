"""Settings of a training: valid values, and every fault at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lorascope.costs.training_run import DTYPES, OPTIMIZERS, QUANTIZATIONS, Training, training_faults
from tests.helpers.samples import fails


def test_defaults_have_no_fault() -> None:
    assert training_faults() == ()
    assert Training().tokens == 2048
    assert Training(batch=3, seq_len=5).tokens == 15
    assert [Training(dtype=dtype).width for dtype in DTYPES] == [2, 2, 4]


def test_every_known_word_is_taken() -> None:
    tried = [Training(dtype=d, quantization=q, optimizer=o) for d in DTYPES for q in QUANTIZATIONS for o in OPTIMIZERS]
    assert len(tried) == 45


def test_optimizers_are_those_of_transformers() -> None:
    from transformers.training_args import OptimizerNames

    known = {name.value for name in OptimizerNames}
    assert set(OPTIMIZERS.values()) <= known
    assert len(OPTIMIZERS) == 5


def test_all_faults_at_once() -> None:
    wrong: dict[str, Any] = {
        "batch": 0,
        "seq_len": "x",
        "dtype": "bf61",
        "quantization": "nf3",
        "optimizer": "adam",
        "gradient_checkpointing": "yes",
        "device": "gpu",
    }
    assert set(wrong) == {field.name for field in dataclasses.fields(Training)}
    assert len(training_faults(**wrong)) == 7
    with fails(
        "training: 7 faults",
        "batch 0 is not a whole number from 1",
        "seq_len 'x' is not a whole number",
        "dtype 'bf61' is not one of bf16, fp16, fp32",
        'Did you mean "nf4"?',
        'Did you mean "adamw"',
        "gradient_checkpointing 'yes' is neither true nor false",
        "device 'gpu' is not one of cuda, cpu",
        "→ The defaults are batch 1",
    ):
        Training(**wrong)


@pytest.mark.parametrize("value", [-1, 0, True, 1.0, "2", None, 10**7, [1]])
def test_a_batch_is_a_whole_number(value: object) -> None:
    assert len(training_faults(batch=value)) == 1


@pytest.mark.parametrize("value", [None, 3, ["adamw"], {}, ""])
def test_words_of_any_kind_are_faults_and_no_traceback(value: object) -> None:
    assert len(training_faults(optimizer=value, dtype=value, quantization=value)) == 3
