"""Many names as few: `model.layers.{0-31}.self_attn.q_proj` for thirty-two of them, and back."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from lorascope.errors import LorascopeError

# A whole word of a name. Numbers that would not come back as they were written (007, digits of other scripts) are words.
NUMBER = re.compile(r"(?<![^.])(?:0|[1-9][0-9]{0,17})(?![^.])")
# A doubled brace is a brace of the name itself.
_BRACES = re.compile(r"\{\{|\{([0-9,-]+)\}")
_SPAN = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_MOST_NAMES = 1_000_000


def template(name: str) -> str:
    """The name with every number replaced by `#`."""
    return NUMBER.sub("#", name)


def fold(names: Iterable[str]) -> list[str]:
    """The fewest folded names that stand for exactly the given ones, in the order of their first members."""
    groups: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
    for name in names:
        pieces, numbers = numbers_apart(name)
        groups.setdefault(pieces, []).append(numbers)
    folded = []
    for pieces, rows in groups.items():
        literal = [piece.replace("{", "{{") for piece in pieces]
        for columns in _boxes(sorted(set(rows))):
            folded.append(filled(literal, [_spans(column) for column in columns]))
    return folded


def listed(names: Iterable[str], most: int) -> str:
    """The first of the folded names in a row, and how many there are more."""
    folded = fold(names)
    more = f" and {len(folded) - most} more" if len(folded) > most else ""
    return ", ".join(folded[:most]) + more


def numbers_apart(name: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """What stands around the numbers of a name, and the numbers."""
    return tuple(NUMBER.split(name)), tuple(int(number) for number in NUMBER.findall(name))


def filled(pieces: Sequence[str], fillings: Sequence[str]) -> str:
    """The pieces with one filling between each two."""
    return "".join(part for pair in itertools.zip_longest(pieces, fillings, fillvalue="") for part in pair)


def unfold(folded: str) -> list[str]:
    """Every name that a folded one stands for.

    Raises:
        LorascopeError: The braces hold no proper ranges, or stand for more than a million names.
    """
    choices: list[list[str]] = []
    count, end = 1, 0
    for match in _BRACES.finditer(folded):
        numbers = [str(number) for number in parse_spans(match[1])] if match[1] else ["{"]
        choices += [[folded[end : match.start()]], numbers]
        end = match.end()
        count *= len(numbers)
        if count > _MOST_NAMES:  # before the next braces are spelled out
            raise LorascopeError(f"{_cut(folded)!r} stands for more than {_MOST_NAMES} names")
    return ["".join(parts) for parts in itertools.product(*choices, [folded[end:]])]


def parse_spans(text: str) -> list[int]:
    """The numbers of `0-3,7` as a sorted list.

    Raises:
        LorascopeError: It is not of that form, or stands for more than a million numbers.
    """
    numbers: set[int] = set()
    for span in text.split(","):
        match = _SPAN.fullmatch(span)
        if match is None:
            raise LorascopeError(f"{_cut(text)!r} is not a list of ranges such as 0-3,7")
        low, high = int(match[1]), int(match[2] or match[1])
        if high < low or high - low + len(numbers) >= _MOST_NAMES:
            raise LorascopeError(f"{_cut(text)!r} is not a list of rising ranges of at most {_MOST_NAMES} numbers")
        numbers.update(range(low, high + 1))
    return sorted(numbers)


def spans(numbers: Iterable[int]) -> str:
    """Numbers as `0-3,7`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"


def _spans(numbers: tuple[int, ...]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else "{" + spans(numbers) + "}"


def _boxes(rows: list[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Splits sorted rows of numbers into full products of columns, by the last column first."""
    if not rows or not rows[0]:
        yield ()
        return
    tails: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        tails.setdefault(row[:-1], []).append(row[-1])
    heads: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for head, lasts in tails.items():
        heads.setdefault(tuple(lasts), []).append(head)
    for column, same in heads.items():
        for box in _boxes(same):
            yield (*box, column)
