"""Built models with fewer layers: at least one of each kind, for what costs time by layer."""

from __future__ import annotations

from torch import nn

LAYERS = 12  # so that layers 0, 1, 10 and 11 are there: one number begins, or ends, like another


def shorten(model: nn.Module) -> nn.Module:
    """Cut every longer list of layers to twelve, or to as many as it has kinds, and number them anew.

    What is kept is untouched: a model built at full depth, whose configuration still says so. The model is changed.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ModuleList) and len(child) > LAYERS:
                module._modules[name] = nn.ModuleList(child[index] for index in kept_layers(child))
    return model


def kept_layers(layers: nn.ModuleList) -> list[int]:
    """The first layer of each kind, the last of all, and from the start as many as make twelve."""
    kinds: dict[tuple[object, ...], int] = {}
    for index, layer in enumerate(layers):
        kinds.setdefault(kind_of(layer), index)
    kept = {*kinds.values(), len(layers) - 1}
    rest = [index for index in range(len(layers)) if index not in kept]
    return sorted(kept | {*rest[: max(0, LAYERS - len(kept))]})


def kind_of(layer: nn.Module) -> tuple[object, ...]:
    """Every module of a layer with its class, and every parameter with its shape."""
    modules = ((name, type(module)) for name, module in layer.named_modules())
    return (*modules, *((name, tuple(parameter.shape)) for name, parameter in layer.named_parameters()))
