"""Which piece of a weight's output reaches what reads it, however the code takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lorascope.tracing.graph import Flag, Graph
from tests.helpers.expressions import node, recorded, shape


def gate(take: Callable[[torch.Tensor], Any]) -> Graph:
    def function(m: Any, x: torch.Tensor) -> Any:
        one, other = take(m.fused(x))
        return m.out(functional.silu(one) * other)

    return recorded(function, fused=nn.Linear(8, 16), out=nn.Linear(8, 8))


@pytest.mark.parametrize(
    "take",
    [
        lambda y: y.chunk(2, -1),
        lambda y: y.split(8, -1),
        lambda y: torch.split_with_sizes(y, [8, 8], -1),
        lambda y: torch.unsafe_chunk(y, 2, -1),
        lambda y: y.view(2, 5, 2, 8).unbind(2),
        lambda y: (y[..., :8], y[..., 8:]),
        lambda y: (y[..., ::2], y[..., 1::2]),
        lambda y: (y.narrow(-1, 0, 8), y.narrow(-1, 8, 8)),
        lambda y: torch.tensor_split(y, 2, -1),
    ],
)
def test_pieces_of_one_output(take: Callable[[torch.Tensor], Any]) -> None:
    graph = gate(take)
    assert shape(graph) == ["weight fused.weight", "weight out.weight"]
    first, second = node(graph, "out.weight").operands[0]
    assert first.source == second.source == 1
    assert first.piece != second.piece and first.piece and second.piece
    assert {first.every, second.every} == {Flag.PRODUCT, Flag.PRODUCT | Flag.ACTIVATION}


def test_a_gated_unit_in_one_operation_is_two_pieces() -> None:
    graph = recorded(lambda m, x: m.out(functional.glu(m.fused(x))), fused=nn.Linear(8, 16), out=nn.Linear(8, 8))
    first, second = node(graph, "out.weight").operands[0]
    assert (first.every, second.every) == (Flag.PRODUCT, Flag.PRODUCT | Flag.ACTIVATION)
    assert first.piece != second.piece
