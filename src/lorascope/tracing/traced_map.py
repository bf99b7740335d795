"""Maps a model with roles by dataflow."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap, Weight
from lorascope.names import NUMBER
from lorascope.sources.builtin import builtin_models
from lorascope.tracing.calls.inputs import Call, model_calls
from lorascope.tracing.classify.aggregate import aggregate
from lorascope.tracing.classify.annotations import Annotation
from lorascope.tracing.classify.classify import classify_uses
from lorascope.tracing.classify.consistency import inconsistencies, unlike_their_layers
from lorascope.tracing.further_calls import with_further_calls
from lorascope.tracing.graph import Graph
from lorascope.tracing.limits import Limits, Meter, within_limits
from lorascope.tracing.reconcile import Observation, reconcile, with_siblings
from lorascope.tracing.record.called_modules import CalledModules
from lorascope.tracing.record.recorder import record
from lorascope.tracing.unreached import unreached_note

if TYPE_CHECKING:
    import torch

# Tokens per prompt. The longer one is tried only while weights have not run: a sparse attention that compresses 128
# positions to one needs it.
LENGTHS = (11, 160)

# Nothing more is tried once this share of the limits is used up.
_MOST_SPENT = 0.3

# An embedding is not among them: with other inputs than these it may be called.
_CALLED_KINDS = ("linear", "conv1d", "conv")

_ELEMENTWISE = "it is no matrix: it multiplies values one by one"


def trace_roles(
    module: torch.nn.Module,
    named: ModelMap,
    *,
    inputs: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits | None = None,
) -> ModelMap:
    """The map with roles by dataflow.

    Nothing of the module is changed and no parameter's numbers are read. Its code is run.

    Args:
        module: The model, on any device.
        named: Its map with roles by name.
        inputs: Keyword arguments of one call. Without them calls are made up, for models of transformers.
        progress: Called with the number of calls made and of all.
        limits: Bounds on time, operations and memory.

    Raises:
        LorascopeError: There is nothing to call it with, no call reaches a weight, or it takes too long or too much
            memory.
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
    called = CalledModules(module, (weight.name for weight in named.weights if weight.kind in _CALLED_KINDS))
    waiting = [Call("forward", inputs, "", "the inputs given")] if inputs is not None else list(model_calls(module))
    longer = [] if inputs is not None else [length for length in LENGTHS if length != LENGTHS[0]]

    def again(call: Call) -> Graph | None:
        if meter.share() > _MOST_SPENT:
            return None
        with called:
            return record(module, call.method, call.arguments, meter=meter)

    while waiting:
        if progress is not None:
            progress(len(graphs), len(graphs) + len(waiting))
        call = waiting.pop(0)
        with called:
            graph = record(module, call.method, call.arguments, meter=meter)
        graphs.append((call, graph))
        if not waiting and longer and len(_executed(graphs, owners)) < len(named.weights):
            waiting.append(model_calls(module, length=longer.pop(0))[0])  # only the text gets longer
    if inputs is None:
        graphs = with_further_calls(module, named, graphs, again, lambda recorded: _executed(recorded, owners))
    if progress is not None:
        progress(len(graphs), len(graphs))
    if not _executed(graphs, owners):
        reason = next((graph.failure for _, graph in graphs if graph.failure), "")
        raise LorascopeError(
            f"no call of {named.architecture} came to a weight" + (f": {reason}" if reason else ""),
            hint="Give the keyword arguments of one call: inspect(module, trace=True, inputs={…}).",
        )
    with meter.armed():
        return _with_uncalled(traced(named, graphs), graphs, called.names)


