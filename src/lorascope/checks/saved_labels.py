"""The number of labels that an adapter's saved head has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap, Module
from lorascope.peft_rules.state_dict import PREFIX
from lorascope.peft_rules.types import Resolution
from lorascope.sources.checkpoint.types import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class SavedLabels:
    """A head with another number of labels than the base model's.

    Attributes:
        head: The module that was saved in full.
        saved: Labels in the adapter's file.
        base: Labels of the base model.
    """

    head: str
    saved: int
    base: int


def saved_labels(model: ModelMap, resolution: Resolution, tensors: Mapping[str, Tensor] | None) -> SavedLabels | None:
    """The labels of a saved head, where they differ from the base model's; else None.

    Args:
        model: The map of the base model.
        resolution: What PEFT does with the configuration.
        tensors: Those of the adapter's file; None where none were read.
    """
    heads = {weight.module for weight in model.weights if weight.role.block == "head"}
    for saved in resolution.saved if tensors else ():
        found = {
            (tensor.shape[0], shape[0])
            for module in _within(model, saved)
            if module.name in heads and module.kind == "linear"
            for leaf, shape in module.parameters
            if (tensor := (tensors or {}).get(f"{PREFIX}{module.name}.{leaf}")) is not None
            and tensor.shape[1:] == shape[1:]
            and tensor.shape[:1] != shape[:1]
        }
        if len(found) == 1:
            ((there, here),) = found
            return SavedLabels(saved, there, here)
    return None


def with_labels(model: ModelMap, labels: SavedLabels) -> ModelMap:
    """The map of the same model, loaded with as many labels as the saved head has."""
    changed = {
        module.name
        for module in _within(model, labels.head)
        if module.kind == "linear" and any(shape[:1] == (labels.base,) for _, shape in module.parameters)
    }

    def resized(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (labels.saved, *shape[1:]) if shape[:1] == (labels.base,) else shape

    modules = tuple(
        dataclasses.replace(module, parameters=tuple((leaf, resized(shape)) for leaf, shape in module.parameters))
        if module.name in changed
        else module
        for module in model.modules
    )
    weights = tuple(
        dataclasses.replace(weight, shape=resized(weight.shape)) if weight.module in changed else weight
        for weight in model.weights
    )
    return dataclasses.replace(model, modules=modules, weights=weights)


def _within(model: ModelMap, owner: str) -> Iterator[Module]:
    return (module for module in model.modules if module.name == owner or module.name.startswith(f"{owner}."))
