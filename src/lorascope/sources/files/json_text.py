"""Strict JSON, with bounded costs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted

# Real configurations nest six deep; readers of what is parsed here may recurse.
MOST_NESTED = 100
# An index of a million tensors has a million. Each costs some hundred bytes.
MOST_VALUES = 2_000_000
_MOST_DIGITS = 300
_MOST_FAULTS = 10


def first_faults(faults: Iterable[str]) -> list[str]:
    """The first ten faults, and the number of the others."""
    remaining = iter(faults)
    listed = list(itertools.islice(remaining, _MOST_FAULTS))
    more = sum(1 for _ in remaining)
    return [*listed, f"and {more} more"] if more else listed


def parse_json(data: bytes, where: str, hint: str = "", *, most_values: int = MOST_VALUES) -> object:
    """The value of a JSON text.

    `Infinity` passes, because transformers before 5 wrote it into configurations (Mamba-2's `time_step_limit`).

    Args:
        data: The text in UTF-8. Its length is for the caller to bound.
        where: The file, for messages.
        hint: What to do about a broken one.
        most_values: The most values, of whatever kind, that it may hold.

    Raises:
        LorascopeError: It is not JSON, not UTF-8, has a key twice in an object, `NaN`, a number of hundreds of digits, half
            of a surrogate pair, is nested too deeply or holds too many values. All faults of the latter kinds at once.
    """
    faults: list[str] = []

    def whole(digits: str) -> int:
        if len(digits) > _MOST_DIGITS:
            faults.append(f"holds a number of {len(digits)} digits")
            return 0
        return int(digits)

    def constant(name: str) -> float:
        if name == "NaN":
            faults.append("holds NaN")
        return float(name)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                faults.append(f"has the key {quoted(key)} twice in one object")
            seen.add(key)
        return dict(pairs)

    if sum(map(data.count, (b",", b"[", b"{"))) > most_values:
        raise LorascopeError(f"holds more than {most_values} values", where=where, hint=hint)
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_int=whole, parse_constant=constant)
        nested, strings = _measured(value)
        # The last of two equal keys wins, so that there are more strings in the text than in its value. Where that cannot
        # be counted, or is so, a slower reading tells which.
        if "\\" in text or text.count('"') != 2 * strings:
            del value  # or both would be in memory
            value = json.loads(text, object_pairs_hook=unique, parse_int=whole, parse_constant=constant)
    except UnicodeDecodeError as error:
        raise LorascopeError(f"is not UTF-8: {error.reason} at byte {error.start}", where=where, hint=hint) from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise LorascopeError(f"is not JSON: {error.msg.rstrip(': ')} at {place}", where=where, hint=hint) from error
    except RecursionError as error:
        raise LorascopeError(f"is nested deeper than {MOST_NESTED} levels", where=where, hint=hint) from error
    if nested:
        faults.append(f"is nested deeper than {MOST_NESTED} levels")
    elif "\\u" in text and _half_characters(value):
        faults.append("holds half of a surrogate pair")
    if faults:
        raise LorascopeError(*first_faults(dict.fromkeys(faults)), where=where, hint=hint)
    return value


def parse_object(data: bytes, where: str, hint: str = "", *, most_values: int = MOST_VALUES) -> dict[str, Any]:
    """The object of a JSON text.

    Raises:
        LorascopeError: As `parse_json`; or it is something else.
    """
    value = parse_json(data, where, hint, most_values=most_values)
    if not isinstance(value, dict):
        raise LorascopeError(f"is {quoted(value)}, not an object", where=where, hint=hint)
    return value


def _measured(value: object) -> tuple[bool, int]:
    """Too deep or not, and the number of strings, keys included."""
    strings = 0
    level: list[Any] = [[value]]
    for _ in range(MOST_NESTED + 1):
        inner: list[Any] = []
        for container in level:
            children = container
            if type(container) is dict:
                strings += len(container)
                children = container.values()
            kinds = [*map(type, children)]
            strings += kinds.count(str)
            if dict in kinds or list in kinds:
                inner += [child for child in children if type(child) is dict or type(child) is list]
        level = inner
    return bool(level), strings


def _half_characters(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
