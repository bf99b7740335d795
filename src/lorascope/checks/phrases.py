"""Pieces of text that several findings share."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable

from lorascope.foreign_text import literal
from lorascope.model.types import Weight
from lorascope.names import listed

# Longer texts are cut: no name of a module is longer.
LONGEST_SHOWN = 512
_MOST_SHOWN = 10
_MOST_FOLDED = 6


def in_quotes(texts: Iterable[str]) -> str:
    """Texts as the inside of a list: `"q_proj", "v_proj"`."""
    return ", ".join(literal(text, LONGEST_SHOWN) for text in texts)


def some_in_quotes(texts: Collection[str], most: int = _MOST_SHOWN) -> str:
    """The first texts in quotes, and the number of others."""
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return in_quotes(itertools.islice(texts, most)) + more


def cut(text: str, longest: int = LONGEST_SHOWN) -> str:
    """A text, cut where it is longer than any name."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def plural(number: int, noun: str) -> str:
    """A number of things: `1 module`, `32 modules`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def joined(words: Iterable[str], conjunction: str = "and") -> str:
    """Words as people list them: `a, b and c`."""
    *most, last = words
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def places(weights: Iterable[Weight]) -> str:
    """The folded names of weights, at most six."""
    return listed((weight.name for weight in weights), _MOST_FOLDED)
