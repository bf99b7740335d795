"""Who reads what, where values come from and which of them are streams: on graphs drawn by hand."""

from __future__ import annotations

from lorascope.tracing.graph import Edge, Flag, Graph
from lorascope.tracing.graph_queries import GraphQueries, Reader
from tests.helpers.graph_sketch import Sketch, activated, at, softmax, union


def streams(graph: Graph) -> set[int]:
    return {index for index, found in enumerate(GraphQueries(graph).is_stream) if found}


def test_readers_are_all_operands_that_read_a_node() -> None:
    draw = Sketch()
    stream = draw.table()
    one = draw.weight("one", stream)
    both = draw.times(one, activated(one))
    queries = GraphQueries(draw.graph(both))
    assert queries.readers[at(stream)] == (Reader(at(one), 0, Edge(0)),)
    flagged = Edge(1, None, Flag.ACTIVATION, Flag.ACTIVATION)
    assert queries.readers[at(one)] == (Reader(at(both), 0, Edge(1)), Reader(at(both), 1, flagged))
    assert queries.readers[at(both)] == ()
    assert queries.is_output == (False, False, True)


def test_residual_sums_of_what_starts_a_stream_are_streams() -> None:
    draw = Sketch()
    for start in (draw.table(), draw.input(), draw.parameter("learned"), draw.convolution("patches", draw.input())):
        first = draw.add(start, draw.weight("one", start))
        second = draw.add(first, draw.weight("two", first))
        draw.weight("head", second)
        assert {at(start), at(first), at(second)} <= streams(draw.graph())
    # Five starts (the convolution reads one), two sums on each of four.
    assert len(streams(draw.graph())) == 5 + 8


def test_a_sum_inside_a_block_is_no_stream() -> None:
    """Such as a bias by low rank, or rotated halves: what it sums came from a weight that carries nothing on."""
    draw = Sketch()
    start = draw.table()
    inner = draw.weight("inner", start)
    summed = draw.add(inner, draw.weight("low rank", inner))
    out = draw.add(start, draw.weight("out", union(summed, draw.weight("other", start))))
    graph = draw.graph(draw.weight("head", out))
    assert streams(graph) == {at(start), at(out)}


def test_a_projection_of_a_start_that_is_added_to_is_a_stream() -> None:
    draw = Sketch()
    pixels = draw.input()
    projected = draw.weight("projection", pixels)
    block = draw.weight("block", projected)
    out = draw.add(projected, block)
    graph = draw.graph(draw.weight("head", out))
    assert streams(graph) == {at(pixels), at(projected), at(out)}


def test_a_sum_that_only_a_product_reads_is_no_stream() -> None:
    draw = Sketch()
    start = draw.table()
    positions = draw.add(start, draw.weight("keys", start))
    graph = draw.graph(draw.times(draw.weight("queries", start), positions))
    assert streams(graph) == {at(start)}


def test_origins_look_through_sums_that_are_no_streams_and_keep_the_flags() -> None:
    draw = Sketch()
    start = draw.table()
    one = draw.weight("one", start)
    two = draw.weight("two", one)
    inner = draw.add(activated(one), two)
    carried = draw.add(start, draw.weight("out", start))
    queries = GraphQueries(draw.graph(draw.weight("head", carried)))
    origins = {edge.source: edge for edge in queries.origins(softmax(inner))}
    assert origins.keys() == {at(one), at(two)}
    assert origins[at(one)].every == Flag.ACTIVATION | Flag.SOFTMAX
    assert origins[at(two)].every == Flag.SOFTMAX
    assert queries.origins(carried) == carried  # a stream is an origin itself


def test_an_origin_by_two_ways_has_what_happened_on_some_and_on_every_one() -> None:
    draw = Sketch()
    start = draw.table()
    one = draw.weight("one", start)
    inner = draw.add(activated(one), draw.weight("two", one))
    draw.weight("head", draw.add(start, inner))
    queries = GraphQueries(draw.graph())
    (edge,) = [edge for edge in queries.origins((*inner, *one)) if edge.source == at(one)]
    assert (edge.some, edge.every) == (Flag.ACTIVATION, Flag.NONE)


def test_only_origins_of_the_kinds_asked_for() -> None:
    draw = Sketch()
    start = draw.table()
    value = union(draw.weight("one", start), draw.parameter("data"), draw.times(start, start))
    queries = GraphQueries(draw.graph())
    assert [queries.nodes[edge.source].kind for edge in queries.of_kind(value, "weight", "contraction")] == [
        "weight",
        "contraction",
    ]


def test_roots_tell_an_encoder_from_a_decoder() -> None:
    draw = Sketch()
    encoder, decoder = draw.table("source"), draw.table("target")
    memory = draw.add(encoder, draw.weight("encode", encoder))
    state = draw.add(decoder, draw.weight("decode", decoder))
    both = draw.times(draw.weight("q", state), draw.weight("k", memory))
    roots = GraphQueries(draw.graph(both)).roots
    assert roots[at(memory)] == {at(encoder)}
    assert roots[at(state)] == {at(decoder)}
    assert roots[at(both)] == {at(encoder), at(decoder)}
    # A sum carries on its first operand; that it writes what another stream was read for changes nothing.
    crossed = draw.add(state, draw.weight("o", both))
    assert GraphQueries(draw.graph(crossed)).roots[at(crossed)] == {at(decoder)}


def test_what_a_weight_writes_to_and_who_reads_it_go_past_inner_sums() -> None:
    draw = Sketch()
    start = draw.table()
    one = draw.weight("one", start)
    inner = draw.add(one, draw.weight("adapter", one))
    out = draw.add(start, inner)
    head = draw.weight("head", out)
    queries = GraphQueries(draw.graph(head))
    assert queries.writes_to(at(one)) == [at(out)]
    assert at(out) in {reader.node for reader in queries.read_by(at(one))}
    assert at(inner) not in {reader.node for reader in queries.read_by(at(one))}
    assert queries.writes_to(at(head)) == []


def test_a_weight_reads_a_stream_or_the_output_of_another() -> None:
    draw = Sketch()
    start = draw.table()
    first = draw.weight("first", start)
    second = draw.weight("second", activated(first))
    queries = GraphQueries(draw.graph(draw.weight("head", draw.add(start, second))))
    assert queries.reads_stream(queries.nodes[at(first)])
    assert not queries.reads_stream(queries.nodes[at(second)])


def test_a_gate_of_a_stream_is_a_stream_too() -> None:
    draw = Sketch()
    start = draw.table()
    gated = draw.add(start, activated(draw.weight("gate", start)), Flag.PRODUCT)
    graph = draw.graph(draw.weight("head", gated))
    assert streams(graph) == {at(start), at(gated)}
