"""Models and maps with fewer layers: at least one of each kind, for what costs time by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Sequence

from torch import nn

from lorascope.model.types import ModelMap

LAYERS = 12  # so that layers 0, 1, 10 and 11 are there: one number begins, or ends, like another


def shorten(model: nn.Module) -> nn.Module:
    """Cut every longer list of layers to twelve, or to as many as it has kinds, and number them anew.

    What is kept is untouched: a model built at full depth, whose configuration still says so. The model is changed.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ModuleList) and len(child) > LAYERS:
                kept = kept_layers([kind_of(layer) for layer in child])
                module._modules[name] = nn.ModuleList(child[index] for index in kept)
    return model


def kept_layers(kinds: Sequence[Hashable]) -> list[int]:
    """The first layer of each kind, the last of all, and from the start as many as make twelve."""
    first: dict[Hashable, int] = {}
    for index, kind in enumerate(kinds):
        first.setdefault(kind, index)
    kept = {*first.values(), len(kinds) - 1}
    rest = [index for index in range(len(kinds)) if index not in kept]
    return sorted(kept | {*rest[: max(0, LAYERS - len(kept))]})


def kind_of(layer: nn.Module) -> Hashable:
    """Every module of a layer with its class, and every parameter with its shape."""
    modules = ((name, type(module)) for name, module in layer.named_modules())
    return (*modules, *((name, tuple(parameter.shape)) for name, parameter in layer.named_parameters()))


def shallow_map(model: ModelMap) -> ModelMap:
    """A map with the layers that `shorten` would leave its model; the dimensions stay those at full depth."""
    stacks = _kept_numbers(model)

    def renamed(name: str) -> str | None:
        words: list[str] = []
        place = ""  # under the old name
        for word in name.split("."):
            number = stacks[place].get(word) if place in stacks else word
            if number is None:
                return None
            words.append(number)
            place = f"{place}.{word}" if place else word
        return ".".join(words)

    modules = [
        dataclasses.replace(module, name=name) for module in model.modules if (name := renamed(module.name)) is not None
    ]
    weights = []
    layers: dict[tuple[str, str], dict[int, int]] = {}
    for weight in model.weights:
        name, owner = renamed(weight.name), renamed(weight.module)
        if name is None or owner is None:
            continue
        layer = weight.layer
        if layer is not None:
            numbers = layers.setdefault((weight.role.component, weight.role.stack), {})
            layer = numbers.setdefault(layer, len(numbers))
        weights.append(dataclasses.replace(weight, name=name, module=owner, layer=layer))
    return dataclasses.replace(
        model, modules=tuple(modules), weights=tuple(weights), ties=_renamed_ties(model.ties, renamed), traces=()
    )


def _renamed_ties(ties: Iterable[Sequence[str]], renamed: Callable[[str], str | None]) -> tuple[tuple[str, ...], ...]:
    groups = (tuple(name for old in group if (name := renamed(old)) is not None) for group in ties)
    return tuple(group for group in groups if len(group) > 1)


def _kept_numbers(model: ModelMap) -> dict[str, dict[str, str]]:
    """For every longer list of layers the old number of each that is kept, and its new one."""
    inner: dict[str, dict[str, list[Hashable]]] = {m.name: {} for m in model.modules if m.class_name == "ModuleList"}
    roles = {weight.name: (weight.kind, weight.role) for weight in model.weights}
    for module in model.modules:
        words = module.name.split(".")
        for at in range(1, len(words)):
            if (place := ".".join(words[:at])) in inner:
                facts = dataclasses.replace(module, name=""), roles.get(module.name)
                inner[place].setdefault(words[at], []).append((".".join(words[at + 1 :]), *facts))
    stacks = {}
    for place, layers in inner.items():
        if len(layers) > LAYERS:
            numbers = list(layers)
            kept = kept_layers([tuple(facts) for facts in layers.values()])
            stacks[place] = {numbers[old]: str(new) for new, old in enumerate(kept)}
    return stacks
