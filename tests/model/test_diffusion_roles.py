"""Roles of diffusers' denoising models: names and shapes of diffusers 0.42.1, decided by reading each `forward`."""

from __future__ import annotations

from functools import cache

import pytest

from lorascope.model.classify import classify
from lorascope.model.types import Module, Weight
from lorascope.names import template
from tests.helpers.expectations import rows


def _module(name: str, kind: str, shape: tuple[int, ...]) -> Module:
    if kind == "conv":
        return Module(name, "Conv2d", "conv", (("weight", (*shape, 1, 1)),))
    if kind == "parameter":
        owner, _, parameter = name.rpartition(".")
        return Module(owner, "Block", "other", ((parameter, shape),))
    return Module(name, kind.capitalize(), kind, (("weight", shape),))


@cache
def _expected() -> dict[str, dict[str, tuple[str, tuple[int, ...], str]]]:
    models: dict[str, dict[str, tuple[str, tuple[int, ...], str]]] = {}
    for model, pattern, kind, shape, role in rows("diffusion_roles"):
        models.setdefault(model, {})[pattern] = (kind, tuple(map(int, shape.split("x"))), role)
    return models


@cache
def _weights(model: str) -> tuple[Weight, ...]:
    """Two layers of a model, each with all its kinds of weights."""
    modules = [
        _module(pattern.replace("#", number), kind, shape)
        for number in ("0", "1")
        for pattern, (kind, shape, _) in _expected()[model].items()
        if "#" in pattern or number == "0"
    ]
    if model == "AutoencoderKL":  # the ends that read and write an image
        modules += [
            Module(name, "Conv2d", "conv", (("weight", shape),))
            for name, shape in (("encoder.conv_in", (128, 3, 3, 3)), ("decoder.conv_out", (3, 128, 3, 3)))
        ]
    return classify(modules)


@pytest.mark.parametrize("model", list(_expected()))
def test_every_weight_has_the_role_that_the_forward_pass_gives_it(model: str) -> None:
    expected = {pattern: role for pattern, (_, _, role) in _expected()[model].items()}
    found = {template(weight.name): str(weight.role) for weight in _weights(model)}
    assert {name: role for name, role in found.items() if role != expected[name]} == {}
    assert found.keys() == expected.keys()
    assert [weight.name for weight in _weights(model) if weight.guess] == []


def test_that_is_fifteen_models() -> None:
    assert len(_expected()) == 15
    assert sum(len(patterns) for patterns in _expected().values()) == 379


def test_one_matrix_ends_each_of_flux_and_none_of_its_layers() -> None:
    heads = [weight.name for weight in _weights("FLUX.1") if weight.role.block == "head"]
    assert heads == ["proj_out"]
