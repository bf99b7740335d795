"""bitsandbytes: 4-bit weights, whose shape is data, and 8-bit weights."""

from __future__ import annotations

import math

from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.sources.checkpoint.quantization.groups import FLOATS, Group, MisfitError, described, pieces
from lorascope.sources.checkpoint.quantization.settings import Settings
from lorascope.sources.files.json_text import parse_object
from lorascope.sources.files.safetensors_header import DTYPE_BITS

NF4, FP4 = ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"
_STORAGE = ("U8", "I8", "BF16", "F16", "F32")  # `bnb_4bit_quant_storage`
_LARGEST = 2**40


def recover_four_bits(group: Group, settings: Settings) -> tuple[tuple[int, ...], str]:
    """The shape in the quantization state, checked against the tensors.

    Layout of bitsandbytes 0.50 (`QuantState.as_dict(packed=True)`): two numbers in a byte, a scale for each `blocksize`
    numbers in absmax, itself quantized where nested_absmax is there.

    Raises:
        MisfitError: The state is not one, or the tensors do not go together.
    """
    end = NF4 if NF4 in group.parts else FP4
    kind = end[-3:]
    packed = group.part("", _STORAGE, (1, 2))
    state = _state(group.data.get(end, b""))
    shape, block = state.get("shape"), state.get("blocksize")
    if (
        type(shape) is not list
        or not 1 <= len(shape) <= 4
        or not all(type(n) is int and 0 < n < _LARGEST for n in shape)
    ):
        raise MisfitError(f"has the shape {quoted(shape)} in its quant_state, not a list of sizes")
    if state.get("quant_type") != kind:
        raise MisfitError(f"has the quant_type {quoted(state.get('quant_type'))} in a quant_state of {kind}")
    if type(block) is not int or block <= 0:
        raise MisfitError(f"has the blocksize {quoted(block)} in its quant_state, not a size")
    numbers = math.prod(shape)
    size = math.prod(packed.shape) * DTYPE_BITS[packed.dtype] // 8
    if size != pieces(numbers, 2):
        raise MisfitError(f"has {described(packed)}, {size} bytes, and {shape} at 4 bits takes {pieces(numbers, 2)}")
    nested = ".nested_absmax" in group.parts
    scales = group.part(".absmax", ("U8",) if nested else ("F32",), (1,))
    group.part(".quant_map", FLOATS, (1,))
    if nested:
        group.part(".nested_quant_map", FLOATS, (1,))
    if scales.shape[0] != pieces(numbers, block):
        raise MisfitError(
            f"has {described(scales)}, and {numbers} numbers have {pieces(numbers, block)} blocks of {block}"
        )
    return tuple(shape), f"bnb {kind}"


def _state(data: bytes) -> dict[str, object]:
    try:
        return parse_object(data, "its quant_state")
    except LorascopeError as error:
        raise MisfitError(f"has a quant_state that {error.faults[0]}") from error


def recover_eight_bits(group: Group, settings: Settings) -> tuple[tuple[int, ...], str]:
    """The weight's own shape (bitsandbytes 0.50, `Linear8bitLt`).

    Raises:
        MisfitError: The tensors do not go together.
    """
    weight = group.part(".weight", ("I8",), (2,))
    scales = group.part(".SCB", ("F32",), (1,))
    if scales.shape[0] != weight.shape[0]:
        raise MisfitError(f"has {described(weight)} and {described(scales)}, not one scale for each output")
    return weight.shape, "bnb int8"
