"""Calls that are tried where the first ones left parts of a model unreached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from lorascope.sources.modules.module_tree import modules_in
from lorascope.sources.modules.python_objects import attribute
from lorascope.tracing.calls.guesses import guessed_calls, masked_call
from lorascope.tracing.calls.inputs import Call, model_calls
from lorascope.tracing.graph import Graph

if TYPE_CHECKING:
    import torch

# Parts of a model that are called by themselves, at most; and tries for each.
_MOST_PARTS = 12

Recorded = list[tuple[Call, Graph]]
Reached = Callable[[Recorded], set[str]]
# Records a call; None where too much of the limits is spent already.
Record = Callable[[Call], Graph | None]


def with_further_calls(
    module: torch.nn.Module,
    named: ModelMap,
    graphs: Recorded,
    record: Record,
    reached: Reached,
) -> Recorded:
    """The recorded calls, and those that reach more weights.

    A forward that failed is tried with guessed inputs; the best of these replaces it. What is still unreached is called
    part by part, if the part is a model of its own.

    Args:
        module: The model.
        named: Its map.
        graphs: The calls made so far.
        record: Records a call, while the limits allow for more.
        reached: Names of the weights that recorded calls reach.
    """
    if len(reached(graphs)) == len(named.weights):
        return graphs
    graphs = _with_guesses(module, "", graphs, record, reached)
    for call, graph in [*graphs]:
        masked = masked_call(module, call) if call.method == "forward" and not graph.failure else None
        if masked is not None:
            graphs = _with_better(graphs, masked, record, reached)
    for path, part in _unreached_parts(module, named, graphs, reached):
        graphs = _with_part(path, part, named, graphs, record, reached)
    return graphs


def _with_guesses(
    part: Any, path: str, graphs: Recorded, record: Record, reached: Reached, component: str = ""
) -> Recorded:
    """The calls with the best guess in place of a forward that failed or could not be made."""
    method = path or "forward"
    own = [(call, graph) for call, graph in graphs if call.method == method]
    if any(not graph.failure for _, graph in own):
        return graphs
    others = [(call, graph) for call, graph in graphs if call.method != method]
    best, most = graphs, len(reached(graphs))
    known: Mapping[str, Any] = own[0][0].arguments if own else {}
    for guess in guessed_calls(part, known):
        call = dataclasses.replace(guess, method=method, component=component)
        graph = record(call)
        if graph is None:
            break
        tried = [*others, (call, graph)]
        count = len(reached(tried))
        if count > most or (count == most and not graph.failure and own):
            best, most = tried, count
        if not graph.failure:
            break
    return best


def _with_part(path: str, part: Any, named: ModelMap, graphs: Recorded, record: Record, reached: Reached) -> Recorded:
    """The calls, and those of a part by itself."""
    component = _component(path, named)
    for call in model_calls(part):
        method = path if call.method == "forward" else f"{path}.{call.method}"
        again = dataclasses.replace(call, method=method, component=call.component or component)
        graphs = _with_better(graphs, again, record, reached)
    return _with_guesses(part, path, graphs, record, reached, component)


def _with_better(graphs: Recorded, call: Call, record: Record, reached: Reached) -> Recorded:
    """The calls with another one, where that reaches more weights and comes to its end."""
    graph = record(call)
    if graph is None or graph.failure:
        return graphs
    with_it = [*graphs, (call, graph)]
    return with_it if len(reached(with_it)) > len(reached(graphs)) else graphs


def _unreached_parts(
    module: torch.nn.Module, named: ModelMap, graphs: Recorded, reached: Reached
) -> Iterator[tuple[str, Any]]:
    """Models within a model of which no weight was reached, the outermost first."""
    there = reached(graphs)
    found: list[str] = []
    for path, part in modules_in(module).items():
        if not path or any(path.startswith(f"{outer}.") for outer in found) or len(found) == _MOST_PARTS:
            continue
        own = [weight.name for weight in named.weights if weight.name.startswith(f"{path}.")]
        whole = callable(attribute(part, "get_input_embeddings")) and attribute(part, "config") is not None
        if whole and own and there.isdisjoint(own):
            found.append(path)
            yield path, part


def _component(path: str, named: ModelMap) -> str:
    """The component of a part by its weights' names; empty for the language model's."""
    counts: dict[str, int] = {}
    for weight in named.weights:
        if weight.name.startswith(f"{path}."):
            counts[weight.role.component] = counts.get(weight.role.component, 0) + 1
    commonest = max(counts, key=lambda name: counts[name], default="text")
    return "" if commonest == "text" else commonest
