"""Size of a saved adapter, to the byte."""

from __future__ import annotations

import json
import math

from lorascope.costs.adapter_tensors import adapter_tensors
from lorascope.plans.types import Plan

# PEFT keeps adapters in float32 where the model is in half precision (`autocast_adapter_dtype`, on by default); what is
# saved of the model itself stays in the model's own type.
_OF_THE_MODEL = ("bias", "copy", "base")
_TYPES = {"fp32": ("F32", 4), "bf16": ("BF16", 2), "fp16": ("F16", 2)}


def adapter_file_size(plan: Plan, dtype: str = "bf16") -> int:
    """Bytes of `adapter_model.safetensors`.

    The format is safetensors (github.com/huggingface/safetensors, README, "Format"): eight bytes, a JSON header padded
    to a multiple of eight, the tensors. Buffers of modules that are saved whole are left out: a map does not know them.

    Args:
        plan: The plan.
        dtype: Dtype of the model: `bf16`, `fp16` or `fp32`.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    typed = [(*_TYPES[dtype if tensor.part in _OF_THE_MODEL else "fp32"], tensor) for tensor in adapter_tensors(plan)]
    # Wider types come first, then names decide.
    for name, size, tensor in sorted(typed, key=lambda row: (-row[1], row[2].name)):
        end = offset + math.prod(tensor.shape) * size
        header[tensor.name] = {"dtype": name, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = len(json.dumps(header, separators=(",", ":")).encode())
    return 8 + (text + 7) // 8 * 8 + offset
