"""Diagnostics: refusals and warnings as fields instead of sentences.

A `Reason` declares a code and a template; a `Diagnostic` is one case of it, with names and values. `message` alone makes
the text, when somebody reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.foreign_text import literal
from lorascope.number_text import bytes_text

_MOST_NAMES = 6
_MOST_ITEMS = 10
_MOST_LETTERS = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Reason:
    """A kind of diagnostic.

    Attributes:
        code: The code of the finding that it makes, see `Finding`.
        text: A template in the manner of `str.format`, or a function of the diagnostic. A template has the values by
            their names, all names as `names` and the first one as `name`; besides Python's own formats it knows `listed`,
            `joined`, `array`, `bytes` and `literal`.
        before: A template that stands before the text where there is a name.
    """

    code: str
    text: str | Callable[[Diagnostic], str]
    before: str = ""

    def about(self, *names: str, **values: Any) -> Diagnostic:
        """A case of it."""
        return Diagnostic(self, names, values)


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnostic:
    """One refusal or warning of PEFT, or of a tool that drives it.

    Attributes:
        reason: What kind of thing; compared by identity or by `code`, never by text.
        names: The entries, keys or modules concerned.
        values: The other facts that the text is made of.
    """

    reason: Reason
    names: tuple[str, ...] = ()
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def code(self) -> str:
        """The code of the finding that it makes."""
        return self.reason.code

    def __str__(self) -> str:
        return message(self)


class RefusalError(Exception):
    """PEFT, or a tool that drives it, stops here.

    Args:
        diagnostic: Why.
    """

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic)
        self.diagnostic = diagnostic


def message(diagnostic: Diagnostic) -> str:
    """Make the text of a diagnostic, here alone."""
    reason, names = diagnostic.reason, diagnostic.names
    fields = {key: _Field(value) for key, value in diagnostic.values.items()}
    fields |= {"names": _Field(names), "name": _Field(names[0] if names else "")}
    text = reason.text(diagnostic) if callable(reason.text) else reason.text.format_map(fields)
    return reason.before.format_map(fields) + text if names else text


def listed_names(names: Iterable[str]) -> str:
    """The first names, and how many more."""
    every = tuple(names)
    more = f" and {len(every) - _MOST_NAMES} more" if len(every) > _MOST_NAMES else ""
    return ", ".join(map(_short, every[:_MOST_NAMES])) + more


def array(items: Iterable[str] | Iterable[int]) -> str:
    """Names or numbers as a Python list, cut after ten."""
    ordered = sorted(items)
    more = f" … and {len(ordered) - _MOST_ITEMS:,} more" if len(ordered) > _MOST_ITEMS else ""
    shown = (repr(_short(item) if isinstance(item, str) else item) for item in ordered[:_MOST_ITEMS])
    return f"[{', '.join(shown)}{more}]"


def _short(name: str) -> str:
    return f"{name[:_MOST_LETTERS]}…" if len(name) > _MOST_LETTERS else name


_FORMATS: Mapping[str, Callable[[Any], str]] = {
    "listed": listed_names,
    "joined": " and ".join,
    "array": array,
    "bytes": bytes_text,
    "literal": lambda value: literal(str(value), _MOST_LETTERS),
}


class _Field:
    """A value in a template, with the formats of `Reason.text`."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __format__(self, spec: str) -> str:
        return _FORMATS[spec](self._value) if spec in _FORMATS else format(self._value, spec)

    def __repr__(self) -> str:
        return repr(self._value)

    def __str__(self) -> str:
        return str(self._value)
