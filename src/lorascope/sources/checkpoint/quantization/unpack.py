"""Unpacks quantized checkpoints, one small file per family.

`settings` says what the configuration says, `groups` what a packed weight is made of. Which tensors are there decides;
the configuration says only what they cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.sources.checkpoint.quantization.bitsandbytes import FP4, NF4, recover_eight_bits, recover_four_bits
from lorascope.sources.checkpoint.quantization.compressed import recover_compressed
from lorascope.sources.checkpoint.quantization.groups import FP8, Family, Group, MisfitError
from lorascope.sources.checkpoint.quantization.integers import recover_integers
from lorascope.sources.checkpoint.quantization.mlx import recover_mlx
from lorascope.sources.checkpoint.quantization.scaled import recover_mxfp4, recover_scaled
from lorascope.sources.checkpoint.quantization.settings import Settings, read_settings
from lorascope.sources.checkpoint.types import Checkpoint, Span, Stored, Tensor
from lorascope.sources.files.json_text import first_faults

# Scales of activations and caches: they come with a weight and do not affect its shape.
_ACTIVATIONS = (
    ".input_scale",
    ".input_scale_ub",
    ".input_global_scale",
    ".input_zero_point",
    ".output_scale",
    ".output_zero_point",
    ".activation_scale",
    ".pre_quant_scale",
    ".qscale_act",
    ".q_scale",
    ".k_scale",
    ".v_scale",
)
_BNB = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_COMPRESSED = (".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_global_scale", ".weight_g_idx")
_SCALED = (".weight_scale_2", ".weight_zero_point", "_activation_scale")
# In this order: what an earlier one takes, a later one does not see.
_FAMILIES = (
    Family(".qweight", ".qweight", (".qzeros", ".scaled_zeros", ".scales", ".g_idx"), ".weight", recover_integers),
    Family(".weight_packed", ".weight_packed", _COMPRESSED, ".weight", recover_compressed, data=(".weight_shape",)),
    Family("_blocks", "_blocks", ("_scales",), "", recover_mxfp4, packed=("U8",)),
    Family(NF4, "", _BNB, "", recover_four_bits, data=(NF4,)),
    Family(FP4, "", _BNB, "", recover_four_bits, data=(FP4,)),
    Family(".SCB", ".weight", (".weight_format",), ".weight", recover_eight_bits),
    Family(".weight_scale_inv", ".weight", _SCALED, ".weight", recover_scaled),
    Family(".qscale_weight", ".weight", _SCALED, ".weight", recover_scaled),
    Family(".weight_scale", ".weight", _SCALED, ".weight", recover_scaled),
    Family(".scale", ".weight", (), ".weight", recover_scaled, packed=(*FP8, "I8")),
    Family(".scales", ".weight", (".biases",), ".weight", recover_mlx, packed=("U32",)),
    Family("_scale_inv", "", _SCALED, "", recover_scaled, packed=(*FP8, "I8")),
    Family("_scale", "", (), "", recover_scaled, packed=FP8),
)
_BYTES = (*FP8, "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4", "I8", "U8")
_LOW = (*_BYTES, "I16", "U16", "I32", "U32")
_ANCHORS = tuple(family.anchor for family in _FAMILIES)
# What belongs to a packed weight and to nothing else.
_ORPHANS = (".qzeros", ".g_idx", ".weight_shape", ".weight_zero_point", ".weight_scale_2", ".weight_format", *_BNB)
# Some formats keep the scales of a cache next to the projections.
_CACHE = {".q_scale": ".q_proj.weight", ".k_scale": ".k_proj.weight", ".v_scale": ".v_proj.weight"}
_KNOWN = frozenset(
    (
        "",
        "gptq",
        "awq",
        "bitsandbytes",
        "compressed-tensors",
        "fp8",
        "mxfp8",
        "fbgemm_fp8",
        "mxfp4",
        "modelopt",
        "bitnet",
        "mlx",
    )
)
# compressed-tensors' formats that drop zeros, and the one that reorders for a kernel.
_SPARSE = ("sparse-bitmask", "sparse-24-bitmask", "marlin-24")
_LONGEST_DATA = 4096
_NEXT = (
    "Give the model that it was quantized from, or read the configuration alone with --source config: roles, shapes and "
    "adapter sizes are the same."
)
_DAMAGED = f"If the checkpoint may be damaged, download it again. {_NEXT}"


class _Batch(NamedTuple):
    """The packed weights of one family, all at once.

    A stem for each, and its tensors by the ends of their names, the numbers first.

    All at once, because most of the time would go into one object for each weight.
    """

    family: Family
    ends: tuple[str, ...]
    stems: list[str]
    rows: list[tuple[Tensor | None, ...]]


def unpack(checkpoint: Checkpoint) -> dict[str, Stored]:
    """The tensors of a checkpoint as they would be without quantization.

    The tensors of a packed weight become one, with its logical shape; what is stored as plain numbers comes through as it
    is, whatever the configuration says of it. The bytes of a few small tensors are read, all in one call, where a format
    tells the shape only there.

    Args:
        checkpoint: Its headers.

    Returns:
        The tensors by name, in the order of the file.

    Raises:
        LorascopeError: The format is not known, or tensors that belong together do not fit; all such faults at once.
    """
    tensors, where = dict(checkpoint.tensors), checkpoint.files.where
    settings = read_settings(checkpoint)
    _check_supported(settings, tensors, where)
    batches, taken, faults = _gather(tensors)
    contents = _data(checkpoint, batches, faults)
    recovered: dict[str, Stored] = {}
    by_source: dict[str, Stored] = {}
    for index, batch in enumerate(batches):
        for stored in _recovered(batch, contents.get(index, {}), settings, faults):
            name, sources = stored.name, stored.sources
            if name in recovered or (name not in sources and name in tensors):
                faults.append(f"{quoted(name)} is there twice, in two forms")
                continue
            recovered[name] = stored
            for source in sources:
                by_source[source] = stored
    result: dict[str, Stored] = {}
    beside: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        packed = by_source.get(name)
        if packed is not None:
            result[packed.name] = packed
        elif name in taken:
            continue  # by what has become a fault
        elif settings.method and name.endswith(_ACTIVATIONS) and (owner := _owner(name, recovered, tensors)):
            beside.setdefault(owner, []).append(name)
        else:
            unscaled = ""
            if tensor.dtype in _LOW or name.endswith(_ORPHANS):
                faults += _leftover_faults(tensor, settings)
                unscaled = "fp8 without scale" if tensor.dtype in FP8 and len(tensor.shape) > 1 else ""
            result[name] = Stored(name, tensor.shape, tensor.dtype, unscaled, (name,), tensor.repeats)
    if faults:
        raise LorascopeError(*first_faults(faults), where=where, hint=_DAMAGED)
    for owner, names in beside.items():
        result[owner] = result[owner]._replace(sources=(*result[owner].sources, *names))
    return result


def unpacked_name(name: str) -> str:
    """A weight's name without packing; empty where its bytes are needed."""
    for family in _FAMILIES:
        if name.endswith((family.anchor, *family.data)):
            return "" if family.data else name.removesuffix(family.anchor) + family.logical
    return name


