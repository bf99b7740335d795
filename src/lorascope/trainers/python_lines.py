"""Builds Python scripts from templates and foreign values."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import comment, is_class_name, quoted

_FIELD = re.compile(r"\$([a-z_]+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """A name that stands in the code as it is.

    Raises:
        LorascopeError: Not an identifier of ASCII letters, or a keyword.
    """

    text: str

    def __post_init__(self) -> None:
        if not is_python_name(self.text):
            raise LorascopeError(f"{quoted(self.text)} is not a name of Python")


def is_python_name(text: object) -> bool:
    """The text can stand for a class or an argument in Python."""
    return is_class_name(text) and not keyword.iskeyword(str(text))


class PythonLines:
    """A script, line by line.

    Each template must be a constant; foreign values come in through its fields, as literals or checked names.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []

    def blank(self, count: int = 1) -> None:
        """Adds empty lines."""
        self._lines += [""] * count

    def comment(self, text: str, *, indent: int = 0) -> None:
        """Adds a comment of one line, whatever the text is."""
        self._lines.append(f"{' ' * indent}{comment(text)}")

    def code(self, template: str, **values: object) -> None:
        """Adds the lines of a template.

        Args:
            template: Python, in which `$key` stands for a value.
            values: A `Name` stands there as it is, everything else as its literal.

        Raises:
            LorascopeError: A value has no literal.
        """
        self._lines.append(_FIELD.sub(lambda field: _written(values[field[1]]), template))

    def text(self) -> str:
        """The script."""
        return "\n".join(self._lines) + "\n"


def _written(value: object) -> str:
    if isinstance(value, Name):
        return value.text
    _require_literal(value)
    return repr(value)


def _require_literal(value: Any) -> None:
    """Refuses what `repr` would not write as a literal of one line."""
    if isinstance(value, list | tuple):
        for item in value:
            _require_literal(item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _require_literal(key)
            _require_literal(item)
    elif not (value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))):
        raise LorascopeError(f"{quoted(value)} cannot be written as a value of Python")
