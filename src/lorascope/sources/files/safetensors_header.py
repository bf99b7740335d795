"""Parses one safetensors header, with all its faults."""

from __future__ import annotations

import functools
import itertools
import json
import math
import operator
import re
from collections.abc import Iterable, Iterator
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.sources.checkpoint.tensor_table import Form, Header
from lorascope.sources.checkpoint.types import Span, Tensor
from lorascope.sources.files.json_text import parse_json

# Bits of one element by dtype code: all 22 that safetensors 0.8 knows.
DTYPE_BITS = {
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("BF16", "F16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0", "I8", "U8"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
MOST_TENSORS = 1_000_000
LONGEST_NAME = 512
# safetensors bounds neither. No framework has more dimensions than 64, no released tensor more than five.
_MOST_DIMENSIONS = 16
_LARGEST_DIMENSION = 2**40
_KEYS = {"dtype", "shape", "data_offsets"}
# What is printable in ASCII, but for the sign that makes characters stand for others.
_PLAIN = bytes(range(0x20, 0x7F)).replace(b"\\", b"")
# The front of a header as safetensors' own writer lays it out, and one entry with the comma before it. Bounds keep a hostile
# text from being searched to its end for each entry.
_FRONT = re.compile(r'\{(?:"__metadata__":(\{[^{}]*\}),)?')
_ENTRY = re.compile(
    rf',"([^"]{{1,{LONGEST_NAME}}})":\{{("dtype":"[^]]{{1,99}}\]),"data_offsets":\[([^,]{{1,20}}),([^]]{{1,20}})\]\}}'
)
_FORM = re.compile(r'"dtype":"([A-Z0-9_]+)","shape":(\[[0-9,]*\])')
# Dtype and dimensions that have been seen, to the bytes that they take and the dimensions alone.
_Known = dict[tuple[Any, ...], tuple[int, tuple[int, ...]]]


def parse_header(text: bytes, file: str, size: int) -> tuple[Header, list[str]]:
    """Parse a header: tensors in the order of their data, faults.

    What safetensors' own validator (0.8) refuses is a fault here, and some of what it lets pass: see
    `docs/hostile-files.md`.

    Args:
        text: The header, without the eight bytes of its length.
        file: The name of its file.
        size: The bytes of the whole file.

    Returns:
        The tensors, as far as they are sound, and one sentence for each fault.
    """
    sound = _as_written(text, file, size)
    if sound is not None:
        return sound, []
    tensors, faults = _one_by_one(text, file, size)
    forms = [(tensor.dtype, tensor.shape, tensor.span.end - tensor.span.start) for tensor in tensors]
    return Header(file, 8 + len(text), [tensor.name for tensor in tensors], forms), faults


def _as_written(text: bytes, file: str, size: int) -> Header | None:
    """A header in safetensors' own layout; None for others.

    Most headers are such, and this takes half of the time of `_one_by_one`: it takes each step for all tensors at once.
    """
    if text.translate(None, _PLAIN):
        return None
    whole = text.decode("ascii").rstrip(" ")
    front = _FRONT.match(whole)
    if front is None or not whole.endswith("}"):
        return None
    # Between the entries there is nothing, or the header is another.
    pieces = _ENTRY.split("," + whole[front.end() : -1])
    if any(pieces[::5]):
        return None
    names, forms, begins, ends = (pieces[place::5] for place in range(1, 5))
    if len(names) > MOST_TENSORS or len({*names, "__metadata__"}) <= len(names):
        return None
    try:
        if front[1] and any(_metadata_faults(parse_json(front[1].encode(), file))):
            return None
        known = {form: _form(form) for form in set(forms)}
    except ValueError:
        return None
    found = [known[form] for form in forms]
    # The data lie one behind the other, so that the offsets follow from the shapes.
    offsets = list(itertools.accumulate((length for _, _, length in found), initial=0))
    said = list(map(str, offsets))
    start = 8 + len(text)
    if begins != said[:-1] or ends != said[1:] or start + offsets[-1] != size:
        return None
    return Header(file, start, names, found)


@functools.lru_cache(maxsize=256)  # a checkpoint's files have much the same
def _form(text: str) -> Form:
    """Dtype, shape and length in bytes.

    Raises:
        ValueError: The text is not how safetensors writes them, or no tensor can be so.
    """
    match = _FORM.fullmatch(text)
    if match is None or match[1] not in DTYPE_BITS:
        raise ValueError("is not as safetensors writes it")
    shape = tuple(json.loads(match[2]))
    return match[1], shape, _bytes(match[1], shape)


def _one_by_one(text: bytes, file: str, size: int) -> tuple[list[Tensor], list[str]]:
    """Tensors of any header, each checked by itself, and all faults."""
    plain = b"\\" not in text
    try:
        entries = _entries(text, file, strict=not plain)
    except LorascopeError as error:
        return [], list(error.faults)
    strings = 0
    faults: list[str] = []
    if "__metadata__" in entries:
        metadata = entries.pop("__metadata__")
        faults += _metadata_faults(metadata)
        strings = 1 + 2 * len(metadata) if isinstance(metadata, dict) else 0
    start = due = 8 + len(text)
    ordered = True
    tensors: list[Tensor] = []
    known: _Known = {}
    # In the common case what holds for the text holds for every name and number in it.
    printable = plain and text.isascii() and b"\x7f" not in text
    numbers = b"true" not in text and b"false" not in text
    lengths = set(map(len, entries))
    named = printable and min(lengths, default=1) > 0 and max(lengths, default=1) <= LONGEST_NAME
    for name, entry in entries.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            length, dimensions = known[dtype, *shape]
            sound = end - begin == length and type(shape) is list and len(entry) == 3 and numbers
        except (KeyError, TypeError, ValueError):
            sound = False
        try:
            if not sound:
                dtype, dimensions, begin, end = _fields(entry, known)
            if not named and not (name.isprintable() and 0 < len(name) <= LONGEST_NAME):
                raise ValueError(f"has a name that is empty, not printable or longer than {LONGEST_NAME} characters")
        except ValueError as error:
            faults.append(f"the tensor {quoted(name)} {error}")
            continue
        begin += start
        ordered = ordered and begin == due
        due = end + start
        tensors.append(Tensor(name, dtype, dimensions, Span(file, begin, due)))
    # A key that is there twice leaves more strings in the text than in what was parsed from it: each tensor has its name,
    # three keys and a dtype. So it costs next to nothing to know that there is none.
    if plain and (faults or text.count(b'"') != 2 * (strings + 5 * len(tensors))):
        entries.clear()  # or both would be in memory
        try:
            parse_json(text, file, most_values=len(text))
        except LorascopeError as error:
            return tensors, [*error.faults, *faults]
    if not faults and not (ordered and due == size):
        tensors.sort(key=operator.attrgetter("span.start", "span.end"))
        faults = list(_gaps(tensors, start, size))
    return tensors, faults


def _entries(text: bytes, file: str, *, strict: bool = False) -> dict[str, Any]:
    """The header as a dictionary; the last of equal keys wins.

    Raises:
        LorascopeError: It is not a JSON object, or has more in it than a header can have.
    """
    if not text.startswith(b"{"):
        raise LorascopeError(f"the header begins with {quoted(text[:8])}, not with an object", where=file)
    if text.count(b"{") > MOST_TENSORS + 2 or text.count(b"[") > 2 * MOST_TENSORS + 2:
        raise LorascopeError(f"the header has more than {MOST_TENSORS} tensors", where=file)
    if strict:
        parse_json(text, file, most_values=len(text))
    whole = _whole if b"-0" in text else None
    try:
        # As a float, 2.0 would pass for 2.
        found = json.loads(text.decode("utf-8"), parse_int=whole, parse_float=_Odd, parse_constant=_Odd)
    except (ValueError, RecursionError):
        found = parse_json(text, file, most_values=len(text))  # which says what it is
    assert isinstance(found, dict)  # by its first character
    if len(found) > MOST_TENSORS + 1:
        raise LorascopeError(f"the header has more than {MOST_TENSORS} tensors", where=file)
    return found


class _Odd:
    """A number that no header has, equal to none."""

    def __init__(self, digits: str) -> None:
        self._digits = digits

    def __repr__(self) -> str:
        return self._digits


def _whole(digits: str) -> int | _Odd:
    """A number as safetensors reads it, for which -0 is none."""
    return _Odd(digits) if digits == "-0" else int(digits)


def _metadata_faults(metadata: object) -> Iterator[str]:
    if not isinstance(metadata, dict):
        yield f"__metadata__ is {quoted(metadata)}, not an object"
        return
    for key, value in metadata.items():
        if type(value) is not str:
            yield f"__metadata__ has {quoted(value)} for {quoted(key)}, not a text"


def _fields(entry: object, known: _Known) -> tuple[str, tuple[int, ...], int, int]:
    """An entry's dtype, shape and offsets, all checked.

    Raises:
        ValueError: With the end of a sentence that says what is wrong with it.
    """
    if type(entry) is not dict or entry.keys() != _KEYS:
        raise ValueError(f"is described by {quoted(entry)}, not by dtype, shape and data_offsets alone")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in DTYPE_BITS:
        raise ValueError(f"has the dtype {quoted(dtype)}, which safetensors does not know")
    if type(offsets) is not list or len(offsets) != 2 or {*map(type, offsets)} != {int}:
        raise ValueError(f"has the data_offsets {quoted(offsets)}, not two whole numbers")
    if type(shape) is not list or not {*map(type, shape)} <= {int}:
        raise ValueError(f"has the shape {quoted(shape)}, not a list of whole numbers")
    begin, end = offsets
    length, dimensions = known[dtype, *shape] = _bytes(dtype, tuple(shape)), tuple(shape)
    if begin < 0 or end - begin != length:
        raise ValueError(f"has the data_offsets {quoted(offsets)}; {dtype} × {quoted(shape)} takes {length} bytes")
    return dtype, dimensions, begin, end


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor.

    Raises:
        ValueError: No tensor can have this shape.
    """
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"has {len(shape)} dimensions, more than {_MOST_DIMENSIONS}")
    if not all(0 <= size < _LARGEST_DIMENSION for size in shape):
        raise ValueError(f"has the shape {quoted(list(shape))}, of which a number is negative or 2^40 and more")
    # Zeros aside, because safetensors multiplies from the left and refuses what overflows on the way.
    if math.prod(filter(None, shape)) >= 2**60:
        raise ValueError(f"has the shape {quoted(list(shape))}, which is 2^60 numbers and more")
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits % 8:
        raise ValueError(f"has the shape {quoted(list(shape))}, of which {dtype} takes {bits} bits: no whole bytes")
    return bits // 8


def _gaps(tensors: Iterable[Tensor], start: int, size: int) -> Iterator[str]:
    """Holes and overlaps between the tensors' data."""
    due = start
    for tensor in tensors:
        begin = tensor.span.start
        if begin != due:
            what = "leaves a hole" if begin > due else "overlaps another"
            yield f"the tensor {quoted(tensor.name)} {what}: it begins at byte {quoted(begin)}, and {quoted(due)} is due"
        due = max(due, tensor.span.end)
    if due != size:
        yield f"the tensors end at byte {quoted(due)}, the file at {size}"
