"""Embeddings, heads and projections: weights outside of blocks."""

from __future__ import annotations

from lorascope.tracing.classify.annotations import Annotations
from lorascope.tracing.graph import Flag, Node


def annotate_embeddings_heads(annotations: Annotations) -> None:
    """Annotate everything that no block has annotated."""
    vocabularies = _vocabularies(annotations)
    for index, node in enumerate(annotations.nodes):
        if not annotations.of(index):
            _outside(annotations, index, node, vocabularies)


def _outside(annotations: Annotations, index: int, node: Node, vocabularies: frozenset[int]) -> None:
    if node.kind == "table":
        by = f" by {', '.join(node.ids)}" if node.ids else ""
        part = "token" if index in vocabularies and not annotations.features else ""
        annotations.add(index, "embedding", "", part, f"its rows are looked up{by}")
    elif node.kind == "parameter":
        annotations.add(index, "other", "", "", "it is data, not a matrix: it is added, joined or read as it is")
    elif node.kind == "convolution":
        annotations.add(index, "embedding", "", "patch", "it is a convolution that starts a stream")
    elif node.kind == "weight":
        _single(annotations, index, node, vocabularies)


def _merges(annotations: Annotations, index: int, node: Node) -> bool:
    """It reads one stream, several times as wide, and starts the next one: positions became features."""
    origins = annotations.inputs(index)
    nodes = {edge.source for edge in origins}
    carried = any(
        annotations.nodes[reader.node].kind == "sum" and reader.operand == 0
        for reader in annotations.queries.readers[index]
    )
    if len(nodes) != 1 or annotations.queries.is_output[index] or not carried:
        return False
    if any(Flag.CONVOLUTION in edge.some or (Flag.JOINED in edge.some and edge.piece is None) for edge in origins):
        return False  # more channels, or two values side by side: not positions of one
    width = _width(annotations, nodes.pop())
    return bool(width) and node.columns > width and node.columns % width == 0


def _width(annotations: Annotations, stream: int) -> int:
    """Features of a stream, by the last weight added to it.

    0 where none was added, or where it was made wider.
    """
    node = annotations.nodes[stream]
    while node.kind == "sum" and node.how is not Flag.JOINED:
        for edge in annotations.weights(node.operands[1]):
            return annotations.nodes[edge.source].rows
        node = annotations.nodes[node.operands[0][0].source]
    return 0


def _continues(annotations: Annotations, index: int) -> bool:
    """It reads nothing but the output of an embedding: the second of a pair."""
    origins = annotations.inputs(index)
    return bool(origins) and all(
        annotations.nodes[edge.source].kind == "weight" and annotations.blocks(edge.source) == {"embedding"}
        for edge in origins
    )


def _single(annotations: Annotations, index: int, node: Node, vocabularies: frozenset[int]) -> None:
    """Annotate a weight outside of blocks."""
    before = [edge.source for edge in annotations.weights(node.operands[0]) if not annotations.of(edge.source)]
    if not node.operands[0]:
        return  # it multiplies a constant: what fed it was lost
    of_input = all(annotations.nodes[edge.source].kind == "input" for edge in annotations.inputs(index))
    if annotations.scales(index) or annotations.modulates(index):
        for weight in (index, *before):
            annotations.add(weight, "other", "", "", "its output scales a stream")
    elif _merges(annotations, index, node):
        annotations.add(index, "embedding", "", "merger", "it reads several positions of a stream as one")
    elif annotations.queries.is_stream[index] or annotations.starts(index):
        of_table = all(annotations.nodes[edge.source].kind == "table" for edge in annotations.inputs(index))
        annotations.add(index, "embedding", "", "projection" if of_table else "", "its output starts a stream")
    elif of_input:
        annotations.add(index, "embedding", "", "", "it reads what the model is given")
    elif annotations.queries.is_output[index] and annotations.features:
        for weight in (index, *before):
            annotations.add(weight, "embedding", "", "projection", "its output is what another part of the model reads")
    elif not annotations.queries.is_output[index] and _continues(annotations, index):
        annotations.add(index, "embedding", "", "", "it goes on from what reads the model's inputs")
    elif annotations.queries.is_output[index]:
        rows = {annotations.nodes[table].rows for table in vocabularies}
        annotations.add(index, "head", "", "lm" if node.rows in rows else "", "the call returns its output")
        if any(annotations.queries.is_stream[edge.source] for edge in annotations.inputs(index)):
            for weight in before:
                annotations.add(weight, "other", "", "", "its output shifts or scales a stream")
            return
        for weight in before:
            if any(not annotations.queries.is_output[reader.node] for reader in annotations.queries.readers[weight]):
                continue  # blocks go on from it
            pooled = any(edge.piece for edge in annotations.nodes[weight].operands[0])
            annotations.add(
                weight, "head", "", "" if pooled else "transform", "its output is read by what the call returns"
            )


def _vocabularies(annotations: Annotations) -> frozenset[int]:
    """Tables read by an argument's integers, token types and segments excluded."""
    tables = [index for index, node in enumerate(annotations.nodes) if node.kind == "table" and node.ids]
    most = max((annotations.nodes[index].rows for index in tables), default=0)
    return frozenset(index for index in tables if annotations.nodes[index].rows * 8 >= most)
