"""Maps of built-in models, read once, a tiny configuration, how the tests look at an error's message, and peak memory."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import pytest

from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.sources.builtin import load_builtin

# The configuration of a llama that is hardly there.
TINY_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 32,
}


@functools.cache
def sample(model_type: str, head: str = "") -> ModelMap:
    """The recorded map of a model type."""
    return load_builtin(model_type, head)


@contextlib.contextmanager
def fails(*parts: str) -> Iterator[pytest.ExceptionInfo[LorascopeError]]:
    """The block raises a `LorascopeError` whose message holds every part."""
    with pytest.raises(LorascopeError) as caught:
        yield caught
    missing = [part for part in parts if part not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"
