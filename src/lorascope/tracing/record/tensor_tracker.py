"""What each tensor of a call is known to hold; an operation in place changes it for every view of the same memory."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.graph import Piece
from lorascope.tracing.record.provenance import NOTHING, Value, union

# Offset, sizes and strides of a view within its memory.
_Place = tuple[int, tuple[int, ...], tuple[int, ...]]
# A loop that writes row by row is remembered as so many places, and then as the stretch that they lie in.
_MOST_PLACES = 64


@dataclasses.dataclass(slots=True)
class _Write:
    """What operations in place have put into some places of a memory.

    Attributes:
        at: Number of the last such operation.
        places: Where.
        value: What is known of what they put there.
    """

    at: int
    places: list[_Place]
    value: Value


class Holder:
    """Tensors with what is known of them."""

    def __init__(self, piece: Callable[[Value, Piece], Value]) -> None:
        """Know nothing.

        Args:
            piece: Makes the value of a part of a value.
        """
        self._piece = piece
        self._values: dict[int, Value] = {}
        self._made_at: dict[int, int] = {}
        self._alive: list[torch.Tensor] = []  # an id is unique as long as its object lives
        self._writes: dict[int, list[_Write]] = {}

    def hold(self, tensor: torch.Tensor, value: Value, at: int = -1) -> None:
        """Note what a tensor holds.

        Args:
            tensor: It is kept alive.
            value: What is known of it; nothing is noted of what nothing is known of.
            at: Number of the operation that made it.
        """
        if value is not NOTHING:
            self._values[id(tensor)] = value
            self._made_at[id(tensor)] = at
            self._alive.append(tensor)

    def own(self, tensor: torch.Tensor) -> Value:
        """What a tensor was made as, whatever was written to its memory since."""
        return self._values.get(id(tensor), NOTHING)

    def value(self, tensor: torch.Tensor) -> Value:
        """What a tensor holds now."""
        mine = self.own(tensor)
        writes = self._writes.get(tensor.untyped_storage()._cdata) if self._writes else None
        if not writes:
            return mine
        made, here = self._made_at.get(id(tensor), -1), _place(tensor)
        newer = []
        for one in writes:
            if one.at > made and any(_overlap(here, place) for place in one.places):
                inside = all(_covers(here, place) for place in one.places)
                newer.append(one.value if inside else self._piece(one.value, here))
        return union([mine, *newer]) if newer else mine

    def hold_view(self, view: torch.Tensor, value: Value, source: torch.Tensor) -> None:
        """Note what a view holds by itself; what was written to the memory of its source is found when it is asked for."""
        self.hold(view, value, self._made_at.get(id(source), -1))

    def write(self, target: torch.Tensor, value: Value, at: int) -> None:
        """An operation in place: every view of the same memory that overlaps holds the new value too."""
        self.hold(target, value, at)
        if value is NOTHING:
            return
        here = _place(target)
        writes = self._writes.setdefault(target.untyped_storage()._cdata, [])
        for one in writes:
            if value.labels.keys() <= one.value.labels.keys() and value.control <= one.value.control:
                one.at = at
                if here not in one.places:
                    one.places.append(here)
                if len(one.places) > _MOST_PLACES:
                    one.places = [_stretch(one.places)]
                return
        writes.append(_Write(at, [here], value))


def _place(tensor: torch.Tensor) -> _Place:
    return tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride())


def _extent(place: _Place) -> tuple[int, int]:
    """The first and last element of a view within its memory."""
    offset, sizes, strides = place
    return offset, offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True) if size)


def _stretch(places: list[_Place]) -> _Place:
    """One row of all elements from the first to the last."""
    extents = [_extent(place) for place in places]
    first, last = min(first for first, _ in extents), max(last for _, last in extents)
    return first, (last - first + 1,), (1,)


def _covers(outer: _Place, inner: _Place) -> bool:
    """Every element of the second lies between the first and last of the first."""
    (low, high), (first, last) = _extent(outer), _extent(inner)
    return low <= first and last <= high


def _overlap(one: _Place, other: _Place) -> bool:
    """Whether two views share elements; where that is not plain to see, they do."""
    (low, high), (first, last) = _extent(one), _extent(other)
    if low > last or first > high:
        return False
    boxes = [_box(place) for place in (one, other)]
    if boxes[0] is None or boxes[1] is None or boxes[0].keys() != boxes[1].keys():
        return True
    pairs = [(boxes[0][stride], boxes[1][stride]) for stride in boxes[0]]
    return all(start < after + count and after < start + size for (start, size), (after, count) in pairs)


def _box(place: _Place) -> dict[int, tuple[int, int]] | None:
    """Stride to first index and size, of a view that is a box of a larger array; None of any other."""
    offset, sizes, strides = place
    found: dict[int, tuple[int, int]] = {}
    rest = offset
    for stride, size in sorted(zip(strides, sizes, strict=True), reverse=True):
        if stride <= 0 or stride in found:
            return None
        start, rest = divmod(rest, stride)
        found[stride] = (start, size)
    return found if rest == 0 else None
