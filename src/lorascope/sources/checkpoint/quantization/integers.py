"""GPTQ and AWQ: integers of a few bits, packed into words."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.foreign_text import quoted
from lorascope.sources.checkpoint.quantization.groups import FLOATS, Group, MisfitError, described, pieces
from lorascope.sources.checkpoint.quantization.settings import Settings

_WORD_BITS = {"I8": 8, "I16": 16, "I32": 32, "I64": 64}
# GPTQModel's planar layout (gptq_p) orders the bits of a word differently; the shapes are the same.
_GPTQ_FORMATS = ("gptq", "gptq_v2", "gptq_p")


def recover_integers(group: Group, settings: Settings) -> tuple[tuple[int, ...], str]:
    """Shape and quantization of a `qweight`, by the configuration's method.

    Raises:
        MisfitError: The tensors do not go together, or nothing says whether it is GPTQ or AWQ.
    """
    if settings.method == "gptq":
        return _gptq(group, settings)
    if settings.method == "awq":
        return _awq(group, settings)
    stated = f"the method {quoted(settings.method)}" if settings.method else "no method"
    raise MisfitError(f"has a qweight, as GPTQ and AWQ have, and the configuration names {stated}")


def _gptq(group: Group, settings: Settings) -> tuple[tuple[int, ...], str]:
    """Layout of AutoGPTQ 0.7 and GPTQModel 7.6, words of w bits.

    qweight (⌈in·b/w⌉, out), qzeros (groups, ⌈out·b/w⌉), scales (groups, out), g_idx (in).
    """
    layout = settings.values.get("checkpoint_format") or settings.values.get("format") or "gptq"
    if layout not in _GPTQ_FORMATS:
        raise MisfitError(f"is packed in GPTQ's format {quoted(layout)}, whose layout is not known")
    words = group.part(".qweight", tuple(_WORD_BITS), (2,))
    zeros = group.part(".qzeros", (words.dtype,), (2,))
    scales = group.part(".scales", FLOATS, (2,))
    order = group.part(".g_idx", ("I32", "I64"), (1,)) if ".g_idx" in group.parts else None
    width, (rows, outputs) = _WORD_BITS[words.dtype], words.shape
    sizes = settings.numbers("group_size") or (128,)
    shapes = {}
    for bits in settings.numbers("bits", "w_bit") or (4,):
        if not 1 <= bits <= 8:
            raise MisfitError(f"cannot have numbers of {bits} bits")
        inputs = order.shape[0] if order else rows * width // bits
        groups = _groups(inputs, sizes)
        if (
            pieces(inputs * bits, width) == rows
            and scales.shape[0] in groups
            and scales.shape[1] == outputs
            and zeros.shape == (scales.shape[0], pieces(outputs * bits, width))
        ):
            shapes[bits] = (outputs, inputs)
    if len(set(shapes.values())) != 1:
        fits = "fit several widths alike" if shapes else "do not fit"
        tensors = ", ".join(described(tensor) for tensor in (words, zeros, scales, order) if tensor)
        raise MisfitError(f"has {tensors}, which {fits}: {_said(settings)}")
    bits, shape = next(iter(shapes.items()))
    return shape, f"{settings.maker}gptq {bits} bit"


def _awq(group: Group, settings: Settings) -> tuple[tuple[int, ...], str]:
    """Layouts of AutoAWQ 0.2.9 and GPTQModel 7.6, 4 bits.

    gemm: qweight I32 (in, out/8), qzeros I32 (groups, out/8), scales (groups, out).
    gemv: qweight I32 (out, in/8), qzeros I32 (out, w), scales (out, 8w), where w is the padded `_zeros_width`.
    gemv_fast: qweight I16 (out/4, in), qzeros F16 (8w, out), scales (8w, out); llm-awq says scaled_zeros instead.
    """
    version = str(settings.values.get("version") or settings.values.get("format") or "gemm").lower()
    if (settings.numbers("bits", "w_bit") or (4,)) != (4,):
        raise MisfitError(f"is AWQ of other than 4 bits: {_said(settings)}")
    sizes = settings.numbers("group_size") or (128,)
    if version == "gemm":
        words, zeros = group.part(".qweight", ("I32",), (2,)), group.part(".qzeros", ("I32",), (2,))
        inputs, outputs = words.shape[0], words.shape[1] * 8
        expected = [((rows, outputs), (rows, outputs // 8)) for rows in _groups(inputs, sizes)]
    elif version == "gemv":
        words, zeros = group.part(".qweight", ("I32",), (2,)), group.part(".qzeros", ("I32",), (2,))
        inputs, outputs = words.shape[1] * 8, words.shape[0]
        expected = [((outputs, 8 * width), (outputs, width)) for width in _zeros_widths(inputs, sizes)]
    elif version in ("gemv_fast", "llm-awq"):
        words = group.part(".qweight", ("I16",), (2,))
        zeros = group.part(".qzeros" if version == "gemv_fast" else ".scaled_zeros", FLOATS, (2,))
        inputs, outputs = words.shape[1], words.shape[0] * 4
        expected = [((8 * width, outputs),) * 2 for width in _zeros_widths(inputs, sizes)]
    else:
        raise MisfitError(f"is packed in AWQ's version {quoted(version)}, whose layout is not known")
    scales = group.part(".scales", FLOATS, (2,))
    if ".g_idx" in group.parts or (scales.shape, zeros.shape) not in expected:
        tensors = ", ".join(described(tensor) for tensor in (words, zeros, scales, group.parts.get(".g_idx")) if tensor)
        raise MisfitError(f"has {tensors}, which do not fit: {_said(settings)}, version {version}")
    return (outputs, inputs), f"{settings.maker}awq 4 bit {version}"


def _groups(inputs: int, sizes: tuple[int, ...]) -> set[int]:
    """Number of groups of inputs; -1 puts all in one."""
    return {pieces(inputs, size) if size > 0 else 1 for size in sizes}


def _zeros_widths(inputs: int, sizes: tuple[int, ...]) -> Iterator[int]:
    """Words that hold the zeros of a row: AutoAWQ's `calculate_zeros_width`."""
    for size in sizes:
        each = size if size > 0 else max(inputs, 1)
        multiple = {32: 4, 64: 2}.get(each, 1)
        yield pieces(pieces(inputs // each, 8), multiple) * multiple


def _said(settings: Settings) -> str:
    bits = "/".join(map(str, settings.numbers("bits", "w_bit"))) or "no"
    size = "/".join(map(str, settings.numbers("group_size"))) or "no"
    return f"{settings.where} says {bits} bits, groups of {size}"
