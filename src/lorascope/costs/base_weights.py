"""Bytes of the base weights, quantized as bitsandbytes does it.

`nf4` with double quantization (QLoRA, arXiv 2305.14314, section 3; bitsandbytes `functional.quantize_4bit`): half a byte per
weight, one byte per block of 64 for its scale, and 4 bytes per 256 scales for theirs. `8bit` (LLM.int8(), arXiv 2208.07339): one
byte per weight and 4 bytes per row. transformers replaces `nn.Linear` and `Conv1D` and leaves the output embedding, whatever is
tied to it, embeddings, normalizations and bare parameters (fused experts) as they are
(`integrations/bitsandbytes.py`, `replace_with_bnb_linear`; `get_keys_to_not_convert`).
"""

from __future__ import annotations

import math

from lorascope import light_dataclasses as dataclasses
from lorascope.costs.training_run import Training
from lorascope.model.storage import parse_storage
from lorascope.model.types import ModelMap, Module
from lorascope.peft_rules.quantization import is_unpacked

_BLOCK = 64
_NESTED_BLOCK = 256


@dataclasses.dataclass(frozen=True, slots=True)
class BaseWeights:
    """Sizes of the base weights.

    Attributes:
        size: Their bytes.
        plain: Numbers that are stored as they are.
        packed: Numbers that are quantized.
        bare_experts: Numbers of fused experts, which are not quantized.
        largest_packed: Numbers of the largest quantized weight, which is unpacked where it is used.
        stored_packed: Some weights come quantized from their checkpoint.
        dequantized: Some come quantized, and must be loaded as plain numbers for PEFT.
    """

    size: int
    plain: int
    packed: int
    bare_experts: int
    largest_packed: int
    stored_packed: bool
    dequantized: bool


def base_weights(model: ModelMap, training: Training) -> BaseWeights:
    """Bytes of the model's weights; a tied one counts once."""
    first = {name: group[0] for group in model.ties for name in group}
    unquantized = _unquantized_modules(model)
    seen: set[str] = set()
    size = plain = packed = bare = largest = 0
    stored = dequantized = False
    everything: list[tuple[Module | None, str, tuple[int, ...]]] = [
        *((module, name, shape) for module in model.modules for name, shape in module.parameters),
        *((None, name, shape) for name, shape in model.root_parameters),
    ]
    for module, name, shape in everything:
        full = f"{module.name}.{name}" if module is not None else name
        tensor = first.get(full, full)
        if tensor in seen:
            continue
        seen.add(tensor)
        count = math.prod(shape)
        if module is not None and module.quantization and name == "weight" and is_unpacked(module.quantization):
            dequantized = True
            size += count * training.width
            plain += count
        elif module is not None and module.quantization and name == "weight":
            stored = True
            size += math.ceil(count * _stored_bits(module.quantization) / 8)
            packed += count
            largest = max(largest, count)
        elif training.quantization != "none" and _is_quantized(module, name, unquantized):
            size += packed_bytes(count, shape[-1] if module and module.kind == "conv1d" else shape[0], training)
            packed += count
            largest = max(largest, count)
        else:
            size += count * training.width
            plain += count
            if len(shape) == 3 and module is not None and module.kind == "other":
                bare += count
    return BaseWeights(size, plain, packed, bare, largest, stored, dequantized)


def packed_bytes(count: int, rows: int, training: Training) -> int:
    """Bytes of one quantized weight."""
    if training.quantization == "8bit":
        return count + 4 * rows
    scales = -(-count // _BLOCK)  # integers: floats are exact up to 2^53 only
    return -(-count // 2) + scales + 4 * -(-scales // _NESTED_BLOCK)


def _unquantized_modules(model: ModelMap) -> frozenset[str]:
    """Unquantized modules: the head, and modules tied to it."""
    tied = {name.rpartition(".")[0] for group in model.ties for name in group}
    return frozenset({model.output_embeddings, *tied})


def _is_quantized(module: Module | None, name: str, unquantized: frozenset[str]) -> bool:
    return (
        module is not None
        and name == "weight"
        and module.kind in ("linear", "conv1d")
        and module.name not in unquantized
    )


def _stored_bits(quantization: str) -> float:
    """Bits per weight in a quantized checkpoint, with a sixteenth for scales."""
    return (parse_storage(quantization).bits or 8) * 17 / 16
