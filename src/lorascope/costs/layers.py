"""Layers of a model in the order of a training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap, Module, Weight

# No model runs a layer more often, whatever its configuration says.
_MAX_RUNS = 1_000
# Order of a model's components in a step, and of the stacks in a component.
_COMPONENTS = ("vision", "audio", "connector")
_STACKS = ("encoder", "", "decoder")


@dataclasses.dataclass(frozen=True, slots=True)
class Submodule:
    """Weights of an attention, a feed-forward network or a layer's experts.

    Attributes:
        parent: The module's name.
        block: Their block.
        variant: Their variant.
        weights: Part to weight; the first where a part occurs more than once.
        copies: Number of such modules that run as one: experts that are modules of their own.
        classes: Classes of all modules in it.
    """

    parent: str
    block: str
    variant: str
    weights: Mapping[str, Weight]
    copies: int = 1
    classes: frozenset[str] = frozenset()

    @property
    def stage(self) -> int:
        """Place in the layer."""
        if self.block == "attention":
            return 1 if self.variant == "cross" else 0
        return 2 if self.block in ("ffn", "router") else 0


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """One layer.

    Attributes:
        place: The name of its module.
        component: Its component.
        stack: Its stack.
        index: Its number within them.
        submodules: Its weights by submodule.
        norms: Its normalizations.
        dropouts: Its modules called `Dropout`.
        width: Width of its hidden states.
        repeats: Number of runs, where layers share their weights (ALBERT).
    """

    place: str
    component: str
    stack: str
    index: int
    submodules: tuple[Submodule, ...]
    norms: tuple[Module, ...]
    dropouts: tuple[Module, ...]
    width: int
    repeats: int = 1


@dataclasses.dataclass(frozen=True)
class ModelLayers:
    """Layers of a model in order, and the rest of it.

    Attributes:
        layers: The layers.
        before: Weights that run before any layer: embeddings.
        between: Weights outside of layers that are neither embedding nor head: connectors, projections.
        head: Weights of the head.
        norms: Normalizations outside of layers that run after some.
        early_norms: Those that run before any.
        early_dropouts: Modules called `Dropout` that run before any layer.
        late_dropouts: Those that run after some.
        rotary: Queries and keys are rotated, which makes new tensors of them.
    """

    layers: tuple[Layer, ...]
    before: tuple[Weight, ...]
    between: tuple[Weight, ...]
    head: tuple[Weight, ...]
    norms: tuple[Module, ...]
    early_norms: tuple[Module, ...]
    early_dropouts: tuple[Module, ...]
    late_dropouts: tuple[Module, ...]
    rotary: bool


def model_layers(model: ModelMap) -> ModelLayers:
    """Group a model's weights and modules by layer."""
    prefixes: dict[str, tuple[str, str, int]] = {}
    inside: dict[tuple[str, str, int], list[Weight]] = {}
    outside: list[Weight] = []
    for weight in model.weights:
        if weight.layer is None:
            outside.append(weight)
            continue
        key = (weight.role.component, weight.role.stack, weight.layer)
        inside.setdefault(key, []).append(weight)
        prefixes.setdefault(_prefix(weight.name, weight.layer), key)
    modules: dict[tuple[str, str, int], list[Module]] = {key: [] for key in inside}
    early: list[Module] = []
    late: list[Module] = []
    early_dropouts: list[Module] = []
    late_dropouts: list[Module] = []
    ran = False
    for module in model.modules:
        place = _place(module.name, prefixes)
        if place is not None:
            modules[place].append(module)
            ran = True
        elif _is_norm(module):
            (late if ran else early).append(module)
        elif module.class_name == "Dropout":
            (late_dropouts if ran else early_dropouts).append(module)
    counts: dict[tuple[str, str], int] = {}
    for component, stack, _ in inside:
        counts[component, stack] = counts.get((component, stack), 0) + 1
    layers = [_layer(key, inside[key], modules[key], model, counts[key[:2]]) for key in sorted(inside, key=_order)]
    return ModelLayers(
        layers=tuple(layers),
        before=tuple(weight for weight in outside if weight.role.block == "embedding"),
        between=tuple(weight for weight in outside if weight.role.block not in ("embedding", "head")),
        head=tuple(weight for weight in outside if weight.role.block == "head"),
        norms=tuple(late),
        early_norms=tuple(early),
        early_dropouts=tuple(early_dropouts),
        late_dropouts=tuple(late_dropouts),
        rotary=_is_rotary(model),
    )


