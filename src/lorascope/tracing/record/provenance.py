"""Provenance of tensors: the nodes and operations that they come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.graph import Edge, Edges, Flag, Piece

# (node, piece of its output) to (flags on some path, flags on every path). The flags are plain integers, because they are
# joined millions of times.
Labels = dict[tuple[int, Piece], tuple[int, int]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """Provenance of a tensor; many tensors share one.

    Attributes:
        labels: The nodes that it comes from; none for constants and for tensors made from parameters alone.
        parameters: The parameters that it was made from, if from nothing else.
        control: The choices that selected its elements.
        ids: The integer arguments that it was computed from.
        as_given: It holds those arguments' own numbers.
    """

    labels: Labels
    parameters: tuple[str, ...] = ()
    control: frozenset[int] = frozenset()
    ids: frozenset[str] = frozenset()
    as_given: bool = False


NOTHING = Provenance({})


def of_node(index: int) -> Provenance:
    """Provenance of a node's output."""
    return Provenance({(index, None): (0, 0)})


def nodes_of(labels: Labels) -> set[int]:
    """Nodes that labels name."""
    return {node for node, _ in labels}


def edges_of(labels: Labels) -> Edges:
    """Labels as edges of a graph."""
    return tuple(Edge(node, piece, Flag(some), Flag(every)) for (node, piece), (some, every) in labels.items())


def flagged(labels: Labels, flag: Flag) -> Labels:
    """Labels with a flag added on every path."""
    bits = int(flag)
    return {key: (some | bits, every | bits) for key, (some, every) in labels.items()}


def controls(provenances: Iterable[Provenance]) -> frozenset[int]:
    """Choices that select elements of any of the tensors."""
    return frozenset[int]().union(*(provenance.control for provenance in provenances))


def both_paths(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    """Flags of a value that came by two paths."""
    return first[0] | second[0], first[1] & second[1]


def union(provenances: Sequence[Provenance], mixed: Flag = Flag.NONE) -> Provenance:
    """Labels of several tensors together; `mixed` is added where their origins differ."""
    data = [provenance for provenance in provenances if provenance.labels]
    control = controls(provenances)
    if not data:
        return next((provenance for provenance in provenances if provenance is not NOTHING), NOTHING)
    first = data[0].labels
    if all(provenance.labels is first for provenance in data):
        return Provenance(first, control=control)
    different = any(provenance.labels.keys() != first.keys() for provenance in data)
    bits = int(mixed) if different else 0
    labels = {key: (some | bits, every | bits) for key, (some, every) in first.items()} if bits else dict(first)
    for provenance in data[1:]:
        for key, (some, every) in provenance.labels.items():
            flags = (some | bits, every | bits)
            labels[key] = both_paths(labels[key], flags) if key in labels else flags
    return Provenance(labels, control=control)
