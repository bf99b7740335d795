"""From a graph of weight uses to what every weight does: a pure classifier that reads no name.

The order is that of certainty. Attentions are found by their softmax between two products of values; routers and
indexers by the choice that they feed; feed-forward blocks by the non-linearity between two weights; what reads a
product of values without a softmax is a mixer; what remains is a head, an embedding's projection, or unknown.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property

from lorascope.tracing.graph import Edge, Edges, Flag, Graph, Node, Piece
from lorascope.tracing.reading import Reader, Reading

# A fused output has a handful of parts; whoever reads more pieces of one reads it position by position.
_PIECES_OF_A_LOOP = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """What one use of a parameter shows of it.

    Attributes:
        name: The parameter.
        node: Index of the use.
        block: The design's word for the block.
        variant: The variant, or empty where the use does not show it.
        part: The part, or empty where the use does not show it.
        why: What was seen, as a clause with the weight as its subject.
        is_lookup: Rows of it were looked up; it multiplied nothing.
    """

    name: str
    node: int
    block: str
    variant: str
    part: str
    why: str
    is_lookup: bool = False


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


def decide(graph: Graph, *, features: bool = False) -> tuple[Claim, ...]:
    """What every use of a parameter shows; a use that shows nothing is not in it.

    Args:
        graph: Of one call.
        features: The call returns what another part of the model reads, not predictions.
    """
    return tuple(_Decider(Reading(graph), features).decided())


class _Decider:
    def __init__(self, reading: Reading, features: bool) -> None:
        self.reading = reading
        self._features = features
        self.nodes = reading.nodes
        self._claims: dict[int, list[Claim]] = {}

    def decided(self) -> list[Claim]:
        attentions = list(find_attentions(self.reading))
        for attention in attentions:
            self._attention(attention)
        self._low_rank([self._read_by_attention(attention) for attention in attentions])
        for index, node in enumerate(self.nodes):
            if node.kind == "choice":
                self._choice(index)
        self._soft_routers()
        for gated in (True, False):
            for index, node in enumerate(self.nodes):
                if node.kind == "weight" and index not in self._claims:
                    self._feed_forward(index, gated=gated)
        for index, node in enumerate(self.nodes):
            if node.kind == "weight" and index not in self._claims:
                self._mixer(index)
        for index, node in enumerate(self.nodes):
            if index not in self._claims:
                self._outside(index, node)
        return [claim for index in sorted(self._claims) for claim in self._claims[index]]

    def _claim(self, index: int, block: str, variant: str, part: str, why: str) -> None:
        node = self.nodes[index]
        claim = Claim(node.name, index, block, variant, part, why, node.kind == "table")
        claims = self._claims.setdefault(index, [])
        if claim not in claims:
            claims.append(claim)

    def _blocks(self, index: int) -> set[str]:
        return {claim.block for claim in self._claims.get(index, ())}

    def _weights(self, edges: Iterable[Edge]) -> list[Edge]:
        return self.reading.of_kind(edges, "weight")

    def _inputs(self, index: int) -> Edges:
        """What a weight multiplies."""
        return self.reading.origins(self.nodes[index].operands[0])

    def _factors(self, edges: Iterable[Edge]) -> list[Edge]:
        """The weights that a factor comes from, without those that only ever scale what others give."""
        weights = self._weights(edges)
        return [edge for edge in weights if Flag.PRODUCT not in edge.every] or weights

    # Attention

    def _attention(self, attention: Attention) -> None:
        sides = [self._sides(score) for score in attention.scores]
        main = [pair for pair in sides if not any(self._positional(side) for side in pair)] or sides
        variant = self._variant(main)
        for pair in sides:
            for side, part, place in zip(pair, ("q", "k"), ("first", "second"), strict=True):
                if pair not in main and self._positional(side):
                    for edge in self._weights(side):
                        self._claim(
                            edge.source, "attention", variant, "position",
                            "its output, of positions, is a factor of an attention's scores",
                        )  # fmt: skip
                    continue
                for edge in self._factors(side):
                    self._claim(
                        edge.source, "attention", variant, part,
                        f"its output is the {place} factor of an attention's scores",
                    )  # fmt: skip
        for edge in self._factors(attention.values):
            self._claim(edge.source, "attention", variant, "v", "its output is what an attention's softmax weighs")
        queries = {edge.source for side, _ in sides for edge in self._weights(side)}
        for edge in self._weights(attention.weighing):
            if {one.source for one in self._weights(self.nodes[edge.source].operands[0])} & queries:
                self._claim(
                    edge.source, "attention", variant, "position",
                    "it multiplies the queries, and the result is added to an attention's scores",
                )  # fmt: skip
            else:
                self._claim(edge.source, "attention", variant, "bias", "its output is added to an attention's scores")
        factors = {
            (edge.source, edge.piece) for pair in (*sides, (attention.values,)) for side in pair for edge in side
        }
        self._output(attention.mixed, variant, factors)

    def _sides(self, score: int) -> tuple[Edges, Edges]:
        """The edges into the queries' and the keys' operand of a product of scores."""
        node = self.nodes[score]
        first, second = node.operands
        return (second, first) if node.scored == 0 else (first, second)

    def _positional(self, side: Edges) -> bool:
        """A side that comes from a table or parameter of positions, not from what the model reads."""
        weights = self._weights(side)
        if weights:
            return all(self._of_positions(self.nodes[edge.source].operands[0]) for edge in weights)
        return self._of_positions(side)

    def _of_positions(self, edges: Edges) -> bool:
        origins = self.reading.origins(edges)
        return all(
            self.nodes[edge.source].kind in ("table", "parameter") and not self.nodes[edge.source].ids
            for edge in origins
        )

    def _variant(self, sides: Sequence[tuple[Edges, Edges]]) -> str:
        """Self-attention has queries and keys of the same values, cross-attention of different streams."""
        queries = frozenset[int]().union(*(self._read(side) for side, _ in sides))
        keys = frozenset[int]().union(*(self._read(side) for _, side in sides))
        if queries == keys:
            return "self"
        roots = [frozenset[int]().union(*(self.reading.roots[node] for node in side)) for side in (queries, keys)]
        return "cross" if all(roots) and not roots[0] & roots[1] else ""

    def _read(self, edges: Edges) -> frozenset[int]:
        """The streams that edges come from, past weights and products."""
        found: set[int] = set()
        waiting = [edge.source for edge in self.reading.origins(edges)]
        seen: set[int] = set()
        while waiting:
            index = waiting.pop()
            if index in seen:
                continue
            seen.add(index)
            if self.reading.is_stream[index]:
                found.add(index)
            else:
                waiting += [edge.source for one in self.nodes[index].operands for edge in self.reading.origins(one)]
        return frozenset(found)

    def _output(self, mixed: int, variant: str, factors: set[tuple[int, Piece]]) -> None:
        for reader in self.reading.read_by(mixed):
            index = reader.node
            if self.nodes[index].kind != "weight":
                continue
            self._claim(index, "attention", variant, "o", "it reads an attention's output")
            for edge in self._weights(self.nodes[index].operands[0]):
                if Flag.PRODUCT in edge.some and (edge.source, edge.piece) not in factors:
                    self._claim(
                        edge.source, "attention", variant, "gate", "its output multiplies an attention's output"
                    )
            if self.reading.writes_to(index):
                continue
            # Two weights without anything between them: the output of low rank.
            for second in self.reading.readers[index]:
                if (
                    self.nodes[second.node].kind == "weight"
                    and Flag.ACTIVATION not in second.edge.some
                    and self.reading.writes_to(second.node)
                ):
                    self._claim(
                        index, "attention", variant, "o_a", "it reads an attention's output and feeds a second weight"
                    )
                    self._claim(second.node, "attention", variant, "o_b", "it writes an attention's output of low rank")

    def _read_by_attention(self, attention: Attention) -> dict[int, set[str]]:
        """The weights whose output an attention reads, and as what."""
        found: dict[int, set[str]] = {}
        sides = [side for score in attention.scores for side in zip("qk", self._sides(score), strict=True)]
        for part, edges in [*sides, ("v", attention.values)]:
            for edge in self._weights(edges):
                found.setdefault(edge.source, set()).add(part)
        return found

    def _low_rank(self, attentions: Sequence[dict[int, set[str]]]) -> None:
        """What stands before a weight of an attention with no activation between: the first half of a low-rank pair.

        A weight whose output is read as queries, keys and values at once, or by several attentions, is none: that is
        what a network without residual connections, or an encoder's projection, looks like.
        """
        feeds: dict[int, dict[int, set[int]]] = {}
        for place, read in enumerate(attentions):
            for second in read:
                for edge in self._weights(self.nodes[second].operands[0]):
                    narrows = self.nodes[edge.source].rows < self.nodes[edge.source].columns
                    if narrows or Flag.ACTIVATION not in edge.some:
                        feeds.setdefault(edge.source, {}).setdefault(place, set()).add(second)
        for first, fed in feeds.items():
            if len(fed) != 1 or not self._can_narrow(first):
                continue
            ((place, seconds),) = fed.items()
            parts = {part for second in seconds for part in attentions[place][second]}
            if parts >= {"q", "k", "v"} and not any(self._pieces_apart(first, seconds)):
                continue
            narrows = self.nodes[first].rows < self.nodes[first].columns
            if narrows and not any(self.nodes[second].rows > self.nodes[second].columns for second in seconds):
                continue  # a bottleneck that nothing widens again
            if not narrows and (len(seconds) > 1 or len(parts) > 1):
                continue  # a projection of what several weights read
            variant = next((claim.variant for second in seconds for claim in self._claims[second]), "")
            for part in sorted(parts):
                self._claim(
                    first, "attention", variant, f"{part}_a" if narrows else part,
                    "its output of low rank feeds a weight of an attention" if narrows else
                    "its output feeds a weight of an attention",
                )  # fmt: skip
            for second in seconds if narrows else ():
                for part in sorted(attentions[place][second]):
                    self._claim(second, "attention", variant, f"{part}_b", "it widens an output of low rank")
        for index in list(self._claims):
            if any(claim.part == "gate" for claim in self._claims[index]):
                self._low_rank_gate(index)

    def _low_rank_gate(self, second: int) -> None:
        for edge in self._weights(self.nodes[second].operands[0]):
            first = edge.source
            if (
                first not in self._claims
                and self._can_narrow(first)
                and self.nodes[first].rows < self.nodes[first].columns
            ):
                self._claim(first, "attention", "", "gate_a", "its output of low rank feeds a gate of an attention")
                self._claim(second, "attention", "", "gate_b", "it widens an output of low rank")

    def _can_narrow(self, first: int) -> bool:
        if self.reading.is_stream[first] or self.reading.writes_to(first):
            return False
        return not any(claim.part in ("o", "o_b") for claim in self._claims.get(first, ()))

    def _pieces_apart(self, first: int, seconds: Iterable[int]) -> Iterable[bool]:
        """Per weight that reads the first, whether it reads a piece of its output only."""
        for second in seconds:
            yield any(edge.source == first and edge.piece for edge in self._weights(self.nodes[second].operands[0]))

    # Choices

    def _choice(self, index: int) -> None:
        origins = self.reading.origins(self.nodes[index].operands[0])
        products = [edge.source for edge in origins if self.nodes[edge.source].kind == "contraction"]
        controlled = [node for node in self.nodes if index in node.control]
        if not controlled and self.nodes[index].name in ("max", "min", "median", "mode"):
            return  # the value was taken, not the place
        of_attention = bool(controlled) and all(node.kind == "contraction" for node in controlled)
        if products or of_attention:
            for edge in self._weights(origins):
                self._indexer(edge.source, "weight")
            for product in products:
                self._indexed(product)
            return
        picked = {edge.source for edge in self._weights(origins)}
        weighs = any(
            edge.source in picked and Flag.CHOSEN in edge.some
            for node in self.nodes
            if node.kind in ("sum", "weight")
            for operand in node.operands
            for edge in operand
        )
        if not weighs and not any(node.kind == "weight" for node in controlled):
            return  # the nearest row of a codebook, say
        for index in picked:
            self._router(index)

    def _indexed(self, product: int) -> None:
        """The weights of a product of scores that a choice of positions is made by, or of scores weighed per head."""
        sides = self._sides(product)
        inner = [self.reading.of_kind(side, "contraction") for side in sides]
        for side, products in zip(sides, inner, strict=True):
            for edge in products:
                self._indexed(edge.source)
            for edge in self._weights(side):  # no softmax tells queries from keys
                self._indexer(edge.source, "weight" if any(inner) else "")

    def _indexer(self, index: int, part: str) -> None:
        if not self._blocks(index) - {"indexer"}:
            self._claim(index, "indexer", "", part, "its output decides which positions an attention reads")

    def _router(self, index: int) -> None:
        if index in self._claims:
            return
        self._claim(index, "router", "", "", "its output decides which experts take part")
        for edge in self._weights(self.nodes[index].operands[0]):  # a router of several layers
            if edge.source not in self._claims and not self.reading.writes_to(edge.source):
                self._router(edge.source)

    def _soft_routers(self) -> None:
        """Weights whose softmax multiplies what others add to the stream: a mixture of all experts."""
        for index, node in enumerate(self.nodes):
            if node.kind != "weight" or index in self._claims:
                continue
            for reader in self.reading.readers[index]:
                weighs = Flag.PRODUCT in reader.edge.some and self.nodes[reader.node].kind == "sum"
                if node.rows == 1 and weighs and self.nodes[reader.node].how is not Flag.PRODUCT:
                    self._claim(index, "router", "", "", "its one output weighs what a block puts out")
                if (
                    (self.reading.is_stream[reader.node] or self.nodes[reader.node].kind == "contraction")
                    and self.nodes[reader.node].how is not Flag.PRODUCT
                    and Flag.SOFTMAX in reader.edge.some
                    and (Flag.PRODUCT in reader.edge.some or self._mixes_blocks(reader))
                ):
                    self._claim(index, "router", "", "", "its softmax weighs what experts put out")

    def _mixes_blocks(self, reader: Reader) -> bool:
        """The other factor of a product comes from weights that do not read a stream themselves."""
        node = self.nodes[reader.node]
        if node.kind != "contraction":
            return False
        others = self._weights(node.operands[1 - reader.operand])
        return bool(others) and not any(self.reading.reads_stream(self.nodes[edge.source]) for edge in others)

    # Feed-forward

    def _feed_forward(self, last: int, *, gated: bool) -> None:
        """A block of two weights, or of three of which one gates another; those first, as they are the surer."""
        node = self.nodes[last]
        origins = self.reading.origins(node.operands[0])
        firsts = [edge for edge in origins if self.nodes[edge.source].kind == "weight"]
        if not firsts or any(self.nodes[edge.source].kind == "contraction" for edge in origins):
            return
        if any((Flag.SCAN | Flag.CONVOLUTION) & edge.some for edge in firsts) or self._unrolled(firsts):
            return
        firsts = [edge for edge in firsts if self._can_be_first(edge.source)]
        activated = {edge.source for edge in firsts if Flag.ACTIVATION in edge.some}
        multiplied = {edge.source for edge in firsts if Flag.PRODUCT in edge.some}
        if self._scales(last) or self._is_modulation(last):
            return
        if any(self._is_inside_convolution(one) for edge in firsts for one in self._inputs(edge.source)):
            return
        if gated != (len(multiplied) > 1 or self._pieces_multiplied(firsts)):
            return
        if not activated and len(multiplied) < 2 and not self._pieces_multiplied(firsts):
            return
        if len({frozenset(one.source for one in self._inputs(edge.source)) for edge in firsts}) > 1:
            return  # not one block: what multiplies comes from elsewhere
        block, variant = self._kind_of_block(last, firsts)
        if block != "ffn":
            return
        for edge in firsts:
            part, why = self._first_part(edge, firsts, activated, multiplied)
            self._claim(edge.source, "ffn", variant, part, why)
        self._claim(
            last, "ffn", variant, "down", "it reads an activated output of another weight and writes to the stream"
        )

    def _is_inside_convolution(self, edge: Edge) -> bool:
        """A weight and a depthwise convolution came before within the same block."""
        node = self.nodes[edge.source]
        summed = any(self.nodes[reader.node].kind == "sum" for reader in self.reading.readers[edge.source])
        return Flag.CONVOLUTION in edge.some and node.kind == "weight" and not summed

    def _can_be_first(self, index: int) -> bool:
        claims = self._claims.get(index, ())
        return all(claim.block == "ffn" and claim.part != "down" for claim in claims)

    def _first_part(
        self, edge: Edge, firsts: Sequence[Edge], activated: set[int], multiplied: set[int]
    ) -> tuple[str, str]:
        others = multiplied - {edge.source}
        if edge.source in multiplied and others:
            if edge.source in activated and others - activated:
                return "gate", "its activated output multiplies that of another weight"
            if edge.source not in activated and others & activated:
                return "up", "its output is multiplied by the activated output of another weight"
            return "", "its output multiplies that of another weight"
        if self._pieces_multiplied([one for one in firsts if one.source == edge.source]):
            return "gate_up", "one half of its output, activated, multiplies the other"
        return "up", "its output is activated and read by another weight"

    def _pieces_multiplied(self, edges: Sequence[Edge]) -> bool:
        """Two pieces of one weight's output, of which one multiplies the other."""
        pieces = {(edge.source, edge.piece) for edge in edges if Flag.PRODUCT in edge.some and edge.piece is not None}
        return len(pieces) > len({source for source, _ in pieces}) and len({source for source, _ in pieces}) == 1

    def _unrolled(self, edges: Sequence[Edge]) -> bool:
        """A recurrence written as a loop reads one piece of an output per position."""
        pieces = Counter(source for source, _ in {(edge.source, edge.piece) for edge in edges})
        return max(pieces.values(), default=0) > _PIECES_OF_A_LOOP

    def _kind_of_block(self, last: int, edges: Sequence[Edge]) -> tuple[str, str]:
        """Which block and variant a pair of weights is, by where its output goes and what chose its input."""
        firsts = [edge.source for edge in edges]
        multiplied = {edge.source for edge in edges if Flag.PRODUCT in edge.some}
        sums = [index for index in self._written(last) if self.nodes[index].how is not Flag.PRODUCT]
        sums += self._closes(last, firsts)
        # Between a tower and what it returns stand pairs of weights without residual sums.
        ends = self._features and not any(self.nodes[one.node].kind == "sum" for one in self.reading.readers[last])
        ends = ends or (self._features and self.reading.is_stream[last])
        gated = len(multiplied) > 1 or self._pieces_multiplied(edges)
        ends = ends or (gated and self._feeds_inner_weight(last))
        if not sums and not self._starts(last) and not ends:
            carries = any(node.kind == "sum" and node.how is Flag.NONE for node in self.nodes)
            if carries or self.reading.is_output[last]:
                return "", ""
        if any(self._routed(index) for index in (last, *firsts)) or self._mixed_by_routers(last):
            return "ffn", "expert"
        read = {edge.source for index in firsts for edge in self.nodes[index].operands[0]}
        for index in sums:
            written = [edge for one in self._sums_of_block(index, read) for edge in self.nodes[one].operands[1]]
            origins = self.reading.origins(written)
            if any(self._routed(edge.source) for edge in origins if edge.source != last):
                return "ffn", "shared"
            weighed = any(self._blocks(edge.source) == {"router"} and Flag.PRODUCT in edge.some for edge in origins)
            if weighed and any(Flag.PRODUCT in edge.some for edge in origins if edge.source == last):
                return "ffn", "expert"
        return "ffn", "dense"

    def _feeds_inner_weight(self, last: int) -> bool:
        """Another weight, not the last of the model, reads its output."""
        return any(
            self.nodes[reader.node].kind == "weight" and not self.reading.is_output[reader.node]
            for reader in self.reading.read_by(last)
        )

    def _written(self, last: int) -> list[int]:
        """The stream sums that a weight's output is added to, past a mixture by routers."""
        return self.reading.writes_to(last) + [
            one for product in self._mixed_by_routers(last) for one in self.reading.writes_to(product)
        ]

    def _mixed_by_routers(self, last: int) -> list[int]:
        """The products of a weight's output with what routers put out."""
        found = []
        for reader in self.reading.read_by(last):
            node = self.nodes[reader.node]
            if node.kind == "contraction":
                other = self.reading.origins(node.operands[1 - reader.operand])
                if other and all(self._blocks(edge.source) == {"router"} for edge in other):
                    found.append(reader.node)
        return found

    def _sums_of_block(self, index: int, read: set[int]) -> list[int]:
        """The residual sums in a row that nothing but each other reads, back to what the block read."""
        found = [index]
        here = index
        while here not in read and self.nodes[here].kind == "sum":
            here = self.nodes[here].operands[0][0].source
            if self.nodes[here].kind == "sum" and here not in read:
                found.append(here)
        here = index
        while True:
            readers = self.reading.readers[here]
            if not readers or any(self.nodes[reader.node].kind != "sum" or reader.operand for reader in readers):
                return found
            here = readers[0].node
            found.append(here)

    def _closes(self, last: int, firsts: Sequence[int]) -> list[int]:
        """The sums that add its output to just what the block read: a residual block, of a stream or not."""
        read = {edge.source for index in firsts for edge in self.nodes[index].operands[0]}
        return [
            reader.node
            for reader in self.reading.readers[last]
            if self.nodes[reader.node].kind == "sum"
            and reader.operand == 1
            and self.nodes[reader.node].how is Flag.NONE
            and {edge.source for edge in self.nodes[reader.node].operands[0]} == read
        ]

    def _starts(self, index: int) -> bool:
        """It becomes a part of what a residual sum carries on, beside rows of a table: a projection into that stream."""
        return any(
            self.nodes[reader.node].kind == "sum"
            and reader.operand == 0
            and any(self.nodes[edge.source].kind == "table" for edge in self.nodes[reader.node].operands[0])
            for reader in self.reading.readers[index]
        )

    def _is_modulation(self, index: int) -> bool:
        """Weights read its output beside streams, and it is added to one too: it shifts and scales what others read."""
        readers = self.reading.read_by(index)
        carried = any(self.nodes[one.node].kind == "sum" and one.operand == 0 for one in self.reading.readers[index])
        return (
            bool(self.reading.writes_to(index))
            and not carried
            and any(
                self.nodes[reader.node].kind == "weight"
                and any(self.reading.is_stream[edge.source] for edge in self.nodes[reader.node].operands[0])
                for reader in readers
            )
        )

    def _scales(self, index: int) -> bool:
        """Its output multiplies a stream that it was computed from."""
        return any(
            self.nodes[reader.node].kind == "sum"
            and reader.operand == 1
            and self.nodes[reader.node].how is Flag.PRODUCT
            for reader in self.reading.readers[index]
        )

    def _routed(self, index: int) -> bool:
        """A router's choice decides on which rows it works, or with which matrix, or scales what it reads."""
        before = [edge.source for edge in self._weights(self.nodes[index].operands[0])]
        return any(self._is_routed(one) for one in (index, *before))

    def _is_routed(self, index: int) -> bool:
        node = self.nodes[index]
        if node.ids or any(self._routes(choice) for choice in node.control):
            return True
        for edge in self.reading.origins(node.operands[0]):
            source = self.nodes[edge.source]
            if source.kind == "sum" and source.how is Flag.PRODUCT:
                written = self.reading.origins(source.operands[1])
                if written and all(self._blocks(one.source) == {"router"} for one in written):
                    return True
        return False

    def _routes(self, choice: int) -> bool:
        return any("router" in self._blocks(edge.source) for edge in self._weights(self.nodes[choice].operands[0]))

    # Mixers

    def _mixer(self, last: int) -> None:
        """A weight that reads a product of values, a scan or a recurrence, and the weights that this was made of."""
        origins = self.reading.origins(self.nodes[last].operands[0])
        mixed = [edge for edge in origins if self.nodes[edge.source].kind == "contraction"]
        weights = [edge for edge in origins if self.nodes[edge.source].kind == "weight"]
        if (
            not mixed
            and not any((Flag.SCAN | Flag.CONVOLUTION) & edge.some for edge in weights)
            and not self._unrolled(weights)
        ):
            return
        if not self.reading.writes_to(last) and any(node.kind == "sum" for node in self.nodes):
            return
        self._claim(last, "mixer", "", "out", "it reads a product or recurrence of values without a softmax")
        waiting = [edge.source for edge in origins]
        seen: set[int] = set()
        while waiting:
            index = waiting.pop()
            node = self.nodes[index]
            if index in seen or self.reading.is_stream[index]:
                continue
            seen.add(index)
            if node.kind == "weight":
                if self._blocks(index) - {"mixer"}:
                    continue
                reads = self.reading.reads_stream(node)
                if reads:
                    self._claim(index, "mixer", "", "in", "its output goes into a product or recurrence of values")
                else:
                    self._claim(index, "mixer", "", "", "it stands between the weights of a mixer")
                    waiting += [edge.source for edge in self.reading.origins(node.operands[0])]
            elif node.kind == "contraction":
                waiting += [edge.source for edges in node.operands for edge in self.reading.origins(edges)]

    # Outside of blocks

    @cached_property
    def _vocabularies(self) -> frozenset[int]:
        """The tables that are read with an argument's own integers, but for those of far fewer rows: types, segments."""
        tables = [index for index, node in enumerate(self.nodes) if node.kind == "table" and node.ids]
        most = max((self.nodes[index].rows for index in tables), default=0)
        return frozenset(index for index in tables if self.nodes[index].rows * 8 >= most)

    def _outside(self, index: int, node: Node) -> None:
        if node.kind == "table":
            by = f" by {', '.join(node.ids)}" if node.ids else ""
            self._claim(
                index,
                "embedding",
                "",
                "token" if index in self._vocabularies and not self._features else "",
                f"its rows are looked up{by}",
            )
        elif node.kind == "parameter":
            self._claim(index, "other", "", "", "it is data, not a matrix: it is added, joined or read as it is")
        elif node.kind == "convolution":
            self._claim(index, "embedding", "", "patch", "it is a convolution that starts a stream")
        elif node.kind == "weight":
            self._single(index, node)

    def _single(self, index: int, node: Node) -> None:
        """A weight that belongs to no block: an end of the model, or what changes the width between two parts."""
        before = [edge.source for edge in self._weights(node.operands[0]) if edge.source not in self._claims]
        if not node.operands[0]:
            return  # it multiplies a constant: what fed it was lost
        of_input = all(self.nodes[edge.source].kind == "input" for edge in self._inputs(index))
        if self._scales(index) or self._is_modulation(index):
            for one in (index, *before):
                self._claim(one, "other", "", "", "its output scales a stream")
        elif self.reading.is_stream[index] or self._starts(index):
            of_table = all(self.nodes[edge.source].kind == "table" for edge in self._inputs(index))
            self._claim(index, "embedding", "", "projection" if of_table else "", "its output starts a stream")
        elif of_input:
            self._claim(index, "embedding", "", "", "it reads what the model is given")
        elif self.reading.is_output[index] and self._features:
            for one in (index, *before):
                self._claim(
                    one,
                    "embedding",
                    "",
                    "" if of_input else "projection",
                    "its output is what another part of the model reads",
                )
        elif self.reading.is_output[index]:
            rows = {self.nodes[table].rows for table in self._vocabularies}
            self._claim(index, "head", "", "lm" if node.rows in rows else "", "the call returns its output")
            for one in before:
                pooled = any(edge.piece for edge in self.nodes[one].operands[0])
                self._claim(
                    one, "head", "", "" if pooled else "transform", "its output is read by what the call returns"
                )


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
                found += [
                    dataclasses.replace(one, some=one.some | edge.some, every=one.every | edge.every) for one in inner
                ]
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
