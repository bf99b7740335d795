"""Width of the residual stream around a weight."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from lorascope.model.types import Module
from lorascope.names import NUMBER, template

Shape = tuple[int, ...]


def ancestors(name: str) -> Iterator[str]:
    """Modules around a name, the nearest first, without the root."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


class StreamWidths:
    """Widths that most matrices and normalizations of a layer share."""

    def __init__(self, modules: Iterable[Module], shapes: Mapping[str, Shape]) -> None:
        """Index the matrices and normalizations of a tree.

        Args:
            modules: The module tree; vectors called `weight` are those of normalizations.
            shapes: Weight name to shape.
        """
        sides = {name: shape[-2:] for name, shape in shapes.items()}
        for module in modules:
            for parameter, shape in module.parameters:
                if len(shape) == 1 and parameter == "weight":
                    sides[f"{module.name}.{parameter}"] = shape
        self._sides = sorted(sides.items())
        self._names = [name for name, _ in self._sides]
        self._widths: dict[str, int] = {}

    def around(self, name: str) -> int:
        """Width of the nearest layer around a weight that shows one; 0 where none does."""
        for place in ancestors(name):
            if NUMBER.fullmatch(place.rpartition(".")[2]) and (width := self._of_layer(place)):
                return width
        return 0

    def shows(self, place: str) -> bool:
        """A module's own matrices and normalizations show a width."""
        return self._of_layer(place) > 0

    def _of_layer(self, place: str) -> int:
        if place not in self._widths:
            distinct: dict[tuple[str, Shape], None] = {}
            start = f"{place}."
            for index in range(bisect_left(self._names, start), len(self._names)):
                name, shape = self._sides[index]
                if not name.startswith(start):
                    break
                distinct[template(name[len(start) :]), shape] = None
            counts = Counter(side for _, shape in distinct for side in shape).most_common(2)
            tied = len(counts) > 1 and counts[0][1] == counts[1][1]
            self._widths[place] = 0 if tied or not counts else counts[0][0]
        return self._widths[place]
