"""What the classifier makes of attentions and choices that are drawn by hand."""

from __future__ import annotations

from lorascope.tracing.graph import Edges
from tests.helpers.graph_sketch import (
    ROWS,
    Sketch,
    activated,
    at,
    decided,
    joined,
    multiplied,
    piece,
    roles,
    softmax,
    union,
)


def test_attention() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        return draw.weight("d", draw.attend(draw.weight("a", x), draw.weight("b", x), draw.weight("c", x)))

    assert decided(block) == {f"{name}": f"attention.self.{part}" for name, part in zip("abcd", "qkvo", strict=True)}


def test_attention_with_the_keys_as_the_first_factor() -> None:
    """The softmax runs over the keys' positions: the operand that it runs over is theirs."""

    def block(draw: Sketch, x: Edges) -> Edges:
        keys, queries, values = draw.weight("k", x), draw.weight("q", x), draw.weight("v", x)
        scores = draw.times(keys, queries, scored=0)
        return draw.weight("o", draw.times(values, softmax(scores)))

    assert decided(block) == {part: f"attention.self.{part}" for part in "qkvo"}


def test_attention_of_fused_pieces() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        fused = draw.weight("fused", x, rows=24)
        return draw.weight("o", draw.attend(*(piece(fused, place, 3) for place in range(3))))

    assert decided(block) == {
        "fused": "attention.self.k + attention.self.q + attention.self.v",
        "o": "attention.self.o",
    }


def test_attention_whose_queries_and_gate_are_one_matrix() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        queries = draw.weight("q", x, rows=16)
        mixed = draw.attend(piece(queries, 0), draw.weight("k", x), draw.weight("v", x))
        return draw.weight("o", multiplied(mixed, activated(piece(queries, 1))))

    assert decided(block)["q"] == "attention.self.gate + attention.self.q"


def test_attention_with_a_gate_on_its_output() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        mixed = draw.attend(draw.weight("q", x), draw.weight("k", x), draw.weight("v", x))
        return draw.weight("o", multiplied(mixed, activated(draw.weight("gate", x))))

    assert decided(block)["gate"] == "attention.self.gate"


def test_attention_with_queries_of_low_rank() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        queries = draw.weight("wide", draw.weight("narrow", x, rows=2), columns=2)
        return draw.weight("o", draw.attend(queries, draw.weight("k", x), draw.weight("v", x)))

    found = decided(block)
    assert (found["narrow"], found["wide"]) == ("attention.self.q_a", "attention.self.q + attention.self.q_b")


def test_latent_attention_whose_rotated_keys_come_straight_from_the_first_half() -> None:
    """As in DeepSeek-V2 (arXiv 2405.04434, section 2.1): kv_a gives the shared rotary key and what kv_b widens."""

    def block(draw: Sketch, x: Edges) -> Edges:
        narrow = draw.weight("kv_a", x, rows=4)
        wide = draw.weight("kv_b", piece(narrow, 0), rows=16, columns=2)
        keys = joined(piece(wide, 0), piece(narrow, 1))
        return draw.weight("o", draw.attend(draw.weight("q", x), keys, piece(wide, 1)))

    found = decided(block)
    assert found["q"] == "attention.self.q"
    assert {text.rpartition(".")[2] for text in found["kv_a"].split(" + ")} == {"k", "k_a", "v_a"}
    assert {text.rpartition(".")[2] for text in found["kv_b"].split(" + ")} == {"k", "k_b", "v", "v_b"}


def test_cross_attention_reads_keys_of_another_stream() -> None:
    draw = Sketch()
    memory, stream = draw.table("source"), draw.table("target")
    memory = draw.add(memory, draw.weight("encode", activated(draw.weight("inner", memory, rows=16)), columns=16))
    mixed = draw.attend(draw.weight("q", stream), draw.weight("k", memory), draw.weight("v", memory))
    stream = draw.add(stream, draw.weight("o", mixed))
    found = roles(draw.graph(draw.weight("head", stream)))
    assert {part: found[part] for part in "qkvo"} == {part: f"attention.cross.{part}" for part in "qkvo"}


def test_keys_of_the_own_stream_and_another_are_open() -> None:
    """Such as a prefix, or images beside text: neither self- nor cross-attention."""
    draw = Sketch()
    start, images = draw.table(), draw.input()
    stream = draw.add(start, draw.weight("first", activated(draw.weight("inner", start))))
    keys = union(draw.weight("k", stream), draw.weight("k", images))
    mixed = draw.attend(draw.weight("q", stream), keys, draw.weight("v", stream))
    found = roles(draw.graph(draw.weight("head", draw.add(stream, draw.weight("o", mixed)))))
    assert {part: found[part] for part in "qkvo"} == {part: f"attention.{part}" for part in "qkvo"}


