"""What the classifier makes of feed-forward blocks, routers and experts that are drawn by hand."""

from __future__ import annotations

import pytest

from lorascope.tracing.graph import Edges, Flag
from tests.helpers.graph_sketch import (
    WIDTH,
    Sketch,
    activated,
    decided,
    flagged,
    multiplied,
    piece,
    roles,
    softmax,
    union,
)


def gated(draw: Sketch, x: Edges, name: str = "", **routed: tuple[str, ...] | list[int]) -> Edges:
    """A gated block of three weights."""
    up = draw.weight(f"up{name}", x, 16, **routed)  # type: ignore[arg-type]  # ids or control
    gate = draw.weight(f"gate{name}", x, 16, **routed)  # type: ignore[arg-type]
    return draw.weight(f"down{name}", multiplied(activated(gate), up), WIDTH, 16, **routed)  # type: ignore[arg-type]


def test_two_weights() -> None:
    assert decided(lambda draw, x: draw.weight("b", activated(draw.weight("a", x, 16)), columns=16)) == {
        "a": "ffn.dense.up",
        "b": "ffn.dense.down",
    }


def test_three_weights() -> None:
    assert decided(gated) == {"up": "ffn.dense.up", "gate": "ffn.dense.gate", "down": "ffn.dense.down"}


def test_gate_and_up_in_one_matrix() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        fused = draw.weight("fused", x, 32)
        return draw.weight("down", multiplied(activated(piece(fused, 0)), piece(fused, 1)), columns=16)

    assert decided(block) == {"fused": "ffn.dense.gate_up", "down": "ffn.dense.down"}


def test_of_two_factors_without_a_function_neither_is_the_gate() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        return draw.weight("down", multiplied(draw.weight("a", x), draw.weight("b", x)))

    assert decided(block) == {"a": "ffn.dense", "b": "ffn.dense", "down": "ffn.dense.down"}


def test_of_two_factors_with_a_function_each_neither_is_the_gate() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        return draw.weight("down", multiplied(activated(draw.weight("a", x)), activated(draw.weight("b", x))))

    assert decided(block) == {"a": "ffn.dense", "b": "ffn.dense", "down": "ffn.dense.down"}


def test_two_weights_without_anything_between_are_no_block() -> None:
    assert decided(lambda draw, x: draw.weight("b", draw.weight("a", x, 2), columns=2)) == {}


def test_attention_and_feed_forward_side_by_side() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        mixed = draw.attend(draw.weight("q", x), draw.weight("k", x), draw.weight("v", x))
        return union(draw.weight("o", mixed), gated(draw, x))

    found = decided(block)
    assert {part: found[part] for part in "qkvo"} == {part: f"attention.self.{part}" for part in "qkvo"}
    assert [found[part] for part in ("up", "gate", "down")] == ["ffn.dense.up", "ffn.dense.gate", "ffn.dense.down"]


def routed(draw: Sketch, x: Edges, shared: Edges = ()) -> Edges:
    """A router that chooses one of two experts, perhaps beside a shared one."""
    scores = draw.weight("router", x, 2)
    choice = draw.choose(softmax(scores))
    experts = [
        multiplied(gated(draw, x, name, control=[choice]), flagged(scores, Flag.SOFTMAX | Flag.CHOSEN)) for name in "01"
    ]
    return union(*experts, shared)


EXPERTS = {f"{part}{name}": f"ffn.expert.{part}" for part in ("up", "gate", "down") for name in "01"}


def test_experts_are_what_a_router_chooses() -> None:
    assert decided(routed) == {"router": "router", **EXPERTS}


def test_experts_in_one_stack_of_matrices_that_a_choice_picks_from() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        scores = draw.weight("router", x, 4)
        choice = draw.choose(scores)
        fused = draw.weight("fused", x, 32, control=[choice])
        down = draw.weight("down", multiplied(activated(piece(fused, 0)), piece(fused, 1)), control=[choice])
        return multiplied(down, flagged(scores, Flag.SOFTMAX | Flag.CHOSEN))

    assert decided(block) == {"router": "router", "fused": "ffn.expert.gate_up", "down": "ffn.expert.down"}


