"""Hostile files: safetensors files each of which is wrong in one way, and files that never were on a disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors

from lorascope.sources.checkpoint.types import Span, Tensor


@dataclasses.dataclass
class Memory:
    """Files of a test, and what was asked of them."""

    content: Mapping[str, bytes]
    where: str = "memory"
    commit: str = ""
    asked: list[list[Span]] = dataclasses.field(default_factory=list)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.content)

    def size(self, name: str) -> int:
        return len(self.content[name])

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        self.asked.append(list(spans))
        return [self.content[span.file][span.start : span.end] for span in spans]


def described(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def accepts(blob: bytes) -> bool:
    """The installed safetensors reads a file of these bytes."""
    try:
        safetensors.deserialize(blob)
    except safetensors.SafetensorError:
        return False
    return True


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def blob_of(text: str | bytes, data: int = 4) -> bytes:
    text = text.encode() if isinstance(text, str) else text
    return len(text).to_bytes(8, "little") + text + bytes(data)


def one(data: int = 4, **fields: Any) -> bytes:
    return blob_of(json.dumps({"a": entry(**fields)}), data)


def two(first: tuple[int, int], second: tuple[int, int], data: int) -> bytes:
    shapes = [[(end - begin) // 4] for begin, end in (first, second)]
    return blob_of(json.dumps({"a": entry("F32", shapes[0], first), "b": entry("F32", shapes[1], second)}), data)


GOOD = json.dumps(entry())
# Name: bytes of a file, what is said of it.
REFUSED_BY_BOTH: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "has 0 bytes, too few for a safetensors file"),
    "seven bytes": (b"\2" + bytes(6), "has 7 bytes, too few"),
    "length alone": (b"\2" + bytes(7), "has 8 bytes, too few"),
    "length 0": (bytes(12), "the header begins with b'', not with an object"),
    "length 1": (blob_of("{"), "is not JSON"),
    "length 2^63-1": (b"\xff" * 7 + b"\x7f" + b"{}", "a header of 9223372036854775807 bytes, more than 25000000"),
    "length 2^64-1": (b"\xff" * 8 + b"{}", "a header of 18446744073709551615 bytes, more than 25000000"),
    "length of 100 MB": ((10**8 + 1).to_bytes(8, "little") + b"{}", "a header of 100000001 bytes"),
    "length in big-endian": ((2).to_bytes(8, "big") + b"{}", "more than 25000000"),
    "length past the end": ((100).to_bytes(8, "little") + b"{}", "ends at byte 10, within its header of 100 bytes"),
    "header cut": (blob_of(f'{{"a": {GOOD}}}')[:40], "ends at byte 40, within its header of"),
    "data cut": (one(data=3), "the tensors end at byte 73, the file at 72"),
    "data too long": (one(data=5), "the tensors end at byte 73, the file at 74"),
    "no JSON": (blob_of("nothing"), "the header begins with b'nothing'"),
    "list": (blob_of("[]"), "begins with b'[]'"),
    "null": (blob_of("null"), "begins with b'null'"),
    "text": (blob_of('"a"'), "begins with"),
    "number": (blob_of("12"), "begins with"),
    "UTF-16": (blob_of("{}".encode("utf-16")), "begins with"),
    "byte order mark": (blob_of(b"\xef\xbb\xbf{}"), "begins with"),
    "two values": (blob_of("{}{}"), "is not JSON: Extra data at line 1, column 3"),
    "zeros after it": (blob_of(b"{}\0\0"), "is not JSON"),
    "comment": (blob_of("{}//"), "is not JSON"),
    "comma at the end": (blob_of(f'{{"a": {GOOD},}}'), "is not JSON"),
    "single quotes": (blob_of("{'a': 1}"), "is not JSON"),
    "raw line break in a name": (blob_of(f'{{"a\n": {GOOD}}}'), "is not JSON: Invalid control character"),
    "no UTF-8": (blob_of(b'{"\xff": ' + GOOD.encode() + b"}"), "is not UTF-8: invalid start byte at byte 2"),
    "UTF-8 of a surrogate": (blob_of(b'{"\xed\xa0\x80": ' + GOOD.encode() + b"}"), "is not UTF-8"),
    "overlong UTF-8": (blob_of(b'{"\xc0\xaf": ' + GOOD.encode() + b"}"), "is not UTF-8"),
    "half of a surrogate pair": (blob_of(f'{{"\\ud800": {GOOD}}}'), "holds half of a surrogate pair"),
    "60,000 lists": (blob_of('{"a":' + "[" * 60_000), "is nested deeper than 100 levels"),
    "60,000 objects": (blob_of('{"a":' * 60_000), "is nested deeper than 100 levels"),
    "5,000 digits": (blob_of('{"a": {"dtype": "F32", "shape": [' + "1" * 5_000 + "]}}"), "a number of 5000 digits"),
    "shape -4": (one(shape=[-4]), "has the shape [-4], of which a number is negative"),
    "shape -1 × -1": (one(shape=[-1, -1]), "of which a number is negative"),
    "shape -0": (blob_of('{"a": {"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', 0), "has the shape [-0]"),
    "shape NaN": (one(shape=[float("nan")]), "has the shape [NaN], not a list of whole numbers"),
    "shape Infinity": (one(shape=[float("inf")]), "has the shape [Infinity]"),
    "shape 1.0": (one(shape=[1.0]), "has the shape [1.0], not a list of whole numbers"),
    "shape 1e0": (blob_of('{"a": {"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}'), "has the shape [1e0]"),
    "shape text": (one(shape=["1"]), "has the shape ['1']"),
    "shape true": (one(shape=[True]), "has the shape [True]"),
    "true after one": (
        blob_of(json.dumps({"a": entry(), "b": entry(shape=[True], offsets=[4, 8])}), 8),
        "the tensor 'b' has the shape [True]",
    ),
    "shape null": (one(shape=None), "has the shape None"),
    "shape number": (one(shape=1), "has the shape 1"),
    "shape empty text": (
        blob_of(json.dumps({"s": entry(shape=()), "a": entry(shape="", offsets=[4, 8])}), 8),
        "shape ''",
    ),
    "shape object": (one(shape={}), "has the shape {}"),
    "shape of lists": (one(shape=[[1]]), "has the shape [[1]]"),
    "2^40 × 2^40": (one(shape=[2**40, 2**40]), "of which a number is negative or 2^40 and more"),
    "2^32 × 2^32": (one(shape=[2**32, 2**32]), "which is 2^60 numbers and more"),
    "2^39 × 2^39 × 0": (one(0, shape=[2**39, 2**39, 0], offsets=[0, 0]), "which is 2^60 numbers and more"),
    "shape 2^64": (one(shape=[2**64]), "2^40 and more"),
    "offsets text": (one(offsets=["0", "4"]), "has the data_offsets ['0', '4'], not two whole numbers"),
    "offsets 0.0": (one(offsets=[0.0, 4]), "has the data_offsets [0.0, 4]"),
    "offsets false": (one(offsets=[False, 4]), "has the data_offsets [False, 4]"),
    "offsets one": (one(offsets=[4]), "has the data_offsets [4], not two whole numbers"),
    "offsets three": (one(offsets=[0, 4, 8]), "has the data_offsets [0, 4, 8]"),
    "offsets null": (one(offsets=None), "has the data_offsets None"),
    "offsets negative": (one(offsets=[-4, 0]), "has the data_offsets [-4, 0]"),
    "offsets reversed": (one(offsets=[4, 0]), "has the data_offsets [4, 0]; F32 × [1] takes 4 bytes"),
    "offsets too long": (one(8, offsets=[0, 8]), "F32 × [1] takes 4 bytes"),
    "offsets 2^70": (one(offsets=[2**70, 2**70 + 4]), "leaves a hole: it begins at byte 11805916207"),
    "offsets 10^4000": (
        one(offsets=[10**4000, 10**4000 + 4]),
        "leaves a hole: it begins at byte <a whole number of 13,288 bits>",
    ),
    "offsets 2^50": (one(offsets=[2**50, 2**50 + 4]), "leaves a hole: it begins at byte 11258999"),
    "a detour below zero": (
        blob_of(json.dumps({"a": entry(), "b": entry(offsets=[40, 44]), "c": entry("U8", [9], [-9, 0])}), 4),
        "the tensor 'c' has the data_offsets [-9, 0]",
    ),
    "the same once known": (
        blob_of(json.dumps({"a": entry(), "b": entry(offsets=[-4, 0])}), 4),
        "the tensor 'b' overlaps another",
    ),
    "not at the start": (one(8, offsets=[4, 8]), "the tensor 'a' leaves a hole: it begins at byte 73, and 69 is due"),
    "hole": (two((0, 4), (8, 12), 12), "the tensor 'b' leaves a hole"),
    "overlap": (two((0, 8), (4, 12), 12), "the tensor 'b' overlaps another"),
    "same bytes": (two((0, 8), (0, 8), 8), "the tensor 'b' overlaps another"),
    "within another": (two((0, 12), (4, 8), 12), "the tensor 'b' overlaps another"),
    "dtype unknown": (one(dtype="F31"), "has the dtype 'F31', which safetensors does not know"),
    "dtype in small letters": (one(dtype="f32"), "has the dtype 'f32'"),
    "dtype null": (one(dtype=None), "has the dtype None"),
    "dtype list": (one(dtype=["F32"]), "has the dtype ['F32']"),
    "dtype number": (one(dtype=32), "has the dtype 32"),
    "half a byte": (one(1, dtype="F4", shape=[1], offsets=[0, 1]), "of which F4 takes 4 bits: no whole bytes"),
    "six bits": (one(2, dtype="F6_E2M3", shape=[2], offsets=[0, 2]), "F6_E2M3 takes 12 bits"),
    "entry null": (blob_of('{"a": null}'), "is described by None, not by dtype, shape and data_offsets alone"),
    "entry number": (blob_of('{"a": 5}'), "is described by 5"),
    "entry text": (blob_of('{"a": "F32"}'), "is described by 'F32'"),
    "entry without dtype": (blob_of('{"a": {"shape": [1], "data_offsets": [0, 4]}}'), "is described by {"),
    "entry without shape": (blob_of('{"a": {"dtype": "F32", "data_offsets": [0, 4]}}'), "is described by {"),
    "entry without offsets": (blob_of('{"a": {"dtype": "F32", "shape": [1]}}'), "is described by {"),
    "key twice in an entry": (
        blob_of('{"a": {"dtype": "F32", "dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'),
        "has the key 'dtype' twice in one object",
    ),
    "tensor twice, a hole": (
        blob_of(f'{{"a": {json.dumps(entry(offsets=[0, 4]))}, "a": {json.dumps(entry(offsets=[4, 8]))}}}', 8),
        "has the key 'a' twice in one object",
    ),
    "metadata twice": (blob_of('{"__metadata__": {}, "__metadata__": {}}', 0), "has the key '__metadata__' twice"),
    "metadata list": (blob_of('{"__metadata__": []}', 0), "__metadata__ is [], not an object"),
    "metadata text": (blob_of('{"__metadata__": "pt"}', 0), "__metadata__ is 'pt', not an object"),
    "metadata of numbers": (blob_of('{"__metadata__": {"a": 1}}', 0), "__metadata__ has 1 for 'a', not a text"),
    "metadata of fractions": (blob_of('{"__metadata__": {"a": 1.5}}', 0), "__metadata__ has 1.5 for 'a', not a text"),
    "metadata of -0": (blob_of('{"__metadata__": {"a": -0}}', 0), "__metadata__ has -0 for 'a', not a text"),
    "metadata of objects": (blob_of('{"__metadata__": {"a": {}}}', 0), "__metadata__ has {} for 'a', not a text"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a pointer of Git LFS"),
    "pickle": (b"PK\3\4" + bytes(60), "is not a safetensors file"),
    "GGUF": (b"GGUF\3\0\0\0" + bytes(60), "a header of 14064895815 bytes"),
    "web page": (b"<!DOCTYPE html><html></html>", "is not a safetensors file"),
}
# What the installed safetensors takes and lorascope does not.
STRICTER: dict[str, tuple[bytes, str]] = {
    "space before": (blob_of(f' {{"a": {GOOD}}}'), "the header begins with"),  # the format says: {
    "25 MB and a byte": (blob_of(b"{" + b" " * 24_999_999 + b"}", 0), "a header of 25000001 bytes, more than 25000000"),
    "a key more in an entry": (blob_of(json.dumps({"a": entry() | {"note": 1}})), "is described by {"),
    "entry as a list": (blob_of('{"a": ["F32", [1], [0, 4]]}'), "is described by ['F32', [1], [0, 4]]"),
    "dtype as an object": (blob_of(json.dumps({"a": entry({"F32": None})})), "has the dtype {'F32': None}"),
    "metadata null": (blob_of('{"__metadata__": null}', 0), "__metadata__ is None, not an object"),
    "metadata key twice": (blob_of('{"__metadata__": {"a": "b", "a": "c"}}', 0), "has the key 'a' twice"),
    "tensor twice, all the same": (blob_of(f'{{"a": {GOOD}, "a": {GOOD}}}'), "has the key 'a' twice"),
    "tensor twice, once escaped": (blob_of(f'{{"a": {GOOD}, "\\u0061": {GOOD}}}'), "has the key 'a' twice"),
    "empty tensor twice": (
        blob_of('{"a": {0}, "a": {0}}'.replace("{0}", json.dumps(entry(shape=[0], offsets=[0, 0]))), 0),
        "has the key 'a' twice",
    ),
    "0 × 2^40": (one(0, shape=[0, 2**40], offsets=[0, 0]), "of which a number is negative or 2^40 and more"),
    "17 dimensions": (one(shape=[1] * 17), "has 17 dimensions, more than 16"),
    "no name": (blob_of(f'{{"": {GOOD}}}'), "the tensor '' has a name that is empty"),
    "name of 513": (blob_of(f'{{"{"a" * 513}": {GOOD}}}'), "longer than 512 characters"),
    "name with an escape": (blob_of(f'{{"\\u001b[2J": {GOOD}}}'), "the tensor '\\x1b[2J' has a name that"),
    "name with a delete": (blob_of(f'{{"\x7f": {GOOD}}}'), "the tensor '\\x7f' has a name that"),
    "name with a C1 control": (blob_of(f'{{"\x9b2J": {GOOD}}}'), "the tensor '\\x9b2J' has a name that"),
    "name with a null": (blob_of(f'{{"\\u0000": {GOOD}}}'), "the tensor '\\x00' has a name that"),
    "name written backwards": (blob_of(f'{{"\u202ea": {GOOD}}}'), "the tensor '\\u202ea' has a name that"),
    "name with a line break": (blob_of(f'{{"a\\nb": {GOOD}}}'), "the tensor 'a\\nb' has a name that"),
}