def test_positions_that_take_part_in_scores_are_no_keys() -> None:
    """As in Transformer-XL: a second product of the queries, with projected positions, is added to the scores."""

    def block(draw: Sketch, x: Edges) -> Edges:
        queries, keys, values = draw.weight("q", x), draw.weight("k", x), draw.weight("v", x)
        positions = draw.weight("r", draw.table("distances", rows=21, ids=()))
        scores = union(draw.times(queries, keys, scored=1), draw.times(queries, positions, scored=1))
        return draw.weight("o", draw.times(softmax(scores), values))

    found = decided(block)
    assert found["r"] == "attention.self.position"
    assert {part: found[part] for part in "qkvo"} == {part: f"attention.self.{part}" for part in "qkvo"}


def test_a_weight_that_is_added_to_scores_is_a_bias() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        scores = draw.times(draw.weight("q", x), draw.weight("k", x), scored=1)
        return draw.weight("o", draw.times(softmax(union(scores, draw.weight("bias", x))), draw.weight("v", x)))

    assert decided(block)["bias"] == "attention.self.bias"


def test_attention_without_a_softmax_but_with_a_sigmoid() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        scores = draw.times(draw.weight("q", x), draw.weight("k", x))
        return draw.weight("o", draw.times(activated(scores), draw.weight("v", x)))

    assert decided(block) == {part: f"attention.self.{part}" for part in "qkvo"}


def test_heads_that_talk_to_each_other() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        scores = draw.weight("before", draw.times(draw.weight("q", x), draw.weight("k", x), scored=1), 4, 4)
        weights = draw.weight("after", softmax(scores), 4, 4)
        return draw.weight("o", draw.times(weights, draw.weight("v", x)))

    found = decided(block)
    assert {part: found[part] for part in "qkvo"} == {part: f"attention.self.{part}" for part in "qkvo"}


def test_attention_in_a_network_without_residual_sums() -> None:
    draw = Sketch()
    x = draw.table()
    first = draw.weight("o", draw.attend(draw.weight("q", x), draw.weight("k", x), draw.weight("v", x)))
    second = draw.weight(
        "o2", draw.attend(draw.weight("q2", first), draw.weight("k2", first), draw.weight("v2", first))
    )
    found = roles(draw.graph(draw.weight("head", second, rows=ROWS)))
    for layer in ("", "2"):
        assert [found[f"{part}{layer}"] for part in "qkvo"] == [f"attention.self.{part}" for part in "qkvo"]


def test_indexer() -> None:
    """Scores without values, from which positions are chosen, decide what an attention reads."""

    def block(draw: Sketch, x: Edges) -> Edges:
        products = activated(draw.times(draw.weight("iq", x), draw.weight("ik", x)))
        choice = draw.choose(multiplied(products, draw.weight("iw", x)))
        q, k, v = draw.weight("q", x), draw.weight("k", x), draw.weight("v", x)
        return draw.weight("o", draw.times(softmax(draw.times(q, k, scored=1, control=[choice])), v))

    found = decided(block)
    assert (found["iq"], found["ik"], found["iw"]) == ("indexer", "indexer", "indexer.weight")
    assert {part: found[part] for part in "qkvo"} == {part: f"attention.self.{part}" for part in "qkvo"}


def test_the_nearest_row_of_a_codebook_is_no_router() -> None:
    draw = Sketch()
    x = draw.input()
    latent = draw.weight("encoder", x)
    choice = draw.choose(draw.weight("codebook", latent, rows=64), "argmin")
    assert choice == 3
    found = roles(draw.graph(latent))
    assert "router" not in found.get("codebook", "")


def test_a_maximum_whose_value_is_taken_chooses_nothing() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        gate = draw.weight("gate", x)
        draw.choose(gate, "max")
        return draw.weight("out", activated(gate))

    assert decided(block) == {"gate": "ffn.dense.up", "out": "ffn.dense.down"}


def test_a_single_weight_and_products_of_data_alone_show_nothing() -> None:
    assert decided(lambda draw, x: draw.weight("lonely", x)) == {}
    draw = Sketch()
    assert roles(draw.graph(draw.times(softmax(draw.times(draw.input("a"), draw.input("b"))), draw.input("c")))) == {}
    assert roles(Sketch().graph()) == {}


def test_a_softmax_of_scores_that_weighs_no_product_is_no_attention() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        return softmax(draw.times(draw.weight("q", x), draw.weight("k", x), scored=1))

    assert not any("attention" in text for text in decided(block).values())


def test_evidence_is_a_clause_on_the_weight() -> None:
    from lorascope.tracing.classify.classify import classify_uses

    draw = Sketch()
    x = draw.table()
    q, k, v = (draw.weight(name, x) for name in "qkv")
    out = draw.weight("o", draw.attend(q, k, v))
    annotations = classify_uses(draw.graph(draw.weight("head", draw.add(x, out))))
    assert {annotation.name: annotation.why for annotation in annotations if annotation.block == "attention"} == {
        "q": "its output is a factor of an attention's scores",
        "k": "its output is the factor of an attention's scores whose positions the softmax runs over",
        "v": "its output is what an attention's softmax weighs",
        "o": "it reads an attention's output",
    }
    assert [annotation.node for annotation in annotations if annotation.name == "o"] == [at(out)]
    assert {annotation.name for annotation in annotations if annotation.is_lookup} == {"tokens"}
