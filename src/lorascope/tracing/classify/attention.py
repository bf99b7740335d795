"""Attentions by dataflow: a softmax between two products of values, and the weights around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.classify.annotations import Board
from lorascope.tracing.graph import Edge, Edges, Flag, Node, Piece
from lorascope.tracing.graph_queries import Reading


@dataclasses.dataclass(frozen=True, slots=True)
class Attention:
    """A softmax between two products of values.

    Attributes:
        mixed: The product of the softmax with the values.
        scores: The products that the softmax is taken of.
        values: The edges into the values' operand.
        weighing: The other edges into the softmax: biases.
    """

    mixed: int
    scores: tuple[int, ...]
    values: Edges
    weighing: Edges


def claim_attentions(board: Board) -> None:
    """Claim what belongs to the attentions of a graph."""
    attentions = list(find_attentions(board.reading))
    for attention in attentions:
        _attention(board, attention)
    _low_rank(board, [_read_by_attention(board, attention) for attention in attentions])


def find_attentions(reading: Reading) -> Iterable[Attention]:
    """The attentions of a graph: products of values, one factor of which is a softmax of such a product.

    Or an activation of one, as in sigmoid attention (arXiv 2409.04431), unless a choice follows, as in an indexer.
    """
    chosen_from = {
        edge.source for node in reading.nodes if node.kind == "choice" for edge in reading.origins(node.operands[0])
    }
    for index, node in enumerate(reading.nodes):
        if node.kind != "contraction":
            continue
        for place in (0, 1):
            factor = _past_mixed_heads(reading, reading.origins(node.operands[place]))
            scores = tuple(
                dict.fromkeys(
                    edge.source
                    for edge in factor
                    if reading.nodes[edge.source].kind == "contraction"
                    and (Flag.SOFTMAX in edge.some or (Flag.ACTIVATION in edge.some and index not in chosen_from))
                )
            )
            if scores:
                rest = tuple(edge for edge in factor if edge.source not in scores)
                yield Attention(index, scores, node.operands[1 - place], rest)
                break


def _past_mixed_heads(reading: Reading, factor: Edges) -> Edges:
    """The edges with weights that mix the heads' scores with each other replaced by what they read.

    Before and after the softmax: talking-heads attention (arXiv 2003.02436, section 3).
    """
    for _ in range(2):
        found: list[Edge] = []
        for edge in factor:
            node = reading.nodes[edge.source]
            inner = reading.origins(node.operands[0]) if node.kind == "weight" else ()
            # Products of scores alone, and as many rows as columns: not an output or a value.
            if inner and node.rows == node.columns and all(_is_of_scores(reading, one) for one in inner):
                found += [one.then(edge) for one in inner]
            else:
                found.append(edge)
        factor = tuple(found)
    return factor


def _is_of_scores(reading: Reading, edge: Edge) -> bool:
    node = reading.nodes[edge.source]
    if node.kind == "weight":
        return node.rows == node.columns and all(
            reading.nodes[one.source].kind == "contraction" for one in reading.origins(node.operands[0])
        )
    return node.kind == "contraction"


def _attention(board: Board, attention: Attention) -> None:
    sides = [factors_of(board, score) for score in attention.scores]
    main = [pair for pair in sides if not any(_positional(board, side) for side in pair)] or sides
    variant = _variant(board, main)
    for score, pair in zip(attention.scores, sides, strict=True):
        for side, part, why in zip(pair, *_queries_and_keys(board.nodes[score]), strict=True):
            if pair not in main and _positional(board, side):
                for edge in board.weights(side):
                    board.claim(edge.source, "attention", variant, "position", _POSITIONS)
                continue
            for edge in _factors(board, side):
                board.claim(edge.source, "attention", variant, part, why)
    for edge in _factors(board, attention.values):
        board.claim(edge.source, "attention", variant, "v", "its output is what an attention's softmax weighs")
    queries = {edge.source for side, _ in sides for edge in board.weights(side)}
    for edge in board.weights(attention.weighing):
        if {one.source for one in board.weights_into(edge.source)} & queries:
            why = "it multiplies the queries, and the result is added to an attention's scores"
            board.claim(edge.source, "attention", variant, "position", why)
        else:
            board.claim(edge.source, "attention", variant, "bias", "its output is added to an attention's scores")
    factors = {(edge.source, edge.piece) for pair in (*sides, (attention.values,)) for side in pair for edge in side}
    _output(board, attention.mixed, variant, factors)


_POSITIONS = "its output, of positions, is a factor of an attention's scores"


def _queries_and_keys(score: Node) -> tuple[tuple[str, str], tuple[str, str]]:
    """The parts of the two factors of scores, and what shows them."""
    if score.rows == score.columns == 1:  # of one query and one key nothing tells which is which
        return ("", ""), ("its output is a factor of an attention's scores of one position",) * 2
    if score.scored is None:
        return ("q", "k"), (
            "its output is the first factor of an attention's scores",
            "its output is the second factor of an attention's scores",
        )
    return ("q", "k"), (
        "its output is a factor of an attention's scores",
        "its output is the factor of an attention's scores whose positions the softmax runs over",
    )


def factors_of(board: Board, score: int) -> tuple[Edges, Edges]:
    """The edges into the queries' and the keys' operand of a product of scores."""
    node = board.nodes[score]
    first, second = node.operands
    return (second, first) if node.scored == 0 else (first, second)


def _positional(board: Board, side: Edges) -> bool:
    """A side that comes from a table or parameter of positions, not from what the model reads."""
    weights = board.weights(side)
    if weights:
        return all(_of_positions(board, board.nodes[edge.source].operands[0]) for edge in weights)
    return _of_positions(board, side)


def _of_positions(board: Board, edges: Edges) -> bool:
    origins = board.reading.origins(edges)
    return all(
        board.nodes[edge.source].kind in ("table", "parameter") and not board.nodes[edge.source].ids for edge in origins
    )


def _variant(board: Board, sides: Sequence[tuple[Edges, Edges]]) -> str:
    """Self-attention has queries and keys of the same values, cross-attention of different streams."""
    queries = frozenset[tuple[int, bool]]().union(*(_read(board, side) for side, _ in sides))
    keys = frozenset[tuple[int, bool]]().union(*(_read(board, side) for _, side in sides))
    if queries == keys:
        return "self"
    roots = [frozenset[int]().union(*(board.reading.roots[node] for node, _ in side)) for side in (queries, keys)]
    return "cross" if all(roots) and not roots[0] & roots[1] else ""


def _read(board: Board, edges: Edges) -> frozenset[tuple[int, bool]]:
    """The streams that edges come from, past weights and products, and whether their positions were pooled."""
    found: set[tuple[int, bool]] = set()
    seen: set[tuple[int, bool]] = set()
    waiting = [(edge.source, Flag.POOLED in edge.some) for edge in board.reading.origins(edges)]
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        index, pooled = here
        if board.reading.is_stream[index]:
            found.add(here)
        else:
            for operand in board.nodes[index].operands:
                waiting += [
                    (edge.source, pooled or Flag.POOLED in edge.some) for edge in board.reading.origins(operand)
                ]
    return frozenset(found)


def _factors(board: Board, edges: Iterable[Edge]) -> list[Edge]:
    """The weights that a factor comes from, without those that only ever scale what others give."""
    weights = board.weights(edges)
    return [edge for edge in weights if Flag.PRODUCT not in edge.every] or weights


def _output(board: Board, mixed: int, variant: str, factors: set[tuple[int, Piece]]) -> None:
    for reader in board.reading.read_by(mixed):
        index = reader.node
        if board.nodes[index].kind != "weight":
            continue
        board.claim(index, "attention", variant, "o", "it reads an attention's output")
        for edge in board.weights_into(index):
            if (edge.source, edge.piece) in factors:
                continue
            if Flag.PRODUCT in edge.some:
                board.claim(edge.source, "attention", variant, "gate", "its output multiplies an attention's output")
            elif Flag.ACTIVATION in edge.some and Flag.JOINED in edge.some:  # one output matrix for both blocks
                why = "an activated output stands beside an attention's, and one weight reads both"
                board.claim(edge.source, "ffn", "dense", "up", why)
                board.claim(index, "ffn", "dense", "down", why)
        if board.reading.writes_to(index):
            continue
        # Two weights without anything between them: the output of low rank.
        for second in board.reading.readers[index]:
            if (
                board.nodes[second.node].kind == "weight"
                and Flag.ACTIVATION not in second.edge.some
                and board.reading.writes_to(second.node)
            ):
                board.claim(
                    index, "attention", variant, "o_a", "it reads an attention's output and feeds a second weight"
                )
                board.claim(second.node, "attention", variant, "o_b", "it writes an attention's output of low rank")


def _read_by_attention(board: Board, attention: Attention) -> dict[int, set[str]]:
    """The weights whose output an attention reads, and as what."""
    found: dict[int, set[str]] = {}
    sides = [side for score in attention.scores for side in zip("qk", factors_of(board, score), strict=True)]
    for part, edges in [*sides, ("v", attention.values)]:
        for edge in board.weights(edges):
            found.setdefault(edge.source, set()).add(part)
    return found


def _low_rank(board: Board, attentions: Sequence[dict[int, set[str]]]) -> None:
    """What stands before a weight of an attention with no activation between: the first half of a low-rank pair.

    A weight whose output is read as queries, keys and values at once, or by several attentions, is none: that is
    what a network without residual connections, or an encoder's projection, looks like.
    """
    feeds: dict[int, dict[int, set[int]]] = {}
    for place, read in enumerate(attentions):
        for second in read:
            for edge in board.weights_into(second):
                narrows = board.narrows(edge.source)
                if narrows or Flag.ACTIVATION not in edge.some:
                    feeds.setdefault(edge.source, {}).setdefault(place, set()).add(second)
    for first, fed in feeds.items():
        if len(fed) != 1 or not _can_narrow(board, first):
            continue
        ((place, seconds),) = fed.items()
        parts = {part for second in seconds for part in attentions[place][second]}
        if parts >= {"q", "k", "v"} and not any(_pieces_apart(board, first, seconds)):
            continue
        narrows = board.narrows(first)
        if narrows and not any(board.nodes[second].rows > board.nodes[second].columns for second in seconds):
            continue  # a bottleneck that nothing widens again
        if not narrows and (len(seconds) > 1 or len(parts) > 1):
            continue  # a projection of what several weights read
        variant = next((claim.variant for second in seconds for claim in board.of(second)), "")
        for part in sorted(parts):
            board.claim(
                first, "attention", variant, f"{part}_a" if narrows else part,
                "its output of low rank feeds a weight of an attention" if narrows else
                "its output feeds a weight of an attention",
            )  # fmt: skip
        for second in seconds if narrows else ():
            for part in sorted(attentions[place][second]):
                board.claim(second, "attention", variant, f"{part}_b", "it widens an output of low rank")
    for index in board.claimed():
        if any(claim.part == "gate" for claim in board.of(index)):
            _low_rank_gate(board, index)


def _low_rank_gate(board: Board, second: int) -> None:
    for edge in board.weights_into(second):
        first = edge.source
        if not board.of(first) and _can_narrow(board, first) and board.narrows(first):
            board.claim(first, "attention", "", "gate_a", "its output of low rank feeds a gate of an attention")
            board.claim(second, "attention", "", "gate_b", "it widens an output of low rank")


def _can_narrow(board: Board, first: int) -> bool:
    if board.reading.is_stream[first] or board.reading.writes_to(first):
        return False
    return not any(claim.part in ("o", "o_b") for claim in board.of(first))


def _pieces_apart(board: Board, first: int, seconds: Iterable[int]) -> Iterable[bool]:
    """Per weight that reads the first, whether it reads a piece of its output only."""
    for second in seconds:
        yield any(edge.source == first and edge.piece for edge in board.weights_into(second))
