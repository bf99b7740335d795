"""Graphs drawn by hand, so that a test of the classifier reads like the computation that it is about.

A value is a tuple of edges, as an operand is. Functions flag values, the methods of a `Sketch` make nodes of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from lorascope.tracing.classify.classify import classify_uses
from lorascope.tracing.graph import Edge, Edges, Flag, Graph, Node, NodeKind

ROWS, WIDTH = 100, 8  # of the vocabulary, and of a stream


class Sketch:
    """A graph in the making; every method adds one node and returns its output."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []

    def input(self, name: str = "pixels") -> Edges:
        """An argument of the call."""
        return self._add("input", name)

    def table(
        self, name: str = "tokens", *, rows: int = ROWS, columns: int = WIDTH, ids: tuple[str, ...] = ("ids",)
    ) -> Edges:
        """Rows of a table."""
        return self._add("table", name, rows=rows, columns=columns, ids=ids)

    def parameter(self, name: str) -> Edges:
        """A parameter as data."""
        return self._add("parameter", name)

    def weight(
        self,
        name: str,
        reads: Edges,
        rows: int = WIDTH,
        columns: int = WIDTH,
        ids: tuple[str, ...] = (),
        control: Sequence[int] = (),
    ) -> Edges:
        """A value times a matrix."""
        return self._add("weight", name, reads, rows=rows, columns=columns, ids=ids, control=tuple(control))

    def convolution(self, name: str, reads: Edges) -> Edges:
        """A convolution over several positions and channels."""
        return self._add("convolution", name, reads, rows=WIDTH, columns=3)

    def times(self, first: Edges, second: Edges, scored: int | None = None, control: Sequence[int] = ()) -> Edges:
        """A matrix product of two values."""
        return self._add("contraction", "", first, second, scored=scored, control=tuple(control))

    def add(self, carried: Edges, written: Edges, how: Flag = Flag.NONE) -> Edges:
        """A residual sum, or one that multiplies or joins what was computed from what it carries."""
        return self._add("sum", "", carried, written, how=how)

    def choose(self, among: Edges, name: str = "topk") -> int:
        """A choice; the index of its node, as `control` takes it."""
        return self._add("choice", name, among)[0].source

    def attend(self, queries: Edges, keys: Edges, values: Edges) -> Edges:
        """An attention: scores, softmax and weighted sum."""
        return self.times(softmax(self.times(queries, keys, scored=1)), values)

    def graph(self, *outputs: Edges) -> Graph:
        """What was drawn."""
        return Graph(tuple(self._nodes), union(*outputs) if outputs else ())

    def _add(self, kind: NodeKind, name: str, *operands: Edges, **facts: object) -> Edges:
        self._nodes.append(Node(kind, name, operands, **facts))  # type: ignore[arg-type]  # of one of the methods above
        return (Edge(len(self._nodes) - 1),)


def at(value: Edges) -> int:
    """The index of the node that a value comes from."""
    (edge,) = value
    return edge.source


def flagged(value: Edges, flag: Flag) -> Edges:
    """A value that something happened to on every way."""
    return tuple(dataclasses.replace(edge, some=edge.some | flag, every=edge.every | flag) for edge in value)


def softmax(value: Edges) -> Edges:
    """Its softmax."""
    return flagged(value, Flag.SOFTMAX)


def activated(value: Edges) -> Edges:
    """What a non-linear function makes of it."""
    return flagged(value, Flag.ACTIVATION)


def multiplied(one: Edges, other: Edges) -> Edges:
    """Two values multiplied element by element."""
    return union(flagged(one, Flag.PRODUCT), flagged(other, Flag.PRODUCT))


def joined(one: Edges, other: Edges) -> Edges:
    """Two values side by side."""
    return union(flagged(one, Flag.JOINED), flagged(other, Flag.JOINED))


def piece(value: Edges, place: int, of: int = 2) -> Edges:
    """One of several equal pieces."""
    size = max(WIDTH // of, 1)
    return tuple(dataclasses.replace(edge, piece=(place * size, (size,), (1,))) for edge in value)


def union(*values: Edges) -> Edges:
    """Values that are added, none of which was computed from another."""
    found: dict[object, Edge] = {}
    for edge in (edge for value in values for edge in value):
        old = found.setdefault((edge.source, edge.piece), edge)
        some, every = old.some | edge.some, old.every & edge.every
        found[edge.source, edge.piece] = dataclasses.replace(old, some=some, every=every)
    return tuple(found.values())


def roles(graph: Graph, *, features: bool = False) -> dict[str, str]:
    """Parameter name to the roles that its uses show, as text; several of one parameter are joined by a plus."""
    found: dict[str, set[str]] = {}
    for claim in classify_uses(graph, features=features):
        text = ".".join(word for word in (claim.block, claim.variant, claim.part) if word)
        found.setdefault(claim.name, set()).add(text)
    return {name: " + ".join(sorted(texts)) for name, texts in found.items()}


def decided(block: Callable[[Sketch, Edges], Edges]) -> dict[str, str]:
    """The roles of what a block uses, inside a network of an embedding, a residual sum and a head."""
    draw = Sketch()
    stream = draw.table()
    stream = draw.add(stream, block(draw, stream))
    found = roles(draw.graph(draw.weight("head", stream, rows=ROWS)))
    assert (found.pop("tokens"), found.pop("head")) == ("embedding.token", "head.lm")
    return found
