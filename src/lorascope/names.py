"""Folded names: `model.layers.{0-31}.self_attn.q_proj` for thirty-two of them."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from lorascope.errors import LorascopeError

# A whole word of a name. Numbers that would not come back as they were written (007, digits of other scripts) are words.
NUMBER = re.compile(r"(?<![^.])(?:0|[1-9][0-9]{0,17})(?![^.])")
# A doubled brace is a brace of the name itself.
_BRACES = re.compile(r"\{\{|\{([0-9,-]+)\}")
_SPAN = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
MOST_NAMES = 1_000_000
# DeepSeek-V3's 91,000 tensors have names of five million characters.
MOST_CHARACTERS = 100_000_000
_LONGEST_FOLDED = 1_000_000

Interval = tuple[int, int]


def template(name: str) -> str:
    """The name with every number replaced by `#`."""
    return NUMBER.sub("#", name)


def fold(names: Iterable[str]) -> list[str]:
    """The fewest folded names that stand for exactly the given ones."""
    groups: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
    for name in names:
        pieces, numbers = split_numbers(name)
        groups.setdefault(pieces, []).append(numbers)
    folded = []
    for pieces, rows in groups.items():
        literal = [piece.replace("{", "{{") for piece in pieces]
        for columns in _boxes(sorted(set(rows))):
            folded.append(interleave(literal, [_spans(column) for column in columns]))
    return folded


def listed(names: Iterable[str], most: int) -> str:
    """The first folded names, and the number of the others."""
    folded = fold(names)
    more = f" and {len(folded) - most} more" if len(folded) > most else ""
    return ", ".join(folded[:most]) + more


def split_numbers(name: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The texts around the numbers of a name, and the numbers."""
    return tuple(NUMBER.split(name)), tuple(int(number) for number in NUMBER.findall(name))


def interleave(pieces: Sequence[str], fillings: Sequence[str]) -> str:
    """The pieces with one filling between each two."""
    return "".join(part for pair in itertools.zip_longest(pieces, fillings, fillvalue="") for part in pair)


def endings(name: str) -> Iterator[str]:
    """Dotted endings of a name, shortest first."""
    at = len(name)
    while (at := name.rfind(".", 0, at)) >= 0:
        yield name[at + 1 :]
    yield name


def count_endings(names: Iterable[str]) -> Counter[str]:
    """How many names have each dotted ending."""
    return Counter(ending for name in names for ending in endings(name))


def unfold(folded: str) -> list[str]:
    """Every name that a folded one stands for.

    Raises:
        LorascopeError: The braces hold no proper ranges, or stand for more than a million names, or for as long ones as no
            model has.
    """
    return list(unfold_all([folded]))


def unfold_all(folded: Iterable[str], most: int = MOST_NAMES) -> Iterator[str]:
    """Every name that folded ones stand for, counted before any is made.

    Args:
        folded: As `fold` gives them.
        most: How many names they may stand for.

    Raises:
        LorascopeError: As `unfold`, at the first name that is asked for; all of them together are more than `most`.
    """
    products: list[list[str | list[Interval]]] = []
    names = characters = 0
    for text in folded:
        if len(text) > _LONGEST_FOLDED:
            raise LorascopeError(f"{_cut(text)!r} has {len(text)} characters, more than {_LONGEST_FOLDED}")
        pieces = _pieces(text)
        more, longer = _size(pieces)
        if more > MOST_NAMES or longer > MOST_CHARACTERS:
            what = f"{MOST_NAMES} names" if more > MOST_NAMES else f"{MOST_CHARACTERS} characters"
            raise LorascopeError(f"{_cut(text)!r} stands for more than {what}")
        names += more
        characters += longer
        if names > most or characters > MOST_CHARACTERS:
            what = f"{most} names" if names > most else f"{MOST_CHARACTERS} characters"
            raise LorascopeError(f"together they stand for more than {what}, from {_cut(text)!r} on")
        products.append(pieces)
    for pieces in products:
        choices = [[piece] if isinstance(piece, str) else list(map(str, _numbers(piece))) for piece in pieces]
        yield from map("".join, itertools.product(*choices))


def _pieces(folded: str) -> list[str | list[Interval]]:
    """The texts around the braces, and their ranges, in order."""
    pieces: list[str | list[Interval]] = []
    end = 0
    for match in _BRACES.finditer(folded):
        if match[1]:
            pieces += [folded[end : match.start()], parse_intervals(match[1])]
        else:
            pieces.append(f"{folded[end : match.start()]}{{")
        end = match.end()
    pieces.append(folded[end:])
    return pieces


def _size(pieces: Sequence[str | Sequence[Interval]]) -> tuple[int, int]:
    """Number of names that pieces stand for, and their characters."""
    names, characters = 1, 0
    for piece in pieces:
        count, length = (1, len(piece)) if isinstance(piece, str) else count_written(piece)
        characters = characters * count + names * length
        names *= count
        if names > MOST_NAMES:  # before the numbers grow
            break
    return names, characters


def parse_spans(text: str) -> list[int]:
    """The numbers of `0-3,7`, sorted.

    Raises:
        LorascopeError: It is not of that form, or stands for more than a million numbers.
    """
    return _numbers(parse_intervals(text))


def parse_intervals(text: str) -> list[Interval]:
    """First and last number of each range of `0-3,7`.

    Raises:
        LorascopeError: It is not of that form, or stands for more than a million numbers, overlaps counted twice.
    """
    intervals = []
    count = 0
    for span in text.split(","):
        match = _SPAN.fullmatch(span)
        if match is None:
            raise LorascopeError(f"{_cut(text)!r} is not a list of ranges such as 0-3,7")
        low, high = int(match[1]), int(match[2] or match[1])
        count += high - low + 1
        if high < low or count > MOST_NAMES:
            raise LorascopeError(f"{_cut(text)!r} is not a list of rising ranges of at most {MOST_NAMES} numbers")
        intervals.append((low, high))
    return intervals


def count_written(intervals: Iterable[Interval]) -> tuple[int, int]:
    """Count the numbers of ranges and their digits."""
    count = digits = 0
    for low, high in intervals:
        count += high - low + 1
        for length in range(len(str(low)), len(str(high)) + 1):
            first, last = max(low, 10 ** (length - 1) if length > 1 else 0), min(high, 10**length - 1)
            digits += length * (last - first + 1)
    return count, digits


def _numbers(intervals: Iterable[Interval]) -> list[int]:
    return sorted({number for low, high in intervals for number in range(low, high + 1)})


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
    """Splits sorted rows into full products of columns."""
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
