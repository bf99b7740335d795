"""compressed-tensors: integers in words, 4- and 6-bit numbers in bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from lorascope.sources.checkpoint.quantization.groups import (
    EXPONENTS,
    FLOATS,
    FP8,
    Group,
    MisfitError,
    described,
    pieces,
)
from lorascope.sources.checkpoint.quantization.settings import Settings

_MOST_DIMENSIONS = 8


def recover_compressed(group: Group, settings: Settings) -> tuple[tuple[int, ...], str]:
    """The shape and the quantization of a `weight_packed`.

    Raises:
        MisfitError: The tensors do not go together.
    """
    packed = group.part(".weight_packed", ("I32", "U8"), range(2, _MOST_DIMENSIONS))
    return _integers(group, settings) if packed.dtype == "I32" else _floats(group)


def _integers(group: Group, settings: Settings) -> tuple[tuple[int, ...], str]:
    """Layout of compressed-tensors 0.20 (`PackedQuantizationCompressor`).

    The shape is the data of weight_shape, because the words of a row may not be full: weight_packed I32 (out, ⌈in·b/32⌉),
    before 0.12 for widths that do not divide 32 (out, ⌈in/⌊32/b⌋⌉).
    """
    packed = group.parts[".weight_packed"]
    scale = group.part(".weight_scale", FLOATS, range(_MOST_DIMENSIONS))
    stored = group.part(".weight_shape", ("I64", "I32"), (1,))
    letter, data = {"I64": "q", "I32": "i"}[stored.dtype], group.data.get(".weight_shape", b"")
    if stored.shape != (len(packed.shape),) or len(data) != stored.shape[0] * struct.calcsize(letter):
        raise MisfitError(f"has {described(stored)}, not one number for each dimension of {described(packed)}")
    shape = struct.unpack(f"<{stored.shape[0]}{letter}", data)
    if shape[:-1] != packed.shape[:-1] or not 0 < shape[-1] <= 32 * packed.shape[-1]:
        raise MisfitError(f"has {described(packed)}, and its weight_shape says {list(shape)}")
    inputs, words = shape[-1], packed.shape[-1]
    schemes = [scheme for scheme in settings.schemes() if scheme.get("type", "int") == "int"]
    for scheme in schemes:
        bits = scheme.get("num_bits")
        if (
            type(bits) is int
            and 1 <= bits <= 8
            and words in (pieces(inputs * bits, 32), pieces(inputs, 32 // bits))
            and scale.shape in _scale_shapes(shape, scheme)
        ):
            return shape, f"compressed-tensors int{bits}"
    stated = (
        ", ".join(f"{scheme.get('num_bits')} bits by {scheme.get('strategy')}" for scheme in schemes)
        or "no such scheme"
    )
    raise MisfitError(
        f"has {described(packed)} and {described(scale)} for the shape {list(shape)}: {settings.where} says {stated}"
    )


def _scale_shapes(shape: tuple[int, ...], scheme: Mapping[str, Any]) -> set[tuple[int, ...]]:
    """The shapes that a scale may have under a scheme (compressed-tensors' `initialize_qparams`)."""
    size = scheme.get("group_size")
    if type(size) is int and size > 0:
        return {(*shape[:-1], pieces(shape[-1], size))}
    return {(*shape[:-1], 1), (1,), ()}


def _floats(group: Group) -> tuple[tuple[int, ...], str]:
    """Layouts of compressed-tensors 0.20, told apart by their lengths.

    nvfp4: U8 (out, in/2), scale F8 (out, in/16), mostly with a global one. mxfp4: U8 (out, in/2), scale in exponents (out, in/32).
    mxfp6: U8 (out, 3·in/4), scale in exponents (out, in/32).
    """
    packed = group.parts[".weight_packed"]
    scale = group.part(".weight_scale", (*FP8, *EXPONENTS, *FLOATS), (len(packed.shape),))
    length, scales = packed.shape[-1], scale.shape[-1]
    for name, bytes_each, group_size in (("nvfp4", 8, 16), ("mxfp4", 16, 32), ("mxfp6", 24, 32)):
        if packed.shape[:-1] == scale.shape[:-1] and length == scales * bytes_each and scales:
            if name != "nvfp4" and scale.dtype not in EXPONENTS:
                raise MisfitError(f"has {described(scale)}, which must be {' or '.join(EXPONENTS)} for {name}")
            return (*packed.shape[:-1], scales * group_size), f"compressed-tensors {name}"
    raise MisfitError(f"has {described(packed)} and {described(scale)}, which do not fit nvfp4, mxfp4 or mxfp6")
