"""Limits of the numbers in a configuration."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lorascope.foreign_text import quoted

# Whole numbers from here on have no place in a configuration, and further up none among floats.
_TOO_LARGE = 2**63
# Of an option on a command line; 64 digits with signs and underscores are more than any number needs.
_LONGEST_WORD = 100


def number_faults(settings: Mapping[str, Any], keys: Collection[str] | None = None) -> Iterator[str]:
    """A fault for each infinite, undefined or huge (2^63 and up) number.

    Args:
        settings: Keys with values, of which lists and mappings are looked through.
        keys: Those to look at; all if not given.
    """
    for key, value in settings.items():
        if (keys is None or key in keys) and (bad := next(_unlimited(value), None)) is not None:
            yield f"{key} has {quoted(bad)}; numbers must be finite and below 2^63"


def _unlimited(value: Any) -> Iterator[int | float]:
    if isinstance(value, float):
        if not math.isfinite(value):
            yield value
    elif isinstance(value, int):
        if abs(value) >= _TOO_LARGE:
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _unlimited(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _unlimited(inner)


def whole_number(word: str) -> int:
    """A word of a command line as `int` reads it.

    Raises:
        ValueError: Not a whole number, or longer than any in use.
    """
    if len(word) > _LONGEST_WORD:
        raise ValueError("too long")
    return int(word)
