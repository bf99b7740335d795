"""Builds the dataflow graph of one call; needs no torch."""

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
    Provenance,
    both_paths,
    controls,
    edges_of,
    flagged,
    nodes_of,
    of_node,
    union,
)

# A loop over positions reads one piece of an output per position; further pieces count as one.
_MOST_PIECES = 12
_ONE_OF_MANY: Piece = (-1, (), ())


class GraphBuilder:
    """The graph so far.

    Attributes:
        nodes: Its nodes.
        elementwise: Parameters that multiplied a tensor elementwise.
        recurrent: Parameters of recurrent layers.
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
        self.recurrent: set[str] = set()
        self._dimensions = {name: len(shape) for name, shape in shapes.items()}
        self._sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        # Per node, as bits: its ancestors, and itself with everything that it carries on as a sum.
        self._before: list[int] = []
        self._carried: list[int] = []
        self._as_data: dict[str, int] = {}
        self._scored: dict[int, int] = {}
        self._pieces: dict[int, set[Piece]] = {}

    def graph(self, outputs: Labels, failure: str, operations: int) -> Graph:
        """The graph so far."""
        nodes = tuple(
            dataclasses.replace(node, scored=self._scored[index]) if index in self._scored else node
            for index, node in enumerate(self.nodes)
        )
        matrices = {node.name for node in nodes if node.kind in ("weight", "table", "convolution", "parameter")}
        return Graph(
            nodes,
            edges_of(outputs),
            frozenset(self.elementwise - matrices),
            failure,
            operations,
            frozenset(self.recurrent & matrices),
        )

    def node(self, kind: NodeKind, name: str = "", operands: Sequence[Labels] = (), **facts: Any) -> int:
        """Add a node and return its index."""
        index = len(self.nodes)
        self._meter.count_node(index, sum(map(len, operands)))
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
        """Note which operand's positions a softmax of a product runs over.

        Args:
            index: The product.
            size: Length of the dimension that the softmax runs over.
            innermost: That dimension is the innermost in memory, as the second operand's positions are.
        """
        node = self.nodes[index]
        if node.kind == "contraction":
            sizes = (node.rows, node.columns)
            # A dimension of length one may lie anywhere in memory.
            by_size = 1 in sizes and sizes.count(size) == 1
            self._scored.setdefault(index, sizes.index(size) if by_size else int(innermost))

    # Parameters

    def largest(self, names: Sequence[str]) -> str:
        """The matrix among the parameters that a tensor was made from."""
        return max(names, key=lambda name: (self._dimensions[name] >= 2, self._sizes[name]))

    def is_matrix(self, provenance: Provenance) -> bool:
        """One of its parameters has rows and columns."""
        return bool(provenance.parameters) and self._dimensions[self.largest(provenance.parameters)] >= 2

    def is_stack(self, provenance: Provenance) -> bool:
        """One of its parameters is a stack of matrices."""
        return bool(provenance.parameters) and self._dimensions[self.largest(provenance.parameters)] > 2

    def as_data(self, names: Sequence[str]) -> Labels:
        """Labels of parameters used as data; vectors have none."""
        labels: Labels = {}
        for name in names:
            if self._dimensions[name] >= 2:
                if name not in self._as_data:
                    self._as_data[name] = self.node("parameter", name)
                labels[self._as_data[name], None] = (0, 0)
        return labels

    def use(
        self,
        weight: Provenance,
        data: Labels,
        *,
        rows: int,
        columns: int,
        control: Iterable[int],
        ids: Iterable[str] = (),
    ) -> Provenance:
        """Add the use of a weight.

        Args:
            weight: Made from parameters; several are one matrix where they were joined, or where one scales another.
            data: Labels of the operand that it multiplies.
            rows: Output features.
            columns: Input features.
            control: The choices that select it or its rows.
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
        self.note_factors(weight.parameters, *(self.nodes[index].name for index, _ in labels))
        return Provenance(labels)

    def note_factors(self, parameters: Iterable[str], *used: str) -> None:
        """Note the parameters of a weight that only scale it, such as the norms of its rows."""
        self.elementwise |= {name for name in parameters if name not in used and self._dimensions[name] >= 2}

    # Several operands

    def piece(self, provenance: Provenance, piece: Piece) -> Provenance:
        """Provenance of a view."""
        labels: Labels = {}
        for (node, old), flags in provenance.labels.items():
            if old is None:
                old = piece
                pieces = self._pieces.setdefault(node, set())
                if piece not in pieces and len(pieces) >= _MOST_PIECES:
                    old = _ONE_OF_MANY
                pieces.add(old)
            labels[node, old] = both_paths(labels[node, old], flags) if (node, old) in labels else flags
        return dataclasses.replace(provenance, labels=labels)

    def combine(self, provenances: Sequence[Provenance], flag: Flag = Flag.NONE, mixed: Flag = Flag.NONE) -> Provenance:
        """Combine operands into a residual sum or a union.

        Args:
            provenances: Of the operands.
            flag: Added to all of them.
            mixed: Added where operands of different origins meet.
        """
        data = [provenance for provenance in provenances if provenance.labels]
        if not data:
            return _without_data(provenances)
        for provenance in provenances:
            if provenance.labels or not self.is_matrix(provenance):
                continue
            if mixed is Flag.PRODUCT:
                self.elementwise.add(self.largest(provenance.parameters))
            else:  # such as rows of a codebook
                data.append(Provenance(self.as_data(provenance.parameters)))
        combined = data[0]
        for provenance in data[1:]:
            combined = self._sum(combined, provenance, mixed) or union([combined, provenance], mixed)
        control = combined.control | controls(provenance for provenance in provenances if not provenance.labels)
        labels = flagged(combined.labels, flag) if flag else combined.labels
        same = labels is combined.labels and control == combined.control
        return combined if same else Provenance(labels, control=control)

    def multiply(
        self, left: Provenance, right: Provenance, control: Iterable[int], *, rows: int, columns: int
    ) -> Provenance:
        """Add a matrix product; `rows` and `columns` are those of the result."""
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

    def _sum(self, first: Provenance, second: Provenance, mixed: Flag) -> Provenance | None:
        """Add a residual sum; None where neither operand carries the other."""
        if nodes_of(first.labels) & nodes_of(second.labels):
            return None
        for kept, written in ((first, second), (second, first)):
            if self._carries(kept.labels, written.labels, mixed):
                return of_node(self.node("sum", operands=[kept.labels, written.labels], how=mixed))
        return None

    def _mixes_streams(self, kept: Labels, written: Labels) -> bool:
        """Streams are mixed by a matrix computed from them.

        As in hyper-connections: arXiv 2409.19606, section 2.
        """
        changed = any(some & ~int(Flag.REDUCED) for some, _ in kept.values())
        return (
            not changed
            and all(self.nodes[node].kind in ("table", "input", "parameter", "sum") for node, _ in kept)
            and all(self.nodes[node].kind == "weight" for node, _ in written)
            and self._carries(kept, written, Flag.PRODUCT)
        )

    def _carries(self, kept: Labels, written: Labels, mixed: Flag) -> bool:
        """Every origin of `kept` is an ancestor of `written`, or carries one."""
        before = 0
        for node, _ in written:
            before |= self._before[node]
        for node, piece in kept:
            if not self._carried[node] & before:
                return False
            kind = self.nodes[node].kind
            if mixed is Flag.PRODUCT and piece is not None and kind == "input":
                return False  # shifts, scales and gates that are given
            # Multiplied or joined with its own result it is a gate or a pair, unless it is a stream.
            if kind in ("contraction", "choice") or (mixed and kind in ("weight", "convolution")):
                return False
        return True


def _without_data(provenances: Sequence[Provenance]) -> Provenance:
    """Provenance of a tensor made from parameters, integers and constants alone."""
    parameters = tuple(dict.fromkeys(name for provenance in provenances for name in provenance.parameters))
    control = controls(provenances)
    with_ids = [provenance for provenance in provenances if provenance.ids]
    ids = frozenset[str]().union(*(provenance.ids for provenance in with_ids))
    as_given = bool(with_ids) and all(provenance.as_given for provenance in with_ids)
    return Provenance({}, parameters, control, ids, as_given) if parameters or control or ids else NOTHING
