"""Many names as few: `model.layers.{0-31}.self_attn.q_proj` for thirty-two of them, and back."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from lorascope.errors import LorascopeError

NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
_BRACES = re.compile(r"\{([0-9,-]+)\}")
_MOST_NAMES = 1_000_000


def template(name: str) -> str:
    """The name with every number replaced by `#`."""
    return NUMBER.sub("#", name)


def fold(names: Iterable[str]) -> list[str]:
    """The fewest folded names that stand for exactly the given ones, in the order of their first members."""
    groups: dict[str, list[tuple[int, ...]]] = {}
    for name in names:
        groups.setdefault(template(name), []).append(tuple(int(number) for number in NUMBER.findall(name)))
    folded = []
    for pattern, numbers in groups.items():
        for columns in _boxes(sorted(set(numbers))):
            texts = iter(_spans(column) for column in columns)
            folded.append(re.sub("#", lambda _, texts=texts: next(texts), pattern))
    return folded


def unfold(folded: str) -> list[str]:
    """Every name that a folded one stands for.

    Raises:
        LorascopeError: The braces hold no proper ranges, or stand for more than a million names.
    """
    pieces = _BRACES.split(folded)
    choices = [[piece] if index % 2 == 0 else parse_spans(piece) for index, piece in enumerate(pieces)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > _MOST_NAMES:
        raise LorascopeError(f"{folded!r} stands for {count} names, more than {_MOST_NAMES}")
    return ["".join(str(part) for part in parts) for parts in itertools.product(*choices)]


def parse_spans(text: str) -> list[int]:
    """The numbers of `0-3,7` as a sorted list.

    Raises:
        LorascopeError: It is not of that form, or stands for more than a million numbers.
    """
    numbers: set[int] = set()
    for span in text.split(","):
        first, _, last = span.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()) or len(span) > 20:
            raise LorascopeError(f"{text!r} is not a list of ranges such as 0-3,7")
        low, high = int(first), int(last or first)
        if high < low or high - low + len(numbers) >= _MOST_NAMES:
            raise LorascopeError(f"{text!r} is not a list of rising ranges of at most {_MOST_NAMES} numbers")
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


def _spans(numbers: tuple[int, ...]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else "{" + spans(numbers) + "}"


def _boxes(rows: list[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Splits sorted rows of numbers into full products of columns, by the last column first."""
    if not rows or not rows[0]:
        yield ()
        return
    tails: dict[tuple[int, ...], list[int]] = {}
    for *head, last in rows:
        tails.setdefault(tuple(head), []).append(last)
    heads: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for head, lasts in tails.items():
        heads.setdefault(tuple(lasts), []).append(head)
    for lasts, same in heads.items():
        for box in _boxes(same):
            yield (*box, lasts)
