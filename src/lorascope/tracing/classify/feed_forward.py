"""Feed-forward blocks by dataflow: a non-linearity between two weights, and which kind of block it is."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.classify.annotations import Board
from lorascope.tracing.classify.mixers import is_unrolled
from lorascope.tracing.graph import Edge, Flag


def claim_feed_forward(board: Board) -> None:
    """Claim the weights of feed-forward blocks: those with a gate first, as they are the surer."""
    for gated in (True, False):
        for index, node in enumerate(board.nodes):
            if node.kind == "weight" and not board.of(index):
                _feed_forward(board, index, gated=gated)


@dataclasses.dataclass(frozen=True, slots=True)
class _Firsts:
    """The weights that a block's last one reads, by name: experts that run one after the other are one weight.

    Attributes:
        edges: From them into the last.
        activated: Those with a non-linearity on the way.
        multiplied: Those whose output is multiplied by another value.
        halved: It is one weight, and one piece of its output multiplies another.
    """

    edges: tuple[Edge, ...]
    activated: frozenset[str]
    multiplied: frozenset[str]
    halved: bool

    @property
    def gated(self) -> bool:
        return len(self.multiplied) > 1 or self.halved


def _firsts(board: Board, edges: Sequence[Edge]) -> _Firsts:
    activated = frozenset(board.nodes[edge.source].name for edge in edges if Flag.ACTIVATION in edge.some)
    multiplied = frozenset(board.nodes[edge.source].name for edge in edges if Flag.PRODUCT in edge.some)
    pieces = {(edge.source, edge.piece) for edge in edges if Flag.PRODUCT in edge.some and edge.piece is not None}
    halved = len(multiplied) == 1 and len(pieces) > len({source for source, _ in pieces})
    return _Firsts(tuple(edges), activated, multiplied, halved)


def _feed_forward(board: Board, last: int, *, gated: bool) -> None:
    """A block of two weights, or of three of which one gates another."""
    origins = board.inputs(last)
    weights = [edge for edge in origins if board.nodes[edge.source].kind == "weight"]
    if not weights or any(board.nodes[edge.source].kind == "contraction" for edge in origins):
        return
    if any((Flag.SCAN | Flag.CONVOLUTION) & edge.some for edge in weights) or is_unrolled(weights):
        return
    if board.scales(last) or board.modulates(last):
        return
    firsts = _firsts(board, [edge for edge in weights if _can_be_first(board, edge)])
    if firsts.gated != gated or not (firsts.activated or firsts.gated):
        return
    if any(_is_inside_convolution(board, one) for edge in firsts.edges for one in board.inputs(edge.source)):
        return
    if len({frozenset(one.source for one in board.inputs(edge.source)) for edge in firsts.edges}) > 1:
        return  # not one block: what multiplies comes from elsewhere
    variant = _variant(board, last, firsts)
    if variant is None:
        return
    for edge in firsts.edges:
        part, why = _first_part(board.nodes[edge.source].name, firsts)
        board.claim(edge.source, "ffn", variant, part, why)
    board.claim(last, "ffn", variant, "down", "it reads an activated output of another weight and writes to the stream")


def _is_inside_convolution(board: Board, edge: Edge) -> bool:
    """A weight and a depthwise convolution came before within the same block."""
    node = board.nodes[edge.source]
    summed = any(board.nodes[reader.node].kind == "sum" for reader in board.reading.readers[edge.source])
    return Flag.CONVOLUTION in edge.some and node.kind == "weight" and not summed


def _can_be_first(board: Board, edge: Edge) -> bool:
    """Nothing else is claimed of it, or it is one matrix for an attention's input and this."""
    claims = board.of(edge.source)
    if edge.piece is not None and claims and all(claim.part in ("q", "k", "v") for claim in claims):
        return Flag.ACTIVATION in edge.some
    return all(claim.block == "ffn" and claim.part != "down" for claim in claims)


def _first_part(name: str, firsts: _Firsts) -> tuple[str, str]:
    others = firsts.multiplied - {name}
    if name in firsts.multiplied and others:
        if name in firsts.activated and others - firsts.activated:
            return "gate", "its activated output multiplies that of another weight"
        if name not in firsts.activated and others & firsts.activated:
            return "up", "its output is multiplied by the activated output of another weight"
        return "", "its output multiplies that of another weight"
    if firsts.halved:
        return "gate_up", "one half of its output, activated, multiplies the other"
    return "up", "its output is activated and read by another weight"


