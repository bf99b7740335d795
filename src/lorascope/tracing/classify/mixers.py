"""Mixers by dataflow: state spaces, linear attentions and recurrences, which have no softmax between two products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lorascope.tracing.classify.annotations import Board
from lorascope.tracing.graph import Edge, Flag

# A fused output has a handful of parts; whoever reads more pieces of one reads it position by position.
_PIECES_OF_A_LOOP = 8


def claim_mixers(board: Board) -> None:
    """Claim the weights of mixers."""
    for index, node in enumerate(board.nodes):
        if node.kind == "weight" and not board.of(index):
            _mixer(board, index)


def _mixer(board: Board, last: int) -> None:
    """A weight that reads a product of values, a scan or a recurrence, and the weights that this was made of."""
    origins = board.inputs(last)
    mixed = [edge for edge in origins if board.nodes[edge.source].kind == "contraction"]
    weights = [edge for edge in origins if board.nodes[edge.source].kind == "weight"]
    if (
        not mixed
        and not any((Flag.SCAN | Flag.CONVOLUTION) & edge.some for edge in weights)
        and not is_unrolled(weights)
    ):
        return
    if not board.reading.writes_to(last) and any(node.kind == "sum" for node in board.nodes):
        return
    board.claim(last, "mixer", "", "out", "it reads a product or recurrence of values without a softmax")
    waiting = [edge.source for edge in origins]
    seen: set[int] = set()
    while waiting:
        index = waiting.pop()
        node = board.nodes[index]
        if index in seen or board.reading.is_stream[index]:
            continue
        seen.add(index)
        if node.kind == "weight":
            if board.blocks(index) - {"mixer"}:
                continue
            reads = board.reading.reads_stream(node)
            if reads:
                board.claim(index, "mixer", "", "in", "its output goes into a product or recurrence of values")
            else:
                board.claim(index, "mixer", "", "", "it stands between the weights of a mixer")
                waiting += [edge.source for edge in board.reading.origins(node.operands[0])]
        elif node.kind == "contraction":
            waiting += [edge.source for edges in node.operands for edge in board.reading.origins(edges)]


def is_unrolled(edges: Sequence[Edge]) -> bool:
    """A recurrence written as a loop reads one piece of an output per position."""
    pieces = Counter(source for source, _ in {(edge.source, edge.piece) for edge in edges})
    return max(pieces.values(), default=0) > _PIECES_OF_A_LOOP