def _recovered(
    batch: _Batch, data: Mapping[int, Mapping[str, bytes]], settings: Settings, faults: list[str]
) -> Iterator[Stored]:
    """The weights of one family without packing; misfits become faults."""
    family, ends, stems, rows = batch
    # What was worked out for tensors of certain types and shapes holds for all of them, where it rests on those alone.
    known: dict[object, tuple[tuple[int, ...], str]] = {}
    forms = zip(*[(part and part[1:3] for part in column) for column in zip(*rows, strict=True)], strict=True)
    for index, (stem, row, form) in enumerate(zip(stems, rows, forms, strict=True)):
        recovered = None if family.data else known.get(form)
        if recovered is None:
            parts = {end: part for end, part in zip(ends, row, strict=True) if part}
            group = Group(stem + family.logical, stem, parts, data.get(index, {}))
            try:
                recovered = known[form] = family.recover(group, settings)
            except MisfitError as misfit:
                faults.append(f"{quoted(group.name)} {misfit}")
                continue
        numbers = row[0]
        assert numbers is not None  # or nothing would have been recovered
        name = numbers.name if family.numbers == family.logical else stem + family.logical
        sources = tuple([part.name for part in row if part])
        yield Stored(name, recovered[0], numbers.dtype, recovered[1], sources, numbers.repeats)


