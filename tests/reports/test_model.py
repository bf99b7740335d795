"""The text of a map grows with its weights, and no faster."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from lorascope.model.types import ModelMap
from lorascope.names import NUMBER
from lorascope.reports.model import BY, map_text
from tests.helpers.samples import sample


def with_layers(model: ModelMap, count: int) -> ModelMap:
    """The same model with fewer layers."""

    def kept(name: str) -> bool:
        number = NUMBER.search(name)
        return number is None or int(number[0]) < count

    return dataclasses.replace(
        model,
        modules=tuple(module for module in model.modules if kept(module.name)),
        weights=tuple(weight for weight in model.weights if kept(weight.name)),
    )


def calls_of(model: ModelMap, by: str) -> int:
    """Calls of Python functions while the text is made."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        map_text(model, by=by)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("by", BY)
def test_the_text_is_linear_in_the_layers(by: str) -> None:
    model = sample("llama", "causal-lm")
    map_text(with_layers(model, 1), by=by)  # what is loaded and cached once
    few, many = (calls_of(with_layers(model, layers), by) for layers in (8, 32))
    assert few > 500
    assert many < 4.4 * few
