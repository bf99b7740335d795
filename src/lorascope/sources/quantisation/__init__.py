"""Quantised checkpoints as they would be without their packing: one `unpack`, and a small file for each family.

`settings` says what the configuration says, `groups` what a packed weight is made of. Which tensors are there decides;
the configuration says only what they cannot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lorascope.errors import LorascopeError
from lorascope.sources.checkpoints import Checkpoint, Stored, Tensor
from lorascope.sources.json_text import first_faults, quoted
from lorascope.sources.quantisation.bitsandbytes import FP4, NF4, recover_eight_bits, recover_four_bits
from lorascope.sources.quantisation.compressed import recover_compressed
from lorascope.sources.quantisation.groups import FP8, Family, Group, MisfitError
from lorascope.sources.quantisation.integers import recover_integers
from lorascope.sources.quantisation.scaled import recover_mxfp4, recover_scaled
from lorascope.sources.quantisation.settings import Settings, read_settings

# Scales of activations and of the cache, and the like: they come with a weight and say nothing of its shape.
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
    Family("_scale_inv", "", _SCALED, "", recover_scaled, packed=(*FP8, "I8")),
    Family("_scale", "", (), "", recover_scaled, packed=FP8),
)
_BYTES = (*FP8, "F8_E8M0", "F6_E2M3", "F6_E3M2", "F4", "I8", "U8")
_LOW = (*_BYTES, "I16", "U16", "I32", "U32")
_ANCHORS = tuple(family.anchor for family in _FAMILIES)
# What belongs to a packed weight and to nothing else.
_ORPHANS = (".qzeros", ".g_idx", ".weight_shape", ".weight_zero_point", ".weight_scale_2", ".weight_format", *_BNB)
# The scales of a cache lie beside the projections in some formats.
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
    )
)
# compressed-tensors' formats that drop zeros, and the one that reorders for a kernel.
_SPARSE = ("sparse-bitmask", "sparse-24-bitmask", "marlin-24")
_LONGEST_DATA = 4096
_NEXT = (
    "Give the model that it was quantised from, or read the configuration alone with --source config: roles, shapes and "
    "adapter sizes are the same."
)
_DAMAGED = f"If the checkpoint may be damaged, download it again. {_NEXT}"


class _Packed(NamedTuple):
    """The tensors of one weight, by the ends of their names, and the family that they were found by."""

    family: Family
    stem: str
    parts: dict[str, Tensor]


def unpack(checkpoint: Checkpoint) -> dict[str, Stored]:
    """The tensors of a checkpoint as they would be without quantisation.

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
    tensors, where = checkpoint.tensors, checkpoint.files.where
    settings = read_settings(checkpoint)
    _check_supported(settings, tensors, where)
    weights, faults = _gather(tensors)
    data = _data(checkpoint, weights, faults)
    found: dict[str, Stored] = {}
    owners: dict[str, str] = {}
    # What was worked out for tensors of certain types and shapes holds for all of them, where it rests on those alone.
    known: dict[object, tuple[tuple[int, ...], str]] = {}
    for index, (family, stem, parts) in enumerate(weights):
        name = stem + family.logical
        sources = tuple([tensor.name for tensor in parts.values()])
        for source in sources:
            owners[source] = name
        key = (family.anchor, *[(end, tensor.dtype, tensor.shape) for end, tensor in parts.items()])
        try:
            if family.data or key not in known:
                known[key] = family.recover(Group(name, stem, parts, data.get(index, {})), settings)
            if name in found or (name in tensors and owners.get(name) != name):
                raise MisfitError("is there twice, in two forms")
        except MisfitError as misfit:
            faults.append(f"{quoted(name)} {misfit}")
            continue
        # The numbers are there, or nothing would have been recovered.
        found[name] = Stored(name, known[key][0], parts[family.numbers].dtype, known[key][1], sources)
    result: dict[str, Stored] = {}
    beside: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        owner = owners.get(name, "")
        if not owner and settings.method and name.endswith(_ACTIVATIONS):
            owner = _owner(name, found, tensors)
            if owner:
                beside.setdefault(owner, []).append(name)
        elif owner in found:
            result[owner] = found[owner]
        if not owner:
            unscaled = ""
            if tensor.dtype in _LOW or name.endswith(_ORPHANS):
                faults += _leftover_faults(tensor, settings)
                unscaled = "fp8 without scale" if tensor.dtype in FP8 and len(tensor.shape) > 1 else ""
            result[name] = Stored(name, tensor.shape, tensor.dtype, unscaled, (name,))
    if faults:
        raise LorascopeError(*first_faults(faults), where=where, hint=_DAMAGED)
    for owner, names in beside.items():
        result[owner] = dataclasses.replace(result[owner], sources=(*result[owner].sources, *names))
    return result


