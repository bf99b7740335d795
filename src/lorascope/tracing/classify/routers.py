"""Routers and indexers: weights whose output decides what takes part."""

from __future__ import annotations

from lorascope.tracing.classify.annotations import Annotations
from lorascope.tracing.classify.attention import factors_of
from lorascope.tracing.graph import EXTREMES, Flag
from lorascope.tracing.graph_queries import Reader


def annotate_routers(annotations: Annotations) -> None:
    """Annotate the weights behind choices, and soft routers."""
    for index, node in enumerate(annotations.nodes):
        if node.kind == "choice":
            _choice(annotations, index)
    _soft_routers(annotations)


def _choice(annotations: Annotations, index: int) -> None:
    origins = annotations.inputs(index)
    products = [edge.source for edge in origins if annotations.nodes[edge.source].kind == "contraction"]
    controlled = annotations.controlled.get(index, [])
    if not controlled and annotations.nodes[index].name in EXTREMES:
        return  # the value was taken, not the place
    of_attention = bool(controlled) and all(node.kind == "contraction" for node in controlled)
    if products or of_attention:
        for edge in annotations.weights(origins):
            _indexer(annotations, edge.source, "weight")
        for product in products:
            _indexed(annotations, product)
        return
    picked = {edge.source for edge in annotations.weights(origins)}
    weighs = any(
        Flag.CHOSEN in reader.edge.some and annotations.nodes[reader.node].kind in ("sum", "weight")
        for weight in picked
        for reader in annotations.queries.readers[weight]
    )
    if not weighs and not any(node.kind == "weight" for node in controlled):
        return  # the nearest row of a codebook, say
    for weight in picked:
        _router(annotations, weight)


def _indexed(annotations: Annotations, product: int) -> None:
    """Annotate the weights of scores that choose positions."""
    sides = factors_of(annotations, product)
    inner = [annotations.queries.of_kind(side, "contraction") for side in sides]
    for side, products in zip(sides, inner, strict=True):
        for edge in products:
            _indexed(annotations, edge.source)
        for edge in annotations.weights(side):  # without a softmax, queries and keys look alike
            _indexer(annotations, edge.source, "weight" if any(inner) else "")


def _indexer(annotations: Annotations, index: int, part: str) -> None:
    if not annotations.blocks(index) - {"indexer"}:
        annotations.add(index, "indexer", "", part, "its output decides which positions an attention reads")


def _router(annotations: Annotations, index: int) -> None:
    if annotations.of(index):
        return
    annotations.add(index, "router", "", "", "its output decides which experts take part")
    for edge in annotations.weights_into(index):  # a router of several layers
        if not annotations.of(edge.source) and not annotations.queries.writes_to(edge.source):
            _router(annotations, edge.source)


def _soft_routers(annotations: Annotations) -> None:
    """Annotate weights whose softmax mixes the outputs of all experts."""
    for index, node in enumerate(annotations.nodes):
        if node.kind != "weight" or annotations.of(index):
            continue
        for reader in annotations.queries.readers[index]:
            if node.rows == 1 and _weighs_a_sum(annotations, reader):
                annotations.add(index, "router", "", "", "its one output weighs what a block puts out")
            if Flag.SOFTMAX in reader.edge.some and (
                (annotations.queries.is_stream[reader.node] and _weighs_a_sum(annotations, reader))
                or _mixes_blocks(annotations, reader)
            ):
                annotations.add(index, "router", "", "", "its softmax weighs what experts put out")


def _weighs_a_sum(annotations: Annotations, reader: Reader) -> bool:
    """It multiplies a part of a sum, not the sum."""
    node = annotations.nodes[reader.node]
    return Flag.PRODUCT in reader.edge.some and node.kind == "sum" and node.how is not Flag.PRODUCT


def _mixes_blocks(annotations: Annotations, reader: Reader) -> bool:
    """The other factor comes from weights that do not read a stream."""
    node = annotations.nodes[reader.node]
    if node.kind != "contraction":
        return False
    others = annotations.weights(node.operands[1 - reader.operand])
    return bool(others) and not any(annotations.queries.reads_stream(annotations.nodes[edge.source]) for edge in others)
