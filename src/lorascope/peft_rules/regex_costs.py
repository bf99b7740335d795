"""Bounds on a regular expression's steps, from its text.

Python's `re` tries every way to split a name among the repeats of a pattern: `(([a-z]+)+)+X` takes 2ⁿ steps on n
letters. The bound here is a polynomial in the name's length, for patterns whose repeats hold one character each; whatever
else there is (nested repeats, references, conditions, flags within, classes beyond ASCII) has none.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

from lorascope import light_dataclasses as dataclasses

# A match of so many steps takes a tenth of a second or two.
_MOST_STEPS = 10_000_000
# No longer name is tried without a limit of time, whatever the pattern.
_LONGEST_NAME = 4096
# Nor is a longer pattern read: two long branches with one beginning take `re` quadratic time to compile.
_LONGEST_PATTERN = 20_000
_DEEPEST = 30
_HIGHEST_DEGREE = 7
_NO_BOUND = 1e15
# What a repeat may be followed by is looked at so far: so many branches, so many letters of each.
_MOST_LEADS = 16
_LONGEST_LEAD = 24
_LONGEST_SET = 200

_TOKEN = re.compile(
    r"""(?P<literal>[^\\\[\](){}.^$*+?|]+|[\]}])
    |(?P<escape>\\[^A-Za-z0-9]|\\[nrtfav])
    |(?P<one>\.|\\[dDwWsS]|\[\^?+\]?+(?:[^\]\\\[]|\\[dDwWsSnrtfav]|\\[^A-Za-z0-9])*+\])
    |(?P<edge>[\^$]|\\[bBAZ])
    |(?P<open>\((?:\?(?:[=!:]|<[=!]|P<[A-Za-z_][A-Za-z0-9_]*>|[is]{1,2}:))?)
    |(?P<close>\))
    |(?P<bar>\|)""",
    re.VERBOSE | re.DOTALL,
)
_QUANTIFIER = re.compile(r"(?:(?P<sign>[*+?])|\{(?P<low>\d{0,6})(?:(?P<comma>,)(?P<high>\d{0,6}))?\})(?P<lazy>\??)")
_FLAGS = re.compile(r"\(\?[is]{1,2}\)")
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "a": "\a", "v": "\v"}
# These give warnings, and will mean something else one day.
_OPERATIONS = ("--", "&&", "~~", "||")

# What may take long to compile, or gives a warning: escapes of numbers, conditions, what looks like operations on sets.
_COMPILED_HERE = 1_000
_COMPILED_ELSEWHERE = re.compile(r"\\[uUxN0-9]|\(\?[(P]|\[[^]]*\[|--|&&|~~|\|\|")

# Coefficients of a polynomial in the length of the name, lowest first.
_Steps = tuple[float, ...]
_ONE: _Steps = (1.0,)
_NONE: _Steps = (0.0,)


class _UnboundedError(Exception):
    """Nothing is known of the pattern's steps."""


@dataclasses.dataclass(frozen=True, slots=True)
class Steps:
    """A bound on one match's steps: a polynomial in the name's length.

    Attributes:
        coefficients: Lowest degree first; empty where there is no bound.
    """

    coefficients: _Steps

    def longest(self, *, search: bool = False) -> int:
        """The longest name to try without a time limit, or -1.

        Args:
            search: The pattern is tried from every place of the name.
        """
        return _longest(self.coefficients, search) if self.coefficients else -1


@dataclasses.dataclass(frozen=True, slots=True)
class _Item:
    """A part of a sequence: text, character class, edge, repeat or group.

    Attributes:
        cost: Steps to try it once from one place.
        ways: In how many ways it can match from one place.
        leads: Texts of which one begins whatever it matches; empty if unknown.
        text: What it matches, where that is one text.
        holds: The class of characters of a repeat, where its end depends on what follows.
        most: How often that repeat is tried at most; 0 without a limit.
    """

    cost: _Steps = _ONE
    ways: _Steps = _ONE
    leads: tuple[str, ...] = ()
    text: str | None = None
    holds: str = ""
    most: int = 0


def steps_of(pattern: str) -> Steps:
    """Bound the steps of one match."""
    if len(pattern) > _LONGEST_PATTERN or not pattern.isascii():
        return Steps(())
    start = flags.end() if (flags := _FLAGS.match(pattern)) else 0
    try:
        return Steps(_Reader(pattern, start, exact="(?i" not in pattern and "(?si" not in pattern).steps())
    except _UnboundedError:
        return Steps(())


