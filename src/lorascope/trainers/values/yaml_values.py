"""Values that a trainer takes as YAML, JSON or Python read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lorascope.trainers.options import ValueType


def _exactly(name: str, holds: Callable[[Any], bool]) -> ValueType:
    """A type whose values stay as they are."""

    def convert(value: Any) -> Any:
        if not holds(value):
            raise ValueError
        return value

    return ValueType(name, convert)


def is_whole(value: Any) -> bool:
    """A whole number; True and False are none."""
    return type(value) is int


def is_number(value: Any) -> bool:
    """A number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_texts(value: Any) -> bool:
    """A list (or tuple) of strings."""
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


ANY = ValueType("a value", lambda value: value)
TEXT = _exactly("a string", lambda value: isinstance(value, str))
TEXTS = _exactly("a list of strings", is_texts)
TEXT_OR_TEXTS = _exactly("a string or a list of strings", lambda value: isinstance(value, str) or is_texts(value))
TRUTH_OR_NUMBER = _exactly("true or false", lambda value: isinstance(value, bool | int | float))
TRUTH = _exactly("true or false", lambda value: isinstance(value, bool))
WHOLE = _exactly("a whole number", is_whole)
POSITIVE = _exactly("a whole number above 0", lambda value: is_whole(value) and value > 0)
NUMBER = _exactly("a number", is_number)
WHOLE_OR_WHOLES = _exactly(
    "a whole number or a list of them",
    lambda value: is_whole(value) or (isinstance(value, list | tuple) and all(map(is_whole, value))),
)
