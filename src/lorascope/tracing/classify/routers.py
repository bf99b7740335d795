"""Routers and indexers by dataflow: the weights whose output decides what takes part."""

from __future__ import annotations

from lorascope.tracing.classify.annotations import Board
from lorascope.tracing.classify.attention import factors_of
from lorascope.tracing.graph import EXTREMES, Flag
from lorascope.tracing.graph_queries import Reader


def claim_choices(board: Board) -> None:
    """Claim what choices are made by, and what weighs experts without a choice."""
    for index, node in enumerate(board.nodes):
        if node.kind == "choice":
            _choice(board, index)
    _soft_routers(board)


def _choice(board: Board, index: int) -> None:
    origins = board.inputs(index)
    products = [edge.source for edge in origins if board.nodes[edge.source].kind == "contraction"]
    controlled = board.controlled.get(index, [])
    if not controlled and board.nodes[index].name in EXTREMES:
        return  # the value was taken, not the place
    of_attention = bool(controlled) and all(node.kind == "contraction" for node in controlled)
    if products or of_attention:
        for edge in board.weights(origins):
            _indexer(board, edge.source, "weight")
        for product in products:
            _indexed(board, product)
        return
    picked = {edge.source for edge in board.weights(origins)}
    weighs = any(
        Flag.CHOSEN in reader.edge.some and board.nodes[reader.node].kind in ("sum", "weight")
        for one in picked
        for reader in board.reading.readers[one]
    )
    if not weighs and not any(node.kind == "weight" for node in controlled):
        return  # the nearest row of a codebook, say
    for one in picked:
        _router(board, one)


def _indexed(board: Board, product: int) -> None:
    """The weights of a product of scores that a choice of positions is made by, or of scores weighed per head."""
    sides = factors_of(board, product)
    inner = [board.reading.of_kind(side, "contraction") for side in sides]
    for side, products in zip(sides, inner, strict=True):
        for edge in products:
            _indexed(board, edge.source)
        for edge in board.weights(side):  # no softmax tells queries from keys
            _indexer(board, edge.source, "weight" if any(inner) else "")


def _indexer(board: Board, index: int, part: str) -> None:
    if not board.blocks(index) - {"indexer"}:
        board.claim(index, "indexer", "", part, "its output decides which positions an attention reads")


def _router(board: Board, index: int) -> None:
    if board.of(index):
        return
    board.claim(index, "router", "", "", "its output decides which experts take part")
    for edge in board.weights_into(index):  # a router of several layers
        if not board.of(edge.source) and not board.reading.writes_to(edge.source):
            _router(board, edge.source)


def _soft_routers(board: Board) -> None:
    """Claim the weights whose softmax multiplies what others add to the stream: a mixture of all experts."""
    for index, node in enumerate(board.nodes):
        if node.kind != "weight" or board.of(index):
            continue
        for reader in board.reading.readers[index]:
            if node.rows == 1 and _weighs_a_sum(board, reader):
                board.claim(index, "router", "", "", "its one output weighs what a block puts out")
            if Flag.SOFTMAX in reader.edge.some and (
                (board.reading.is_stream[reader.node] and _weighs_a_sum(board, reader)) or _mixes_blocks(board, reader)
            ):
                board.claim(index, "router", "", "", "its softmax weighs what experts put out")


def _weighs_a_sum(board: Board, reader: Reader) -> bool:
    """It multiplies a part of what is added to a sum, and not the sum itself."""
    node = board.nodes[reader.node]
    return Flag.PRODUCT in reader.edge.some and node.kind == "sum" and node.how is not Flag.PRODUCT


def _mixes_blocks(board: Board, reader: Reader) -> bool:
    """The other factor of a product comes from weights that do not read a stream themselves."""
    node = board.nodes[reader.node]
    if node.kind != "contraction":
        return False
    others = board.weights(node.operands[1 - reader.operand])
    return bool(others) and not any(board.reading.reads_stream(board.nodes[edge.source]) for edge in others)
