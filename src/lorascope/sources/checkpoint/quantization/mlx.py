"""MLX: integers of a few bits in words along the inputs, with scales by group.

Layout of `mlx.core.quantize` (MLX 0.32): weight U32 (…, out, in·b/32), scales (…, out, in/group), and biases of the same
shape in the mode `affine`; the modes of `mxfp4`, `mxfp8` and `nvfp4` have scales in bytes and no biases.
"""

from __future__ import annotations

from collections.abc import Mapping

from lorascope.foreign_text import quoted
from lorascope.sources.checkpoint.quantization.groups import FLOATS, Group, MisfitError, described
from lorascope.sources.checkpoint.quantization.settings import Settings

_BITS = (2, 3, 4, 5, 6, 8)
_MOST_KINDS = 16
_DIMENSIONS = (2, 3)  # experts are stacked


def recover_mlx(group: Group, settings: Settings) -> tuple[tuple[int, ...], str]:
    """Shape and quantization of a weight in words.

    Raises:
        MisfitError: The tensors do not go together, or fit several of the widths that the configuration names.
    """
    words = group.part(".weight", ("U32",), _DIMENSIONS)
    scales = group.part(".scales", (*FLOATS, "U8"), _DIMENSIONS)
    biases = group.part(".biases", FLOATS, _DIMENSIONS) if ".biases" in group.parts else None
    shapes = {
        bits: (*scales.shape[:-1], scales.shape[-1] * size)
        for bits, size in _widths(settings.values)
        if words.shape[-1] * 32 == scales.shape[-1] * size * bits
    }
    fits = words.shape[:-1] == scales.shape[:-1] and (biases is None or biases.shape == scales.shape)
    if not fits or len(set(shapes.values())) != 1:
        why = "fit several widths alike" if fits and shapes else "do not fit"
        tensors = ", ".join(described(tensor) for tensor in (words, scales, biases) if tensor)
        raise MisfitError(f"has {tensors}, which {why}: {_said(settings)}")
    bits, shape = next(iter(shapes.items()))
    return shape, f"mlx {bits} bit"


def _widths(values: Mapping[str, object]) -> dict[tuple[int, int], None]:
    """Bits and group sizes, those of single modules included."""
    places = [values, *(value for value in values.values() if isinstance(value, dict))]
    pairs = ((place.get("bits"), place.get("group_size")) for place in places)
    found = [
        (bits, size) for bits, size in pairs if type(bits) is int and type(size) is int and bits in _BITS and size > 0
    ]
    return dict.fromkeys(list(dict.fromkeys(found))[:_MOST_KINDS])


def _said(settings: Settings) -> str:
    bits, size = settings.values.get("bits"), settings.values.get("group_size")
    return f"{settings.where} says {quoted(bits)} bits, groups of {quoted(size)}"
