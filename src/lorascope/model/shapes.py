"""Shapes that each kind of module allows for its weight.

Every source makes its modules through `fitting`, so that whatever reads a map may rely on it: the weight of a `linear`,
`conv1d`, `embedding`, `conv` or `multihead_attention` has the dimensions of its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import Module
from lorascope.names import listed

Shape = tuple[int, ...]

# How many dimensions the weight of a kind has.
DIMENSIONS: Mapping[str, tuple[int, ...]] = {
    "linear": (2,),
    "conv1d": (2,),
    "embedding": (2,),
    "conv": (3, 4, 5),
    "multihead_attention": (2,),
}
_WEIGHTS = ("weight", "in_proj_weight")
_MOST_NAMES = 4
_UNPACK = (
    "no adapter can be planned for what they were. Save the model whole first: accelerate merge-weights for FSDP, "
    "zero_to_fp32.py for DeepSpeed"
)


def is_shape_of(kind: str, parameter: str, shape: Shape) -> bool:
    """A parameter of such a module can have the shape."""
    return parameter not in _WEIGHTS or kind not in DIMENSIONS or len(shape) in DIMENSIONS[kind]


def separate_misshapen(modules: Iterable[Module]) -> tuple[tuple[Module, ...], dict[str, Shape]]:
    """Modules with misshapen weights turned into `other`, and these weights.

    Such a weight stays among the parameters, so that counts are those of the file.
    """
    fit: list[Module] = []
    odd: dict[str, Shape] = {}
    for module in modules:
        wrong = [(name, shape) for name, shape in module.parameters if not is_shape_of(module.kind, name, shape)]
        odd.update((f"{module.name}.{name}", shape) for name, shape in wrong)
        fit.append(dataclasses.replace(module, kind="other", groups=1, transposed=False) if wrong else module)
    return tuple(fit), odd


def shape_notes(odd: Mapping[str, Shape], modules: Sequence[Module]) -> Iterator[str]:
    """Notes on weights with the wrong dimensions and on empty tensors."""
    by_dimensions: dict[int, list[str]] = {}
    for name, shape in odd.items():
        by_dimensions.setdefault(len(shape), []).append(name)
    for dimensions, names in sorted(by_dimensions.items()):
        why = ": flattened (FSDP), a placeholder (DeepSpeed) or packed" if dimensions < 2 else ""
        yield (
            f"{_tensors(len(names))} {_dimensions(dimensions)} where the module has a matrix or a kernel, such as {names[0]} "
            f"{list(odd[names[0]])}{why}; {_UNPACK}. They are: {listed(names, _MOST_NAMES)}"
        )
    empty = [
        f"{module.name}.{name}"
        for module in modules
        for name, shape in module.parameters
        if 0 in shape and f"{module.name}.{name}" not in odd
    ]
    if empty:
        yield f"without any numbers, as a side of theirs is 0: {listed(empty, _MOST_NAMES)}"


def _tensors(count: int) -> str:
    return "1 tensor has" if count == 1 else f"{count} tensors have"


def _dimensions(count: int) -> str:
    return "1 dimension" if count == 1 else f"{count} dimensions"
