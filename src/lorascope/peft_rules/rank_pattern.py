"""Ranks and alphas by name: `rank_pattern` and `alpha_pattern`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from lorascope.peft_rules.name_patterns import BadPatternError, Pattern, charge, compiled

Number = TypeVar("Number", int, float)

_LITERAL_KEY = re.compile(r"\^?(?:[\w-]|\.|\\\.)+\$?")
_FEW_LENGTHS = 8
_BRANCHES_OR_FLAGS = re.compile(r"\||\(\?[^:=!<]")
_ENDING = re.compile(r"(?<![\\\w-])((?:[\w-]|\\\.)+)\$?\Z")


class PatternTable(Generic[Number]):
    r"""`rank_pattern` or `alpha_pattern`: the first key that matches a name's end.

    PEFT (`get_pattern_key`) tries `(.*\.)?(key)$` for key after key. A plan may carry a key per weight, so keys that
    are plain names are looked up instead of tried: an unescaped dot stands for any character, which is why a name is
    first masked where the key has its dots.
    """

    def __init__(self, patterns: Mapping[str, Number], where: str = "rank_pattern, alpha_pattern") -> None:
        self._patterns: Mapping[str, Number] = patterns
        self._where = where
        self._keys = tuple(patterns)
        # Length of a key -> (wildcard positions, anchored) -> masked key -> its places in the order.
        self._literal: dict[int, dict[tuple[tuple[int, ...], bool], dict[str, list[int]]]] = {}
        # Place of every other key in the order, and what a name must end with to match it.
        self._regular: list[tuple[int, str]] = []
        self._compiled: dict[int, Pattern] = {}
        self._found: dict[str, int] = {}
        for place, key in enumerate(self._keys):
            if _LITERAL_KEY.fullmatch(key):
                self._add(key, place)
            else:
                self._regular.append((place, _ending(key)))

    def __bool__(self) -> bool:
        return bool(self._keys)

    def _add(self, key: str, place: int) -> None:
        anchored = key.startswith("^")
        escaped = key.removeprefix("^").removesuffix("$").replace("\\.", "\0")
        wild = tuple(at for at, letter in enumerate(escaped) if letter == ".")
        text = escaped.replace("\0", ".")
        shapes = self._literal.setdefault(len(text), {})
        shapes.setdefault((wild, anchored), {}).setdefault(text, []).append(place)

    def key(self, name: str) -> str | None:
        """The key that PEFT uses for a name.

        PEFT compiles a key when it tries it, so that a bad one behind the key that matches does no harm.

        Raises:
            BadPatternError: PEFT would try a key that is not a regular expression.
        """
        if not self._keys:
            return None
        if name not in self._found:
            self._found[name] = self._place(name)
        place = self._found[name]
        return self._keys[place] if place < len(self._keys) else None

    def _place(self, name: str) -> int:
        best = min(self._literal_places(name), default=len(self._keys))
        return next(self._regular_places(name, self._regular, best), best) if self._regular else best

    def value(self, name: str, default: Number) -> Number:
        """The number of the first key that matches, or the default."""
        key = self.key(name)
        return default if key is None else self._patterns[key]

    def unmatched(self, names: Iterable[str]) -> list[str]:
        """Keys that match none of the names, shadowed or not.

        A key that is not a regular expression is none of them (`bad`).
        """
        bad = {key for key, _ in self.bad()}
        regular = [(place, ending) for place, ending in self._regular if self._keys[place] not in bad]
        left = {place for place, key in enumerate(self._keys) if key not in bad}
        for name in names:
            left.difference_update(self._literal_places(name))
            hit = set(self._regular_places(name, regular, len(self._keys)))
            if hit:
                left -= hit
                regular = [item for item in regular if item[0] not in hit]
            if not left:
                break
        return sorted(self._keys[place] for place in left)

    def bad(self) -> list[tuple[str, BadPatternError]]:
        """Keys that are not regular expressions, with their errors."""
        faults = []
        for place, _ in self._regular:
            try:
                self._regex(place)
            except BadPatternError as error:
                faults.append((self._keys[place], error))
        return faults

    def _regular_places(self, name: str, regular: Iterable[tuple[int, str]], end: int) -> Iterator[int]:
        """The places before `end` of matching keys, tried one by one."""
        length, begun, regex = len(name), time.perf_counter(), None
        for place, ending in regular:
            if place >= end:
                break
            regex = self._compiled.get(place)
            if regex is None:
                regex = self._regex(place)
                begun = time.perf_counter()  # The rest has been counted.
            if regex.here is not None and length <= regex.longest:
                if name.endswith(ending) and regex.here.match(name):
                    charge(regex, begun)
                    yield place
                    begun = time.perf_counter()
            # One that may take for ever keeps PEFT busy whatever the name ends with.
            elif regex.match(name):
                yield place
        if regex is not None:
            charge(regex, begun)

    def _regex(self, place: int) -> Pattern:
        # Kept here: a table can have more keys than a cache for all tables has places.
        if place not in self._compiled:
            self._compiled[place] = compiled(rf"(.*\.)?({self._keys[place]})$", self._where)
        return self._compiled[place]

    def _literal_places(self, name: str) -> Iterator[int]:
        for start in self._starts(name):
            for (wild, anchored), keys in self._literal.get(len(name) - start, {}).items():
                if start == 0 or not anchored:
                    yield from keys.get(masked(name[start:], wild), ())

    def _starts(self, name: str) -> list[int]:
        """Where a literal key can begin in a name."""
        if len(self._literal) <= _FEW_LENGTHS:
            starts = [len(name) - length for length in self._literal]
            return [start for start in starts if start == 0 or (start > 0 and name[start - 1] == ".")]
        return [0, *(at for at, letter in enumerate(name, 1) if letter == ".")]


def _ending(key: str) -> str:
    """The ending of all names that a key matches; empty if unclear."""
    if _BRANCHES_OR_FLAGS.search(key):
        return ""
    match = _ENDING.search(key)
    return match[1].replace("\\", "") if match else ""


def masked(text: str, wild: tuple[int, ...]) -> str:
    """A text with dots in some places."""
    if all(text[at] == "." for at in wild):
        return text
    letters = list(text)
    for at in wild:
        letters[at] = "."
    return "".join(letters)
