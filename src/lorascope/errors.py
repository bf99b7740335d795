"""The one exception that lorascope raises for a user's mistake, and how its message is put together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from lorascope.foreign_text import one_line

_LONGEST_WORD = 200
_MOST_CANDIDATES = 2_000
_LONGEST_TEXT = 400


class LorascopeError(ValueError):
    """Something in the input is wrong. The message says what, where, and what to do next.

    Each fault, the place and the hint are one line each, whatever a file put into them.

    Args:
        faults: Every fault of the input, one sentence each, the value shown; or an error of a part of it, whose place
            and hint are shown with it.
        where: The file, module, key or option that the faults are in.
        hint: What to do next: the nearest valid spelling, or a command.
    """

    def __init__(self, *faults: str | LorascopeError, where: str = "", hint: str = "") -> None:
        self.faults = tuple(fault.line if isinstance(fault, LorascopeError) else one_line(fault) for fault in faults)
        self._shown = tuple(str(fault) if isinstance(fault, LorascopeError) else one_line(fault) for fault in faults)
        self.where = one_line(where)
        self.hint = one_line(hint)
        super().__init__(self._text())

    @property
    def line(self) -> str:
        """Where and the first fault in one line."""
        return f"{self.where}: {self.faults[0]}" if self.where else self.faults[0]

    def _text(self) -> str:
        prefix = f"{self.where}: " if self.where else ""
        if len(self.faults) == 1:
            text = prefix + self._shown[0]
        else:
            lines = (fault.replace("\n", "\n    ") for fault in self._shown)
            text = prefix + f"{len(self.faults)} faults" + "".join(f"\n  - {line}" for line in lines)
        return f"{text}\n  → {self.hint}" if self.hint else text


def nearest(word: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """The candidates that are spelled most like `word`, best first."""
    return alike(word.lower(), candidates, count, 0.6)


def alike(word: str, candidates: Iterable[str], count: int, cutoff: float) -> list[str]:
    """The candidates that are at least so alike, best first; nothing for words that nobody misspells.

    Comparing takes the product of the lengths, so that longer words and more candidates than anybody has are left out.
    """
    if len(word) > _LONGEST_WORD:
        return []
    within = (
        one
        for one in sorted(candidates)
        if len(one) <= _LONGEST_WORD and 2 * min(len(one), len(word)) >= cutoff * (len(one) + len(word))
    )
    import difflib  # not needed where nothing is misspelt

    return difflib.get_close_matches(word, itertools.islice(within, _MOST_CANDIDATES), n=count, cutoff=cutoff)


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """`Did you mean "x" or "y"?`, or an empty string where nothing comes near."""
    found = nearest(word, candidates)
    return "Did you mean " + " or ".join(f'"{name}"' for name in found) + "?" if found else ""


def error_text(error: Exception) -> str:
    """An error's type and its first two lines, of which transformers' first may only announce the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join([f"{type(error).__name__}:", *lines[:2]])
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
