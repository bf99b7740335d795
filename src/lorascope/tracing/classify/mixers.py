"""Mixers: state spaces, linear attentions and recurrences, without a softmax between products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lorascope.tracing.classify.annotations import Annotations
from lorascope.tracing.graph import Edge, Flag

# A fused output has a handful of parts; whoever reads more pieces of one reads it position by position.
_PIECES_OF_A_LOOP = 8


def annotate_recurrences(annotations: Annotations) -> None:
    """Annotate the weights of recurrent layers."""
    recurrent = annotations.queries.graph.recurrent
    for index, node in enumerate(annotations.nodes):
        if node.name in recurrent:
            annotations.add(index, "mixer", "", "", "it belongs to a recurrent layer")


def annotate_mixers(annotations: Annotations) -> None:
    """Annotate the weights of mixers."""
    for index, node in enumerate(annotations.nodes):
        if node.kind == "weight" and not annotations.of(index):
            _mixer(annotations, index)


def _mixer(annotations: Annotations, last: int) -> None:
    """Annotate a weight that reads a recurrence, and those behind it."""
    origins = annotations.inputs(last)
    mixed = [edge for edge in origins if annotations.nodes[edge.source].kind == "contraction"]
    weights = [edge for edge in origins if annotations.nodes[edge.source].kind == "weight"]
    if (
        not mixed
        and not any((Flag.SCAN | Flag.CONVOLUTION) & edge.some for edge in weights)
        and not is_unrolled(weights)
    ):
        return
    if not annotations.queries.writes_to(last) and any(node.kind == "sum" for node in annotations.nodes):
        return
    annotations.add(last, "mixer", "", "out", "it reads a product or recurrence of values without a softmax")
    waiting = [edge.source for edge in origins]
    seen: set[int] = set()
    while waiting:
        index = waiting.pop()
        node = annotations.nodes[index]
        if index in seen or annotations.queries.is_stream[index]:
            continue
        seen.add(index)
        if node.kind == "weight":
            if annotations.blocks(index) - {"mixer"}:
                continue
            reads = annotations.queries.reads_stream(node)
            if reads:
                annotations.add(index, "mixer", "", "in", "its output goes into a product or recurrence of values")
            else:
                annotations.add(index, "mixer", "", "", "it stands between the weights of a mixer")
                waiting += [edge.source for edge in annotations.queries.origins(node.operands[0])]
        elif node.kind == "contraction":
            waiting += [edge.source for edges in node.operands for edge in annotations.queries.origins(edges)]


def is_unrolled(edges: Sequence[Edge]) -> bool:
    """A loop over positions reads one piece of an output each."""
    pieces = Counter(source for source, _ in {(edge.source, edge.piece) for edge in edges})
    return max(pieces.values(), default=0) > _PIECES_OF_A_LOOP