def test_experts_that_tokens_are_hashed_to() -> None:
    assert decided(lambda draw, x: gated(draw, x, ids=("ids",))) == {
        part: f"ffn.expert.{part}" for part in ("up", "gate", "down")
    }


def test_a_shared_expert_stands_beside_routed_ones() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        return routed(draw, x, gated(draw, x, "shared"))

    shared = {f"{part}shared": f"ffn.shared.{part}" for part in ("up", "gate", "down")}
    assert decided(block) == {"router": "router", **EXPERTS, **shared}


def test_a_gate_with_one_output_on_a_shared_expert_is_a_router() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        gate = activated(draw.weight("one", x, rows=1))
        return routed(draw, x, multiplied(gated(draw, x, "shared"), gate))

    found = decided(block)
    assert (found["one"], found["router"]) == ("router", "router")


def test_a_mixture_of_all_experts_has_a_router_without_a_choice() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        weights = softmax(draw.weight("router", x, 2))
        return union(*(multiplied(gated(draw, x, name), weights) for name in "01"))

    assert decided(block) == {"router": "router", **EXPERTS}


def test_a_router_of_two_layers() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        hidden = draw.weight("first", x)
        scores = draw.weight("second", activated(hidden), 2)
        choice = draw.choose(scores)
        return multiplied(gated(draw, x, control=[choice]), flagged(scores, Flag.CHOSEN))

    found = decided(block)
    assert (found["first"], found["second"], found["down"]) == ("router", "router", "ffn.expert.down")


def test_a_block_whose_output_goes_nowhere_shows_nothing() -> None:
    draw = Sketch()
    x = draw.table()
    stream = draw.add(x, draw.weight("first", x))
    draw.weight("b", activated(draw.weight("a", stream)))
    found = roles(draw.graph(draw.weight("head", stream)))
    assert "a" not in found and "b" not in found


@pytest.mark.parametrize("how", [Flag.NONE, Flag.PRODUCT])
def test_two_weights_that_scale_a_stream_are_no_feed_forward(how: Flag) -> None:
    draw = Sketch()
    x = draw.table()
    scale = draw.weight("b", activated(draw.weight("a", x)))
    found = roles(draw.graph(draw.weight("head", draw.add(x, scale, how))))
    parts = ("ffn.dense.up", "ffn.dense.down") if how is Flag.NONE else ("other", "other")
    assert (found["a"], found["b"]) == parts


def test_what_shifts_and_scales_the_input_of_others_is_modulation() -> None:
    """As in diffusion transformers (arXiv 2212.09748): a condition gives shifts, scales and gates of every block."""
    draw = Sketch()
    x = draw.input()
    stream = draw.add(x, draw.weight("first", x))
    condition = draw.weight("modulation", activated(draw.weight("inner", draw.input("time"))), 24)
    shifted = union(multiplied(stream, piece(condition, 0, 4)), piece(condition, 1, 4))
    block = draw.weight("down", activated(draw.weight("up", shifted)))
    stream = draw.add(stream, multiplied(block, piece(condition, 2, 4)))
    found = roles(draw.graph(draw.weight("head", stream)))
    assert (found["modulation"], found["inner"]) == ("modulation", "embedding")
    assert (found["up"], found["down"]) == ("ffn.dense.up", "ffn.dense.down")


def test_a_network_without_residual_sums() -> None:
    draw = Sketch()
    x = draw.weight("b", activated(draw.weight("a", draw.table())))
    mixed = draw.attend(draw.weight("q", x), draw.weight("k", x), draw.weight("v", x))
    x = draw.weight("d", activated(draw.weight("c", draw.weight("o", mixed))))
    found = roles(draw.graph(draw.weight("head", activated(draw.weight("pre", x)), rows=100)))
    assert (found["c"], found["d"]) == ("ffn.dense.up", "ffn.dense.down")
    assert found["head"] == "head.lm"