def traced(named: ModelMap, graphs: Sequence[tuple[Call, Graph]]) -> ModelMap:
    """The map with roles by dataflow, from recorded calls.

    Args:
        named: The map with roles by name.
        graphs: The calls with their graphs.
    """
    owners = _owners(named)
    annotations: dict[str, list[Annotation]] = {}
    components: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for call, graph in graphs:
        uses = classify_uses(graph, features=bool(call.component))
        inconsistent = inconsistencies(graph, uses)
        for use in uses:
            for weight in _weights_of(use.is_lookup, use.name, owners):
                annotations.setdefault(weight.name, []).append(use)
                components.setdefault(weight.name, call.component)
                if use.node in inconsistent:
                    reasons.setdefault(weight.name, inconsistent[use.node])
        for name in graph.elementwise:
            for weight in owners.get(name, ()):
                annotations.setdefault(weight.name, []).append(Annotation(name, -1, "other", "", "", _ELEMENTWISE))
    aggregates = aggregate(annotations)
    reasons |= unlike_their_layers(aggregates, _layers(named))
    for name, reason in reasons.items():
        if aggregates[name].block:
            aggregates[name] = dataclasses.replace(aggregates[name], block="", variant="", part="", ambiguity=reason)
    observations = {
        name: Observation(aggregates.get(name), components.get(name, "")) for name in _executed(graphs, owners)
    }
    observations = with_siblings(observations, _equal_modules(named))
    failures = tuple(dict.fromkeys(f"{call.about}: {graph.failure}" for call, graph in graphs if graph.failure))
    unexecuted = "; ".join(("no call reached it", *failures))
    notes = tuple(f"A call was not traced to its end. {failure}" for failure in failures)
    names = [weight.name for weight in named.weights]
    missed = unreached_note(names, (name for name in names if name not in observations))
    named = dataclasses.replace(named, notes=(*((missed,) if missed else ()), *named.notes, *notes))
    return reconcile(named, observations, unexecuted, audited=named.model_type in builtin_models())


def _with_uncalled(named: ModelMap, graphs: Sequence[tuple[Call, Graph]], called: Collection[str]) -> ModelMap:
    """The map that says of modules whose weight was read that no call came to them."""
    tied = {name for group in named.ties for name in group}
    read = {node.name for _, graph in graphs for node in graph.nodes}.union(*(graph.elementwise for _, graph in graphs))
    untied = read - tied
    uncalled = {
        weight.name
        for weight in named.weights
        if weight.kind in _CALLED_KINDS and weight.name not in called and f"{weight.name}.weight" in untied
    }
    if not uncalled:
        return named
    modules = tuple(
        dataclasses.replace(module, traits=(*module.traits, "uncalled")) if module.name in uncalled else module
        for module in named.modules
    )
    return dataclasses.replace(named, modules=modules)


def _layers(named: ModelMap) -> list[list[str]]:
    """Groups of weights that differ only in the number of their layer."""
    groups: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for weight in named.weights:
        number = NUMBER.search(weight.name)
        if number is None or number.end() == len(weight.name):
            continue
        owner = weight.module if weight.kind == "parameter" else weight.module.rpartition(".")[0]
        module = named.module_by_name.get(owner)
        place = f"{weight.name[: number.start()]}#{weight.name[number.end() :]}"
        key = (place, module.class_name if module is not None else "", weight.shape)
        groups.setdefault(key, []).append(weight.name)
    return [group for group in groups.values() if len(group) > 2]


def _executed(graphs: Iterable[tuple[Call, Graph]], owners: Mapping[str, tuple[Weight, ...]]) -> set[str]:
    uses = {(node.name, node.kind == "table") for _, graph in graphs for node in graph.nodes if node.name in owners}
    names = {weight.name for name, is_lookup in uses for weight in _weights_of(is_lookup, name, owners)}
    return names | {weight.name for _, graph in graphs for name in graph.elementwise for weight in owners.get(name, ())}


def _owners(named: ModelMap) -> dict[str, tuple[Weight, ...]]:
    """Weights by the parameter that is their matrix."""
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
    """Weights of a use: a tied table if looked up, else matrices."""
    weights = owners.get(name, ())
    if len(weights) == 1:
        return weights
    if is_lookup:
        return tuple(weight for weight in weights if weight.kind in ("embedding", "parameter"))
    return tuple(weight for weight in weights if weight.kind != "embedding") or weights


# A member of a list of equal modules: a number, or a name that ends in one (`expert_3`).
_MEMBER = re.compile(r"(.*?)\d+")


def _equal_modules(named: ModelMap) -> list[list[str]]:
    """Groups of weights that differ only in the innermost number."""
    groups: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for weight in named.weights:
        words = weight.name.split(".")
        numbered = [(place, match[1]) for place, word in enumerate(words[:-1]) if (match := _MEMBER.fullmatch(word))]
        if len(numbered) > 1:
            place, stem = numbered[-1]
            key = (".".join([*words[:place], stem]), ".".join(words[place + 1 :]), weight.shape)
            groups.setdefault(key, []).append(weight.name)
    return [group for group in groups.values() if len(group) > 1]