def compiles_at_once(pattern: str) -> bool:
    """Compiling it is quick and gives no warning, whatever its steps."""
    return len(pattern) <= _COMPILED_HERE and pattern.isascii() and not _COMPILED_ELSEWHERE.search(pattern)


class _Reader:
    """Reads a pattern left to right, in linear time."""

    def __init__(self, pattern: str, at: int, *, exact: bool) -> None:
        self._pattern = pattern
        self._at = at
        # Whether letters stand for themselves alone, which they do not where upper and lower case are one.
        self._exact = exact

    def steps(self) -> _Steps:
        cost, _, _ = self._branches(0)
        if self._at < len(self._pattern):
            raise _UnboundedError
        return cost

    def _branches(self, depth: int) -> tuple[_Steps, _Steps, tuple[str, ...]]:
        """Cost, ways and leads of branches, up to a bracket or the end."""
        if depth > _DEEPEST:
            raise _UnboundedError
        cost, ways = _NONE, _NONE
        leads: list[str] | None = []
        texts: list[str] | None = [] if self._exact else None
        items: list[_Item] = []
        while True:
            token = _TOKEN.match(self._pattern, self._at)
            kind = token.lastgroup if token is not None else ""
            if kind in ("bar", "close", ""):
                if not kind and self._at < len(self._pattern):
                    raise _UnboundedError
                tried, places = self._sequence(items)
                cost, ways = _sum(cost, tried), _sum(ways, places)
                if texts is not None:
                    if all(item.text is not None for item in items):
                        texts.append("".join(item.text or "" for item in items))
                    else:
                        texts = None
                if leads is not None:
                    own = _leads(items, 0)
                    leads = leads + list(own) if own and len(leads) + len(own) <= _MOST_LEADS else None
                items = []
                if kind == "bar":
                    self._at += 1
                    continue
                if texts:
                    ways = (float(_at_once(texts)),)
                return cost, ways, tuple(leads or ())
            assert token is not None
            self._at = token.end()
            items += self._item(str(kind), token[0], depth)

    def _item(self, kind: str, text: str, depth: int) -> Iterable[_Item]:
        if kind == "open":
            return [self._group(text, depth)]
        if kind == "edge":
            if _QUANTIFIER.match(self._pattern, self._at):
                raise _UnboundedError
            return [_Item()]
        if kind == "one":
            if text[0] == "[" and any(sign in text for sign in _OPERATIONS):
                raise _UnboundedError
            quantified = self._quantified(text)
            return [quantified or _Item()]
        if kind == "escape":
            text = _LETTERS.get(text[1], text[1])
        quantified = self._quantified(text[-1], literal=True)
        if quantified is None:
            return [_literal(text)]
        return [_literal(text[:-1]), quantified] if len(text) > 1 else [quantified]

    def _quantified(self, character: str, *, literal: bool = False) -> _Item | None:
        """A repeat of one character, or None without a quantifier."""
        bounds = self._bounds()
        if bounds is None:
            return None
        low, high = bounds
        if high is None:
            return _Item(cost=(1.0, 1.0), ways=(1.0, 1.0), holds=re.escape(character) if literal else character)
        if high == low:
            return _Item(cost=(1.0 + high,))
        return _Item(
            cost=(1.0 + high,),
            ways=(1.0 + high - low,),
            holds=re.escape(character) if literal else character,
            most=high - low + 1,
        )

    def _bounds(self) -> tuple[int, int | None] | None:
        """Read the quantifier that follows, if any."""
        match = _QUANTIFIER.match(self._pattern, self._at)
        if match is None:
            if self._pattern.startswith("{", self._at):
                raise _UnboundedError
            return None
        self._at = match.end()
        if self._pattern.startswith(("*", "+", "?", "{"), self._at):  # Possessive, or an error.
            raise _UnboundedError
        if sign := match["sign"]:
            return (1 if sign == "+" else 0), (1 if sign == "?" else None)
        if not match["comma"] and not match["low"]:  # `{}` is no quantifier.
            raise _UnboundedError
        low = int(match["low"] or 0)
        high = (int(match["high"]) if match["high"] else None) if match["comma"] else low
        if high is not None and high < low:
            raise _UnboundedError
        return low, high

    def _group(self, opening: str, depth: int) -> _Item:
        cost, ways, leads = self._branches(depth + 1)
        if not self._pattern.startswith(")", self._at):
            raise _UnboundedError
        self._at += 1
        bounds = self._bounds()
        cost = _sum(cost, _ONE)
        if opening.endswith(("=", "!")):
            # Nobody goes back into what was looked at.
            if bounds is not None:
                raise _UnboundedError
            return _Item(cost=cost)
        if bounds is None:
            return _Item(cost=cost, ways=ways, leads=leads)
        if bounds != (0, 1):
            raise _UnboundedError
        return _Item(cost=_sum(cost, _ONE), ways=_sum(ways, _ONE))

    def _sequence(self, items: Sequence[_Item]) -> tuple[_Steps, _Steps]:
        """Cost and ways of consecutive items."""
        cost, ways = _NONE, _ONE
        for place, item in enumerate(items):
            cost = _sum(cost, _product(ways, item.cost))
            own = item.ways
            if item.holds and self._exact and (leads := _leads(items, place + 1)):
                own = _ways_before(item, leads)
            ways = _product(ways, own)
        return _sum(cost, ways), ways


