"""What is known of a value while a call is recorded: where it comes from, and what happened to it on the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.graph import Edge, Edges, Flag, Piece

# Where a value comes from: (node, piece of its output) to (what happened on some way, what happened on every way), as
# plain integers: they are joined millions of times.
Labels = dict[tuple[int, Piece], tuple[int, int]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Value:
    """What is known of a tensor; many tensors share one.

    Attributes:
        labels: Where it comes from; empty for constants and for what was made from parameters alone.
        parameters: The parameters that it was made from, where it was made from nothing else.
        control: The choices that decided which of its elements are there.
        ids: The integer arguments that it was computed from.
        as_given: It holds those arguments' own numbers.
    """

    labels: Labels
    parameters: tuple[str, ...] = ()
    control: frozenset[int] = frozenset()
    ids: frozenset[str] = frozenset()
    as_given: bool = False


NOTHING = Value({})


def of_node(index: int) -> Value:
    """The output of a node, as it is."""
    return Value({(index, None): (0, 0)})


def nodes_of(labels: Labels) -> set[int]:
    """The nodes that a value comes from."""
    return {node for node, _ in labels}


def edges_of(labels: Labels) -> Edges:
    """Labels as the edges of a graph."""
    return tuple(Edge(node, piece, Flag(some), Flag(every)) for (node, piece), (some, every) in labels.items())


def flagged(labels: Labels, flag: Flag) -> Labels:
    """The same labels after something happened to the value."""
    bits = int(flag)
    return {key: (some | bits, every | bits) for key, (some, every) in labels.items()}


def controls(values: Iterable[Value]) -> frozenset[int]:
    """The choices that have a say in any of the values."""
    return frozenset[int]().union(*(value.control for value in values))


def both_ways(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """What happened to a value that came by two ways."""
    return one[0] | other[0], one[1] & other[1]


def union(values: Sequence[Value], mixed: Flag = Flag.NONE) -> Value:
    """All labels of several values; `mixed` marks them where their origins differ."""
    data = [value for value in values if value.labels]
    control = controls(values)
    if not data:
        return next((value for value in values if value is not NOTHING), NOTHING)
    first = data[0].labels
    if all(value.labels is first for value in data):
        return Value(first, control=control)
    different = any(value.labels.keys() != first.keys() for value in data)
    bits = int(mixed) if different else 0
    labels = {key: (some | bits, every | bits) for key, (some, every) in first.items()} if bits else dict(first)
    for value in data[1:]:
        for key, (some, every) in value.labels.items():
            flags = (some | bits, every | bits)
            labels[key] = both_ways(labels[key], flags) if key in labels else flags
    return Value(labels, control=control)
