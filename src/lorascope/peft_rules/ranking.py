"""Which rank and which alpha a name gets from `rank_pattern` and `alpha_pattern`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from lorascope.peft_rules.patterns import compiled

Number = TypeVar("Number", int, float)

_LITERAL_KEY = re.compile(r"\^?(?:[\w-]|\.|\\\.)+\$?")


class PatternTable(Generic[Number]):
    r"""`rank_pattern` or `alpha_pattern`: the first key, in the order given, that matches the end of a name.

    PEFT (`get_pattern_key`) tries `(.*\.)?(key)$` for key after key. A plan may carry a key per weight, so keys that
    are plain names are looked up instead of tried: an unescaped dot stands for any character, which is why a name is
    first masked where the key has its dots.
    """

    def __init__(self, patterns: Mapping[str, Number]) -> None:
        self._patterns: Mapping[str, Number] = patterns
        self._keys = tuple(patterns)
        # Last component of a key -> (length, wildcard positions, anchored) -> masked key -> its places in the order.
        self._literal: dict[str, dict[tuple[int, tuple[int, ...], bool], dict[str, list[int]]]] = {}
        self._regular: list[int] = []
        self._compiled: dict[int, re.Pattern[str]] = {}
        for place, key in enumerate(self._keys):
            if _LITERAL_KEY.fullmatch(key):
                self._add(key, place)
            else:
                self._regular.append(place)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def _add(self, key: str, place: int) -> None:
        anchored = key.startswith("^")
        body = key.removeprefix("^").removesuffix("$")
        escaped = body.replace("\\.", "\0")
        wild = tuple(at for at, letter in enumerate(escaped) if letter == ".")
        text = escaped.replace("\0", ".")
        leaf = re.split(r"[.\0]", escaped)[-1]
        shapes = self._literal.setdefault(leaf, {})
        shapes.setdefault((len(text), wild, anchored), {}).setdefault(text, []).append(place)

    def key(self, name: str) -> str | None:
        """The key that PEFT uses for a name, or None.

        Raises:
            BadPatternError: PEFT would try a key that is no regular expression.
        """
        if not self._keys:
            return None
        best = min(self._literal_places(name), default=len(self._keys))
        for place in self._regular:
            if place >= best:
                break
            if self._regex(place).match(name):
                best = place
                break
        return self._keys[best] if best < len(self._keys) else None

    def value(self, name: str, default: Number) -> Number:
        """The number for a name: of the first key that matches it, or the default."""
        key = self.key(name)
        return default if key is None else self._patterns[key]

    def unmatched(self, names: Iterable[str]) -> list[str]:
        """The keys that match none of the names, whether or not an earlier key was used for them.

        Raises:
            BadPatternError: A key is no regular expression.
        """
        left = set(range(len(self._keys)))
        for name in names:
            left.difference_update(self._literal_places(name))
            left.difference_update(
                [place for place in self._regular if place in left and self._regex(place).match(name)]
            )
            if not left:
                break
        return sorted(self._keys[place] for place in left)

    def _regex(self, place: int) -> re.Pattern[str]:
        # Kept here: a table can have more keys than a cache for all tables has places.
        if place not in self._compiled:
            self._compiled[place] = compiled(rf"(.*\.)?({self._keys[place]})$")
        return self._compiled[place]

    def _literal_places(self, name: str) -> Iterator[int]:
        for leaf, shapes in self._literal.items():
            if not name.endswith(leaf):
                continue
            for (length, wild, anchored), keys in shapes.items():
                start = len(name) - length
                if start == 0 or (start > 0 and not anchored and name[start - 1] == "."):
                    yield from keys.get(_masked(name[start:], wild), ())


def _masked(text: str, wild: tuple[int, ...]) -> str:
    if all(text[at] == "." for at in wild):
        return text
    letters = list(text)
    for at in wild:
        letters[at] = "."
    return "".join(letters)
