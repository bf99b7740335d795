"""Modulations: weights whose output scales, shifts or gates a stream that they do not read.

As in adaptive layer norm (arXiv 2212.09748, section 3.2). Behind them stand the embedders of what they read: a time step,
a caption, a label.
"""

from __future__ import annotations

from collections.abc import Iterable

from lorascope.tracing.classify.annotations import Annotations
from lorascope.tracing.graph import Edge, Flag

_WHY = {
    "scale": "its output scales a stream that it does not read",
    "gate": "its output gates what a block adds to a stream that it does not read",
    "shift": "its output shifts the channels of a convolution",
}


def annotate_modulations(annotations: Annotations) -> None:
    """Annotate modulations, and the embedders that feed them."""
    found = [
        index for index, node in enumerate(annotations.nodes) if node.kind == "weight" and not annotations.of(index)
    ]
    kinds = {index: kind for index in found if (kind := _kind(annotations, index))}
    # What makes the condition may modulate a last layer itself, with a table of its own.
    before = {edge.source for index in kinds for edge in annotations.weights_into(index)}
    kinds = {index: kind for index, kind in kinds.items() if index not in before}
    for index, kind in kinds.items():
        annotations.add(index, "modulation", "", "", _WHY[kind])
    pairs = [(edge, index) for index in kinds for edge in annotations.weights_into(index)]
    narrow = {edge.source for edge, index in pairs if _is_low_rank(annotations, edge, index)}
    for index in kinds:
        for edge in annotations.weights_into(index):
            # An activation within: one for each layer; a single one makes what all layers read.
            if edge.source in narrow and (Flag.ACTIVATION not in edge.some or len(narrow) > 1):
                why = "its output of low rank feeds a modulation"
                annotations.add(edge.source, "modulation", "", "", why)
                for first in annotations.weights_into(edge.source):
                    _embedder(annotations, first.source)
            else:
                _embedder(annotations, edge.source)
    _conditions(annotations)


def _conditions(annotations: Annotations) -> None:
    """Annotate tables of which nothing but modulations and their embedders reads rows."""
    for index, node in enumerate(annotations.nodes):
        readers = annotations.queries.read_by(index) if node.kind == "table" else []
        blocks = [annotations.blocks(reader.node) for reader in readers]
        if {"modulation"} in blocks and all(one in ({"modulation"}, {"embedding"}) for one in blocks):
            annotations.add(index, "embedding", "", "", "its rows are what modulations read")


def _kind(annotations: Annotations, index: int) -> str:
    """How a weight modulates; empty where it does not."""
    queries, nodes = annotations.queries, annotations.nodes
    if queries.is_stream[index]:
        return ""
    own = _sources(annotations, index)
    for reader in queries.read_by(index):
        node = nodes[reader.node]
        edges = queries.origins(node.operands[reader.operand])
        multiplies = any(Flag.PRODUCT in edge.some for edge in edges if edge.source == index)
        others = [edge.source for edge in edges if edge.source != index]
        if node.kind == "sum" and reader.operand == 1 and node.how is Flag.NONE:
            streams = [edge.source for edge in node.operands[0]]
            if multiplies and others and queries.is_stream[reader.node] and _apart(annotations, own, streams):
                return "gate"
        if node.kind not in ("weight", "convolution"):
            continue
        streams = [source for source in others if queries.is_stream[source] and _is_carried(annotations, source)]
        if multiplies and streams and _apart(annotations, own, streams):
            return "scale"
        convolved = bool(others) and all(nodes[source].kind == "convolution" for source in others)
        if node.kind == "convolution" and convolved and _apart(annotations, own, others):
            return "shift"
    return ""


def _sources(annotations: Annotations, index: int) -> frozenset[int]:
    """Streams that a weight reads, through other weights and products."""
    found: set[int] = set()
    seen: set[int] = set()
    waiting = [edge.source for edge in annotations.inputs(index)]
    while waiting:
        source = waiting.pop()
        if source in seen:
            continue
        seen.add(source)
        if annotations.queries.is_stream[source]:
            found.add(source)
        else:
            for operand in annotations.nodes[source].operands:
                waiting += [edge.source for edge in annotations.queries.origins(operand)]
    return frozenset(found)


def _is_carried(annotations: Annotations, index: int) -> bool:
    """A residual sum, or what one carries on."""
    nodes = annotations.nodes
    return nodes[index].kind == "sum" or any(
        nodes[reader.node].kind == "sum" and reader.operand == 0 for reader in annotations.queries.readers[index]
    )


def _apart(annotations: Annotations, own: Iterable[int], streams: Iterable[int]) -> bool:
    """No stream carries on what the others carry on."""
    return not _lineage(annotations, own) & _lineage(annotations, streams)


def _lineage(annotations: Annotations, streams: Iterable[int]) -> set[int]:
    """Streams, and all that they carry on."""
    lineage: set[int] = set()
    waiting = list(streams)
    while waiting:
        index = waiting.pop()
        if index not in lineage:
            lineage.add(index)
            node = annotations.nodes[index]
            if node.kind in ("sum", "convolution"):
                waiting += [edge.source for edge in node.operands[0]]
    return lineage


def _is_low_rank(annotations: Annotations, edge: Edge, second: int) -> bool:
    """A weight narrows, and nothing but this modulation reads it."""
    return (
        annotations.narrows(edge.source)
        and not annotations.narrows(second)
        and not annotations.of(edge.source)
        and {reader.node for reader in annotations.queries.readers[edge.source]} == {second}
    )


def _embedder(annotations: Annotations, index: int) -> str:
    """Annotate a weight that makes what modulations read, and those before it; its part."""
    claims = annotations.of(index)
    if claims:
        return claims[0].part if claims[0].block == "embedding" else ""
    origins = annotations.inputs(index)
    kinds = {annotations.nodes[edge.source].kind for edge in origins}
    if not kinds <= {"weight", "input", "table", "parameter"}:
        return ""  # it reads what blocks have made
    parts = {
        _embedder(annotations, edge.source)
        if annotations.nodes[edge.source].kind == "weight"
        else "time" if is_wave(annotations, edge) else ""
        for edge in origins
    }  # fmt: skip
    part = parts.pop() if len(parts) == 1 else "" if parts else "time"  # without inputs: of numbers that are known
    why = "it makes what modulations read, of waves of a number" if part == "time" else "it makes what modulations read"
    annotations.add(index, "embedding", "", part, why)
    return part


def is_wave(annotations: Annotations, edge: Edge) -> bool:
    """What the call was given, after sines and cosines."""
    return annotations.nodes[edge.source].kind == "input" and Flag.ACTIVATION in edge.every
