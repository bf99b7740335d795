"""The index of a checkpoint: each tensor's file."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Collection, Iterator, Mapping

from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.sources.checkpoint.tensor_table import TensorTable
from lorascope.sources.files.json_text import MOST_VALUES, first_faults, parse_object

MOST_SHARDS = 10_000
SHARD = re.compile(r"[A-Za-z0-9][\w.-]*\.safetensors", re.ASCII)
DAMAGED = "Download it again; a file that safetensors reads can be saved anew with save_pretrained."
# What separates JSON values; what else an index is made of as `json.dumps` writes it; and what stands before its entries.
_BETWEEN = b",[{"
_PLAIN = bytes(range(0x20, 0x7F)).translate(None, _BETWEEN + b"\\") + b"\n"
_FRONT = re.compile(rb'\{\s*(?:"metadata":\s*\{[^{}]*\},\s*)?"weight_map":\s*\{')
# Letters of entries that are cut at once. All at once, or a dict of them, take twice the time for their memory.
_PART = 2**16


class Index:
    """An index whose files are all there.

    Args:
        text: The file.
        where: What messages call it.
        names: The files that there are.

    Attributes:
        shards: The files that it names, sorted.

    Raises:
        LorascopeError: With every fault of the file.
    """

    def __init__(self, text: bytes, where: str, names: Collection[str]) -> None:
        self._text, self._where, self._names = text, where, names
        self._start, self._end = _plain_entries(text)
        try:
            shards = {shard for _, shards in self._parts() for shard in shards}
        except ValueError:
            shards = set()
        if not shards or len(shards) > MOST_SHARDS or not all(map(SHARD.fullmatch, shards)) or not shards <= {*names}:
            self._start = self._end = 0
            shards = set(self.weight_map.values())
        self.shards = sorted(shards)

    def agrees(self, tensors: TensorTable) -> bool:
        """Each tensor is in its file by the index, and only there."""
        places = tensors.files()
        if len(places) < len(tensors) or self._start == self._end:
            return len(places) == len(tensors) and places == self.weight_map
        taken = (list(map(places.pop, names, itertools.repeat(""))) == shards for names, shards in self._parts())
        return all(taken) and not places

    def disagreements(self, tensors: TensorTable) -> Iterator[str]:
        """Tensors in another file than the index says, or in none."""
        places = tensors.files()
        for name in sorted(places.keys() | self.weight_map.keys()):
            said, found = self.weight_map.get(name, "in no file"), places.get(name, "in none")
            if said != found:
                yield f"the tensor {quoted(name)} is {said} by the index, {found} in fact"

    @functools.cached_property
    def weight_map(self) -> Mapping[str, str]:
        """Tensor name to file.

        Raises:
            LorascopeError: With every fault of the file.
        """
        return _weight_map(self._text, self._where, self._names)

    def _parts(self) -> Iterator[tuple[list[str], list[str]]]:
        """Names and files of the entries, some hundred at a time.

        Raises:
            ValueError: They are not as `json.dumps` writes them.
        """
        start = self._start
        while start < self._end:
            end = self._text.find(b'",', start + _PART, self._end) + 1 or self._end
            before, *pieces = self._text[start:end].decode("ascii").split('"')
            names, colons, shards, commas = (pieces[place::4] for place in range(4))
            between = {*map(str.strip, {*commas[:-1]})} <= {","} and {*map(str.strip, {*colons})} == {":"}
            if before.strip() or not between or len(commas) < len(names) or commas[-1].strip():
                raise ValueError("not as json.dumps writes it")
            yield names, shards
            start = end + 1


def _plain_entries(text: bytes) -> tuple[int, int]:
    """Bounds of the entries, if the index is as `json.dumps` writes it."""
    nowhere = 0, 0
    others = text.translate(None, _PLAIN)
    if len(others) > MOST_VALUES or others.translate(None, _BETWEEN):
        return nowhere
    front = _FRONT.match(text)
    end = text.find(b"}", front.end()) if front else -1
    if front is None or end < 0 or not text[max(0, end - 99) : end].rstrip().endswith(b'"'):  # a comma ends no object
        return nowhere
    try:
        rest = parse_object(front[0] + text[end:], "")
    except LorascopeError:
        return nowhere
    return (front.end(), end) if rest["weight_map"] == {} else nowhere


def _weight_map(text: bytes, where: str, names: Collection[str]) -> Mapping[str, str]:
    """Tensor name to file, every one of which is there.

    Raises:
        LorascopeError: With every fault of the index.
    """
    weight_map = parse_object(text, where, DAMAGED).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise LorascopeError(f"weight_map is {quoted(weight_map)}, not an object of files", where=where, hint=DAMAGED)
    faults = []
    if set(map(type, weight_map.values())) != {str}:
        faults = [
            f"weight_map has {quoted(shard)} for {quoted(name)}, not a text"
            for name, shard in weight_map.items()
            if not isinstance(shard, str)
        ]
    shards = sorted({shard for shard in weight_map.values() if isinstance(shard, str)})
    for shard in shards:
        if not SHARD.fullmatch(shard):
            faults.append(f"{quoted(shard)} is not a safetensors file at the root")
        elif shard not in names:
            faults.append(f"{quoted(shard)} is not there")
    if len(shards) > MOST_SHARDS:
        faults.append(f"names {len(shards)} files, more than {MOST_SHARDS}")
    if faults:
        raise LorascopeError(*first_faults(faults), where=where, hint="Download the model again, all its files.")
    return weight_map
