"""Builds the graph of a call node by node, and knows of every node what it was computed from. It needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.graph import Flag, Graph, Node, NodeKind, Piece
from lorascope.tracing.limits import Meter
from lorascope.tracing.record.provenance import (
    NOTHING,
    Labels,
    Value,
    both_ways,
    controls,
    edges_of,
    flagged,
    nodes_of,
    of_node,
    union,
)

# A loop over positions reads one piece of an output per position. After so many, one more tells nothing new.
_MOST_PIECES = 12
_ONE_OF_MANY: Piece = (-1, (), ())


class Weaver:
    """The graph so far.

    Attributes:
        nodes: Its nodes.
        elementwise: Parameters that multiplied a value elementwise.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], meter: Meter | None = None) -> None:
        """Start an empty graph.

        Args:
            shapes: Parameter name to its shape.
            meter: Counts its nodes.
        """
        self._meter = meter or Meter()
        self._meter.start_graph()
        self.nodes: list[Node] = []
        self.elementwise: set[str] = set()
        self._dimensions = {name: len(shape) for name, shape in shapes.items()}
        self._sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        # Per node, as bits: all nodes that it was computed from, and (of a sum) itself with all that it carries on.
        self._before: list[int] = []
        self._carried: list[int] = []
        self._as_data: dict[str, int] = {}
        self._scored: dict[int, int] = {}
        self._pieces: dict[int, set[Piece]] = {}

    def graph(self, outputs: Labels, failure: str, operations: int) -> Graph:
        """The graph as it is now."""
        nodes = tuple(
            dataclasses.replace(node, scored=self._scored[index]) if index in self._scored else node
            for index, node in enumerate(self.nodes)
        )
        matrices = {node.name for node in nodes if node.kind in ("weight", "table", "convolution", "parameter")}
        return Graph(nodes, edges_of(outputs), frozenset(self.elementwise - matrices), failure, operations)

    def node(self, kind: NodeKind, name: str = "", operands: Sequence[Labels] = (), **facts: Any) -> int:
        """Add a node; the index is returned."""
        index = len(self.nodes)
        self._meter.node(index, sum(map(len, operands)))
        self.nodes.append(Node(kind, name, tuple(edges_of(labels) for labels in operands), **facts))
        before = 0
        for labels in operands:
            for source, _ in labels:
                before |= self._before[source] | 1 << source
        carried = 1 << index
        if kind == "sum":
            for source, _ in operands[0]:
                carried |= self._carried[source]
        self._before.append(before)
        self._carried.append(carried)
        return index

    def score(self, index: int, size: int, *, innermost: bool) -> None:
        """Note over which operand's positions a softmax of a product runs; the first that does counts.

        Args:
            index: The product.
            size: How many there are in the dimension that the softmax runs over.
            innermost: That dimension is the innermost in memory, as the second operand's positions are.
        """
        node = self.nodes[index]
        if node.kind == "contraction":
            sizes = (node.rows, node.columns)
            # A dimension of one has any place in memory.
            by_size = 1 in sizes and sizes.count(size) == 1
            self._scored.setdefault(index, sizes.index(size) if by_size else int(innermost))

    # Parameters

    def largest(self, names: Sequence[str]) -> str:
        """Of several parameters that one value was made from, the matrix."""
        return max(names, key=lambda name: (self._dimensions[name] >= 2, self._sizes[name]))

    def is_matrix(self, value: Value) -> bool:
        """A value was made from parameters, one of which has rows and columns."""
        return bool(value.parameters) and self._dimensions[self.largest(value.parameters)] >= 2

    def is_stack(self, value: Value) -> bool:
        """A value was made from parameters, one of which is several matrices."""
        return bool(value.parameters) and self._dimensions[self.largest(value.parameters)] > 2

    def as_data(self, names: Sequence[str]) -> Labels:
        """The labels of parameters that are used as data: vectors have none."""
        labels: Labels = {}
        for name in names:
            if self._dimensions[name] >= 2:
                if name not in self._as_data:
                    self._as_data[name] = self.node("parameter", name)
                labels[self._as_data[name], None] = (0, 0)
        return labels

    def use(
        self, weight: Value, data: Labels, *, rows: int, columns: int, control: Iterable[int], ids: Iterable[str] = ()
    ) -> Value:
        """A weight multiplies data.

        Args:
            weight: Made from parameters. Several are one matrix where they were joined, or one scales another.
            data: What it multiplies.
            rows: Output features.
            columns: Input features.
            control: The choices that have a say in it.
            ids: The integer arguments that choose among the matrices of a stack.
        """
        stacked = self.is_stack(weight)
        labels: Labels = {}
        for name in weight.parameters:
            if self._dimensions[name] < 2 or self._sizes[name] * 2 < rows + columns:
                continue
            index = self.node(
                "weight",
                name,
                [data],
                rows=rows,
                columns=columns,
                ids=tuple(sorted(ids)) if stacked else (),
                control=tuple(sorted(control)),
            )
            labels[index, None] = (0, 0)
        used = {self.nodes[index].name for index, _ in labels}
        self.elementwise |= {name for name in weight.parameters if name not in used and self._dimensions[name] >= 2}
        return Value(labels)

    # Values of several

    def piece(self, value: Value, piece: Piece) -> Value:
        """A part of a value; a part of a part counts as the part."""
        labels: Labels = {}
        for (node, old), flags in value.labels.items():
            if old is None:
                old = piece
                pieces = self._pieces.setdefault(node, set())
                if piece not in pieces and len(pieces) >= _MOST_PIECES:
                    old = _ONE_OF_MANY
                pieces.add(old)
            labels[node, old] = both_ways(labels[node, old], flags) if (node, old) in labels else flags
        return dataclasses.replace(value, labels=labels)

    def combine(self, values: Sequence[Value], flag: Flag = Flag.NONE, mixed: Flag = Flag.NONE) -> Value:
        """One value of several: a residual sum where one of them was computed from the other, else all their labels.

        Args:
            values: Of the operands.
            flag: What happens to all of them.
            mixed: What it is called where values of different origins meet.
        """
        data = [value for value in values if value.labels]
        if not data:
            return _without_data(values)
        for value in values:
            if value.labels or not self.is_matrix(value):
                continue
            if mixed is Flag.PRODUCT:
                self.elementwise.add(self.largest(value.parameters))
            else:  # rows of a codebook, say, whatever chose them
                data.append(Value(self.as_data(value.parameters)))
        found = data[0]
        for value in data[1:]:
            found = self._sum(found, value, mixed) or union([found, value], mixed)
        control = found.control | controls(value for value in values if not value.labels)
        labels = flagged(found.labels, flag) if flag else found.labels
        return found if labels is found.labels and control == found.control else Value(labels, control=control)

    def multiply(self, left: Value, right: Value, control: Iterable[int], *, rows: int, columns: int) -> Value:
        """A matrix product of two values, of so many rows of the first and columns of the second."""
        for kept, written in ((left, right), (right, left)):
            if self._mixes_streams(kept.labels, written.labels):
                return of_node(self.node("sum", operands=[kept.labels, written.labels], how=Flag.PRODUCT))
        return of_node(
            self.node(
                "contraction",
                operands=[left.labels, right.labels],
                rows=rows,
                columns=columns,
                control=tuple(sorted(control)),
            )
        )

    def _sum(self, one: Value, other: Value, mixed: Flag) -> Value | None:
        """The residual sum of two values, or None where neither was computed from the other."""
        if nodes_of(one.labels) & nodes_of(other.labels):
            return None
        for kept, written in ((one, other), (other, one)):
            if self._carries(kept.labels, written.labels, mixed):
                return of_node(self.node("sum", operands=[kept.labels, written.labels], how=mixed))
        return None

    def _mixes_streams(self, kept: Labels, written: Labels) -> bool:
        """Streams mixed by a matrix that weights computed from them: they are carried on, as hyper-connections do.

        Hyper-connections: arXiv 2409.19606, section 2.
        """
        changed = any(some & ~int(Flag.REDUCED) for some, _ in kept.values())
        return (
            not changed
            and all(self.nodes[node].kind in ("table", "input", "parameter", "sum") for node, _ in kept)
            and all(self.nodes[node].kind == "weight" for node, _ in written)
            and self._carries(kept, written, Flag.PRODUCT)
        )

    def _carries(self, kept: Labels, written: Labels, mixed: Flag) -> bool:
        """Every origin of the first is an ancestor of the second, or carries one on."""
        before = 0
        for node, _ in written:
            before |= self._before[node]
        for node, _ in kept:
            if not self._carried[node] & before:
                return False
            kind = self.nodes[node].kind
            # A product or a concatenation with what was computed from it is a gate or a pair, but of a stream.
            if kind in ("contraction", "choice") or (mixed and kind in ("weight", "convolution")):
                return False
        return True


def _without_data(values: Sequence[Value]) -> Value:
    """What was made from parameters, integers and constants alone."""
    parameters = tuple(dict.fromkeys(name for value in values for name in value.parameters))
    control = controls(values)
    with_ids = [value for value in values if value.ids]
    ids = frozenset[str]().union(*(value.ids for value in with_ids))
    as_given = bool(with_ids) and all(value.as_given for value in with_ids)
    return Value({}, parameters, control, ids, as_given) if parameters or control or ids else NOTHING
