"""Role annotations: what each use of a parameter implies."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.graph import Edge, Edges, Flag, Node
from lorascope.tracing.graph_queries import GraphQueries


@dataclasses.dataclass(frozen=True, slots=True)
class Annotation:
    """The role that one use of a parameter implies.

    Attributes:
        name: The parameter.
        node: Index of the use.
        block: The block, as in `Role`.
        variant: The variant; empty where the use leaves it open.
        part: The part; empty where the use leaves it open.
        why: The evidence, as a clause with the weight as its subject.
        is_lookup: Its rows were looked up; it multiplied nothing.
    """

    name: str
    node: int
    block: str
    variant: str
    part: str
    why: str
    is_lookup: bool = False


class Annotations:
    """The annotations of a graph's uses; the most certain come first.

    Attributes:
        queries: The graph.
        nodes: Its nodes.
        features: The call returns features for another part of the model, not predictions.
    """

    def __init__(self, queries: GraphQueries, *, features: bool = False) -> None:
        self.queries = queries
        self.nodes = queries.nodes
        self.features = features
        self._by_use: dict[int, list[Annotation]] = {}

    def add(self, index: int, block: str, variant: str, part: str, why: str) -> None:
        """Annotate a use; a repetition is dropped."""
        node = self.nodes[index]
        annotation = Annotation(node.name, index, block, variant, part, why, node.kind == "table")
        annotations = self._by_use.setdefault(index, [])
        if annotation not in annotations:
            annotations.append(annotation)

    def of(self, index: int) -> tuple[Annotation, ...]:
        """Annotations of a use."""
        return tuple(self._by_use.get(index, ()))

    def annotated(self) -> list[int]:
        """Annotated uses, in the order in which they ran."""
        return sorted(self._by_use)

    def blocks(self, index: int) -> set[str]:
        """Blocks that a use is annotated with."""
        return {annotation.block for annotation in self._by_use.get(index, ())}

    def weights(self, edges: Iterable[Edge]) -> list[Edge]:
        """Origins of edges that are weights."""
        return self.queries.of_kind(edges, "weight")

    def inputs(self, index: int) -> Edges:
        """Origins of the operand that a weight multiplies."""
        return self.queries.origins(self._operand(index))

    def weights_into(self, index: int) -> list[Edge]:
        """Weights whose output a weight multiplies."""
        return self.weights(self._operand(index))

    def _operand(self, index: int) -> Edges:
        """The first operand; tables, inputs and parameters used as data have none."""
        operands = self.nodes[index].operands
        return operands[0] if operands else ()

    def narrows(self, index: int) -> bool:
        """A weight has fewer output features than input features."""
        return self.nodes[index].rows < self.nodes[index].columns

    @cached_property
    def controlled(self) -> dict[int, list[Node]]:
        """Nodes by the choice that selects their rows or their weight."""
        nodes: dict[int, list[Node]] = {}
        for node in self.nodes:
            for choice in node.control:
                nodes.setdefault(choice, []).append(node)
        return nodes

    def scales(self, index: int) -> bool:
        """Its output multiplies a stream that it was computed from."""
        return any(
            self.nodes[reader.node].kind == "sum"
            and reader.operand == 1
            and self.nodes[reader.node].how is Flag.PRODUCT
            for reader in self.queries.readers[index]
        )

    def modulates(self, index: int) -> bool:
        """It shifts and scales a stream that other weights read."""
        readers = self.queries.readers[index]
        carried = any(self.nodes[reader.node].kind == "sum" and reader.operand == 0 for reader in readers)
        return (
            bool(self.queries.writes_to(index))
            and not carried
            and any(
                self.nodes[reader.node].kind == "weight"
                and any(self.queries.is_stream[edge.source] for edge in self.nodes[reader.node].operands[0])
                for reader in self.queries.read_by(index)
            )
        )

    def starts(self, index: int) -> bool:
        """It projects into a stream that also holds rows of a table."""
        return any(
            self.nodes[reader.node].kind == "sum"
            and reader.operand == 0
            and any(self.nodes[edge.source].kind == "table" for edge in self.nodes[reader.node].operands[0])
            for reader in self.queries.readers[index]
        )
