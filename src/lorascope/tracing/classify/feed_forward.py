"""Feed-forward blocks: a non-linearity between two weights."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.classify.annotations import Annotations
from lorascope.tracing.classify.mixers import is_unrolled
from lorascope.tracing.classify.modulation import is_wave
from lorascope.tracing.graph import Edge, Flag


def annotate_feed_forward(annotations: Annotations) -> None:
    """Annotate the weights of feed-forward blocks, gated ones first."""
    for gated in (True, False):
        for index, node in enumerate(annotations.nodes):
            if node.kind == "weight" and not annotations.of(index):
                _feed_forward(annotations, index, gated=gated)


@dataclasses.dataclass(frozen=True, slots=True)
class _Firsts:
    """Weights that a block's last one reads, by name.

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


def _firsts(annotations: Annotations, edges: Sequence[Edge]) -> _Firsts:
    activated = frozenset(annotations.nodes[edge.source].name for edge in edges if Flag.ACTIVATION in edge.some)
    multiplied = frozenset(annotations.nodes[edge.source].name for edge in edges if Flag.PRODUCT in edge.some)
    pieces = {(edge.source, edge.piece) for edge in edges if Flag.PRODUCT in edge.some and edge.piece is not None}
    halved = len(multiplied) == 1 and len(pieces) > len({source for source, _ in pieces})
    return _Firsts(tuple(edges), activated, multiplied, halved)


def _feed_forward(annotations: Annotations, last: int, *, gated: bool) -> None:
    """Annotate a block of two weights, or three with a gate."""
    origins = annotations.inputs(last)
    weights = [edge for edge in origins if annotations.nodes[edge.source].kind == "weight"]
    if not weights or any(annotations.nodes[edge.source].kind == "contraction" for edge in origins):
        return
    if any(Flag.SCAN in edge.some for edge in weights) or is_unrolled(weights):
        return
    if any(Flag.CONVOLUTION in edge.some for edge in weights) and not _is_wide(annotations, last, weights):
        return
    if annotations.scales(last) or annotations.modulates(last):
        return
    edges = [edge for edge in weights if _can_be_first(annotations, edge)]
    inner = _inner_gates(annotations, edges)
    firsts = _firsts(annotations, [edge for edge in edges if edge.source not in inner])
    if firsts.gated != gated or not (firsts.activated or firsts.gated):
        return
    if _embeds(annotations, last, firsts):
        return
    if any(
        _is_inside_convolution(annotations, source)
        for edge in firsts.edges
        for source in annotations.inputs(edge.source)
    ):
        return
    if len({frozenset(source.source for source in annotations.inputs(edge.source)) for edge in firsts.edges}) > 1:
        return  # not one block: what multiplies comes from elsewhere
    variant = _variant(annotations, last, firsts)
    if variant is None:
        return
    for edge in firsts.edges:
        part, why = _first_part(annotations.nodes[edge.source].name, firsts)
        annotations.add(edge.source, "ffn", variant, part, why)
    for index in inner:
        annotations.add(index, "ffn", variant, "gate", "it reads another weight's output and multiplies it")
    annotations.add(
        last, "ffn", variant, "down", "it reads an activated output of another weight and writes to the stream"
    )


def _inner_gates(annotations: Annotations, edges: Sequence[Edge]) -> set[int]:
    """Weights that read the first weights alone and multiply what these give, as in arXiv 2105.08050, section 3."""
    firsts = {edge.source for edge in edges}
    read = {edge.source: {source.source for source in annotations.inputs(edge.source)} for edge in edges}
    return {
        edge.source
        for edge in edges
        if Flag.PRODUCT in edge.some and read[edge.source] and read[edge.source] <= firsts - {edge.source}
    }


def _is_wide(annotations: Annotations, last: int, weights: Sequence[Edge]) -> bool:
    """A depthwise convolution stands where a block is wider than its stream, as in arXiv 2105.15203, section 3.1.

    Norms beside it are those of a convolutional block.
    """
    activated = all(Flag.ACTIVATION in edge.some and Flag.REDUCED not in edge.some for edge in weights)
    return activated and annotations.narrows(last) and not any(annotations.narrows(edge.source) for edge in weights)


def _embeds(annotations: Annotations, last: int, firsts: _Firsts) -> bool:
    """A pair embeds what the call was given, and nothing carries that on."""
    origins = [source for edge in firsts.edges for source in annotations.inputs(edge.source)]
    if firsts.gated or not all(annotations.nodes[source.source].kind == "input" for source in origins):
        return False
    readers = annotations.queries.readers[last]
    if any(annotations.nodes[reader.node].kind == "sum" and reader.operand == 1 for reader in readers):
        return False
    waves = all(is_wave(annotations, source) for source in origins)
    carried = any(annotations.nodes[reader.node].kind == "sum" for reader in readers)
    return waves or (carried and not annotations.starts(last) and not annotations.features)


def _is_inside_convolution(annotations: Annotations, edge: Edge) -> bool:
    """A weight and a depthwise convolution precede it within the block."""
    node = annotations.nodes[edge.source]
    summed = any(annotations.nodes[reader.node].kind == "sum" for reader in annotations.queries.readers[edge.source])
    return Flag.CONVOLUTION in edge.some and node.kind == "weight" and not summed


