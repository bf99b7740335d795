"""Words for quantized storage: one reader, with the scheme and bits that they name."""

from __future__ import annotations

import pytest

from lorascope.model.storage import Storage, parse_storage


@pytest.mark.parametrize(
    ("words", "storage"),
    [
        ("", Storage()),
        ("fp8 without scale", Storage("fp8", 8, scaled=False)),
        ("fp8 block 128×128", Storage("fp8", 8)),
        ("mxfp8", Storage("mxfp8", 8)),
        ("bnb nf4", Storage("bnb", 4)),
        ("gptq 4 bit", Storage("gptq", 4)),
        ("awq 4 bit gemv_fast", Storage("awq", 4)),
        ("auto-round gptq 8 bit", Storage("auto-round", 8)),
        ("compressed-tensors int8 channel", Storage("compressed-tensors", 8)),
        ("none + gptq 3 bit", Storage("none", 3)),
        ("bitnet", Storage("bitnet", 2)),
        ("gguf Q8_0, IQ2_XS", Storage("gguf", 8)),
        ("gguf BF16", Storage("gguf")),
        ("aqlm", Storage("aqlm")),
        ("gptq x bit", Storage("gptq")),
        ("gptq bit", Storage("gptq")),
    ],
)
def test_schemes_and_bits(words: str, storage: Storage) -> None:
    assert parse_storage(words) == storage
