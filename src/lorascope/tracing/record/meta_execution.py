"""Runs a tensor operation without weights; known numbers stay real.

Integers, masks and positions do not depend on weights. They are kept on the CPU, so that modeling code can read them
(`.item()`, `nonzero`, a list of expert sizes); whatever depends on a weight lives on the meta device. Where code asks
for an integer that weights would decide, such as a router's choice, one is made up: every expert in turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from lorascope.tracing.limits import Meter

# By operation and operands: sizes, strides and type of each result.
Shapes = dict[Any, tuple[tuple[tuple[int, ...], tuple[int, ...], torch.dtype], ...]]

META = torch.device("meta")
CPU = torch.device("cpu")

# No integer tensor above this many elements is computed: a one-hot over 512 experts and a long prompt is below it.
LARGEST_KNOWN = 1 << 24

# Numbers that are no integers are masks, positions and factors: small, and read only to be compared.
LARGEST_KNOWN_FLOATS = 1 << 20

# What shapes are remembered of; a loop over ever longer tensors has new ones at every turn.
_MOST_SHAPES = 50_000

# Operations whose time grows faster than their operands: not computed where the sizes multiply to more.
_MOST_WORK = 1 << 36
_HEAVY = re.compile(
    r".*(conv|mm|matmul|mv|dot|pool|linalg|fft|cdist|cholesky|svd|qr|eig|inv|lu_|det|matrix|upsample|interp|grid|im2col"
    r"|col2im|unfold|fold|attention|lstm|gru|rnn|ctc|kron|embedding_bag|histogramdd|pdist|renorm|solve|polygamma|zeta)"
)
_CUBIC = re.compile(r".*(linalg|svd|qr|eig|inv|lu_|cholesky|det|matrix|solve)")
_LARGEST_MATRIX = 1 << 18
# The size of their results depends on numbers: no more than that of their operands (once for each dimension), or else.
_AS_LARGE_AS_OPERANDS = frozenset(
    [
        "nonzero",
        "nonzero_static",
        "masked_select",
        "unique_consecutive",
        "_unique",
        "_unique2",
        "unique_dim",
        "_local_scalar_dense",
        "equal",
        "is_nonzero",
        "allclose",
        "histc",
    ]
)
# Factories of which integers alone say how many elements they make.
_PLAIN_FACTORIES = frozenset(["empty", "zeros", "ones", "full", "rand", "randn", "randint", "randperm"])

# Operations that turn values into integers, and the index of the integers among their results.
CHOICES = {
    "topk": 1,
    "sort": 1,
    "argsort": 0,
    "argmax": 0,
    "argmin": 0,
    "max": 1,
    "min": 1,
    "kthvalue": 1,
    "mode": 1,
    "median": 1,
    "multinomial": 0,
}


class UntraceableError(Exception):
    """The code needs a number that depends on weights."""


def tensors_in(values: Any) -> list[torch.Tensor]:
    """Tensors among arguments or results, in order, lists included."""
    tensors: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple):
            tensors += tensors_in(value)
    return tensors


def with_tensors(values: Any, change: Callable[[torch.Tensor], Any]) -> list[Any]:
    """Arguments with every tensor changed, lists included."""
    changed: list[Any] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            changed.append(change(value))
        elif isinstance(value, list | tuple):
            changed.append(type(value)(with_tensors(value, change)) if type(value) in (list, tuple) else value)
        else:
            changed.append(value)
    return changed


def to_meta(tensor: torch.Tensor, *, dense: bool = False) -> torch.Tensor:
    """The tensor on the meta device, with its strides unless dense."""
    if tensor.is_meta and not dense:
        return tensor
    if dense or tensor.layout != torch.strided:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=META)
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)


def is_exact(tensor: torch.Tensor) -> bool:
    """Integers and truth values: what code branches on and indexes with."""
    return not (tensor.dtype.is_floating_point or tensor.dtype.is_complex)


@cache
def is_view(func: Any) -> bool:
    """The operation returns a view of its operand and writes nothing."""
    return not func._schema.is_mutable and any(result.alias_info is not None for result in func._schema.returns)


def stand_in_of_buffer(name: str, buffer: torch.Tensor) -> torch.Tensor:
    """A tensor that takes a buffer's place; code may write to it.

    It has the buffer's own numbers. Where these are not there, positions count up, masks let through, other integers
    are zero, and what is no integer stays unknown.
    """
    if buffer.numel() > LARGEST_KNOWN:
        return to_meta(buffer.detach())
    if not buffer.is_meta:
        return buffer.detach().to(CPU, copy=True)
    if not is_exact(buffer):
        return buffer.detach()
    if buffer.dtype == torch.bool or "mask" in name:
        return torch.ones(buffer.shape, dtype=buffer.dtype)
    if "position" in name and "relative" not in name and buffer.dim() and buffer.shape[-1] > 1:
        return torch.arange(buffer.shape[-1], dtype=buffer.dtype).expand(buffer.shape)
    return torch.zeros(buffer.shape, dtype=buffer.dtype)


def run_operation(
    func: Any,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    shapes: Shapes,
    meter: Meter | None = None,
) -> Any:
    """Result of one ATen operation.

    Args:
        func: The overload.
        name: Its name without the namespace and overload.
        args: Positional arguments; parameters are on the meta device already.
        kwargs: Keyword arguments.
        shapes: What earlier operations of the same model gave; this one is added.
        meter: Told of the bytes of results that have numbers.

    Raises:
        UntraceableError: See there.
    """
    tensors = tensors_in([*args, *kwargs.values()])
    unknown = any(tensor.is_meta for tensor in tensors)
    if not tensors or (not unknown and "device" in kwargs):
        return _counting_bytes(_create(func, name, args, kwargs, shapes), meter)
    if not unknown and not _is_too_large(func, name, args, kwargs, tensors, shapes):
        return _counting_bytes(_run_known(func, name, args, kwargs), meter)
    if not unknown:  # what is not computed is unknown
        if func._schema.is_mutable:
            raise UntraceableError(f"the operation {name} changes numbers that are too many to be kept")
        args, kwargs = with_tensors(args, to_meta), _changed_kwargs(kwargs, to_meta)
    result = _run_unknown(func, name, args, kwargs, shapes)
    return _counting_bytes(result, meter)


def _changed_kwargs(kwargs: Mapping[str, Any], change: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    return dict(zip(kwargs, with_tensors(kwargs.values(), change), strict=True))


def _counting_bytes(result: Any, meter: Meter | None) -> Any:
    """The result, with the bytes of its real tensors counted."""
    if meter is not None:
        for tensor in tensors_in(result if isinstance(result, tuple | list) else [result]):
            if not tensor.is_meta:
                # A view, such as an expanded one, takes no more than what it views.
                meter.count_bytes(min(tensor.numel(), _storage_size(tensor)) * tensor.element_size())
    return result


def _all_let_through(mask: torch.Tensor) -> torch.Tensor:
    """A mask of that shape that is true everywhere."""
    if mask.numel() > LARGEST_KNOWN:
        raise UntraceableError("its code asks which of too many unknown numbers are not zero")
    return torch.ones(mask.shape, dtype=torch.bool)


def _run_unknown(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], shapes: Shapes) -> Any:
    """Result of an operation with at least one unknown tensor."""
    if name in ("_local_scalar_dense", "equal", "is_nonzero"):
        raise UntraceableError("its code asks for a number that depends on the weights")
    if func._schema.is_mutable and isinstance(args[0], torch.Tensor) and not args[0].is_meta:
        return args[0]  # a real buffer is written with what is unknown: the recorder notes what it now holds
    if name in ("nonzero", "unique_consecutive", "_unique2"):
        return func(_all_let_through(args[0]), *args[1:], **kwargs)
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": META}
    if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
        args = [args[0], _whole_numbers(args[1]), *args[2:]]
    elif name == "masked_select":
        return torch.empty(args[0].expand_as(args[1]).numel(), dtype=args[0].dtype, device=META)
    elif name == "_grouped_mm" and args[0].dim() == 2 and args[1].dim() == 3:  # which is for one type of numbers only
        return torch.empty(args[0].shape[0], args[1].shape[2], dtype=args[0].dtype, device=META)
    result = _run_on_meta(func, name, args, kwargs, shapes)
    return _make_up_choice(func, name, args, kwargs, result) if name in CHOICES else result


def _run_on_meta(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], shapes: Shapes) -> Any:
    """Result on the meta device, remembered by its operands.

    Layers repeat each other, and working out a shape takes torch some fifty times as long as looking it up.
    """
    returns = func._schema.returns
    aliases = any(tensor.alias_info is not None for tensor in returns)
    in_place = aliases and func._schema.is_mutable and len(returns) == 1
    key = None if aliases and not in_place else _signature(func, args, kwargs)
    if key is not None and key in shapes:
        if in_place:
            return args[0]
        tensors = [torch.empty_strided(size, stride, dtype=dtype, device=META) for size, stride, dtype in shapes[key]]
        return tensors[0] if len(returns) == 1 else tuple(tensors)
    try:
        result = func(*with_tensors(args, to_meta), **_changed_kwargs(kwargs, to_meta))
    except NotImplementedError as error:
        raise UntraceableError(f"the operation {name} has no form without numbers") from error
    results = [result] if len(returns) == 1 else result
    if key is not None and all(isinstance(tensor, torch.Tensor) for tensor in results):
        if len(shapes) >= _MOST_SHAPES:
            shapes.clear()
        shapes[key] = tuple((tuple(tensor.shape), tensor.stride(), tensor.dtype) for tensor in results)
    return result


def _signature(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Key of a result's shape; None where it has none."""
    key = (func, _described(args), _described(kwargs.values()), tuple(kwargs))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _described(values: Iterable[Any]) -> tuple[Any, ...]:
    described: list[Any] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            described.append((tuple(value.shape), value.stride(), value.dtype))
        elif isinstance(value, list | tuple):
            described.append(_described(value))
        else:
            described.append((type(value), value))  # 1, 1.0 and True are equal, and not the same
    return tuple(described)