def _can_be_first(annotations: Annotations, edge: Edge) -> bool:
    """It is free, or shared between an attention and this block."""
    claims = annotations.of(edge.source)
    if edge.piece is not None and claims and all(annotation.part in ("q", "k", "v") for annotation in claims):
        return Flag.ACTIVATION in edge.some
    return all(annotation.block == "ffn" and annotation.part != "down" for annotation in claims)


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


def _variant(annotations: Annotations, last: int, block: _Firsts) -> str | None:
    """Variant by output and routing; None where it is no block."""
    firsts = [edge.source for edge in block.edges]
    sums = [index for index in _written(annotations, last) if annotations.nodes[index].how is not Flag.PRODUCT]
    read = {edge.source for index in firsts for edge in annotations.nodes[index].operands[0]}
    sums += _closes(annotations, last, read)
    if not sums and not _ends_otherwise(annotations, last, block):
        return None
    if any(_routed(annotations, index) for index in (last, *firsts)) or _mixed_by_routers(annotations, last):
        return "expert"
    for index in sums:
        written = [
            edge for place in _sums_of_block(annotations, index, read) for edge in annotations.nodes[place].operands[1]
        ]
        origins = annotations.queries.origins(written)
        if any(_routed(annotations, edge.source) for edge in origins if edge.source != last):
            return "shared"
        weighed = any(annotations.blocks(edge.source) == {"router"} and Flag.PRODUCT in edge.some for edge in origins)
        if weighed and any(Flag.PRODUCT in edge.some for edge in origins if edge.source == last):
            return "expert"
    return "dense"


def _ends_otherwise(annotations: Annotations, last: int, block: _Firsts) -> bool:
    """It is a block although it adds to no stream."""
    if annotations.starts(last) or (block.gated and _feeds_inner_weight(annotations, last)):
        return True
    if annotations.features:  # between a tower and what it returns stand blocks without residual sums
        summed = any(annotations.nodes[reader.node].kind == "sum" for reader in annotations.queries.readers[last])
        return not summed or annotations.queries.is_stream[last]
    carries = any(node.kind == "sum" and node.how is Flag.NONE for node in annotations.nodes)
    return not carries and not annotations.queries.is_output[last]


def _feeds_inner_weight(annotations: Annotations, last: int) -> bool:
    """Another weight reads its output, and is not the model's last."""
    return any(
        annotations.nodes[reader.node].kind == "weight" and not annotations.queries.is_output[reader.node]
        for reader in annotations.queries.read_by(last)
    )


def _written(annotations: Annotations, last: int) -> list[int]:
    """Stream sums that a weight is added to, past routers."""
    return annotations.queries.writes_to(last) + [
        place for product in _mixed_by_routers(annotations, last) for place in annotations.queries.writes_to(product)
    ]


def _mixed_by_routers(annotations: Annotations, last: int) -> list[int]:
    """Products of a weight's output with the outputs of routers."""
    products = []
    for reader in annotations.queries.read_by(last):
        node = annotations.nodes[reader.node]
        if node.kind == "contraction":
            other = annotations.queries.origins(node.operands[1 - reader.operand])
            if other and all(annotations.blocks(edge.source) == {"router"} for edge in other):
                products.append(reader.node)
    return products


def _sums_of_block(annotations: Annotations, index: int, read: set[int]) -> list[int]:
    """Consecutive residual sums of the block, back to what it read."""
    sums = [index]
    here = index
    while here not in read and annotations.nodes[here].kind == "sum":
        here = annotations.nodes[here].operands[0][0].source
        if annotations.nodes[here].kind == "sum" and here not in read:
            sums.append(here)
    here = index
    while True:
        readers = annotations.queries.readers[here]
        if not readers or any(annotations.nodes[reader.node].kind != "sum" or reader.operand for reader in readers):
            return sums
        here = readers[0].node
        sums.append(here)


def _closes(annotations: Annotations, last: int, read: set[int]) -> list[int]:
    """Sums that add its output to exactly what the block read."""
    return [
        reader.node
        for reader in annotations.queries.readers[last]
        if annotations.nodes[reader.node].kind == "sum"
        and reader.operand == 1
        and annotations.nodes[reader.node].how is Flag.NONE
        and {edge.source for edge in annotations.nodes[reader.node].operands[0]} == read
    ]


def _routed(annotations: Annotations, index: int) -> bool:
    """A router selects its rows or matrix, or scales its input."""
    before = [edge.source for edge in annotations.weights_into(index)]
    return any(_is_routed(annotations, weight) for weight in (index, *before))


def _is_routed(annotations: Annotations, index: int) -> bool:
    node = annotations.nodes[index]
    if node.ids or any(_routes(annotations, choice) for choice in node.control):
        return True
    for edge in annotations.inputs(index):
        source = annotations.nodes[edge.source]
        if source.kind == "sum" and source.how is Flag.PRODUCT:
            written = annotations.queries.origins(source.operands[1])
            if written and all(annotations.blocks(origin.source) == {"router"} for origin in written):
                return True
    return False


def _routes(annotations: Annotations, choice: int) -> bool:
    return any(
        "router" in annotations.blocks(edge.source)
        for edge in annotations.weights(annotations.nodes[choice].operands[0])
    )
