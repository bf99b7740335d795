"""What the self-checks refuse, and what they let pass."""

from __future__ import annotations

import pytest
from architectures import Entry

from lorascope.tracing.classify.aggregate import Aggregate
from lorascope.tracing.classify.classify import classify_uses
from lorascope.tracing.classify.consistency import inconsistencies, unlike_their_layers
from lorascope.tracing.graph import Edges, Graph
from tests.conformance.traces import trace
from tests.helpers.families import entry_of, expected
from tests.helpers.graph_sketch import Sketch, activated, at, joined, piece, softmax, union
from tests.helpers.trace_verdicts import verdict


def doubted(graph: Graph) -> dict[str, str]:
    """Parameter name to why its role is in doubt."""
    return {graph.nodes[node].name: why for node, why in inconsistencies(graph, classify_uses(graph)).items()}


def network(draw: Sketch, stream: Edges, written: Edges) -> Graph:
    return draw.graph(draw.weight("head", draw.add(stream, written)))


def test_a_whole_attention_and_a_feed_forward_pass() -> None:
    draw = Sketch()
    x = draw.table()
    mixed = draw.attend(draw.weight("q", x), draw.weight("k", x), draw.weight("v", x))
    stream = draw.add(x, draw.weight("o", mixed))
    graph = network(draw, stream, draw.weight("down", activated(draw.weight("up", stream, 16)), columns=16))
    assert len(classify_uses(graph)) == 8
    assert doubted(graph) == {}


def test_an_attention_without_values() -> None:
    draw = Sketch()
    x = draw.table()
    scores = softmax(draw.times(draw.weight("q", x), draw.weight("k", x), scored=1))
    weighed = draw.times(draw.weight("a", x), draw.weight("b", x))  # itself a product of values
    graph = network(draw, x, draw.weight("o", draw.times(scores, weighed)))
    found = doubted(graph)
    assert found.keys() == {"q", "k", "o"}
    assert set(found.values()) == {"the attention that it would belong to has no values"}


def test_an_attention_without_an_output() -> None:
    draw = Sketch()
    x = draw.table()
    mixed = draw.attend(draw.weight("q", x), draw.weight("k", x), draw.weight("v", x))
    graph = network(draw, x, draw.weight("other", x))
    assert set(doubted(graph)) == {"q", "k", "v"}
    assert set(doubted(graph).values()) == {"the attention that it would belong to has no output"}
    assert not any(edge.source == at(mixed) for node in graph.nodes for edges in node.operands for edge in edges)


def test_an_attention_that_is_returned_needs_no_output() -> None:
    draw = Sketch()
    x = draw.table()
    mixed = draw.attend(draw.weight("q", x), draw.weight("k", x), draw.weight("v", x))
    draw.weight("other", draw.add(x, draw.weight("another", x)))
    assert doubted(draw.graph(mixed)) == {}


def test_a_learned_query_needs_no_weight() -> None:
    draw = Sketch()
    x = draw.table()
    mixed = draw.attend(draw.parameter("query"), draw.weight("k", x), draw.weight("v", x))
    graph = network(draw, x, draw.weight("o", mixed))
    assert "k" in {annotation.name for annotation in classify_uses(graph)}
    assert doubted(graph) == {}


@pytest.mark.parametrize(("rank", "refused"), [(2, False), (7, False), (8, True)])
def test_a_pair_of_low_rank_narrows(rank: int, refused: bool) -> None:
    """The first half is narrower than what it reads (12) and than what the second makes of it (8)."""
    draw = Sketch()
    x = draw.table(columns=12)
    narrow = draw.weight("narrow", x, rank, 12)
    queries = union(draw.weight("wide", narrow, 8, rank), draw.weight("wider", narrow, 16, rank))
    graph = network(draw, x, draw.weight("o", draw.attend(queries, draw.weight("k", x), draw.weight("v", x))))
    parts = {
        annotation.name: annotation.part
        for annotation in classify_uses(graph)
        if annotation.part.endswith(("_a", "_b"))
    }
    assert parts == {"narrow": "q_a", "wide": "q_b", "wider": "q_b"}
    found = doubted(graph)
    assert found.keys() == ({"narrow", "wide"} if refused else set())
    assert all(why == "a pair of low rank would narrow to 8 and widen to 8" for why in found.values())


def test_queries_and_keys_that_are_joined_first_are_refused() -> None:
    draw = Sketch()
    x = draw.table()
    both = joined(draw.weight("a", x), draw.weight("b", x))
    graph = network(draw, x, draw.weight("o", draw.attend(both, both, draw.weight("v", x))))
    found = doubted(graph)
    assert found.keys() == {"a", "b"}
    assert all(why.startswith("its output is joined with that of another weight") for why in found.values())


def test_one_weight_whose_pieces_are_queries_and_keys_is_not_joined() -> None:
    draw = Sketch()
    x = draw.table()
    fused = draw.weight("qk", x, 16)
    queries, keys = (joined(piece(fused, place), draw.parameter(f"register {place}")) for place in (0, 1))
    assert doubted(network(draw, x, draw.weight("o", draw.attend(queries, keys, draw.weight("v", x))))) == {}


def layers(*texts: str) -> dict[str, Aggregate]:
    """One weight in each of several layers: `block.part`, or nothing where none is settled."""
    pairs = [(*text.split("."), "")[:2] for text in texts]
    return {f"layers.{place}.w": Aggregate(block, "", part, "seen") for place, (block, part) in enumerate(pairs)}


def test_layers_that_agree_pass() -> None:
    aggregates = layers(*["attention.q"] * 4)
    assert unlike_their_layers(aggregates, [list(aggregates)]) == {}
    assert unlike_their_layers(aggregates, [["unknown", *aggregates]]) == {}


def test_a_layer_unlike_the_others_is_refused_and_the_others_stay() -> None:
    aggregates = layers(*["attention.q"] * 3, "ffn.up")
    assert unlike_their_layers(aggregates, [list(aggregates)]) == {
        "layers.3.w": "3 of 4 weights like it in other layers show attention.q"
    }


def test_layers_without_a_majority_are_all_refused() -> None:
    aggregates = layers("attention.q", "attention.q", "ffn.up", "ffn.up", "")
    found = unlike_their_layers(aggregates, [list(aggregates)])
    assert found.keys() == {f"layers.{place}.w" for place in range(4)}  # the fifth has no role to refuse
    assert set(found.values()) == {"5 weights like it in other layers show different roles"}


def test_layers_of_other_groups_have_no_say() -> None:
    aggregates = layers("attention.q", "attention.q", "ffn.up", "ffn.up")
    names = list(aggregates)
    assert unlike_their_layers(aggregates, [names[:2], names[2:]]) == {}


# What the first study of roles by dataflow found wrong with confidence, and why.
CONFIDENT_ERRORS = {
    "seq2seq-lm/encoder-decoder": "two models, and the embeddings of the first were taken for those of both",
    "seq2seq-lm/pegasus_x": "a second stream that starts from a parameter",
    "causal-lm/blt": "streams of bytes and of patches inside each other",
}


@pytest.mark.slow
@pytest.mark.parametrize("label", CONFIDENT_ERRORS)
def test_of_models_that_dataflow_was_once_wrong_about_nothing_is_wrong(label: str) -> None:
    entry: Entry = entry_of(label)
    truth = expected(label)
    found = {one.weight: verdict(truth[one.weight], one) for one in trace(entry).traces if one.weight in truth}
    assert len(found) == len(truth) > 100
    assert [name for name, worth in found.items() if worth == "wrong"] == []
    assert sum(worth in ("right", "coarse", "open") for worth in found.values()) >= len(found) - 2
