"""The text of a map grows with its weights, and no faster."""

from __future__ import annotations

import dataclasses

import pytest

from lorascope.model.types import ModelMap
from lorascope.names import NUMBER
from lorascope.reports.model import BY, map_text
from tests.helpers.samples import sample
from tests.helpers.work import least_time


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


@pytest.mark.parametrize("by", BY)
def test_the_text_is_linear_in_the_layers(by: str) -> None:
    model = sample("llama", "causal-lm")
    map_text(with_layers(model, 1), by=by)  # what is loaded and cached once
    maps = {layers: with_layers(model, layers) for layers in (8, 32)}
    few, many = (least_time(lambda shown=shown: map_text(shown, by=by)) for shown in maps.values())
    assert many < 8 * few  # four times the layers; 16 if a row looked at every other
