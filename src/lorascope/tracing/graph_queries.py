"""What the classifier asks of a graph: who reads a node, where a value comes from, which values are streams.

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
    """One operand that reads a node: whose, which of its operands, and by which edge."""

    node: int
    operand: int
    edge: Edge


class Reading:
    """A graph with the answers to those questions; each is worked out once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = graph.nodes
        self._origins: dict[int, Edges] = {}

    @cached_property
    def readers(self) -> tuple[tuple[Reader, ...], ...]:
        """Per node, the operands that read it."""
        found: list[list[Reader]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for operand, edges in enumerate(node.operands):
                for edge in edges:
                    found[edge.source].append(Reader(index, operand, edge))
        return tuple(tuple(readers) for readers in found)

    @cached_property
    def is_output(self) -> tuple[bool, ...]:
        """Per node, whether the call returns it."""
        returned = {edge.source for edge in self.graph.outputs}
        return tuple(index in returned for index in range(len(self.nodes)))

    @cached_property
    def is_stream(self) -> tuple[bool, ...]:
        """Per node, whether it is a stream: see the module."""
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
            if node.kind in STARTS:
                before.append(index not in carried and all(before[source] for source in sources))
                streams.append(True)
            elif node.kind == "weight":
                before.append(bool(sources) and all(before[one] and one not in carried for one in sources))
                streams.append(index in carried and before[index])
            elif node.kind == "sum":
                before.append(False)
                streams.append(read[index] and any(streams[edge.source] for edge in node.operands[0]))
            else:
                before.append(False)
                streams.append(False)
        return tuple(streams)

    def origins(self, edges: Iterable[Edge]) -> Edges:
        """The edges with every sum that is no stream replaced by what it is a sum of."""
        found: dict[tuple[int, object], Edge] = {}
        for edge in edges:
            for origin in self._through(edge):
                key = (origin.source, origin.piece)
                old = found.get(key)
                found[key] = (
                    origin
                    if old is None
                    else dataclasses.replace(old, some=old.some | origin.some, every=old.every & origin.every)
                )
        return tuple(found.values())

    def _through(self, edge: Edge) -> Edges:
        node = self.nodes[edge.source]
        if node.kind != "sum" or self.is_stream[edge.source]:
            return (edge,)
        if edge.source not in self._origins:
            self._origins[edge.source] = ()  # a graph has no cycles; this keeps a broken one from hanging
            self._origins[edge.source] = self.origins((*node.operands[0], *node.operands[1]))
        return tuple(inner.then(edge) for inner in self._origins[edge.source])

    def of_kind(self, edges: Iterable[Edge], *kinds: str) -> list[Edge]:
        """The origins that are of one of the kinds."""
        return [edge for edge in self.origins(edges) if self.nodes[edge.source].kind in kinds]

    def reads_stream(self, node: Node) -> bool:
        """Whether a weight's operand is a stream, or comes from one with nothing but a look-up or a choice between."""
        return any(self.is_stream[edge.source] for edge in self.origins(node.operands[0]))

    @cached_property
    def roots(self) -> tuple[frozenset[int], ...]:
        """Per node, the starts of the streams that it comes from."""
        found: list[frozenset[int]] = []
        for index, node in enumerate(self.nodes):
            if node.kind in STARTS or (node.kind == "weight" and self.is_stream[index]):
                found.append(frozenset({index}))
            else:
                operands = node.operands[:1] if node.kind == "sum" else node.operands
                found.append(frozenset[int]().union(*(found[edge.source] for edges in operands for edge in edges)))
        return tuple(found)

    def writes_to(self, index: int) -> list[int]:
        """The stream sums that a node's output is added to, perhaps through sums that are no streams."""
        found = []
        for reader in self.readers[index]:
            if self.nodes[reader.node].kind == "sum":
                if self.is_stream[reader.node]:
                    found.append(reader.node)
                else:
                    found += self.writes_to(reader.node)
        return found

    def read_by(self, index: int) -> list[Reader]:
        """The operands that read a node, past sums that are no streams."""
        found: list[Reader] = []
        for reader in self.readers[index]:
            if self.nodes[reader.node].kind == "sum" and not self.is_stream[reader.node]:
                found += self.read_by(reader.node)
            else:
                found.append(reader)
        return found