def _literal(text: str) -> _Item:
    return _Item(cost=(float(len(text)),), leads=(text[:_LONGEST_LEAD],), text=text)


def _leads(items: Sequence[_Item], place: int) -> tuple[str, ...]:
    """Texts that can begin at a place of a sequence; empty if unknown."""
    lead = ""
    for item in items[place : place + 4]:
        if item.text is None:
            if item.leads and len(lead) < _LONGEST_LEAD:
                return tuple((lead + text)[:_LONGEST_LEAD] for text in item.leads)
            break
        lead += item.text
        if len(lead) >= _LONGEST_LEAD:
            break
    return (lead[:_LONGEST_LEAD],) if lead else ()


def _ways_before(item: _Item, leads: tuple[str, ...]) -> _Steps:
    """The number of places where a repeat can end before these texts."""
    if all(lead and not _holds(item.holds, lead[0]) for lead in leads):
        return _ONE
    apart = _apart(leads)
    if item.most:
        return (min(float(item.most), 1.0 + item.most / apart),)
    return (1.0, 1.0 / apart)


@functools.lru_cache(maxsize=512)
def _holds(character: str, letter: str) -> bool:
    """A class of characters has this one in it."""
    if len(character) > _LONGEST_SET:
        return True
    try:
        return re.compile(character, re.DOTALL).fullmatch(letter) is not None
    except re.error:
        raise _UnboundedError from None


@functools.lru_cache(maxsize=512)
def _apart(leads: tuple[str, ...]) -> int:
    """The least distance between two places where these texts stand."""
    shortest = min(map(len, leads), default=1)
    for shift in range(1, shortest):
        for first in leads:
            for second in leads:
                rest = first[shift:]
                length = min(len(rest), len(second))
                if rest[:length] == second[:length]:
                    return shift
    return max(shortest, 1)


def _at_once(texts: Iterable[str]) -> int:
    """The most texts that can stand at one place."""
    most, chain = 0, list[str]()
    for text in sorted(texts):
        while chain and not text.startswith(chain[-1]):
            chain.pop()
        chain.append(text)
        most = max(most, len(chain))
    return most


def _sum(one: _Steps, other: _Steps) -> _Steps:
    if len(one) == len(other) == 1:
        return (one[0] + other[0],)
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return tuple(value + (shorter[at] if at < len(shorter) else 0.0) for at, value in enumerate(longer))


def _product(one: _Steps, other: _Steps) -> _Steps:
    if one == _ONE:
        return other
    if other == _ONE:
        return one
    product = [0.0] * (len(one) + len(other) - 1)
    for low, first in enumerate(one):
        for high, second in enumerate(other):
            product[low + high] += first * second
    if len(product) > _HIGHEST_DEGREE + 1 or max(product) > _NO_BOUND:
        raise _UnboundedError
    return tuple(product)


@functools.lru_cache(maxsize=512)
def _longest(coefficients: _Steps, search: bool) -> int:
    low, high = -1, _LONGEST_NAME
    while low < high:
        middle = (low + high + 1) // 2
        steps = sum(value * float(middle) ** degree for degree, value in enumerate(coefficients))
        if steps * ((middle + 1) if search else 1) <= _MOST_STEPS:
            low = middle
        else:
            high = middle - 1
    return low
