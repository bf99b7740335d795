"""The model that `layer_replication` builds before anything matches (`replicate_layers`).

Its layers are those of the ranges, one after the other, with the base weights shared and an adapter for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap, Module
from lorascope.peft_rules import reasons
from lorascope.peft_rules.diagnostics import Diagnostic

Range = tuple[int, ...]
# A list of a few characters can ask for a model of any depth.
MOST_LAYERS = 4096


@dataclasses.dataclass(frozen=True)
class Replicated:
    """A model after `layer_replication`.

    Attributes:
        model: Its map; the given one where PEFT stops, or where it asks for too many layers.
        count: Layers before.
        layers: The old number of each new layer; empty where nothing is replicated.
        refusal: Why PEFT stops, or None.
        uncovered: It asks for more layers than the rules build, or None.
    """

    model: ModelMap
    count: int = 0
    layers: tuple[int, ...] = ()
    refusal: Diagnostic | None = None
    uncovered: Diagnostic | None = None


def replicated(model: ModelMap, ranges: Sequence[Range] | None) -> Replicated:
    """The model that PEFT builds of some ranges of its layers.

    Args:
        model: The map of the model.
        ranges: Pairs of the first layer and the one after the last; None or empty for the model as it is.
    """
    if not ranges:
        return Replicated(model)
    place = _layer_list(model)
    if not place:
        return Replicated(model, refusal=reasons.REPLICATION_WITHOUT_LAYERS.about())
    count = len({module.name for module in model.modules if _number(module.name, place) is not None})
    layers: list[int] = []
    for pair in ranges:
        if len(pair) != 2:
            return Replicated(model, refusal=reasons.REPLICATION_OF_OTHERS.about(given=pair))
        # PEFT goes through the range and stops at the first number that is no layer; Python counts from the end too.
        for number in range(*pair):
            if not -count <= number < count:
                return Replicated(model, refusal=reasons.REPLICATION_BEYOND.about(place, number=number, count=count))
            layers.append(number % count)
            if len(layers) > MOST_LAYERS:
                return Replicated(model, uncovered=reasons.REPLICATION_TOO_DEEP.about(most=MOST_LAYERS))
    return Replicated(_with_layers(model, place, layers), count, tuple(layers))


def _layer_list(model: ModelMap) -> str:
    """The name of the list that PEFT looks for, or empty."""
    modules = model.module_by_name
    root = ""
    while (inner := f"{root}model") in modules:
        root = f"{inner}."
    if f"{root}bert" in modules:
        root += "bert."
    for name in ("layers", "encoder.layer", "h"):
        # The first that is there decides, be it a list or not.
        if (module := modules.get(f"{root}{name}")) is not None:
            return module.name if module.class_name == "ModuleList" else ""
    return ""


def _number(name: str, place: str) -> int | None:
    """The number of the layer whose own name this is, or None."""
    digits = name[len(place) + 1 :] if name.startswith(f"{place}.") else ""
    return int(digits) if digits.isdecimal() else None


def _with_layers(model: ModelMap, place: str, layers: Sequence[int]) -> ModelMap:
    """The map with these layers in place of its own."""
    below = f"{place}."

    def placed(name: str, number: int) -> str:
        rest = name[len(below) :].partition(".")
        return f"{below}{number}{rest[1]}{rest[2]}"

    def copies(name: str) -> Iterator[int]:
        old = int(name[len(below) :].partition(".")[0])
        return (number for number, source in enumerate(layers) if source == old)

    modules: list[Module] = []
    for module in model.modules:
        if not module.name.startswith(below):
            modules.append(module)
        if module.name == place:
            owned: dict[int, list[Module]] = {}
            for inner in model.modules:
                if inner.name.startswith(below):
                    owned.setdefault(int(inner.name[len(below) :].partition(".")[0]), []).append(inner)
            modules += (
                dataclasses.replace(inner, name=placed(inner.name, number))
                for number, source in enumerate(layers)
                for inner in owned[source]
            )
    weights = [weight for weight in model.weights if not weight.module.startswith(below)]
    weights += (
        dataclasses.replace(weight, name=placed(weight.name, n), module=placed(weight.module, n), layer=n)
        for weight in model.weights
        if weight.module.startswith(below)
        for n in copies(weight.name)
    )
    order = {module.name: at for at, module in enumerate(modules)}
    ties = [
        tuple(
            copy
            for name in group
            for copy in ((placed(name, n) for n in copies(name)) if name.startswith(below) else (name,))
        )
        for group in model.ties
    ]
    tied = {name for group in model.ties for name in group}
    ties += (
        tuple(placed(name, number) for number in copies(name))
        for module in model.modules
        if module.name.startswith(below)
        for name in (f"{module.name}.{leaf}" for leaf, _ in module.parameters)
        if name not in tied
    )
    return dataclasses.replace(
        model,
        modules=tuple(modules),
        weights=tuple(sorted(weights, key=lambda weight: order[weight.module])),
        ties=tuple(group for group in ties if len(group) > 1),
        dimensions=dataclasses.replace(model.dimensions, layers=len(layers)),
        traces=(),
    )
