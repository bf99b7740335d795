"""What the classifier makes of state spaces, linear attentions and recurrences that are drawn by hand."""

from __future__ import annotations

import pytest

from lorascope.tracing.graph import Edges, Flag
from tests.helpers.graph_sketch import Sketch, activated, decided, flagged, multiplied, piece, roles, union


@pytest.mark.parametrize("flag", [Flag.SCAN, Flag.CONVOLUTION])
def test_mixer_of_a_scan_or_a_convolution(flag: Flag) -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        return draw.weight("out", multiplied(flagged(draw.weight("in", x), flag), activated(draw.weight("z", x))))

    assert decided(block) == {"in": "mixer.in", "z": "mixer.in", "out": "mixer.out"}


def test_mixer_of_a_product_without_a_softmax() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        state = draw.times(draw.weight("k", x), draw.weight("v", x))
        return draw.weight("out", draw.times(draw.weight("q", x), state))

    assert decided(block) == {"q": "mixer.in", "k": "mixer.in", "v": "mixer.in", "out": "mixer.out"}


def test_what_stands_between_the_weights_of_a_mixer_has_no_part() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        first = flagged(draw.weight("in", x), Flag.SCAN)
        step = draw.weight("step", first)
        return draw.weight("out", draw.times(step, first))

    assert decided(block) == {"in": "mixer.in", "step": "mixer", "out": "mixer.out"}


def test_a_recurrence_that_is_written_as_a_loop_reads_one_piece_per_position() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        inner = draw.weight("in", x)
        steps = union(*(multiplied(activated(piece(inner, place, 12)), inner) for place in range(12)))
        return draw.weight("out", steps)

    assert decided(block) == {"in": "mixer.in", "out": "mixer.out"}


def test_a_product_of_values_that_writes_nowhere_is_no_mixer() -> None:
    draw = Sketch()
    x = draw.table()
    stream = draw.add(x, draw.weight("first", x))
    draw.weight("aside", draw.times(draw.weight("a", stream), draw.weight("b", stream)))
    found = roles(draw.graph(draw.weight("head", stream)))
    assert not {"a", "b", "aside"} & found.keys()


def test_the_largest_of_a_product_chooses_nothing() -> None:
    def block(draw: Sketch, x: Edges) -> Edges:
        product = draw.times(draw.weight("k", x), draw.weight("v", x))
        draw.choose(product, "max")
        return draw.weight("out", draw.times(draw.weight("q", x), product))

    assert decided(block) == {"q": "mixer.in", "k": "mixer.in", "v": "mixer.in", "out": "mixer.out"}
