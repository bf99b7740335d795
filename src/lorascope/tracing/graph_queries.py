"""Queries on a graph: readers, origins, streams.

A stream is what a network carries from block to block: it starts from a table, an input, a parameter or a
convolution, blocks read it, and a residual sum adds what they made of it. It is found by that alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.graph import Edge, Edges, Graph, Node

STARTS = ("input", "table", "parameter", "convolution")


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """An operand that reads a node."""

    node: int
    operand: int
    edge: Edge


class GraphQueries:
    """A graph with its queries; each is answered once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = graph.nodes
        self._origins: dict[int, Edges] = {}

    @cached_property
    def readers(self) -> tuple[tuple[Reader, ...], ...]:
        """Operands that read each node."""
        readers: list[list[Reader]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for operand, edges in enumerate(node.operands):
                for edge in edges:
                    readers[edge.source].append(Reader(index, operand, edge))
        return tuple(tuple(operands) for operands in readers)

    @cached_property
    def is_output(self) -> tuple[bool, ...]:
        """Whether the call returns each node."""
        returned = {edge.source for edge in self.graph.outputs}
        return tuple(index in returned for index in range(len(self.nodes)))

    @cached_property
    def is_stream(self) -> tuple[bool, ...]:
        """Whether each node is a stream: see the module."""
        carried = {edge.source for node in self.nodes if node.kind == "sum" for edge in node.operands[0]}
        # Whether a weight, a convolution or the caller reads it, if only as part of a later sum.
        read = [False] * len(self.nodes)
        for index in reversed(range(len(self.nodes))):
            read[index] = (
                self.is_output[index]
                or not self.readers[index]
                or any(
                    self.nodes[reader.node].kind in ("weight", "convolution")
                    or (self.nodes[reader.node].kind == "sum" and read[reader.node])
                    for reader in self.readers[index]
                )
            )
        streams: list[bool] = []
        # A weight starts a stream if it stands between a start that nothing else carries on and the first sum.
        before: list[bool] = []
        for index, node in enumerate(self.nodes):
            sources = [edge.source for edges in node.operands for edge in edges]
            if node.kind == "convolution" and index not in carried and any(source in carried for source in sources):
                before.append(False)
                streams.append(False)  # it looks at a stream from the side
            elif node.kind in STARTS:
                before.append(index not in carried and all(before[source] for source in sources))
                streams.append(True)
            elif node.kind == "weight":
                before.append(bool(sources) and all(before[source] and source not in carried for source in sources))
                streams.append(index in carried and before[index])
            elif node.kind == "sum":
                before.append(False)
                streams.append(read[index] and any(streams[edge.source] for edge in node.operands[0]))
            else:
                before.append(False)
                streams.append(False)
        return tuple(streams)

    def origins(self, edges: Iterable[Edge]) -> Edges:
        """The edges, with sums that are no streams replaced by their operands."""
        merged: dict[tuple[int, object], Edge] = {}
        for edge in edges:
            for origin in self._through(edge):
                key = (origin.source, origin.piece)
                old = merged.get(key)
                merged[key] = (
                    origin
                    if old is None
                    else dataclasses.replace(old, some=old.some | origin.some, every=old.every & origin.every)
                )
        return tuple(merged.values())

    def _through(self, edge: Edge) -> Edges:
        node = self.nodes[edge.source]
        if node.kind != "sum" or self.is_stream[edge.source]:
            return (edge,)
        if edge.source not in self._origins:
            self._origins[edge.source] = ()  # a graph has no cycles; this keeps a broken one from hanging
            self._origins[edge.source] = self.origins((*node.operands[0], *node.operands[1]))
        return tuple(inner.then(edge) for inner in self._origins[edge.source])

    def of_kind(self, edges: Iterable[Edge], *kinds: str) -> list[Edge]:
        """Origins of some kinds."""
        return [edge for edge in self.origins(edges) if self.nodes[edge.source].kind in kinds]

    def reads_stream(self, node: Node) -> bool:
        """A weight reads a stream, perhaps through a look-up or choice."""
        return any(self.is_stream[edge.source] for edge in self.origins(node.operands[0]))

    @cached_property
    def roots(self) -> tuple[frozenset[int], ...]:
        """Starts of the streams that each node comes from."""
        roots: list[frozenset[int]] = []
        for index, node in enumerate(self.nodes):
            if node.kind == "convolution" and not self.is_stream[index]:
                roots.append(frozenset[int]().union(*(roots[edge.source] for edge in node.operands[0])))
            elif node.kind in STARTS or (node.kind == "weight" and self.is_stream[index]):
                roots.append(frozenset({index}))
            else:
                operands = node.operands[:1] if node.kind == "sum" else node.operands
                roots.append(frozenset[int]().union(*(roots[edge.source] for edges in operands for edge in edges)))
        return tuple(roots)

    def writes_to(self, index: int) -> list[int]:
        """Stream sums that a node is added to."""
        sums = []
        for reader in self.readers[index]:
            if self.nodes[reader.node].kind == "sum":
                if self.is_stream[reader.node]:
                    sums.append(reader.node)
                else:
                    sums += self.writes_to(reader.node)
        return sums

    def read_by(self, index: int) -> list[Reader]:
        """Operands that read a node, past sums that are no streams."""
        readers: list[Reader] = []
        for reader in self.readers[index]:
            if self.nodes[reader.node].kind == "sum" and not self.is_stream[reader.node]:
                readers += self.read_by(reader.node)
            else:
                readers.append(reader)
        return readers
