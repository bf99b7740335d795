"""What a use of a parameter shows of it, and the board that the parts of the classifier write such claims on."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.graph import Edge, Edges, Flag, Node
from lorascope.tracing.graph_queries import Reading


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """What one use of a parameter shows of it.

    Attributes:
        name: The parameter.
        node: Index of the use.
        block: The design's word for the block.
        variant: The variant, or empty where the use does not show it.
        part: The part, or empty where the use does not show it.
        why: What was seen, as a clause with the weight as its subject.
        is_lookup: Rows of it were looked up; it multiplied nothing.
    """

    name: str
    node: int
    block: str
    variant: str
    part: str
    why: str
    is_lookup: bool = False


class Board:
    """A graph, and what has been claimed of its uses so far: the surer parts of the classifier write first.

    Attributes:
        reading: The graph.
        nodes: Its nodes.
        features: The call returns what another part of the model reads, not predictions.
    """

    def __init__(self, reading: Reading, *, features: bool = False) -> None:
        self.reading = reading
        self.nodes = reading.nodes
        self.features = features
        self._claims: dict[int, list[Claim]] = {}

    def claim(self, index: int, block: str, variant: str, part: str, why: str) -> None:
        """Claim a role for a use; the same one twice is one claim."""
        node = self.nodes[index]
        claim = Claim(node.name, index, block, variant, part, why, node.kind == "table")
        claims = self._claims.setdefault(index, [])
        if claim not in claims:
            claims.append(claim)

    def of(self, index: int) -> tuple[Claim, ...]:
        """What is claimed of a use."""
        return tuple(self._claims.get(index, ()))

    def claimed(self) -> list[int]:
        """The uses that something is claimed of, in the order in which they ran."""
        return sorted(self._claims)

    def blocks(self, index: int) -> set[str]:
        """The blocks that a use is claimed for."""
        return {claim.block for claim in self._claims.get(index, ())}

    def weights(self, edges: Iterable[Edge]) -> list[Edge]:
        """The origins of edges that are weights."""
        return self.reading.of_kind(edges, "weight")

    def inputs(self, index: int) -> Edges:
        """What a weight multiplies."""
        return self.reading.origins(self._read(index))

    def weights_into(self, index: int) -> list[Edge]:
        """The weights whose output a weight multiplies."""
        return self.weights(self._read(index))

    def _read(self, index: int) -> Edges:
        """The first operand; a table, an input and a parameter as data have none."""
        operands = self.nodes[index].operands
        return operands[0] if operands else ()

    def narrows(self, index: int) -> bool:
        """A weight gives fewer features than it reads."""
        return self.nodes[index].rows < self.nodes[index].columns

    @cached_property
    def controlled(self) -> dict[int, list[Node]]:
        """Choice to the nodes that it decides on."""
        found: dict[int, list[Node]] = {}
        for node in self.nodes:
            for choice in node.control:
                found.setdefault(choice, []).append(node)
        return found

    def scales(self, index: int) -> bool:
        """The output of a use multiplies a stream that it was computed from."""
        return any(
            self.nodes[reader.node].kind == "sum"
            and reader.operand == 1
            and self.nodes[reader.node].how is Flag.PRODUCT
            for reader in self.reading.readers[index]
        )

    def modulates(self, index: int) -> bool:
        """Weights read its output beside streams, and it is added to one too: it shifts and scales what others read."""
        carried = any(self.nodes[one.node].kind == "sum" and one.operand == 0 for one in self.reading.readers[index])
        return (
            bool(self.reading.writes_to(index))
            and not carried
            and any(
                self.nodes[reader.node].kind == "weight"
                and any(self.reading.is_stream[edge.source] for edge in self.nodes[reader.node].operands[0])
                for reader in self.reading.read_by(index)
            )
        )

    def starts(self, index: int) -> bool:
        """It becomes a part of what a residual sum carries on, beside rows of a table: a projection into that stream."""
        return any(
            self.nodes[reader.node].kind == "sum"
            and reader.operand == 0
            and any(self.nodes[edge.source].kind == "table" for edge in self.nodes[reader.node].operands[0])
            for reader in self.reading.readers[index]
        )
