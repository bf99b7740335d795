"""Weights that a module computes from its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.model.types import Trait
from lorascope.sources.modules.module_tree import shape_of
from lorascope.sources.modules.python_objects import attribute, children_of, kinds_of, namespace, parameters_of

Shape = tuple[int, ...]

_TENSOR = "torch.Tensor"
_LIST = "torch.nn.utils.parametrize.ParametrizationList"


def computed_shapes(module: Any, kind: str, stored: Mapping[str, Shape]) -> Iterator[tuple[str, Shape]]:
    """Tensors that PEFT sees of a module and that are no parameters.

    The weight is among them where the class's own numbers of features, by which PEFT goes, say another shape than the
    stored one.

    Args:
        module: The module.
        kind: As in `Module`.
        stored: Its own parameters.
    """
    name = "in_proj_weight" if kind == "multihead_attention" else "weight"
    wanted = _weight_of_features(module, kind)
    if wanted is not None and stored.get(name) != wanted:
        yield name, wanted
    for other in _parametrized(module):
        if other not in stored and not (other == name and wanted is not None):
            tensor = attribute(module, other)
            shape = shape_of(tensor) if _TENSOR in kinds_of(type(tensor)) else None
            if shape is not None:
                yield other, shape


def _weight_of_features(module: Any, kind: str) -> Shape | None:
    """The weight's shape by the module's stated features, or None."""

    def numbers(*names: str) -> Shape | None:
        values = tuple(attribute(module, name) for name in names)
        return values if all(type(value) is int and value >= 0 for value in values) else None

    match kind:
        case "linear":
            return numbers("out_features", "in_features")
        case "embedding":
            return numbers("num_embeddings", "embedding_dim")
        case "multihead_attention" if attribute(module, "_qkv_same_embed_dim", False) is True:
            sides = numbers("embed_dim")
            return (3 * sides[0], sides[0]) if sides else None
        case "conv":
            sides = numbers("out_channels", "in_channels", "groups")
            kernel = attribute(module, "kernel_size")
            if not sides or not sides[2] or type(kernel) is not tuple or not all(type(size) is int for size in kernel):
                return None
            return (sides[0], sides[1] // sides[2], *kernel)
    return None


def traits_of(module: Any) -> Iterator[Trait]:
    """Traits of a module, see `Trait`."""
    if _parametrized(module):
        yield "parametrized"
    if any(_of_computation(value) for value in namespace(module).values()):
        yield "uncopyable"
    own = parameters_of(module)
    bias = None if "bias" in own else namespace(module).get("bias")
    # What has no parameters gets no adapter, and PEFT does not look at its bias.
    if own and (isinstance(bias, bool) or _of_computation(bias)):
        yield "untrainable-bias"


def _parametrized(module: Any) -> tuple[str, ...]:
    """Names of tensors that `torch.nn.utils.parametrize` computes."""
    lists = children_of(module).get("parametrizations")
    if lists is None:
        return ()
    return tuple(name for name, entry in children_of(lists).items() if _LIST in kinds_of(type(entry)))


def _of_computation(value: Any) -> bool:
    """A tensor that autograd computed from others."""
    return _TENSOR in kinds_of(type(value)) and attribute(value, "grad_fn") is not None