def _check_supported(settings: Settings, tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse unknown formats, unless all numbers are plain.

    Raises:
        LorascopeError: It is not.
    """
    method = settings.method
    sparsity = settings.values.get("sparsity_config")
    formats = (settings.values.get("format"), sparsity.get("format") if isinstance(sparsity, dict) else None)
    sparse = next((name for name in formats if name in _SPARSE), "") if method == "compressed-tensors" else ""
    if (method not in _KNOWN or sparse) and any(tensor.dtype in _LOW for tensor in tensors.values()):
        raise LorascopeError(
            f"the quantization {quoted(method)}{sparse and f' in the format {quoted(sparse)}'} is not supported: what shapes "
            "its tensors stand for is not known",
            where=f"{where}: {settings.where}",
            hint=_NEXT,
        )


def _owner(name: str, *weights: Mapping[str, object]) -> str:
    """The weight that a scale of activations or caches belongs to."""
    stem, _, end = name.rpartition(".")
    candidates = (f"{stem}.weight", stem + _CACHE.get(f".{end}", ".weight"))
    return next((weight for weight in candidates if any(weight in table for table in weights)), "")


def _gather(tensors: Mapping[str, Tensor]) -> tuple[list[_Batch], set[str], list[str]]:
    """Groups of tensors, their names, and faults of overlapping groups."""
    # A checkpoint has few of the endings; looking for all of them at each weight would take most of the time.
    leaves = [f".{leaf}" for leaf in {name.rpartition(".")[2] for name in tensors}]

    def there(ends: Iterable[str]) -> list[str]:
        return [end for end in ends if any(leaf.endswith(end[end.rfind(".") :]) for leaf in leaves)]

    anchors = tuple(there(_ANCHORS))
    anchored = [name for name in tensors if name.endswith(anchors)] if anchors else []
    batches: list[_Batch] = []
    faults: list[str] = []
    taken: set[str] = set()
    for family in _FAMILIES:
        if family.anchor not in anchors:
            continue
        # Weights named after a module can have scales of activations.
        beside = _ACTIVATIONS if family.logical == ".weight" else ()
        ends = tuple(dict.fromkeys((family.numbers, family.anchor, *there((*family.others, *beside)))))
        names = [name for name in anchored if name.endswith(family.anchor) and name not in taken]
        stems = [name.removesuffix(family.anchor) for name in names]
        if family.packed:
            numbers = [tensors.get(stem + family.numbers) for stem in stems]
            stems = [stem for stem, n in zip(stems, numbers, strict=True) if n and n.dtype in family.packed]
        columns = [[tensors.get(stem + end) for stem in stems] for end in ends]
        batch = _Batch(family, ends, stems, list(zip(*columns, strict=True)))
        batch, taken = _unclaimed(batch, taken, faults)
        batches.append(batch)
    return batches, taken, faults


def _unclaimed(batch: _Batch, taken: set[str], faults: list[str]) -> tuple[_Batch, set[str]]:
    """Weights whose tensors belong to no other, and all taken names."""
    names = [part.name for row in batch.rows for part in row if part]
    together = taken.union(names)
    if len(together) == len(taken) + len(names):
        return batch, together
    together, stems, rows = set(taken), [], []
    for stem, row in zip(batch.stems, batch.rows, strict=True):
        anchor = stem + batch.family.anchor
        names = [part.name for part in row if part]
        twice = next((name for name in names if name in together), None)
        if twice is None:
            together.update(names)
            stems.append(stem)
            rows.append(row)
        elif anchor not in together:
            faults.append(f"{quoted(twice)} belongs to two weights, by {quoted(anchor)}")
    return batch._replace(stems=stems, rows=rows), together


def _data(checkpoint: Checkpoint, batches: list[_Batch], faults: list[str]) -> dict[int, dict[int, dict[str, bytes]]]:
    """Bytes that the families need, by batch and weight."""
    wanted: dict[tuple[int, int, str], Span] = {}
    for number, (family, ends, _, rows) in enumerate(batches):
        for index, row in enumerate(rows if family.data else ()):
            for end, tensor in zip(ends, row, strict=True):
                if tensor is None or end not in family.data:
                    continue
                if tensor.span.end - tensor.span.start > _LONGEST_DATA:
                    faults.append(
                        f"{quoted(tensor.name)} is longer than {_LONGEST_DATA} bytes, which no library writes"
                    )
                else:
                    wanted[number, index, end] = tensor.span
    data: dict[int, dict[int, dict[str, bytes]]] = {}
    contents = checkpoint.files.read(list(wanted.values())) if wanted else []
    for (number, index, end), content in zip(wanted, contents, strict=True):
        data.setdefault(number, {}).setdefault(index, {})[end] = content
    return data


def _leftover_faults(tensor: Tensor, settings: Settings) -> list[str]:
    """Faults of a tensor outside of all groups."""
    name = tensor.name
    if name.endswith(_ORPHANS):
        return [f"{quoted(name)} belongs to a packed weight that is not there"]
    if len(tensor.shape) < 2 or tensor.dtype not in _LOW or (tensor.dtype in FP8 and not settings.method):
        return []
    # Masks and tables of positions are integers too, and no weights.
    if name.endswith(".weight") or (
        settings.method and tensor.dtype in _BYTES and not name.endswith((".bias", "mask"))
    ):
        return [f"{quoted(name)} is {tensor.dtype} {list(tensor.shape)}, and nothing says how it is packed"]
    return []
