"""Headers of GGUF files: metadata, tensor names, shapes and types.

Written to https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The header has no length: it is parsed as its
bytes arrive, in reads that grow, so nothing is parsed twice and no weight is read but for the end of the last read.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from typing import Any, NoReturn

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import is_printable, quoted
from lorascope.sources.checkpoint.types import Files, Span
from lorascope.sources.files.json_text import first_faults

Entry = tuple[tuple[int, ...], str]

_FIRST_READ = 1_000_000
_MOST_BYTES = 100_000_000  # of a model's headers; the largest vocabularies take 15 MB
_MOST_TENSORS = 100_000  # experts are stacked: the largest models have 3,000
_MOST_KEYS = 1_024  # real files have 30 to 80
_MOST_STRINGS = 4_000_000  # of one array; the largest vocabularies have half a million merges
_MOST_FILES = 1_000
_SHORT_ARRAY = 1_024  # elements; per-layer values are kept, vocabularies are not
_SHORT_TEXT = 1_024  # bytes; names are kept, chat templates are not

_DAMAGED = "The file is damaged or incomplete: get it again."
_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.ASCII)
_TENSOR_NAME = re.compile(r"[\w.:/+-]{1,255}", re.ASCII)
_ARCHITECTURE = re.compile(r"[\w.-]{1,64}", re.ASCII)

# Metadata value types: number to `struct` code. 8 is a string, 9 an array.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9

# Tensor types: number to name, elements of a block, bytes of a block (ggml's `type_traits`; a test compares them
# with the gguf library). A shape counts elements for every type.
TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}


@dataclasses.dataclass(frozen=True)
class Gguf:
    """Header of a GGUF model, all its files together.

    Attributes:
        where: What messages call it.
        architecture: llama.cpp's name of the architecture (`general.architecture`): `llama`, `qwen3moe`.
        metadata: Keys to numbers, texts, truth values, and tuples of them; long ones are left out.
        lengths: The keys that are left out of `metadata` to their lengths: elements of an array, bytes of a text.
        tensors: Names to (logical shape, type name). Shapes are `(out, in)`, with experts in front.
        names: The files that were read.
    """

    where: str
    architecture: str
    metadata: Mapping[str, Any]
    lengths: Mapping[str, int]
    tensors: Mapping[str, Entry]
    names: tuple[str, ...]

    def setting(self, key: str, default: Any = None) -> Any:
        """A value of the architecture's own: `setting("block_count")` is `llama.block_count`."""
        return self.metadata.get(f"{self.architecture}.{key}", default)


def read_gguf(files: Files, name: str) -> Gguf:
    """Read the header of a GGUF model, split or not.

    Args:
        files: Where it lies.
        name: The file, or any one of a split model's files.

    Raises:
        LorascopeError: It is not there, not GGUF, damaged, or of a version or a type that is not known.
    """
    split = _SPLIT.fullmatch(name)
    names = _parts(files, split[1], int(split[3])) if split else (name,)
    metadata: dict[str, Any] = {}
    lengths: dict[str, int] = {}
    tensors: dict[str, Entry] = {}
    faults: list[str] = []
    most = _MOST_BYTES  # of all headers together
    for number, part in enumerate(names):
        header = _File(files, part, most).parse()
        most -= header.at
        if number == 0:
            metadata, lengths = header.metadata, header.lengths
        own = header.metadata.get("split.no", number)
        if split and own != number:
            faults.append(f"{_printable(part)} says that it is part {quoted(own)} (split.no), counted from 0")
        if twice := tensors.keys() & header.tensors.keys():
            faults.append(f"{_printable(part)} repeats {len(twice)} tensors of other parts, such as {min(twice)}")
        tensors |= header.tensors
    faults += _faults_of_whole(metadata, tensors, len(names))
    where = _where(files, names[0])
    if faults:
        raise LorascopeError(*first_faults(faults), where=where, hint=_DAMAGED)
    return Gguf(where, metadata["general.architecture"], metadata, lengths, tensors, names)


def _parts(files: Files, stem: str, count: int) -> tuple[str, ...]:
    """All files of a split model."""
    where = _where(files, stem)
    if not 1 <= count <= _MOST_FILES:
        raise LorascopeError(f"a model in {count} files", where=where, hint=f"1 to {_MOST_FILES} files can be read.")
    names = tuple(f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1))
    missing = [name for name in names if name not in files.names]
    if missing:
        shown = ", ".join(map(_printable, missing[:3])) + (", …" if len(missing) > 3 else "")
        raise LorascopeError(
            f"{len(missing)} of the model's {count} files are missing: {shown}", where=where, hint="Get them all."
        )
    return names


