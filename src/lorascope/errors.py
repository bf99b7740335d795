"""The one exception that lorascope raises for a user's mistake, and how its message is put together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from lorascope.foreign_text import one_line


class LorascopeError(ValueError):
    """Something in the input is wrong. The message says what, where, and what to do next.

    Each fault, the place and the hint are one line each, whatever a file put into them.

    Args:
        faults: Every fault of the input, one sentence each, the value shown.
        where: The file, module, key or option that the faults are in.
        hint: What to do next: the nearest valid spelling, or a command.
    """

    def __init__(self, *faults: str, where: str = "", hint: str = "") -> None:
        self.faults = tuple(map(one_line, faults))
        self.where = one_line(where)
        self.hint = one_line(hint)
        super().__init__(self._text())

    def _text(self) -> str:
        prefix = f"{self.where}: " if self.where else ""
        if len(self.faults) == 1:
            text = prefix + self.faults[0]
        else:
            text = prefix + f"{len(self.faults)} faults" + "".join(f"\n  - {fault}" for fault in self.faults)
        return f"{text}\n  → {self.hint}" if self.hint else text


def nearest(word: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """The candidates that are spelled most like `word`, best first."""
    return difflib.get_close_matches(word.lower(), sorted(candidates), n=count, cutoff=0.6)


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """`Did you mean "x" or "y"?`, or an empty string where nothing comes near."""
    found = nearest(word, candidates)
    return "Did you mean " + " or ".join(f'"{name}"' for name in found) + "?" if found else ""
