"""Maps of the gallery, read once, and how the tests look at an error's message."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import pytest

from lorascope.errors import LorascopeError
from lorascope.records import ModelMap
from lorascope.sources.gallery import from_gallery


@functools.cache
def sample(model_type: str, head: str = "") -> ModelMap:
    """The recorded map of a model type."""
    return from_gallery(model_type, head)


@contextlib.contextmanager
def fails(*parts: str) -> Iterator[pytest.ExceptionInfo[LorascopeError]]:
    """The block raises a `LorascopeError` whose message holds every part."""
    with pytest.raises(LorascopeError) as caught:
        yield caught
    missing = [part for part in parts if part not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"