def _faults_of_whole(metadata: Mapping[str, Any], tensors: Mapping[str, Entry], files: int) -> list[str]:
    """Faults of the parts together."""
    faults = []
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not _ARCHITECTURE.fullmatch(architecture):
        faults.append(f"general.architecture is {quoted(architecture)}, not a name")
    for key, count in (("split.count", files), ("split.tensors.count", len(tensors))):
        if key in metadata and metadata[key] not in (0, count):
            faults.append(f"{key} is {quoted(metadata[key])}, but there are {count}")
    if not tensors:
        faults.append("it holds no tensors")
    return faults


def _where(files: Files, name: str) -> str:
    return f"{files.where}/{_printable(name)}"


def _printable(name: str) -> str:
    return name if name.isprintable() else quoted(name)


class _File:
    """One file, parsed as its bytes arrive."""

    def __init__(self, files: Files, name: str, most: int) -> None:
        self.where = _where(files, name)
        if name not in files.names:
            raise LorascopeError("there is no such file", where=self.where, hint="Give a file of that folder.")
        self.files, self.name, self.size = files, name, files.size(name)
        self.data = bytearray()
        self.at = 0
        self.most = most  # bytes that its header may have
        self.metadata: dict[str, Any] = {}
        self.lengths: dict[str, int] = {}
        self.tensors: dict[str, Entry] = {}

    def parse(self) -> _File:
        """Read the whole header."""
        self._check_magic()
        count, keys = self._number("Q"), self._number("Q")
        self._at_most(count, _MOST_TENSORS, "tensors", 24)
        self._at_most(keys, _MOST_KEYS, "metadata keys", 13)
        for _ in range(keys):
            self._read_pair()
        ends, faults = self._read_tensors(count)
        faults += self._faults_of_data(ends)
        if faults:
            raise LorascopeError(*first_faults(faults), where=self.where, hint=_DAMAGED)
        return self

    def _check_magic(self) -> None:
        magic = self._bytes(4)
        if magic != b"GGUF":
            old = magic[::-1] in (b"ggml", b"ggmf", b"ggjt", b"ggla")  # they wrote a number, little end first
            raise LorascopeError(
                f"it starts with {magic!r}, not with b'GGUF'",
                where=self.where,
                hint="This format came before GGUF: convert the original checkpoint anew."
                if old
                else "Give a GGUF file.",
            )
        version = self._number("I")
        if version not in (2, 3):
            if version in (2 << 24, 3 << 24):
                fault, hint = "it is big-endian", "Use the little-endian file, which nearly all are."
            elif version == 1:
                fault, hint = "it has GGUF's version 1, of August 2023", "Convert the original checkpoint anew."
            else:
                fault, hint = f"it has version {version} of GGUF, not 2 or 3", "A newer lorascope may know it."
            raise LorascopeError(fault, where=self.where, hint=hint)

    def _read_pair(self) -> None:
        """One metadata key and its value."""
        key = self._text("a metadata key", 65_535)
        if not is_printable(key):
            self._fail(f"a metadata key is {quoted(key)}, not a name")
        if key in self.metadata or key in self.lengths:
            self._fail(f"the metadata key {quoted(key)} occurs twice")
        kind = self._number("I")
        if kind == _ARRAY:
            self._read_array(key)
        elif kind == _STRING:
            length = self._number("Q")
            if length > _SHORT_TEXT:
                self._take(length)
                self.lengths[key] = length
            else:
                self.metadata[key] = self._decoded(length, f"the value of {quoted(key)}")
        else:
            self.metadata[key] = self._scalar(key, kind)

    def _read_array(self, key: str) -> None:
        kind, count = self._number("I"), self._number("Q")
        if kind != _STRING and kind not in _NUMBERS:
            what = "arrays" if kind == _ARRAY else f"values of type {kind}"
            self._fail(f"{quoted(key)} is an array of {what}, which GGUF files do not have")
        if kind == _STRING:
            self._at_most(count, _MOST_STRINGS, f"texts in {quoted(key)}", 8)
        else:
            self._at_most(count, _MOST_BYTES, f"values in {quoted(key)}", struct.calcsize(f"<{_NUMBERS[kind]}"))
        if count <= _SHORT_ARRAY and kind != _STRING:
            self.metadata[key] = tuple(self._scalar(key, kind) for _ in range(count))
            return
        # Arrays of texts are vocabularies, languages and tags: nothing that shapes or names depend on.
        self.lengths[key] = count
        if kind == _STRING:
            self._skip_texts(count)
        else:
            self._take(count * struct.calcsize(f"<{_NUMBERS[kind]}"))

    def _scalar(self, key: str, kind: int) -> Any:
        if kind not in _NUMBERS:
            self._fail(f"{quoted(key)} has a value of type {kind}, which is none of GGUF's")
        value = self._number(_NUMBERS[kind])
        if kind != _BOOL:
            return value
        if value > 1:
            self._fail(f"{quoted(key)} is neither true nor false but {value}")
        return bool(value)

    def _read_tensors(self, count: int) -> tuple[list[tuple[int, int, str]], list[str]]:
        """The tensor table: (start, end, name) of each tensor's data, and faults."""
        ends = []
        faults = []
        for _ in range(count):
            name = self._text("a tensor's name", 65_535)
            axes = self._number("I")
            if axes > 4:
                self._fail(f"tensor {quoted(name)} has {axes} dimensions, more than GGUF's 4")
            # ggml counts from the dimension that changes fastest: in, out, experts.
            shape = tuple(reversed([self._number("Q") for _ in range(axes)]))
            kind, offset = self._number("I"), self._number("Q")
            problem = _fault_of_tensor(name, shape, kind, name in self.tensors)
            if problem:
                faults.append(problem)
                continue
            label, block, width = TYPES[kind]
            self.tensors[name] = (shape, label)
            ends.append((offset, offset + math.prod(shape) // block * width, name))
        return ends, faults

    def _faults_of_data(self, ends: list[tuple[int, int, str]]) -> list[str]:
        """Faults of the tensors' places: outside, unaligned, overlapping."""
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 2**20 or alignment & (alignment - 1):
            return [f"general.alignment is {quoted(alignment)}, not a power of two"]
        start = -(-self.at // alignment) * alignment
        faults = []
        last = 0
        for begin, end, name in sorted(ends):
            if begin % alignment:
                faults.append(f"the data of {name} start at {begin}, not a multiple of {alignment}")
            elif start + end > self.size:
                faults.append(f"the data of {name} end at byte {start + end}, but the file has {self.size}")
            elif begin < last:
                faults.append(f"the data of {name} overlap another tensor's")
            last = max(last, end)
        return faults

    # Reading.

    def _take(self, count: int) -> int:
        """Skip some bytes, fetched if needed; their start is returned."""
        start = self.at
        self.at += count
        if self.at > len(self.data):
            self._fetch(self.at)
        return start

    def _fetch(self, end: int) -> None:
        """Fetch up to `end`, at least a megabyte, then double."""
        if end > self.size:
            self._fail(f"it ends after {self.size} bytes, in the middle of its header")
        if end > self.most:
            self._fail(f"the model's header is longer than {_MOST_BYTES // 1_000_000} MB")
        have = len(self.data)
        target = min(max(end, have * 2, _FIRST_READ), self.size, self.most)
        self.data += self.files.read([Span(self.name, have, target)])[0]
        if len(self.data) < end:
            self._fail(f"it ends after {len(self.data)} bytes, in the middle of its header")

    def _number(self, code: str) -> Any:
        start = self._take(struct.calcsize(f"<{code}"))
        return struct.unpack_from(f"<{code}", self.data, start)[0]

    def _text(self, what: str, most: int) -> str:
        length = self._number("Q")
        if length > most:
            self._fail(f"{what} has {length} bytes")
        return self._decoded(length, what)

    def _decoded(self, length: int, what: str) -> str:
        raw = self._bytes(length)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self._fail(f"{what} is not UTF-8: {quoted(raw)}")

    def _bytes(self, length: int) -> bytes:
        start = self._take(length)
        return bytes(self.data[start : self.at])

    def _skip_texts(self, count: int) -> None:
        """Skip texts; large vocabularies have a million."""
        unpack = struct.Struct("<Q").unpack_from
        data, at = self.data, self.at
        for _ in range(count):
            if at + 8 > len(data):
                self._fetch(at + 8)
            at += 8 + unpack(data, at)[0]
        self.at = at
        self._take(0)

    def _at_most(self, count: int, most: int, what: str, width: int) -> None:
        """Refuse a count that no real file or this file can hold."""
        if count > most or self.at + count * width > self.size:
            self._fail(f"it claims {count} {what}, more than {'fit into the file' if count <= most else f'{most}'}")

    def _fail(self, fault: str) -> NoReturn:
        raise LorascopeError(fault, where=self.where, hint=_DAMAGED)


def _fault_of_tensor(name: str, shape: tuple[int, ...], kind: int, again: bool) -> str:
    """The fault of an entry of the tensor table, or empty."""
    if not _TENSOR_NAME.fullmatch(name):
        return f"a tensor is called {quoted(name)}, not a name"
    if again:
        return f"tensor {name} occurs twice"
    if kind not in TYPES:
        return f"tensor {name} has type {kind}, which lorascope does not know"
    label, block, _ = TYPES[kind]
    if math.prod(shape) >= 2**63 or any(size >= 2**48 for size in shape):
        return f"tensor {name} has the shape {' × '.join(map(str, shape))}, which nothing holds"
    if block > 1 and (not shape or shape[-1] % block):
        return f"tensor {name} has rows of {shape[-1] if shape else 0}, which blocks of {block} ({label}) do not fill"
    return ""
