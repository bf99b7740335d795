"""Values of YAML, as pydantic converts them in its lax mode."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lorascope.trainers.options import ValueType
from lorascope.trainers.values.yaml_values import is_texts

_LONGEST_NUMBER = 100
_TRUTHS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}


def _whole(value: Any) -> int:
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float) and value == value // 1 and abs(value) < 2**63:
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,18}(\.0+)?\s*", value):
        return int(value.partition(".")[0])
    raise ValueError


def _number(value: Any) -> float:
    if isinstance(value, int | float) or (isinstance(value, str) and len(value) < _LONGEST_NUMBER):
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError from error
    raise ValueError


def _truth(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in _TRUTHS:
        return _TRUTHS[value.lower()]
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise ValueError


def _texts(value: Any) -> list[str]:
    if not is_texts(value):
        raise ValueError
    return list(value)


def _wholes(value: Any) -> list[int]:
    if not isinstance(value, list | tuple):
        raise ValueError
    return [_whole(item) for item in value]


def _sizes(value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError
    sizes = {key: _whole(size) for key, size in value.items()}
    if any(size <= 0 for size in sizes.values()):
        raise ValueError
    return sizes


def _truth_or_text(value: Any) -> bool | str:
    if isinstance(value, bool | str):
        return value
    raise ValueError


WHOLE = ValueType("a whole number", _whole)
NUMBER = ValueType("a number", _number)
TRUTH = ValueType("true or false", _truth)
TRUTH_OR_TEXT = ValueType("true, false or a string", _truth_or_text)
TEXTS = ValueType("a list of strings", _texts)
TEXT_OR_TEXTS = ValueType(
    "a string or a list of strings", lambda value: value if isinstance(value, str) else _texts(value)
)
WHOLES = ValueType("a list of whole numbers", _wholes)
SIZES = ValueType("keys with whole numbers above 0", _sizes)
