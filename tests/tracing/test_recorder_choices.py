"""Choices and integers while a call is recorded: made-up ones reach every expert, known ones stay known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from lorascope.tracing.graph import Flag
from lorascope.tracing.record.recorder import record
from tests.helpers.expressions import IDS, NUMBERS, Expression, matrix, node, recorded, shape

EXPERTS = 6


def in_a_loop(m: Any, x: torch.Tensor) -> Any:
    x = x.reshape(-1, 8)
    weights, chosen = m.router(x).softmax(-1).topk(2, -1)
    out = torch.zeros_like(x)
    for number, expert in enumerate(m.experts):
        rows, places = torch.where(chosen == number)
        if rows.numel():
            out.index_add_(0, rows, expert(x[rows]) * weights[rows, places, None])
    return out


def one_hot(m: Any, x: torch.Tensor) -> Any:
    x = x.reshape(-1, 8)
    chosen = m.router(x).topk(2).indices
    mask = nn.functional.one_hot(chosen, EXPERTS).permute(2, 1, 0)
    out = torch.zeros_like(x)
    for number in torch.greater(mask.sum((-1, -2)), 0).nonzero().flatten().tolist():
        _, rows = torch.where(mask[number])
        out[rows] += m.experts[number](x[rows])
    return out


def sorted_by_expert(m: Any, x: torch.Tensor) -> Any:
    x = x.reshape(-1, 8)
    chosen = m.router(x).topk(2, -1).indices
    order = chosen.flatten().argsort()
    counts = chosen.flatten().bincount(minlength=EXPERTS).tolist()
    parts = x[order // 2].split(counts)
    return torch.cat([m.experts[number](part) for number, part in enumerate(parts) if len(part)])


def masked(m: Any, x: torch.Tensor) -> Any:
    x = x.reshape(-1, 8)
    chosen = m.router(x).argmax(-1)
    out = torch.zeros_like(x)
    for number, expert in enumerate(m.experts):
        mask = chosen == number
        if mask.any():
            out[mask] = expert(x[mask])
    return out


@pytest.mark.parametrize("function", [in_a_loop, one_hot, sorted_by_expert, masked])
def test_made_up_choices_reach_every_expert_of_a_loop(function: Callable[[Any, Any], Any]) -> None:
    graph = recorded(function, router=nn.Linear(8, EXPERTS), experts=nn.ModuleList(nn.Linear(8, 8) for _ in range(6)))
    experts = [one for one in graph.nodes if one.name.startswith("experts.")]
    assert [one.name for one in experts] == [f"experts.{number}.weight" for number in range(EXPERTS)]
    (choice, *_) = [index for index, one in enumerate(graph.nodes) if one.kind == "choice"]
    assert all(choice in one.control for one in experts)
    assert all(edge.every & Flag.CHOSEN for one in experts for edge in one.operands[0])
    assert [edge.source for edge in graph.nodes[choice].operands[0]] == [1]
    assert graph.nodes[1].name == "router.weight"


def gathered(m: Any, x: torch.Tensor) -> Any:
    weights, chosen = m.router(x).topk(2, -1)
    return (x[:, :, None, None] @ m.experts[chosen]).squeeze(3) * weights[..., None]


def selected(m: Any, x: torch.Tensor) -> Any:
    weights, chosen = m.router(x[0]).topk(1, -1)
    return torch.bmm(x[0][:, None], torch.index_select(m.experts, 0, chosen[:, 0])) * weights[..., None]


@pytest.mark.parametrize("function", [gathered, selected])
def test_a_choice_picks_from_a_stack_of_matrices(function: Callable[[Any, Any], Any]) -> None:
    graph = recorded(function, router=nn.Linear(8, EXPERTS), experts=matrix(EXPERTS, 8, 8))
    assert shape(graph) == ["weight router.weight", "choice topk", "weight experts"]
    assert (node(graph, "experts").control, node(graph, "experts").ids) == ((2,), ())
    scores = next(edge for edge in graph.outputs if edge.source == 1)
    assert scores.every == Flag.CHOSEN | Flag.PRODUCT


def test_a_stack_that_the_given_ids_pick_from_says_so() -> None:
    def function(m: Any, ids: torch.Tensor) -> Any:
        x = m.tokens(ids)
        return x[:, :, None] @ m.experts[ids % EXPERTS]

    graph = recorded(function, IDS, tokens=nn.Embedding(10, 8), experts=matrix(EXPERTS, 8, 8))
    assert (node(graph, "experts").ids, node(graph, "experts").control) == (("x",), ())


def test_a_mask_that_was_scattered_is_under_the_control_of_the_choice() -> None:
    def function(m: Any, x: torch.Tensor) -> Any:
        chosen = m.router(x).topk(2, -1).indices
        mask = torch.zeros(2, 5, 8).scatter(-1, chosen, 1.0)
        return m.out(x * mask)

    graph = recorded(function, router=nn.Linear(8, 8), out=nn.Linear(8, 8))
    assert shape(graph) == ["weight router.weight", "choice topk", "weight out.weight"]
    assert [edge.source for edge in node(graph, "out.weight").operands[0]] == [0]
    assert node(graph, "out.weight").control == (2,)


def test_what_is_picked_by_a_choice_is_flagged() -> None:
    graph = recorded(lambda m, x: m.router(x).topk(2, -1).values, router=nn.Linear(8, 8))
    assert [(edge.source, edge.every) for edge in graph.outputs] == [(1, Flag.CHOSEN)]
    graph = recorded(lambda m, x: m.router(x).max(-1).values, router=nn.Linear(8, 8))
    assert [(edge.source, edge.every) for edge in graph.outputs] == [(1, Flag.REDUCED)]


def test_known_integers_keep_their_numbers() -> None:
    seen: dict[str, Any] = {}

    def function(m: Any, ids: torch.Tensor) -> Any:
        seen["item"] = ids[0, 0].item()
        seen["list"] = ids.tolist()
        seen["int"] = int(ids.max())
        seen["nonzero"] = (ids == 1).nonzero().tolist()
        seen["where"] = torch.where(ids > 2)[1].tolist()
        seen["chosen"] = ids[ids > 2].tolist()
        seen["branch"] = bool((ids == 9).any())
        seen["unique"] = torch.unique(ids).tolist()
        seen["lengths"] = (ids != 1).sum(-1).tolist()
        seen["masked"] = ids.masked_fill(ids == 1, 7).tolist()
        seen["float"] = (ids.float().mean() * 10).item()
        seen["made"] = torch.arange(ids.shape[1], device=ids.device).cumsum(0).tolist()
        seen["tensor"] = torch.tensor([2, 3], device="meta").tolist()
        return m.tokens(ids)[ids > 2]

    graph = recorded(function, IDS, tokens=nn.Embedding(10, 8))
    assert shape(graph) == ["table tokens.weight"]
    assert seen == {
        "item": 3,
        "list": [[3, 1, 4, 1, 5]],
        "int": 5,
        "nonzero": [[0, 1], [0, 3]],
        "where": [0, 2, 4],
        "chosen": [3, 4, 5],
        "branch": False,
        "unique": [1, 3, 4, 5],
        "lengths": [3],
        "masked": [[3, 7, 4, 7, 5]],
        "float": pytest.approx(28),
        "made": [0, 1, 3, 6, 10],
        "tensor": [2, 3],
    }


def test_integers_of_arguments_and_buffers_are_not_changed() -> None:
    ids = IDS.clone()

    def function(m: Any, ids: torch.Tensor) -> Any:
        ids[ids == 1] = 2
        return m.tokens(ids)

    recorded(function, ids, tokens=nn.Embedding(10, 8))
    assert torch.equal(ids, IDS)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.w(x) if x.mean() > 0 else x,
        lambda m, x: m.w(x) * x.sum().item(),
        lambda m, x: m.w(x) if torch.equal(x, x + 1) else x,
        lambda m, x: m.w(x).tolist(),
        lambda m, x: m.w(x).detach().numpy(),
    ],
)
def test_numbers_that_depend_on_weights_or_on_float_arguments_are_unknown(function: Callable[[Any, Any], Any]) -> None:
    graph = record(Expression(function, w=nn.Linear(8, 8)), "forward", {"x": NUMBERS})
    assert graph.failure.endswith(f"line {function.__code__.co_firstlineno})")
    assert "test_recorder_choices.py" in graph.failure
    assert graph.outputs == ()
