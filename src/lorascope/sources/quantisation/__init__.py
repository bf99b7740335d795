"""Quantised checkpoints as they would be without their packing: one `unpack`, and a small file for each family.

`settings` says what the configuration says, `groups` what a packed weight is made of. Which tensors are there decides;
the configuration says only what they cannot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from lorascope.errors import LorascopeError
from lorascope.sources.checkpoints import Checkpoint, Stored, Tensor
from lorascope.sources.json_text import first_faults, quoted
from lorascope.sources.quantisation.bitsandbytes import FP4, NF4, recover_eight_bits, recover_four_bits
from lorascope.sources.quantisation.compressed import recover_compressed
from lorascope.sources.quantisation.groups import FP8, Family, Group, MisfitError
from lorascope.sources.quantisation.integers import recover_integers
from lorascope.sources.quantisation.scaled import SCALES, recover_mxfp4, recover_scaled
from lorascope.sources.quantisation.settings import Settings, read_settings

# Scales of activations and of the cache, and the like: they come with a weight and say nothing of its shape.
_ACTIVATIONS = (
    ".input_scale",
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
assert set(SCALES) <= set(_ANCHORS)
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Member:
    """A group with the family that it was found by."""

    group: Group
    family: Family


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
    members, faults = _gather(tensors)
    members = _with_data(checkpoint, members, faults)
    found: dict[str, Stored] = {}
    owners: dict[str, str] = {}
    for member in members:
        group, numbers = member.group, member.group.parts.get(member.family.numbers)
        owners |= {tensor.name: group.name for tensor in group.parts.values()}
        try:
            shape, quantisation = member.family.recover(group, settings)
            if group.name in found or (group.name in tensors and owners.get(group.name) != group.name):
                raise MisfitError("is there twice, in two forms")
        except MisfitError as misfit:
            faults.append(f"{quoted(group.name)} {misfit}")
            continue
        assert numbers is not None  # or it would not have been recovered
        sources = tuple(tensor.name for tensor in group.parts.values())
        found[group.name] = Stored(group.name, shape, numbers.dtype, quantisation, sources)
    result: dict[str, Stored] = {}
    beside: dict[str, list[str]] = {}
    for tensor in tensors.values():
        owner = owners.get(tensor.name) or _owner(tensor.name, settings, found, tensors)
        if owner in found:
            result[owner] = found[owner]
        if not owner:
            faults += _leftover_faults(tensor, settings)
            unscaled = "fp8 without scale" if tensor.dtype in FP8 and len(tensor.shape) > 1 else ""
            result[tensor.name] = Stored(tensor.name, tensor.shape, tensor.dtype, unscaled, (tensor.name,))
        elif tensor.name not in owners:
            beside.setdefault(owner, []).append(tensor.name)
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


def _owner(name: str, settings: Settings, *weights: Mapping[str, object]) -> str:
    """The weight that a scale of activations or of the cache lies beside, empty for any other tensor."""
    if not settings.method or not name.endswith(_ACTIVATIONS):
        return ""
    stem, _, end = name.rpartition(".")
    candidates = (f"{stem}.weight", stem + _CACHE.get(f".{end}", ".weight"))
    return next((weight for weight in candidates if any(weight in table for table in weights)), "")


def _gather(tensors: Mapping[str, Tensor]) -> tuple[list[_Member], list[str]]:
    """The groups of tensors that belong together, and what claims a tensor that another one has."""
    anchored = [name for name in tensors if name.endswith(_ANCHORS)]
    members: list[_Member] = []
    faults: list[str] = []
    taken: set[str] = set()
    for family in _FAMILIES:
        for name in anchored:
            if not name.endswith(family.anchor) or name in taken:
                continue
            stem = name.removesuffix(family.anchor)
            numbers = tensors.get(stem + family.numbers)
            if family.packed and (numbers is None or numbers.dtype not in family.packed):
                continue
            ends = dict.fromkeys((family.numbers, family.anchor, *family.others, *_activations(family)))
            parts = {end: tensors[stem + end] for end in ends if stem + end in tensors}
            twice = [tensor.name for tensor in parts.values() if tensor.name in taken]
            if twice:
                faults.append(f"{quoted(twice[0])} belongs to two weights, by {quoted(name)}")
                continue
            taken |= {tensor.name for tensor in parts.values()}
            members.append(_Member(Group(stem + family.logical, stem, parts), family))
    return members, faults


def _activations(family: Family) -> Iterable[str]:
    """What may lie beside a weight of this family; its stem is a module only where the weight is called so."""
    return _ACTIVATIONS if family.logical == ".weight" else ()


def _with_data(checkpoint: Checkpoint, members: list[_Member], faults: list[str]) -> list[_Member]:
    """The same groups with the bytes that their families ask for; those whose are too many become faults."""
    wanted = {}
    for index, member in enumerate(members):
        for end in member.family.data:
            tensor = member.group.parts.get(end)
            if tensor is not None and tensor.span.end - tensor.span.start > _LONGEST_DATA:
                faults.append(f"{quoted(tensor.name)} is longer than {_LONGEST_DATA} bytes, which no library writes")
            elif tensor is not None:
                wanted[index, end] = tensor.span
    if not wanted:
        return members
    data: dict[int, dict[str, bytes]] = {}
    for (index, end), content in zip(wanted, checkpoint.files.read(list(wanted.values())), strict=True):
        data.setdefault(index, {})[end] = content
    return [
        dataclasses.replace(member, group=dataclasses.replace(member.group, data=data.get(index, {})))
        for index, member in enumerate(members)
    ]


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