def _variant(board: Board, last: int, block: _Firsts) -> str | None:
    """Which kind of block it is, by where its output goes and what chose its input; None where it is none."""
    firsts = [edge.source for edge in block.edges]
    sums = [index for index in _written(board, last) if board.nodes[index].how is not Flag.PRODUCT]
    read = {edge.source for index in firsts for edge in board.nodes[index].operands[0]}
    sums += _closes(board, last, read)
    if not sums and not _ends_otherwise(board, last, block):
        return None
    if any(_routed(board, index) for index in (last, *firsts)) or _mixed_by_routers(board, last):
        return "expert"
    for index in sums:
        written = [edge for one in _sums_of_block(board, index, read) for edge in board.nodes[one].operands[1]]
        origins = board.reading.origins(written)
        if any(_routed(board, edge.source) for edge in origins if edge.source != last):
            return "shared"
        weighed = any(board.blocks(edge.source) == {"router"} and Flag.PRODUCT in edge.some for edge in origins)
        if weighed and any(Flag.PRODUCT in edge.some for edge in origins if edge.source == last):
            return "expert"
    return "dense"


def _ends_otherwise(board: Board, last: int, block: _Firsts) -> bool:
    """A block that adds nothing to a stream is one all the same: between parts of a model, or where nothing is added."""
    if board.starts(last) or (block.gated and _feeds_inner_weight(board, last)):
        return True
    if board.features:  # between a tower and what it returns stand blocks without residual sums
        summed = any(board.nodes[one.node].kind == "sum" for one in board.reading.readers[last])
        return not summed or board.reading.is_stream[last]
    carries = any(node.kind == "sum" and node.how is Flag.NONE for node in board.nodes)
    return not carries and not board.reading.is_output[last]


def _feeds_inner_weight(board: Board, last: int) -> bool:
    """Another weight, not the last of the model, reads its output."""
    return any(
        board.nodes[reader.node].kind == "weight" and not board.reading.is_output[reader.node]
        for reader in board.reading.read_by(last)
    )


def _written(board: Board, last: int) -> list[int]:
    """The stream sums that a weight's output is added to, past a mixture by routers."""
    return board.reading.writes_to(last) + [
        one for product in _mixed_by_routers(board, last) for one in board.reading.writes_to(product)
    ]


def _mixed_by_routers(board: Board, last: int) -> list[int]:
    """The products of a weight's output with what routers put out."""
    found = []
    for reader in board.reading.read_by(last):
        node = board.nodes[reader.node]
        if node.kind == "contraction":
            other = board.reading.origins(node.operands[1 - reader.operand])
            if other and all(board.blocks(edge.source) == {"router"} for edge in other):
                found.append(reader.node)
    return found


def _sums_of_block(board: Board, index: int, read: set[int]) -> list[int]:
    """The residual sums in a row that nothing but each other reads, back to what the block read."""
    found = [index]
    here = index
    while here not in read and board.nodes[here].kind == "sum":
        here = board.nodes[here].operands[0][0].source
        if board.nodes[here].kind == "sum" and here not in read:
            found.append(here)
    here = index
    while True:
        readers = board.reading.readers[here]
        if not readers or any(board.nodes[reader.node].kind != "sum" or reader.operand for reader in readers):
            return found
        here = readers[0].node
        found.append(here)


def _closes(board: Board, last: int, read: set[int]) -> list[int]:
    """The sums that add its output to just what the block read: a residual block, of a stream or not."""
    return [
        reader.node
        for reader in board.reading.readers[last]
        if board.nodes[reader.node].kind == "sum"
        and reader.operand == 1
        and board.nodes[reader.node].how is Flag.NONE
        and {edge.source for edge in board.nodes[reader.node].operands[0]} == read
    ]


def _routed(board: Board, index: int) -> bool:
    """A router's choice decides on which rows it works, or with which matrix, or scales what it reads."""
    before = [edge.source for edge in board.weights_into(index)]
    return any(_is_routed(board, one) for one in (index, *before))


def _is_routed(board: Board, index: int) -> bool:
    node = board.nodes[index]
    if node.ids or any(_routes(board, choice) for choice in node.control):
        return True
    for edge in board.inputs(index):
        source = board.nodes[edge.source]
        if source.kind == "sum" and source.how is Flag.PRODUCT:
            written = board.reading.origins(source.operands[1])
            if written and all(board.blocks(one.source) == {"router"} for one in written):
                return True
    return False


def _routes(board: Board, choice: int) -> bool:
    return any("router" in board.blocks(edge.source) for edge in board.weights(board.nodes[choice].operands[0]))
