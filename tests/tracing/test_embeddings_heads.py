"""What the classifier makes of embeddings, heads, projections and connectors that are drawn by hand."""

from __future__ import annotations

from lorascope.tracing.graph import Edges
from tests.helpers.graph_sketch import ROWS, Sketch, activated, multiplied, piece, roles, union


def layered(draw: Sketch, start: Edges) -> Edges:
    """A stream after one feed-forward block."""
    return draw.add(start, draw.weight("down", activated(draw.weight("up", start, 16)), columns=16))


def test_tables_are_embeddings_and_of_tokens_where_the_given_numbers_are_many() -> None:
    draw = Sketch()
    start = union(
        draw.table(), draw.table("types", rows=2, ids=("token_type_ids",)), draw.table("positions", rows=512, ids=())
    )
    found = roles(draw.graph(draw.weight("head", layered(draw, start))))
    assert (found["tokens"], found["types"], found["positions"]) == ("embedding.token", "embedding", "embedding")


def test_two_vocabularies_have_two_tables_of_tokens() -> None:
    draw = Sketch()
    start = union(draw.table("text", rows=100, ids=("input_ids",)), draw.table("audio", rows=64, ids=("codes",)))
    found = roles(draw.graph(draw.weight("head", layered(draw, start))))
    assert (found["text"], found["audio"]) == ("embedding.token", "embedding.token")


def test_a_head_as_wide_as_a_vocabulary_is_one_of_a_language_model() -> None:
    for rows, expected in ((ROWS, "head.lm"), (3, "head")):
        draw = Sketch()
        found = roles(draw.graph(draw.weight("head", layered(draw, draw.table()), rows)))
        assert found["head"] == expected


def test_what_stands_before_a_head_transforms_it_or_reads_one_position() -> None:
    draw = Sketch()
    dense = draw.weight("dense", layered(draw, draw.table()))
    found = roles(draw.graph(draw.weight("head", activated(dense), ROWS)))
    assert (found["dense"], found["head"]) == ("head.transform", "head.lm")
    draw = Sketch()
    pooled = draw.weight("pooler", piece(layered(draw, draw.table()), 0))
    found = roles(draw.graph(draw.weight("classifier", activated(pooled), 3)))
    assert (found["pooler"], found["classifier"]) == ("head", "head")


def test_a_table_that_is_the_head_too_is_claimed_for_both() -> None:
    draw = Sketch()
    found = roles(draw.graph(draw.weight("tokens", layered(draw, draw.table()), ROWS)))
    assert found["tokens"] == "embedding.token + head.lm"


def test_a_weight_between_a_table_and_the_stream_is_a_projection() -> None:
    draw = Sketch()
    narrow = draw.table(columns=2)
    found = roles(draw.graph(draw.weight("head", layered(draw, draw.weight("wider", narrow, columns=2)))))
    assert found["wider"] == "embedding.projection"


def test_patches_by_a_convolution_or_by_a_matrix_start_a_stream() -> None:
    draw = Sketch()
    found = roles(draw.graph(draw.weight("head", layered(draw, draw.convolution("patches", draw.input())))))
    assert found["patches"] == "embedding.patch"
    draw = Sketch()
    found = roles(draw.graph(draw.weight("head", layered(draw, draw.weight("patches", draw.input())))))
    assert found["patches"] == "embedding"


def test_parameters_that_are_data_are_other() -> None:
    draw = Sketch()
    start = union(draw.table(), draw.parameter("positions"))
    found = roles(draw.graph(draw.weight("head", layered(draw, start))))
    assert found["positions"] == "other"


def test_what_a_tower_returns_is_no_head() -> None:
    draw = Sketch()
    stream = layered(draw, draw.convolution("patches", draw.input()))
    graph = draw.graph(draw.weight("out", stream))
    assert roles(graph, features=True)["out"] == "embedding.projection"
    assert roles(graph)["out"] == "head"


def test_a_connector_of_two_layers_is_a_feed_forward_behind_a_tower() -> None:
    """No residual sum follows: its output goes to the language model."""
    draw = Sketch()
    stream = layered(draw, draw.convolution("patches", draw.input()))
    graph = draw.graph(draw.weight("second", activated(draw.weight("first", stream))))
    found = roles(graph, features=True)
    assert (found["first"], found["second"]) == ("ffn.dense.up", "ffn.dense.down")
    alone = roles(graph)
    assert (alone["first"], alone["second"]) == ("head.transform", "head")


def test_two_layers_without_a_function_between_are_two_projections() -> None:
    draw = Sketch()
    stream = layered(draw, draw.convolution("patches", draw.input()))
    found = roles(draw.graph(draw.weight("second", draw.weight("first", stream))), features=True)
    assert (found["first"], found["second"]) == ("embedding.projection", "embedding.projection")


def test_tables_of_a_tower_are_of_no_tokens() -> None:
    draw = Sketch()
    start = union(draw.convolution("patches", draw.input()), draw.table("positions", ids=("position_ids",)))
    assert roles(draw.graph(layered(draw, start)), features=True)["positions"] == "embedding"


def test_a_gate_on_a_stream_scales_it() -> None:
    from lorascope.tracing.graph import Flag

    draw = Sketch()
    stream = layered(draw, draw.table())
    stream = draw.add(stream, activated(draw.weight("gate", stream)), Flag.PRODUCT)
    assert roles(draw.graph(draw.weight("head", stream)))["gate"] == "other"


def test_a_weight_of_nothing_shows_nothing() -> None:
    draw = Sketch()
    stream = layered(draw, draw.table())
    draw.weight("lost", ())
    draw.weight("aside", multiplied(stream, stream))
    found = roles(draw.graph(draw.weight("head", stream)))
    assert "lost" not in found and "aside" not in found
