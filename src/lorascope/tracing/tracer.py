"""From a model to its map with roles by dataflow: calls it, records, decides, and sets the result beside the names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lorascope.errors import LorascopeError
from lorascope.folding import template
from lorascope.records import ModelMap, Weight
from lorascope.sources.gallery import gallery
from lorascope.tracing.deciding import Claim, decide
from lorascope.tracing.graph import Graph
from lorascope.tracing.inputs import Call, calls
from lorascope.tracing.merging import Seen, merge, with_siblings
from lorascope.tracing.recording import record
from lorascope.tracing.settling import settle

if TYPE_CHECKING:
    import torch

# Prompts of so many tokens, the later ones only while something of the model has not run: a sparse attention that
# compresses 128 positions to one shows itself on a longer prompt only.
LENGTHS = (11, 160)

_TABLES = ("embedding",)
_ELEMENTWISE = "it is no matrix: it multiplies values one by one"


def trace_roles(
    module: torch.nn.Module,
    named: ModelMap,
    *,
    inputs: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ModelMap:
    """The map with roles by dataflow beside those by name.

    Nothing of the module is changed and no parameter's numbers are read. Its code is run.

    Args:
        module: The model, on any device.
        named: Its map with roles by name.
        inputs: The keyword arguments of one call of the model; without them, calls are made for a model of
            transformers.
        progress: Called with the number of calls made and of all.

    Raises:
        LorascopeError: There is nothing to call it with, or the only call fails before it reaches a weight.
    """
    graphs: list[tuple[Call, Graph]] = []
    owners = _owners(named)
    lengths = LENGTHS if inputs is None else LENGTHS[:1]
    for place, length in enumerate(lengths):
        planned = calls(module, length=length) if inputs is None else (Call("forward", inputs, "", "the inputs given"),)
        if place:
            planned = planned[:1]  # only the text gets longer
        for number, call in enumerate(planned):
            if progress is not None:
                progress(number, len(planned))
            graphs.append((call, record(module, call.method, call.arguments)))
        if all(weight.name in _executed(graphs, owners) for weight in named.weights):
            break
    if not graphs or not any(graph.nodes for _, graph in graphs):
        reason = next((graph.failure for _, graph in graphs if graph.failure), "")
        raise LorascopeError(
            f"no call of {named.architecture} came to a weight" + (f": {reason}" if reason else ""),
            hint="Give the keyword arguments of one call: inspect(module, trace=True, inputs={…}).",
        )
    if progress is not None:
        progress(1, 1)
    return _traced(named, graphs, owners)


def _traced(named: ModelMap, graphs: Iterable[tuple[Call, Graph]], owners: Mapping[str, tuple[Weight, ...]]) -> ModelMap:
    claims: dict[str, list[Claim]] = {}
    components: dict[str, str] = {}
    executed: set[str] = set()
    failures = []
    for call, graph in graphs:
        if graph.failure:
            failures.append(f"{call.about}: {graph.failure}")
        for node in graph.nodes:
            executed |= {weight.name for weight in _weights_of(node.kind == "table", node.name, owners)}
        for name in graph.elementwise:
            for weight in owners.get(name, ()):
                executed.add(weight.name)
                claims.setdefault(weight.name, []).append(Claim(name, -1, "other", "", "", _ELEMENTWISE))
        for claim in decide(graph, features=bool(call.component)):
            for weight in _weights_of(claim.is_lookup, claim.name, owners):
                claims.setdefault(weight.name, []).append(claim)
                components.setdefault(weight.name, call.component)
    settled = settle(claims)
    seen = {name: Seen(settled.get(name), components.get(name, "")) for name in executed}
    seen = with_siblings(seen, _equal_modules(named))
    why = "no call reached it"
    if failures:
        why += f"; {'; '.join(dict.fromkeys(failures))}"
    return merge(named, seen, why, audited=named.model_type in gallery())


def _executed(graphs: Iterable[tuple[Call, Graph]], owners: Mapping[str, tuple[Weight, ...]]) -> set[str]:
    names = {name for _, graph in graphs for name in (*(node.name for node in graph.nodes), *graph.elementwise)}
    return {weight.name for name in names for weight in owners.get(name, ())}


def _owners(named: ModelMap) -> dict[str, tuple[Weight, ...]]:
    """Parameter name to the weights that it is the matrix of; those that share one tensor are one parameter."""
    owners: dict[str, list[Weight]] = {}
    for weight in named.weights:
        if weight.kind == "parameter":
            owners.setdefault(weight.name, []).append(weight)
        elif weight.kind == "multihead_attention":
            for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"):
                owners.setdefault(f"{weight.name}.{name}", []).append(weight)
        else:
            owners.setdefault(f"{weight.name}.weight", []).append(weight)
    for group in named.ties:
        together = [weight for name in group for weight in owners.get(name, ())]
        for name in group:
            owners[name] = together
    return {name: tuple(weights) for name, weights in owners.items()}


def _weights_of(is_lookup: bool, name: str, owners: Mapping[str, tuple[Weight, ...]]) -> tuple[Weight, ...]:
    """The weights that a use of a parameter is of: of a tied one, the tables if it was looked up, else the matrices."""
    weights = owners.get(name, ())
    mine = tuple(weight for weight in weights if (weight.kind in _TABLES) == is_lookup)
    return mine or weights


def _equal_modules(named: ModelMap) -> list[list[str]]:
    """Names of weights that differ in the last number only: one matrix of all experts of a list."""
    groups: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for weight in named.weights:
        words = weight.name.split(".")
        numbered = [place for place, word in enumerate(words) if word.isdecimal()]
        if len(numbered) > 1:
            place = numbered[-1]
            key = (".".join(words[:place]), template(".".join(words[place:])), weight.shape)
            groups.setdefault(key, []).append(weight.name)
    return [group for group in groups.values() if len(group) > 1]
