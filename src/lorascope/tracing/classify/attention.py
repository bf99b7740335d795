"""Attentions: a softmax between two products, and the weights around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.classify.annotations import Annotations
from lorascope.tracing.graph import Edge, Edges, Flag, Node, Piece
from lorascope.tracing.graph_queries import GraphQueries


@dataclasses.dataclass(frozen=True, slots=True)
class Attention:
    """A softmax between two products of values.

    Attributes:
        mixed: The product of the softmax with the values.
        scores: The products that the softmax is taken of.
        values: The edges into the values' operand.
        weighing: The other edges into the softmax: biases.
        mixing: Weights that mix the heads' scores.
    """

    mixed: int
    scores: tuple[int, ...]
    values: Edges
    weighing: Edges
    mixing: tuple[int, ...] = ()


def annotate_attentions(annotations: Annotations) -> None:
    """Annotate the weights of attentions."""
    attentions = list(find_attentions(annotations.queries))
    for attention in attentions:
        _attention(annotations, attention)
    for index in {index for attention in attentions for index in attention.mixing}:
        if not annotations.of(index):
            annotations.add(index, "other", "", "", "it mixes the scores of an attention's heads")
    _low_rank(annotations, [_read_by_attention(annotations, attention) for attention in attentions])


def find_attentions(queries: GraphQueries) -> Iterable[Attention]:
    """Attentions: products of values with a softmax of another product.

    Or an activation of one, as in sigmoid attention (arXiv 2409.04431), unless a choice follows, as in an indexer.
    """
    chosen_from = {
        edge.source for node in queries.nodes if node.kind == "choice" for edge in queries.origins(node.operands[0])
    }
    for index, node in enumerate(queries.nodes):
        if node.kind != "contraction":
            continue
        for place in (0, 1):
            before = queries.origins(node.operands[place])
            factor = _past_mixed_heads(queries, before)
            scores = tuple(
                dict.fromkeys(
                    edge.source
                    for edge in factor
                    if queries.nodes[edge.source].kind == "contraction"
                    and (Flag.SOFTMAX in edge.some or (Flag.ACTIVATION in edge.some and index not in chosen_from))
                )
            )
            if scores:
                rest = tuple(edge for edge in factor if edge.source not in scores)
                mixing = tuple(_mixing(queries, before, {edge.source for edge in factor}))
                yield Attention(index, scores, node.operands[1 - place], rest, mixing)
                break


def _mixing(queries: GraphQueries, edges: Edges, left: set[int]) -> Iterable[int]:
    """Weights among origins that were passed over, and those behind them."""
    for edge in edges:
        if edge.source not in left and queries.nodes[edge.source].kind == "weight":
            yield edge.source
            yield from _mixing(queries, queries.origins(queries.nodes[edge.source].operands[0]), left)


def _past_mixed_heads(queries: GraphQueries, factor: Edges) -> Edges:
    """The edges, with weights that mix the heads' scores passed over.

    Before and after the softmax: talking-heads attention (arXiv 2003.02436, section 3).
    """
    for _ in range(2):
        edges: list[Edge] = []
        for edge in factor:
            if inner := _mixed_heads(queries, edge.source, deep=True):
                edges += [source.then(edge) for source in inner]
            else:
                edges.append(edge)
        factor = tuple(edges)
    return factor


def _mixed_heads(queries: GraphQueries, index: int, *, deep: bool = False) -> Edges:
    """What a weight that mixes the heads' scores reads; nothing for other weights.

    Products of scores, biases of positions beside them, and as many rows as columns: not an output or a value.
    """
    node = queries.nodes[index]
    inner = queries.origins(node.operands[0]) if node.kind == "weight" and node.rows == node.columns else ()
    kinds = {queries.nodes[edge.source].kind for edge in inner}
    scores = [
        edge
        for edge in inner
        if queries.nodes[edge.source].kind == "contraction" or (deep and _mixed_heads(queries, edge.source))
    ]
    others = [edge for edge in inner if edge not in scores]
    biases = all(queries.nodes[edge.source].kind in ("table", "parameter") for edge in others)
    return inner if kinds and scores and biases else ()


def _attention(annotations: Annotations, attention: Attention) -> None:
    sides = [factors_of(annotations, score) for score in attention.scores]
    main = [pair for pair in sides if not any(_positional(annotations, side) for side in pair)] or sides
    variant = _variant(annotations, main)
    for score, pair in zip(attention.scores, sides, strict=True):
        for side, part, why in zip(pair, *_queries_and_keys(annotations.nodes[score]), strict=True):
            if pair not in main and _positional(annotations, side):
                for edge in annotations.weights(side):
                    annotations.add(edge.source, "attention", variant, "position", _POSITIONS)
                continue
            for edge in _factors(annotations, side):
                annotations.add(edge.source, "attention", variant, part, why)
    for edge in _factors(annotations, attention.values):
        # The weight of one query or one key may be of any of them.
        open_ = any(not annotation.part for annotation in annotations.of(edge.source))
        part = "" if open_ else "v"
        annotations.add(edge.source, "attention", variant, part, "its output is what an attention's softmax weighs")
    queries = {edge.source for side, _ in sides for edge in annotations.weights(side)}
    for edge in annotations.weights(attention.weighing):
        if {source.source for source in annotations.weights_into(edge.source)} & queries:
            why = "it multiplies the queries, and the result is added to an attention's scores"
            annotations.add(edge.source, "attention", variant, "position", why)
        else:
            annotations.add(edge.source, "attention", variant, "bias", "its output is added to an attention's scores")
    factors = {(edge.source, edge.piece) for pair in (*sides, (attention.values,)) for side in pair for edge in side}
    _output(annotations, attention.mixed, variant, factors)


_POSITIONS = "its output, of positions, is a factor of an attention's scores"


def _queries_and_keys(score: Node) -> tuple[tuple[str, str], tuple[str, str]]:
    """Parts of the two factors of scores, with the evidence."""
    if score.rows == score.columns == 1:  # one query and one key look alike
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


def factors_of(annotations: Annotations, score: int) -> tuple[Edges, Edges]:
    """Edges into the queries' and the keys' operand of scores."""
    node = annotations.nodes[score]
    first, second = node.operands
    return (second, first) if node.scored == 0 else (first, second)


def _positional(annotations: Annotations, side: Edges) -> bool:
    """The factor comes from a table or parameter of positions only."""
    weights = annotations.weights(side)
    if weights:
        return all(_of_positions(annotations, annotations.nodes[edge.source].operands[0]) for edge in weights)
    return _of_positions(annotations, side)


def _of_positions(annotations: Annotations, edges: Edges) -> bool:
    origins = annotations.queries.origins(edges)
    return all(
        annotations.nodes[edge.source].kind in ("table", "parameter") and not annotations.nodes[edge.source].ids
        for edge in origins
    )


def _variant(annotations: Annotations, sides: Sequence[tuple[Edges, Edges]]) -> str:
    """`self` if queries and keys read the same stream, else `cross`."""
    queries = frozenset[tuple[int, bool]]().union(*(_read(annotations, side) for side, _ in sides))
    keys = frozenset[tuple[int, bool]]().union(*(_read(annotations, side) for _, side in sides))
    if queries == keys:
        return "self"
    roots = [frozenset[int]().union(*(annotations.queries.roots[node] for node, _ in side)) for side in (queries, keys)]
    return "cross" if all(roots) and not roots[0] & roots[1] else ""


def _read(annotations: Annotations, edges: Edges) -> frozenset[tuple[int, bool]]:
    """Streams behind edges, past weights and products, and whether positions were pooled."""
    streams: set[tuple[int, bool]] = set()
    seen: set[tuple[int, bool]] = set()
    waiting = [(edge.source, Flag.POOLED in edge.some) for edge in annotations.queries.origins(edges)]
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        index, pooled = here
        if annotations.queries.is_stream[index]:
            streams.add(here)
        else:
            for operand in annotations.nodes[index].operands:
                waiting += [
                    (edge.source, pooled or Flag.POOLED in edge.some) for edge in annotations.queries.origins(operand)
                ]
    return frozenset(streams)


def _factors(annotations: Annotations, edges: Iterable[Edge]) -> list[Edge]:
    """Weights of a factor, without those that only scale others."""
    weights = annotations.weights(edges)
    return [edge for edge in weights if Flag.PRODUCT not in edge.every] or weights


def _output(annotations: Annotations, mixed: int, variant: str, factors: set[tuple[int, Piece]]) -> None:
    for reader in annotations.queries.read_by(mixed):
        index = reader.node
        if annotations.nodes[index].kind != "weight":
            continue
        annotations.add(index, "attention", variant, "o", "it reads an attention's output")
        for edge in annotations.weights_into(index):
            if (edge.source, edge.piece) in factors:
                continue
            if Flag.PRODUCT in edge.some:
                annotations.add(
                    edge.source, "attention", variant, "gate", "its output multiplies an attention's output"
                )
            elif Flag.ACTIVATION in edge.some and Flag.JOINED in edge.some:  # one output matrix for both blocks
                why = "an activated output stands beside an attention's, and one weight reads both"
                annotations.add(edge.source, "ffn", "dense", "up", why)
                annotations.add(index, "ffn", "dense", "down", why)
        if annotations.queries.writes_to(index):
            continue
        # Two weights without anything between them: the output of low rank.
        for second in annotations.queries.readers[index]:
            if (
                annotations.nodes[second.node].kind == "weight"
                and Flag.ACTIVATION not in second.edge.some
                and annotations.queries.writes_to(second.node)
            ):
                annotations.add(
                    index, "attention", variant, "o_a", "it reads an attention's output and feeds a second weight"
                )
                annotations.add(second.node, "attention", variant, "o_b", "it writes an attention's output of low rank")


def _read_by_attention(annotations: Annotations, attention: Attention) -> dict[int, set[str]]:
    """Weights that an attention reads, with their parts."""
    parts_of: dict[int, set[str]] = {}
    sides = [side for score in attention.scores for side in zip("qk", factors_of(annotations, score), strict=True)]
    for part, edges in [*sides, ("v", attention.values)]:
        for edge in annotations.weights(edges):
            parts_of.setdefault(edge.source, set()).add(part)
    return parts_of


def _low_rank(annotations: Annotations, attentions: Sequence[dict[int, set[str]]]) -> None:
    """Annotate low-rank pairs in front of attentions.

    A weight whose output is read as queries, keys and values at once, or by several attentions, is none: that is
    what a network without residual connections, or an encoder's projection, looks like.
    """
    feeds: dict[int, dict[int, set[int]]] = {}
    for place, read in enumerate(attentions):
        for second in read:
            for edge in annotations.weights_into(second):
                narrows = annotations.narrows(edge.source)
                if narrows or Flag.ACTIVATION not in edge.some:
                    feeds.setdefault(edge.source, {}).setdefault(place, set()).add(second)
    for first, fed in feeds.items():
        if len(fed) != 1 or not _can_narrow(annotations, first):
            continue
        ((place, seconds),) = fed.items()
        parts = {part for second in seconds for part in attentions[place][second]}
        if parts >= {"q", "k", "v"} and not any(_pieces_apart(annotations, first, seconds)):
            continue
        narrows = annotations.narrows(first)
        if narrows and not any(
            annotations.nodes[second].rows > annotations.nodes[second].columns for second in seconds
        ):
            continue  # a bottleneck that nothing widens again
        if not narrows and (len(seconds) > 1 or len(parts) > 1):
            continue  # a projection of what several weights read
        variant = next((annotation.variant for second in seconds for annotation in annotations.of(second)), "")
        for part in sorted(parts):
            annotations.add(
                first, "attention", variant, f"{part}_a" if narrows else part,
                "its output of low rank feeds a weight of an attention" if narrows else
                "its output feeds a weight of an attention",
            )  # fmt: skip
        for second in seconds if narrows else ():
            for part in sorted(attentions[place][second]):
                annotations.add(second, "attention", variant, f"{part}_b", "it widens an output of low rank")
    for index in annotations.annotated():
        if any(annotation.part == "gate" for annotation in annotations.of(index)):
            _low_rank_gate(annotations, index)


def _low_rank_gate(annotations: Annotations, second: int) -> None:
    for edge in annotations.weights_into(second):
        first = edge.source
        if not annotations.of(first) and _can_narrow(annotations, first) and annotations.narrows(first):
            annotations.add(first, "attention", "", "gate_a", "its output of low rank feeds a gate of an attention")
            annotations.add(second, "attention", "", "gate_b", "it widens an output of low rank")


def _can_narrow(annotations: Annotations, first: int) -> bool:
    if annotations.queries.is_stream[first] or annotations.queries.writes_to(first):
        return False
    return not any(annotation.part in ("o", "o_b") for annotation in annotations.of(first))


def _pieces_apart(annotations: Annotations, first: int, seconds: Iterable[int]) -> Iterable[bool]:
    """Whether each second weight reads only a piece of the first's output."""
    for second in seconds:
        yield any(edge.source == first and edge.piece for edge in annotations.weights_into(second))
