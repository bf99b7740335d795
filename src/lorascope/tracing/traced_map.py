"""From a model to its map with roles by dataflow: calls it, records, decides, and sets the result beside the names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap, Weight
from lorascope.names import NUMBER
from lorascope.sources.builtin import builtin_models
from lorascope.tracing.calls.inputs import Call, calls
from lorascope.tracing.classify.aggregate import settle
from lorascope.tracing.classify.annotations import Claim
from lorascope.tracing.classify.classify import decide
from lorascope.tracing.classify.consistency import doubts, unlike_their_layers
from lorascope.tracing.graph import Graph
from lorascope.tracing.limits import Limits, Meter, within_limits
from lorascope.tracing.reconcile import Seen, merge, with_siblings
from lorascope.tracing.record.recorder import record

if TYPE_CHECKING:
    import torch

# Prompts of so many tokens, the later ones only while something of the model has not run: a sparse attention that
# compresses 128 positions to one shows itself on a longer prompt only.
LENGTHS = (11, 160)

_ELEMENTWISE = "it is no matrix: it multiplies values one by one"


def trace_roles(
    module: torch.nn.Module,
    named: ModelMap,
    *,
    inputs: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits | None = None,
) -> ModelMap:
    """The map with roles by dataflow beside those by name.

    Nothing of the module is changed and no parameter's numbers are read. Its code is run.

    Args:
        module: The model, on any device.
        named: Its map with roles by name.
        inputs: The keyword arguments of one call of the model; without them, calls are made for a model of
            transformers.
        progress: Called with the number of calls made and of all.
        limits: What it may take.

    Raises:
        LorascopeError: There is nothing to call it with, the only call fails before it reaches a weight, or it takes
            too long or too much memory.
    """
    return within_limits(limits, named.model, lambda meter: _traced(module, named, inputs, progress, meter))


def _traced(
    module: torch.nn.Module,
    named: ModelMap,
    inputs: Mapping[str, Any] | None,
    progress: Callable[[int, int], None] | None,
    meter: Meter,
) -> ModelMap:
    owners = _owners(named)
    graphs: list[tuple[Call, Graph]] = []
    waiting = [Call("forward", inputs, "", "the inputs given")] if inputs is not None else list(calls(module))
    longer = [] if inputs is not None else [length for length in LENGTHS if length != LENGTHS[0]]
    while waiting:
        if progress is not None:
            progress(len(graphs), len(graphs) + len(waiting))
        call = waiting.pop(0)
        graphs.append((call, record(module, call.method, call.arguments, meter=meter)))
        if not waiting and longer and len(_executed(graphs, owners)) < len(named.weights):
            waiting.append(calls(module, length=longer.pop(0))[0])  # only the text gets longer
    if progress is not None:
        progress(len(graphs), len(graphs))
    if not _executed(graphs, owners):
        reason = next((graph.failure for _, graph in graphs if graph.failure), "")
        raise LorascopeError(
            f"no call of {named.architecture} came to a weight" + (f": {reason}" if reason else ""),
            hint="Give the keyword arguments of one call: inspect(module, trace=True, inputs={…}).",
        )
    with meter.armed():
        return traced(named, graphs)


def traced(named: ModelMap, graphs: Sequence[tuple[Call, Graph]]) -> ModelMap:
    """The map with roles by dataflow beside those by name, from what was recorded of the calls.

    Args:
        named: The map with roles by name.
        graphs: The calls with their graphs, which a part of this package or a test recorded.
    """
    owners = _owners(named)
    claims: dict[str, list[Claim]] = {}
    components: dict[str, str] = {}
    doubted: dict[str, str] = {}
    for call, graph in graphs:
        decided = decide(graph, features=bool(call.component))
        in_doubt = doubts(graph, decided)
        for claim in decided:
            for weight in _weights_of(claim.is_lookup, claim.name, owners):
                claims.setdefault(weight.name, []).append(claim)
                components.setdefault(weight.name, call.component)
                if claim.node in in_doubt:
                    doubted.setdefault(weight.name, in_doubt[claim.node])
        for name in graph.elementwise:
            for weight in owners.get(name, ()):
                claims.setdefault(weight.name, []).append(Claim(name, -1, "other", "", "", _ELEMENTWISE))
    settled = settle(claims)
    doubted |= unlike_their_layers(settled, _layers(named))
    for name, why in doubted.items():
        if settled[name].block:
            settled[name] = dataclasses.replace(settled[name], block="", variant="", part="", doubt=why)
    seen = {name: Seen(settled.get(name), components.get(name, "")) for name in _executed(graphs, owners)}
    seen = with_siblings(seen, _equal_modules(named))
    failures = tuple(dict.fromkeys(f"{call.about}: {graph.failure}" for call, graph in graphs if graph.failure))
    why = "; ".join(("no call reached it", *failures))
    notes = tuple(f"A call was not traced to its end. {failure}" for failure in failures)
    return merge(
        dataclasses.replace(named, notes=named.notes + notes), seen, why, audited=named.model_type in builtin_models()
    )


def _layers(named: ModelMap) -> list[list[str]]:
    """Names of weights that differ in the number of their layer only, by the class of their module and by shape."""
    groups: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for weight in named.weights:
        number = NUMBER.search(weight.name)
        if number is None or number.end() == len(weight.name):
            continue
        owner = weight.module if weight.kind == "parameter" else weight.module.rpartition(".")[0]
        known = named.module_by_name.get(owner)
        place = f"{weight.name[: number.start()]}#{weight.name[number.end() :]}"
        key = (place, known.class_name if known is not None else "", weight.shape)
        groups.setdefault(key, []).append(weight.name)
    return [group for group in groups.values() if len(group) > 2]


def _executed(graphs: Iterable[tuple[Call, Graph]], owners: Mapping[str, tuple[Weight, ...]]) -> set[str]:
    used = {(node.name, node.kind == "table") for _, graph in graphs for node in graph.nodes if node.name in owners}
    found = {weight.name for name, is_lookup in used for weight in _weights_of(is_lookup, name, owners)}
    return found | {weight.name for _, graph in graphs for name in graph.elementwise for weight in owners.get(name, ())}


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
    if len(weights) == 1:
        return weights
    if is_lookup:
        return tuple(weight for weight in weights if weight.kind in ("embedding", "parameter"))
    return tuple(weight for weight in weights if weight.kind != "embedding") or weights


# A member of a list of equal modules: a number, or a name that ends in one (`expert_3`).
_MEMBER = re.compile(r"(.*?)\d+")


def _equal_modules(named: ModelMap) -> list[list[str]]:
    """Names of weights that differ in the innermost number only: one matrix of all experts of a layer."""
    groups: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for weight in named.weights:
        words = weight.name.split(".")
        numbered = [(place, match[1]) for place, word in enumerate(words[:-1]) if (match := _MEMBER.fullmatch(word))]
        if len(numbered) > 1:
            place, stem = numbered[-1]
            key = (".".join([*words[:place], stem]), ".".join(words[place + 1 :]), weight.shape)
            groups.setdefault(key, []).append(weight.name)
    return [group for group in groups.values() if len(group) > 1]
