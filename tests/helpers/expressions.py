"""Modules of one expression each, to see what a single construct is recorded as."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lorascope.tracing.graph import Graph, Node
from lorascope.tracing.record.recorder import record

NUMBERS = torch.ones(2, 5, 8)
IDS = torch.tensor([[3, 1, 4, 1, 5]])


class Expression(nn.Module):  # type: ignore[misc]  # torch does not say what it is
    """A module whose forward is a function of itself and its argument `x`."""

    def __init__(self, function: Callable[[Any, Any], Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def matrix(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def recorded(function: Callable[[Any, Any], Any], x: Any = NUMBERS, **parts: Any) -> Graph:
    """The graph of an expression that comes to its end."""
    graph = record(Expression(function, **parts), "forward", {"x": x})
    assert graph.failure == ""
    return graph


def shape(graph: Graph) -> list[str]:
    """The kinds of nodes in order, with the parameter's name where there is one."""
    return [f"{node.kind} {node.name}".strip() for node in graph.nodes if node.kind != "input"]


def node(graph: Graph, name: str) -> Node:
    """The one node with a parameter's name."""
    (found,) = [node for node in graph.nodes if node.name == name]
    return found


def names(graph: Graph, name: str, operand: int = 0) -> list[str]:
    """The names of the nodes that a node's operand reads."""
    return [graph.nodes[edge.source].name for edge in node(graph, name).operands[operand]]