def layer_order(weight: Weight) -> tuple[int, int, int]:
    """Place of a weight's layer in the order of a step."""
    return _order((weight.role.component, weight.role.stack, -1 if weight.layer is None else weight.layer))


def _order(key: tuple[str, str, int]) -> tuple[int, int, int]:
    component, stack, index = key
    place = _COMPONENTS.index(component) if component in _COMPONENTS else len(_COMPONENTS)
    return place, _STACKS.index(stack) if stack in _STACKS else 1, index


def _prefix(name: str, layer: int) -> str:
    """Name up to the layer's number, or else to its first."""
    pieces = name.split(".")
    numbers = [at for at, piece in enumerate(pieces) if piece.isdecimal()]
    if not numbers:
        return name.rpartition(".")[0]
    at = next((at for at in numbers if int(pieces[at]) == layer), numbers[0])
    return ".".join(pieces[: at + 1])


def _place(name: str, prefixes: Mapping[str, tuple[str, str, int]]) -> tuple[str, str, int] | None:
    """Innermost layer that a module lies in."""
    while name:
        if name in prefixes:
            return prefixes[name]
        name = name.rpartition(".")[0]
    return None


def _is_norm(module: Module) -> bool:
    return "norm" in module.class_name.lower() and bool(module.parameters)


def _is_rotary(model: ModelMap) -> bool:
    """Whether positions are rotary.

    A module rotates, or the text has no embedding of positions.
    """
    if any("Rotary" in module.class_name or "RoPE" in module.class_name for module in model.modules):
        return True
    return not any(weight.role.block == "embedding" and weight.role.part == "position" for weight in model.weights)


def _layer(
    key: tuple[str, str, int], weights: Sequence[Weight], modules: Sequence[Module], model: ModelMap, count: int
) -> Layer:
    component, stack, index = key
    submodules = _submodules(weights, modules)
    width = _width(submodules, model)
    runs = min(model.dimensions.layers or 0, _MAX_RUNS)
    return Layer(
        place=_prefix(weights[0].name, index),
        component=component,
        stack=stack,
        index=index,
        submodules=submodules,
        norms=tuple(module for module in modules if _is_norm(module)),
        dropouts=tuple(module for module in modules if module.class_name == "Dropout"),
        width=width,
        repeats=runs // count if count == 1 and component not in _COMPONENTS and runs > 1 else 1,
    )


def _submodules(weights: Sequence[Weight], modules: Sequence[Module]) -> tuple[Submodule, ...]:
    parts_of: dict[tuple[str, str, str], dict[str, Weight]] = {}
    copies: dict[tuple[str, str, str], set[str]] = {}
    for weight in weights:
        role = weight.role
        parent = weight.module if weight.kind == "parameter" else weight.module.rpartition(".")[0]
        if role.block == "attention" and role.part in ("o", "o_a", "o_b"):
            # The output projection can be outside of the module with the others (BERT's attention.output).
            near = [key for key in parts_of if key[1] == "attention" and key[2] == role.variant]
            parent = near[-1][0] if near else parent
        elif role.block == "ffn" and role.variant != "expert" and role.part == "down":
            near = [
                key for key in parts_of if key[1] == "ffn" and key[2] == role.variant and "down" not in parts_of[key]
            ]
            parent = near[-1][0] if near else parent
        numbered = role.variant == "expert" and weight.kind != "parameter"
        key = (parent.rstrip("0123456789") if numbered else parent, role.block, role.variant)
        parts_of.setdefault(key, {}).setdefault(role.part, weight)
        copies.setdefault(key, set()).add(parent)
    return tuple(
        Submodule(
            parent,
            block,
            variant,
            parts,
            len(copies[parent, block, variant]) if variant == "expert" else 1,
            frozenset(module.class_name for module in modules if module.name.startswith(parent)),
        )
        for (parent, block, variant), parts in parts_of.items()
    )


def _width(submodules: Sequence[Submodule], model: ModelMap) -> int:
    for submodule in submodules:
        for part in ("down", "o", "out"):
            if part in submodule.weights:
                return fan_in_out(submodule.weights[part])[1]
    return model.dimensions.hidden_size or 1


def fan_in_out(weight: Weight) -> tuple[int, int]:
    """Input and output width of a weight, per token."""
    if len(weight.shape) < 2:
        return weight.shape[0], weight.shape[0]
    return weight.shape[-1], weight.shape[-2]
