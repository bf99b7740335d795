"""What belongs to no block by dataflow: tables, data, heads, and what changes the width between two parts."""

from __future__ import annotations

from lorascope.tracing.classify.annotations import Board
from lorascope.tracing.graph import Node


def claim_ends(board: Board) -> None:
    """Claim what no block has claimed."""
    vocabularies = _vocabularies(board)
    for index, node in enumerate(board.nodes):
        if not board.of(index):
            _outside(board, index, node, vocabularies)


def _outside(board: Board, index: int, node: Node, vocabularies: frozenset[int]) -> None:
    if node.kind == "table":
        by = f" by {', '.join(node.ids)}" if node.ids else ""
        part = "token" if index in vocabularies and not board.features else ""
        board.claim(index, "embedding", "", part, f"its rows are looked up{by}")
    elif node.kind == "parameter":
        board.claim(index, "other", "", "", "it is data, not a matrix: it is added, joined or read as it is")
    elif node.kind == "convolution":
        board.claim(index, "embedding", "", "patch", "it is a convolution that starts a stream")
    elif node.kind == "weight":
        _single(board, index, node, vocabularies)


def _single(board: Board, index: int, node: Node, vocabularies: frozenset[int]) -> None:
    """A weight that belongs to no block: an end of the model, or what changes the width between two parts."""
    before = [edge.source for edge in board.weights(node.operands[0]) if not board.of(edge.source)]
    if not node.operands[0]:
        return  # it multiplies a constant: what fed it was lost
    of_input = all(board.nodes[edge.source].kind == "input" for edge in board.inputs(index))
    if board.scales(index) or board.modulates(index):
        for one in (index, *before):
            board.claim(one, "other", "", "", "its output scales a stream")
    elif board.reading.is_stream[index] or board.starts(index):
        of_table = all(board.nodes[edge.source].kind == "table" for edge in board.inputs(index))
        board.claim(index, "embedding", "", "projection" if of_table else "", "its output starts a stream")
    elif of_input:
        board.claim(index, "embedding", "", "", "it reads what the model is given")
    elif board.reading.is_output[index] and board.features:
        for one in (index, *before):
            board.claim(one, "embedding", "", "projection", "its output is what another part of the model reads")
    elif board.reading.is_output[index]:
        rows = {board.nodes[table].rows for table in vocabularies}
        board.claim(index, "head", "", "lm" if node.rows in rows else "", "the call returns its output")
        if any(board.reading.is_stream[edge.source] for edge in board.inputs(index)):
            for one in before:
                board.claim(one, "other", "", "", "its output shifts or scales a stream")
            return
        for one in before:
            pooled = any(edge.piece for edge in board.nodes[one].operands[0])
            board.claim(one, "head", "", "" if pooled else "transform", "its output is read by what the call returns")


def _vocabularies(board: Board) -> frozenset[int]:
    """The tables that are read with an argument's own integers, but for those of far fewer rows: types, segments."""
    tables = [index for index, node in enumerate(board.nodes) if node.kind == "table" and node.ids]
    most = max((board.nodes[index].rows for index in tables), default=0)
    return frozenset(index for index in tables if board.nodes[index].rows * 8 >= most)