def _check_supported(settings: Settings, tensors: Mapping[str, Tensor], where: str) -> None:
    """Whether the format that the configuration names is known, where there is anything that is not plain numbers.

    Raises:
        LorascopeError: It is not.
    """
    method = settings.method
    sparsity = settings.values.get("sparsity_config")
    formats = (settings.values.get("format"), sparsity.get("format") if isinstance(sparsity, dict) else None)
    sparse = next((name for name in formats if name in _SPARSE), "") if method == "compressed-tensors" else ""
    if (method not in _KNOWN or sparse) and any(tensor.dtype in _LOW for tensor in tensors.values()):
        raise LorascopeError(
            f"the quantisation {quoted(method)}{sparse and f' in the format {quoted(sparse)}'} is not supported: what shapes "
            "its tensors stand for is not known",
            where=f"{where}: {settings.where}",
            hint=_NEXT,
        )


def _owner(name: str, *weights: Mapping[str, object]) -> str:
    """The weight that a scale of activations or of the cache lies beside; empty where there is none."""
    stem, _, end = name.rpartition(".")
    candidates = (f"{stem}.weight", stem + _CACHE.get(f".{end}", ".weight"))
    return next((weight for weight in candidates if any(weight in table for table in weights)), "")


def _gather(tensors: Mapping[str, Tensor]) -> tuple[list[_Packed], list[str]]:
    """The groups of tensors that belong together, and what claims a tensor that another one has."""
    # Few ends are there in any one checkpoint, and to look for the others beside each weight would take most of the time.
    leaves = {name[name.rfind(".") :] for name in tensors}

    def there(ends: Iterable[str]) -> list[str]:
        return [
            end
            for end in dict.fromkeys(ends)
            if not end or any(leaf.endswith(end[end.rfind(".") :]) for leaf in leaves)
        ]

    anchored = [name for name in tensors if name.endswith(_ANCHORS)]
    weights: list[_Packed] = []
    faults: list[str] = []
    taken: set[str] = set()
    for family in _FAMILIES:
        if not there([family.anchor]):
            continue
        # What is called after a module has scales of activations beside it.
        beside = _ACTIVATIONS if family.logical == ".weight" else ()
        ends = there((family.numbers, family.anchor, *family.others, *beside))
        for name in anchored:
            if name in taken or not name.endswith(family.anchor):
                continue
            stem = name.removesuffix(family.anchor)
            numbers = tensors.get(stem + family.numbers)
            if family.packed and (numbers is None or numbers.dtype not in family.packed):
                continue
            parts = {end: tensors[stem + end] for end in ends if stem + end in tensors}
            mine = [tensor.name for tensor in parts.values()]
            if not taken.isdisjoint(mine):
                twice = next(other for other in mine if other in taken)
                faults.append(f"{quoted(twice)} belongs to two weights, by {quoted(name)}")
                continue
            taken.update(mine)
            weights.append(_Packed(family, stem, parts))
    return weights, faults


def _data(checkpoint: Checkpoint, weights: list[_Packed], faults: list[str]) -> dict[int, dict[str, bytes]]:
    """The bytes that the families ask for, by the index of the weight; tensors that are too long for it become faults."""
    wanted = {}
    for index, (family, _, parts) in enumerate(weights):
        for end in family.data:
            tensor = parts.get(end)
            if tensor is not None and tensor.span.end - tensor.span.start > _LONGEST_DATA:
                faults.append(f"{quoted(tensor.name)} is longer than {_LONGEST_DATA} bytes, which no library writes")
            elif tensor is not None:
                wanted[index, end] = tensor.span
    data: dict[int, dict[str, bytes]] = {}
    contents = checkpoint.files.read(list(wanted.values())) if wanted else []
    for (index, end), content in zip(wanted, contents, strict=True):
        data.setdefault(index, {})[end] = content
    return data


def _leftover_faults(tensor: Tensor, settings: Settings) -> list[str]:
    """What is wrong with a tensor that belongs to no group."""
    name = tensor.name
    if name.endswith(_ORPHANS):
        return [f"{quoted(name)} belongs to a packed weight that is not there"]
    if len(tensor.shape) < 2 or tensor.dtype not in _LOW or (tensor.dtype in FP8 and not settings.method):
        return []
    # Masks and tables of positions are integers too, and no weights.
    if name.endswith(".weight") or (
        settings.method and tensor.dtype in _BYTES and not name.endswith((".bias", "mask"))
    ):
        return [f"{quoted(name)} is {tensor.dtype} {list(tensor.shape)}, and nothing beside it says how it is packed"]
    return []
