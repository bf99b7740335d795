"""Checkpoints without their numbers: safetensors files of any size, sparse on disk, made from names and shapes alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Bits of one element, as safetensors 0.8 counts them; a test compares them with the installed library.
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
Shapes = Mapping[str, tuple[str, Sequence[int]]]  # name: (dtype, shape)


def header(tensors: Shapes, metadata: Mapping[str, str] | None = None) -> tuple[dict[str, Any], int]:
    """The header of one file as safetensors would write it, and how many bytes of data come after it."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: (-BITS[item[1][0]], item[0])):
        begin, end = end, end + math.prod(shape) * BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    return entries, end


def frame(text: bytes) -> bytes:
    """A header's text with its length in front, padded to eight bytes as safetensors does."""
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_file(path: Path, tensors: Shapes, data: Mapping[str, bytes] | None = None) -> None:
    """One safetensors file; `data` gives the bytes of the tensors that need any, all others are holes."""
    entries, size = header(tensors, {"format": "pt"})
    front = frame(json.dumps(entries, separators=(",", ":")).encode())
    with path.open("wb") as file:
        file.write(front)
        for name in (data or {}).keys() & tensors.keys():
            begin, end = entries[name]["data_offsets"]
            assert len((data or {})[name]) == end - begin, name
            file.seek(len(front) + begin)
            file.write((data or {})[name])
        file.truncate(len(front) + size)


def write_checkpoint(
    folder: Path,
    tensors: Shapes,
    shards: int = 1,
    config: Mapping[str, Any] | None = None,
    data: Mapping[str, bytes] | None = None,
) -> Path:
    """A checkpoint folder as `save_pretrained` lays it out, sparse on disk.

    Args:
        folder: Where; made if it is not there.
        tensors: Name to dtype code and shape.
        shards: Into how many files they go, in order; with more than one an index is written.
        config: What `config.json` holds; none is written without it.
        data: The bytes of the few tensors whose data is read.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if shards == 1:
        write_file(folder / "model.safetensors", tensors, data)
        return folder
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        mine = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        write_file(folder / file, {name: tensors[name] for name in mine}, data)
        weight_map |= dict.fromkeys(mine, file)
    total = sum(math.prod(shape) * BITS[dtype] // 8 for dtype, shape in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
