"""Numbers with scales: fp8, int8, NVFP4, MXFP4 and ternary BitNet."""

from __future__ import annotations

from collections.abc import Iterator

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

Shape = tuple[int, ...]

# The ends of a scale's name, and of the numbers' name that goes with each.
_SCALES = {
    ".weight_scale_inv": ".weight",
    ".qscale_weight": ".weight",
    ".weight_scale": ".weight",
    ".scale": ".weight",
    "_scale_inv": "",
    "_scale": "",
}
_PREFIXES = {"compressed-tensors": "compressed-tensors ", "modelopt": "modelopt ", "fbgemm_fp8": "fbgemm "}
_DIMENSIONS = range(2, 6)


def recover_scaled(group: Group, settings: Settings) -> tuple[Shape, str]:
    """Shape and quantization of numbers with a scale.

    A weight of plain numbers stays what it is, whatever lies beside it.

    Raises:
        MisfitError: The scale does not fit the numbers, or nothing is known of numbers of this type.
    """
    end = next(end for end in _SCALES if end in group.parts)
    numbers = group.parts.get(_SCALES[end])
    if numbers is None:
        raise MisfitError(f"has {described(group.parts[end])}, and no weight")
    scale = group.part(end, (*FLOATS, *FP8, *EXPONENTS), range(5))
    if numbers.dtype in FLOATS:
        return numbers.shape, ""
    prefix = _PREFIXES.get(settings.method, "")
    if len(numbers.shape) not in _DIMENSIONS:
        raise MisfitError(f"has {described(numbers)}, which must have 2 dimensions or one more for the experts")
    if numbers.dtype in FP8:
        return numbers.shape, prefix + _grain("fp8", numbers.shape, scale.shape, scale.dtype, settings)
    # DeepSeek-V4's experts: two numbers in a byte, of which transformers 5.23 (`Fp8Dequantize`) knows by the type alone.
    if numbers.dtype == "I8" and (end in (".scale", "_scale_inv", ".weight_scale_inv")):
        wide = (*numbers.shape[:-1], 2 * numbers.shape[-1])
        if scale.shape != (*wide[:-1], pieces(wide[-1], 32)):
            raise MisfitError(f"has {described(numbers)} and {described(scale)}, which do not fit fp4 in blocks of 32")
        return wide, "fp4 block 1×32"
    if numbers.dtype == "I8":
        return numbers.shape, prefix + _grain("int8", numbers.shape, scale.shape, scale.dtype, settings)
    if numbers.dtype == "U8" and settings.method == "bitnet":
        # transformers 5.23 (`integrations.bitnet.pack_weights`): four ternary rows in one.
        group.part(end, FLOATS, (0, 1))
        return (4 * numbers.shape[0], *numbers.shape[1:]), "bitnet"
    if numbers.dtype == "U8" and settings.method == "modelopt":
        return _modelopt_packed(group, numbers.shape, scale.shape, scale.dtype)
    raise MisfitError(f"has {described(numbers)} and {described(scale)}, and nothing says how they are packed")


def _modelopt_packed(group: Group, packed: Shape, scale: Shape, dtype: str) -> tuple[Shape, str]:
    """Layouts of Model Optimizer 0.47 (`modelopt.torch.export`).

    nvfp4: U8 (out, in/2), scale F8 (out, in/16). mxfp4: U8 (out, in/2), scale U8 (out, in/32). int4 (its AWQ): U8 (out/2,
    in), packed along the other axis, scale (out, groups).
    """
    rows, columns = packed[-2:]
    if scale[:-1] == packed[:-1]:
        wide = (*packed[:-1], 2 * columns)
        if dtype in FP8 and 16 * scale[-1] == wide[-1]:
            if ".weight_scale_2" not in group.parts:
                raise MisfitError("has no weight_scale_2 beside it, as nvfp4 needs")
            return wide, "modelopt nvfp4"
        if dtype in EXPONENTS and 32 * scale[-1] == wide[-1]:
            return wide, "modelopt mxfp4"
    if (
        dtype in FLOATS
        and len(scale) == len(packed)
        and scale[:-1] == (*packed[:-2], 2 * rows)
        and 0 < scale[-1] <= columns
    ):
        return (*packed[:-2], 2 * rows, columns), "modelopt int4"
    raise MisfitError(
        f"has numbers U8 {list(packed)} and a scale {dtype} {list(scale)}, which do not fit nvfp4, mxfp4 or int4"
    )


def _grain(kind: str, shape: Shape, scale: Shape, dtype: str, settings: Settings) -> str:
    """The kind of numbers with how many share a scale.

    Raises:
        MisfitError: The scale has no shape that the weight can have.
    """
    *experts, rows, columns = shape
    if not experts and len(scale) == 4 and scale[1] == scale[3] == 1:
        scale = (scale[0], scale[2])  # as Model Optimizer leaves its blocks
    if scale in ((), (1,), (1, 1)):
        return f"{kind} tensor"
    if list(scale[: len(experts)]) == experts:
        grid = scale[len(experts) :]
        if experts and grid in ((), (1,), (1, 1), (2, 1)):  # (2, 1): one for the gate, one for the up projection
            return f"{kind} tensor"
        if grid in ((rows,), (rows, 1), (1, rows), (1, columns), (columns, 1)):
            return f"{kind} channel"
        if len(grid) == 2 and all(grid):
            if dtype in EXPONENTS and grid == (rows, pieces(columns, 32)):
                return f"mx{kind}"
            stated = list(_blocks(settings))
            # Where nothing is stated, transformers takes the blocks that divide the weight; the last may also not be full.
            exact = min(rows, columns) > 0 and rows % grid[0] == columns % grid[1] == 0
            divided = [(rows // grid[0], columns // grid[1])] if exact else [(128, 128)]
            for height, width in stated or divided:
                tall = pieces(rows, height)
                # Gate and up projection, one below the other, may each begin with a block of their own.
                halves = 2 * pieces(rows // 2, height) if experts else tall
                if grid[0] in (tall, halves) and grid[1] == pieces(columns, width):
                    return f"{kind} block {height}×{width}"
    blocks = ", ".join(f"{height}×{width}" for height, width in _blocks(settings)) or "none"
    raise MisfitError(
        f"has numbers of shape {list(shape)} and a scale of shape {list(scale)}; blocks that the configuration states: {blocks}"
    )


def _blocks(settings: Settings) -> Iterator[tuple[int, int]]:
    """Block sizes that the configuration states."""
    values = settings.values
    schemes = settings.schemes()
    sizes = [values.get("weight_block_size"), *(scheme.get("block_structure") for scheme in schemes)]
    sizes += [[1, scheme.get("group_size")] for scheme in schemes]
    for size in sizes:
        if isinstance(size, list) and len(size) == 2 and all(type(number) is int and number > 0 for number in size):
            yield size[0], size[1]


def recover_mxfp4(group: Group, settings: Settings) -> tuple[Shape, str]:
    """The shape (experts, in, out) of gpt-oss's fused experts.

    transformers 5.23 (`integrations.mxfp4.convert_moe_packed_tensors`): blocks U8 (experts, out, groups, 16) with two numbers
    in a byte, scales U8 (experts, out, groups).

    Raises:
        MisfitError: The tensors do not go together.
    """
    blocks = group.part("_blocks", ("U8",), (4,))
    scales = group.part("_scales", EXPONENTS, (3,))
    experts, outputs, groups, size = blocks.shape
    if size != 16 or scales.shape != blocks.shape[:3]:
        raise MisfitError(f"has {described(blocks)} and {described(scales)}, not 16 bytes for each scale")
    return (experts, groups * 32, outputs), "mxfp4"
