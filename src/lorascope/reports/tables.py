"""Plain text tables and lists."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from lorascope.foreign_text import one_line

_WIDEST = 120


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns padded to their widest cell, right-aligned if listed in `right`."""
    lines = [[one_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in lines
    )


def bullets(texts: Iterable[str]) -> str:
    """Each text after a dash, wrapped to the terminal's width."""
    return "\n".join(wrapped(text, "- ", "  ") for text in texts)


def wrapped(text: str, first: str, rest: str) -> str:
    """A text wrapped to the terminal's width, with what its first and other lines begin with."""
    import textwrap

    return textwrap.fill(
        first + one_line(text),
        _terminal_width(),
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _terminal_width() -> int:
    """Columns of the terminal, 120 at most: as `shutil` tells them, without its archives and temporary files."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return min(int(columns), _WIDEST)
    try:
        return min(os.get_terminal_size(sys.__stdout__.fileno()).columns or _WIDEST, _WIDEST)  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):  # no terminal
        return _WIDEST
