"""Tracks the provenance of each tensor, through writes in place."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.graph import Piece
from lorascope.tracing.record.provenance import NOTHING, Provenance, union

# Offset, sizes and strides of a view within its memory.
_Place = tuple[int, tuple[int, ...], tuple[int, ...]]
# A loop that writes row by row is remembered as this many places, then as the stretch that holds them.
_MOST_PLACES = 64


@dataclasses.dataclass(slots=True)
class _Write:
    """Operations in place on some places of a memory.

    Attributes:
        at: Number of the last such operation.
        places: Where.
        provenance: Of what they wrote.
    """

    at: int
    places: list[_Place]
    provenance: Provenance


class TensorTracker:
    """Tensors with their provenance."""

    def __init__(self, piece: Callable[[Provenance, Piece], Provenance]) -> None:
        """Start without tensors.

        Args:
            piece: Makes the provenance of a part of a tensor.
        """
        self._piece = piece
        self._provenances: dict[int, Provenance] = {}
        self._made_at: dict[int, int] = {}
        self._alive: list[torch.Tensor] = []  # an id is unique as long as its object lives
        self._writes: dict[int, list[_Write]] = {}

    def set(self, tensor: torch.Tensor, provenance: Provenance, at: int = -1) -> None:
        """Set the provenance of a tensor.

        Args:
            tensor: It is kept alive.
            provenance: `NOTHING` is not stored.
            at: Number of the operation that made it.
        """
        if provenance is not NOTHING:
            self._provenances[id(tensor)] = provenance
            self._made_at[id(tensor)] = at
            self._alive.append(tensor)

    def initial(self, tensor: torch.Tensor) -> Provenance:
        """Provenance of a tensor when it was made, before later writes."""
        return self._provenances.get(id(tensor), NOTHING)

    def current(self, tensor: torch.Tensor) -> Provenance:
        """Provenance of a tensor now, writes included."""
        initial = self.initial(tensor)
        writes = self._writes.get(tensor.untyped_storage()._cdata) if self._writes else None
        if not writes:
            return initial
        made_at, here = self._made_at.get(id(tensor), -1), _place(tensor)
        newer = []
        for write in writes:
            if write.at > made_at and any(_overlap(here, place) for place in write.places):
                inside = all(_covers(here, place) for place in write.places)
                newer.append(write.provenance if inside else self._piece(write.provenance, here))
        return union([initial, *newer]) if newer else initial

    def set_view(self, view: torch.Tensor, provenance: Provenance, source: torch.Tensor) -> None:
        """Set the provenance of a view."""
        self.set(view, provenance, self._made_at.get(id(source), -1))

    def write(self, target: torch.Tensor, provenance: Provenance, at: int) -> None:
        """Record an operation in place, which overlapping views share."""
        self.set(target, provenance, at)
        if provenance is NOTHING:
            return
        here = _place(target)
        writes = self._writes.setdefault(target.untyped_storage()._cdata, [])
        for write in writes:
            known = write.provenance
            if provenance.labels.keys() <= known.labels.keys() and provenance.control <= known.control:
                write.at = at
                if here not in write.places:
                    write.places.append(here)
                if len(write.places) > _MOST_PLACES:
                    write.places = [_stretch(write.places)]
                return
        writes.append(_Write(at, [here], provenance))


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
    """The first place spans the whole second one."""
    (low, high), (first, last) = _extent(outer), _extent(inner)
    return low <= first and last <= high


def _overlap(first_place: _Place, second_place: _Place) -> bool:
    """Two views may share elements."""
    (low, high), (first, last) = _extent(first_place), _extent(second_place)
    if low > last or first > high:
        return False
    boxes = [_box(place) for place in (first_place, second_place)]
    if boxes[0] is None or boxes[1] is None or boxes[0].keys() != boxes[1].keys():
        return True
    pairs = [(boxes[0][stride], boxes[1][stride]) for stride in boxes[0]]
    return all(start < after + count and after < start + size for (start, size), (after, count) in pairs)


def _box(place: _Place) -> dict[int, tuple[int, int]] | None:
    """First index and size per stride, if the view is a box."""
    offset, sizes, strides = place
    box: dict[int, tuple[int, int]] = {}
    rest = offset
    for stride, size in sorted(zip(strides, sizes, strict=True), reverse=True):
        if stride <= 0 or stride in box:
            return None
        start, rest = divmod(rest, stride)
        box[stride] = (start, size)
    return box if rest == 0 else None
