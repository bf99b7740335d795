"""Reconciles roles by dataflow with roles by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.model.classify import assemble
from lorascope.model.types import Confidence, ModelMap, Role, Trace, Weight
from lorascope.tracing.classify.aggregate import Aggregate


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """What the calls showed of one weight.

    Attributes:
        aggregate: Its role, or None where it ran and no role fits.
        component: The part of the model that ran; empty where that does not show.
        siblings: It did not run itself; this many equal weights of its layer did.
    """

    aggregate: Aggregate | None
    component: str = ""
    siblings: int = 0


def reconcile(named: ModelMap, observations: Mapping[str, Observation], unexecuted: str, *, audited: bool) -> ModelMap:
    """The map with the roles that stand, traces included.

    Where name and dataflow contradict each other, the name wins for audited model types, and where it says a block and
    dataflow sees none. Dataflow wins for all others; the trace keeps both.

    Args:
        named: The map with roles by name.
        observations: Weight name to its observation, for the weights that ran.
        unexecuted: Why the others did not run, as a sentence.
        audited: The names of this model type were checked against its code.
    """
    traces = []
    roles = {}
    for weight in named.weights:
        trace = _trace(weight, observations.get(weight.name), unexecuted)
        traces.append(trace)
        role, guess = weight.role, weight.guess
        outweighs = trace.disagrees and not audited and not _is_weaker(trace.flow, weight.role)
        if trace.flow is not None and (weight.guess or outweighs):
            role, guess = _filled(trace.flow, weight.role), False
        elif trace.flow is not None and not trace.disagrees:
            role = _filled(weight.role, trace.flow)
        roles[weight.name] = (role, guess)
    return dataclasses.replace(named, weights=assemble(named.modules, roles), traces=tuple(traces))


def _trace(weight: Weight, observation: Observation | None, unexecuted: str) -> Trace:
    by_name: Confidence = "low" if weight.guess else "medium"
    if observation is None:
        return Trace(weight.name, weight.role, weight.guess, None, "unexecuted", unexecuted, by_name, False)
    aggregate = observation.aggregate
    if aggregate is None or not aggregate.block:
        evidence = aggregate.ambiguity if aggregate else "it ran, and its place in the computation fits no role"
        if aggregate and aggregate.why:
            evidence += f" ({aggregate.why})"
        return Trace(weight.name, weight.role, weight.guess, None, "ambiguous", evidence, by_name, False)
    component = observation.component or weight.role.component
    flow = Role(component, weight.role.stack, aggregate.block, aggregate.variant, aggregate.part)
    evidence = aggregate.why
    if observation.siblings:
        evidence = f"as {observation.siblings} like it that ran: {evidence}"
    disagrees = not weight.guess and not compatible(flow, weight.role)
    confidence: Confidence = "low" if disagrees else "medium" if weight.guess else "high"
    return Trace(weight.name, weight.role, weight.guess, flow, "executed", evidence, confidence, disagrees)


def _is_weaker(flow: Role | None, named: Role) -> bool:
    """Dataflow only says where a weight stands outside of blocks, and its name plainly says a block."""
    return flow is not None and flow.block not in _BLOCKS and named.block in _BLOCKS


# What the computation of a block shows; all else is what remains.
_BLOCKS = ("attention", "ffn", "mixer", "router", "indexer", "modulation")


def compatible(flow: Role, named: Role) -> bool:
    """No fact that both roles state differs.

    Dataflow states less: it cannot tell a linear attention from another mixer, a tower from its connector, or a
    parameter that is an embedding from other data.
    """
    if (flow.component == "text") != (named.component == "text"):
        return False
    if flow.block == "mixer" and (named.block, named.variant) == ("attention", "linear"):
        return True
    if flow.block == "other" and named.block == "embedding":
        return True
    if (named.block, named.part) == ("embedding", "position") and (flow.block, flow.part) == ("attention", "position"):
        return True
    if flow.block != named.block:
        return False
    if flow.block == "embedding" and (flow.part, named.part) == ("merger", "patch"):
        return True  # patches of patches
    if flow.variant and named.variant and flow.variant != named.variant:
        return False
    if flow.block == "mixer" and flow.part == "in":  # everything that goes into it
        return named.part not in ("out", "x", "dt")
    return not flow.part or not named.part or flow.part == named.part


def _filled(role: Role, other: Role) -> Role:
    """The first role, its open facts filled from the second."""
    if role.block != other.block:
        return role
    return dataclasses.replace(role, variant=role.variant or other.variant, part=role.part or other.part)


def with_siblings(
    observations: Mapping[str, Observation], groups: Collection[Collection[str]]
) -> dict[str, Observation]:
    """Observations extended to equal weights that did not run.

    Args:
        observations: Weight name to its observation.
        groups: Names of weights in one list of equal modules, such as one matrix of all experts.
    """
    extended = dict(observations)
    for group in groups:
        ran = [observations[name] for name in group if name in observations]
        aggregates = [observation.aggregate for observation in ran if observation.aggregate is not None]
        roles = {(aggregate.block, aggregate.variant, aggregate.part) for aggregate in aggregates}
        if len(roles) == 1 and len(aggregates) == len(ran):
            for name in group:
                extended.setdefault(name, dataclasses.replace(ran[0], siblings=len(ran)))
    return extended