def _run_known(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Real result of an operation on known tensors."""
    if name == "histc" and is_exact(args[0]):  # which the CPU has for other numbers only
        return func(args[0].double(), *args[1:], **kwargs).to(args[0].dtype)
    return func(*args, **kwargs)


def _create(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], shapes: Shapes) -> Any:
    """A new tensor or copy, on the CPU if known."""
    device = kwargs.get("device")
    here = {**kwargs, "device": CPU} if device is not None else kwargs
    tensors = tensors_in([*args, *kwargs.values()])
    if tensors:  # a known tensor is copied, or one like it is made, for the model's device
        on_meta = {**kwargs, "device": META}
        if _is_too_large(func, name, args, on_meta, tensors, shapes):
            return _run_on_meta(func, name, args, on_meta, shapes)
        result = func(*args, **here)
    elif device is None or device_type(device) != "meta":
        if _makes_tensors(func) and not _is_small_factory(name, args):
            result = _factory_on_meta(func, name, args, kwargs)
            if _storage_size(result) > LARGEST_KNOWN:
                return result
        result = func(*args, **here)
    else:
        result = _factory_on_meta(func, name, args, kwargs)
        if _storage_size(result) <= (LARGEST_KNOWN if is_exact(result) else LARGEST_KNOWN_FLOATS):
            result = func(*args, **here)
    if "empty" in name and not result.is_meta:
        result.zero_()
    return result


def device_type(device: Any) -> str:
    """The type of a device, in any notation."""
    return str(torch.device(device).type)


def _factory_on_meta(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor:
    options = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    try:
        result = func(*args, **{**options, "device": META})
    except (TypeError, NotImplementedError) as error:
        raise UntraceableError(f"the operation {name} has no form without numbers") from error
    if not isinstance(result, torch.Tensor):
        raise UntraceableError(f"the operation {name} has no form without numbers")
    return result


def _makes_tensors(func: Any) -> bool:
    """A factory of tensors: it takes a device."""
    return any(argument.name == "device" for argument in func._schema.arguments)


def _is_small_factory(name: str, args: Sequence[Any]) -> bool:
    """The sizes, plain integers, multiply to few enough elements."""
    return name in _PLAIN_FACTORIES and _product(args) <= LARGEST_KNOWN


def _product(values: Iterable[Any]) -> int:
    """Product of all integers among arguments, lists included."""
    product = 1
    for value in values:
        if isinstance(value, list | tuple):
            product *= _product(value)
        elif isinstance(value, int) and value:
            product *= abs(value)
        if product > _MOST_WORK:
            return product
    return product


def _storage_size(tensor: torch.Tensor) -> int:
    """Elements in the memory of a tensor, gaps included."""
    if tensor.layout != torch.strided:
        return int(tensor.numel())
    return int(tensor.untyped_storage().nbytes() // max(1, tensor.element_size()))


def _is_too_large(
    func: Any,
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tensors: Sequence[torch.Tensor],
    shapes: Shapes,
) -> bool:
    """An operation on known tensors takes more memory or time than allowed."""
    if is_view(func):
        return False
    sizes = [tensor.numel() for tensor in tensors]
    largest = max(sizes, default=0)
    if largest > LARGEST_KNOWN:
        return True
    if _HEAVY.match(name) and _product([*sizes, *args]) > _MOST_WORK:
        return True
    if _CUBIC.match(name) and largest > _LARGEST_MATRIX:
        return True
    if name in _AS_LARGE_AS_OPERANDS:
        return False
    if name == "repeat_interleave" or name == "bincount":
        counts = tensors[0]
        amount = int(counts.sum() if name == "repeat_interleave" else counts.max()) if counts.numel() else 0
        return amount > LARGEST_KNOWN or (name == "bincount" and _product(args[2:]) > LARGEST_KNOWN)
    if name.startswith(("resize", "set_")):
        return _product(args) > LARGEST_KNOWN
    if func._schema.is_mutable and "out" not in kwargs:
        return False  # in place
    if name in ("index", "index_put", "_unsafe_index"):
        args = [args[0], _whole_numbers(args[1]), *args[2:]]
    try:
        result = _run_on_meta(func, name, args, kwargs, shapes)
    except (UntraceableError, NotImplementedError, RuntimeError, TypeError, ValueError, IndexError):
        return _product([*sizes, *args]) > LARGEST_KNOWN
    results = tensors_in(result if isinstance(result, tuple | list) else [result])
    return any(tensor.numel() > LARGEST_KNOWN for tensor in results)


def _whole_numbers(indices: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Indices with masks replaced by positions; an unknown mask is true everywhere."""
    whole: list[torch.Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            mask = _all_let_through(index) if index.is_meta else index
            whole += mask.nonzero().unbind(1)
        else:
            whole.append(index)
    return whole


def _make_up_choice(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Any:
    """Result of a choice with made-up integers."""
    results = list(result) if isinstance(result, tuple | list) else [result]
    place = CHOICES[name]
    if len(results) <= place or not is_exact(results[place]) or results[place].numel() > LARGEST_KNOWN:
        return result  # `max` of two tensors, or of all elements
    dim = _argument(func, "dim", args, kwargs)
    shape = results[place].shape
    if dim is None or not shape:
        results[place] = torch.zeros(shape, dtype=torch.long)
    else:
        counted = torch.arange(results[place].numel())
        if len(shape) == args[0].dim() and shape[dim] == args[0].shape[dim]:
            counted += counted // shape[dim]  # of a full order, each row begins one further
        if len(shape) == args[0].dim():
            others = [size for place, size in enumerate(shape) if place != dim % len(shape)]
            counted = counted.view([*others, shape[dim]]).movedim(-1, dim)
        else:
            counted = counted.view(shape)
        results[place] = counted % args[0].shape[dim]
    return (
        type(result)(results) if type(result) in (list, tuple) else (tuple(results) if len(results) > 1 else results[0])
    )


def _argument(func: Any, wanted: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operation's argument by name, or its default."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.name == wanted:
            return args[place] if place < len(args) else kwargs.get(wanted, argument.default_value)
    return -1
