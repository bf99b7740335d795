"""What each construct of PyTorch is recorded as."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lorascope.tracing.graph import Edge, Flag
from tests.helpers.expressions import IDS, NUMBERS, matrix, names, node, recorded, shape

LINEAR = ["weight w.weight"]
PARAMETER = ["weight w"]


@pytest.mark.parametrize(
    ("function", "part", "expected"),
    [
        (lambda m, x: m.w(x), nn.Linear(8, 4), LINEAR),
        (lambda m, x: m.w(x), nn.Linear(8, 4, bias=False), LINEAR),
        (lambda m, x: m.w(x[0, 0]), nn.Linear(8, 4), LINEAR),
        (lambda m, x: x @ m.w, matrix(8, 4), PARAMETER),
        (lambda m, x: m.w @ x.transpose(1, 2), matrix(4, 8), PARAMETER),
        (lambda m, x: x @ m.w.T, matrix(4, 8), PARAMETER),
        (lambda m, x: torch.matmul(x, m.w.half().float()), matrix(8, 4), PARAMETER),
        (lambda m, x: torch.einsum("bsi,io->bso", x, m.w), matrix(8, 4), PARAMETER),
        (lambda m, x: torch.einsum("io,bsi->bso", m.w, x), matrix(8, 4), PARAMETER),
        (lambda m, x: torch.addmm(torch.zeros(4), x[0], m.w), matrix(8, 4), PARAMETER),
        (lambda m, x: torch.tensordot(x, m.w, dims=1), matrix(8, 4), PARAMETER),
        (lambda m, x: m.w(x.transpose(1, 2)), nn.Conv1d(8, 4, 1), LINEAR),
        (lambda m, x: m.w(x.transpose(1, 2)[..., None]), nn.Conv2d(8, 4, 1), LINEAR),
    ],
)
def test_a_matrix_that_multiplies_a_value(function: Callable[[Any, Any], Any], part: Any, expected: list[str]) -> None:
    graph = recorded(function, w=part)
    assert shape(graph) == expected
    (used,) = (one for one in graph.nodes if one.kind == "weight")
    assert (used.rows, used.columns, used.operands) == (4, 8, ((Edge(0, used.operands[0][0].piece),),))
    assert [edge.source for edge in graph.outputs] == [1]


def test_a_matrix_per_head_is_one_weight() -> None:
    graph = recorded(lambda m, x: torch.einsum("bsi,ihd->bshd", x, m.w), w=matrix(8, 2, 4))
    assert (shape(graph), node(graph, "w").rows) == (PARAMETER, 8)


def test_a_stack_of_matrices() -> None:
    assert shape(recorded(lambda m, x: torch.bmm(x, m.w), w=matrix(2, 8, 4))) == PARAMETER
    graph = recorded(lambda m, x: torch.baddbmm(torch.zeros(2, 5, 4), x, m.w), w=matrix(2, 8, 4))
    assert shape(graph) == PARAMETER


def test_an_addend_is_a_residual_sum() -> None:
    graph = recorded(lambda m, x: torch.addmm(x[0], x[0], m.w), w=matrix(8, 8))
    assert shape(graph) == ["weight w", "sum"]
    assert [[edge.source for edge in edges] for edges in graph.nodes[2].operands] == [[0], [1]]


def test_a_vector_is_no_node() -> None:
    graph = recorded(lambda m, x: functional.layer_norm(x, (8,), m.w) * m.w + m.w, w=matrix(8))
    assert shape(graph) == []
    assert graph.outputs == (Edge(0, None, Flag.REDUCED, Flag.REDUCED),)


def heads(m: Any, x: torch.Tensor) -> Any:
    return m.q(x), m.k(x), m.v(x)


def eager(m: Any, x: torch.Tensor) -> Any:
    q, k, v = heads(m, x)
    return torch.softmax(q @ k.transpose(1, 2), -1) @ v


def swapped(m: Any, x: torch.Tensor) -> Any:
    q, k, v = heads(m, x)
    return torch.softmax(k @ q.transpose(1, 2), 1).transpose(1, 2) @ v


def added(m: Any, x: torch.Tensor) -> Any:
    q, k, v = heads(m, x)
    return torch.softmax(torch.baddbmm(torch.zeros(2, 5, 5), q, k.transpose(1, 2)), -1) @ v


@pytest.mark.parametrize(
    ("function", "scored"),
    [(eager, 1), (swapped, 0), (added, 1), (lambda m, x: functional.scaled_dot_product_attention(*heads(m, x)), 1)],
)
def test_attention_is_two_products_and_says_over_which_factor_the_softmax_runs(
    function: Callable[[Any, Any], Any], scored: int
) -> None:
    parts = {name: nn.Linear(8, 8) for name in "qkv"}
    graph = recorded(function, **parts)
    assert shape(graph) == ["weight q.weight", "weight k.weight", "weight v.weight", "contraction", "contraction"]
    scores, mixed = graph.nodes[4:]
    assert (scores.scored, mixed.scored) == (scored, None)
    assert mixed.operands[0] == (Edge(4, None, Flag.SOFTMAX, Flag.SOFTMAX),)
    assert mixed.operands[1] == (Edge(3),)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_torchs_own_attention_is_not_hidden_by_its_fast_path(training: bool, need_weights: bool) -> None:
    part = nn.MultiheadAttention(8, 2, batch_first=True).train(training)
    graph = recorded(lambda m, x: m.w(x, x, x, need_weights=need_weights)[0], w=part)
    fused = "weight w.in_proj_weight"
    assert shape(graph) == [fused, "contraction", "contraction", "weight w.out_proj.weight"]
    pieces = {edge.piece for one in graph.nodes[2:4] for edges in one.operands for edge in edges if edge.source == 1}
    assert len(pieces) == 3  # queries, keys and values
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).train(training)
    assert shape(recorded(lambda m, x: m.w(x), w=layer)).count("contraction") == 2


def test_convolutions() -> None:
    graph = recorded(lambda m, x: m.w(x.transpose(1, 2)), w=nn.Conv1d(8, 4, 3))
    assert (shape(graph), node(graph, "w.weight").rows, node(graph, "w.weight").columns) == (
        ["convolution w.weight"],
        4,
        8,
    )
    graph = recorded(lambda m, x: m.w(x.transpose(1, 2)), w=nn.Conv1d(8, 8, 3, groups=8))
    assert (shape(graph), graph.elementwise) == ([], frozenset({"w.weight"}))  # depthwise: it mixes no channels
    assert graph.outputs == (Edge(0, None, Flag.CONVOLUTION, Flag.CONVOLUTION),)


def test_tables() -> None:
    graph = recorded(lambda m, x: functional.linear(m.w(x), m.w.weight), IDS, w=nn.Embedding(10, 8))
    assert shape(graph) == ["table w.weight", "weight w.weight"]  # a tied head
    table, head = graph.nodes
    assert (table.rows, table.columns, table.ids) == (10, 8, ("x",))
    assert (head.rows, head.columns, head.ids) == (10, 8, ())


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (lambda x: x.clamp(0, 9).unsqueeze(0).long(), ("x",)),
        (lambda x: x + 1, ()),  # numbers of its own: an offset, a hash, a position
        (lambda x: torch.arange(x.shape[1]), ()),
        (lambda x: (x != 1).long().cumsum(-1), ()),
    ],
)
def test_a_table_says_which_argument_its_rows_are_chosen_by(
    ids: Callable[[Any], Any], expected: tuple[str, ...]
) -> None:
    graph = recorded(lambda m, x: m.w(ids(x)), IDS, w=nn.Embedding(10, 8))
    assert graph.nodes[0].ids == expected


def test_numbers_that_count_up_are_positions() -> None:
    graph = recorded(lambda m, x: m.w(x), torch.arange(5)[None], w=nn.Embedding(10, 8))
    assert graph.nodes[0].ids == ()


def test_parameters_as_data() -> None:
    graph = recorded(lambda m, x: x + m.w, w=matrix(5, 8))
    assert (shape(graph), graph.elementwise) == (["parameter w"], frozenset())
    graph = recorded(lambda m, x: torch.cat([m.w.expand(2, 1, 8), x], 1), w=matrix(1, 8))
    assert shape(graph) == ["parameter w"]
    graph = recorded(lambda m, x: x * m.w, w=matrix(5, 8))
    assert (shape(graph), graph.elementwise) == ([], frozenset({"w"}))


def test_slices_that_are_written_in_place() -> None:
    def function(m: Any, x: torch.Tensor) -> Any:
        out = torch.zeros(2, 5, 8)
        out[0] = m.a(x[0])
        first = m.first(out[0])
        out[1] = m.b(x[1])
        return m.both(out), first

    graph = recorded(function, **{name: nn.Linear(8, 8) for name in ("a", "b", "both", "first")})
    assert set(names(graph, "both.weight")) == {"a.weight", "b.weight"}
    assert set(names(graph, "first.weight")) == {"a.weight"}


def test_a_view_sees_what_is_written_to_its_memory_later_and_only_to_its_own() -> None:
    def function(m: Any, x: torch.Tensor) -> Any:
        out = torch.zeros(2, 5, 8)
        first, second = out[0], out[1]
        out[1].copy_(m.a(x[1]))
        return m.one(first + x[0]), m.other(second)

    graph = recorded(function, **{name: nn.Linear(8, 8) for name in ("a", "one", "other")})
    assert set(names(graph, "one.weight")) == {"x"}
    assert set(names(graph, "other.weight")) == {"a.weight"}


@pytest.mark.parametrize("write", ["add_", "sub_", "copy_", "mul_"])
def test_operations_in_place(write: str) -> None:
    def function(m: Any, x: torch.Tensor) -> Any:
        y = m.a(x)
        view = y[0]
        getattr(y, write)(m.b(x))
        return m.out(view.relu_())

    graph = recorded(function, **{name: nn.Linear(8, 8) for name in ("a", "b", "out")})
    assert "b.weight" in names(graph, "out.weight")
    assert NUMBERS.eq(1).all()


def test_a_residual_sum_carries_on_what_was_computed_from() -> None:
    def function(m: Any, x: torch.Tensor) -> Any:
        x = x + m.a(x)
        x += m.b(functional.gelu(x))
        return x * torch.sigmoid(m.c(x))

    graph = recorded(function, **{name: nn.Linear(8, 8) for name in "abc"})
    kinds = ["weight a.weight", "sum", "weight b.weight", "sum", "weight c.weight", "sum"]
    assert shape(graph) == kinds
    assert [one.how for one in graph.nodes if one.kind == "sum"] == [Flag.NONE, Flag.NONE, Flag.PRODUCT]
    assert [[edge.source for edge in one.operands[0]] for one in graph.nodes if one.kind == "sum"] == [[0], [2], [4]]
