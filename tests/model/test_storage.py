"""Words for quantized storage: one reader, with the scheme and bits that they name."""

from __future__ import annotations

import pytest

from lorascope.model.storage import Storage, parse_storage


@pytest.mark.parametrize(
    ("words", "storage"),
    [
        ("", Storage()),
        ("fp8 without scale", Storage("fp8", scaled=False)),
        ("fp8 block 128×128", Storage("fp8")),
        ("mxfp8", Storage("mxfp8")),
        ("bnb nf4", Storage("bnb")),
        ("gptq 4 bit", Storage("gptq", 4)),
        ("awq 4 bit gemv_fast", Storage("awq", 4)),
        ("auto-round gptq 8 bit", Storage("auto-round", 8)),
        ("compressed-tensors int8 channel", Storage("compressed-tensors")),
        ("none + gptq 3 bit", Storage("none", 3)),
        ("gptq x bit", Storage("gptq")),
        ("gptq bit", Storage("gptq")),
    ],
)
def test_schemes_and_bits(words: str, storage: Storage) -> None:
    assert parse_storage(words) == storage
