"""Sets roles by dataflow beside roles by name: who says what, where they contradict each other, and which one stands."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.model.classify import assemble
from lorascope.model.types import Confidence, ModelMap, Role, Trace, Weight
from lorascope.tracing.classify.aggregate import Settled


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What the calls showed of one weight.

    Attributes:
        settled: Its role, or None where it ran and showed nothing.
        component: The part of the model that ran, or empty where that does not show.
        siblings: It did not run itself; this many like it in its layer did.
    """

    settled: Settled | None
    component: str = ""
    siblings: int = 0


def merge(named: ModelMap, seen: Mapping[str, Seen], unexecuted: str, *, audited: bool) -> ModelMap:
    """The map with the roles that stand, and a trace of every weight.

    Where both speak and agree, or only one of them does, there is nothing to choose. Where they contradict each other,
    the names stand for a model type whose names were decided by reading its code, and dataflow for any other; the
    trace holds both.

    Args:
        named: The map with roles by name.
        seen: Weight name to what was seen; those that did not run are not in it.
        unexecuted: Why the others did not run, as a sentence.
        audited: The names of this model type were decided by reading its code.
    """
    traces = []
    roles = {}
    for weight in named.weights:
        trace = _trace(weight, seen.get(weight.name), unexecuted)
        traces.append(trace)
        role, guess = weight.role, weight.guess
        if trace.flow is not None and (weight.guess or (trace.disagrees and not audited)):
            role, guess = _filled(trace.flow, weight.role), False
        elif trace.flow is not None and not trace.disagrees:
            role = _filled(weight.role, trace.flow)
        roles[weight.name] = (role, guess)
    return dataclasses.replace(named, weights=assemble(named.modules, roles), traces=tuple(traces))


def _trace(weight: Weight, seen: Seen | None, unexecuted: str) -> Trace:
    by_name: Confidence = "low" if weight.guess else "medium"
    if seen is None:
        return Trace(weight.name, weight.role, weight.guess, None, "unexecuted", unexecuted, by_name, False)
    settled = seen.settled
    if settled is None or not settled.block:
        doubt = settled.doubt if settled is not None else "it ran, and its place in the computation fits no role"
        evidence = f"{doubt} ({settled.why})" if settled is not None and settled.why else doubt
        return Trace(weight.name, weight.role, weight.guess, None, "ambiguous", evidence, by_name, False)
    component = seen.component or weight.role.component
    flow = Role(component, weight.role.stack, settled.block, settled.variant, settled.part)
    agrees = compatible(flow, weight.role)
    evidence = settled.why
    if seen.siblings:
        evidence = f"as {seen.siblings} like it that ran: {evidence}"
    disagrees = not weight.guess and not agrees
    confidence: Confidence = "low" if disagrees else "medium" if weight.guess else "high"
    return Trace(weight.name, weight.role, weight.guess, flow, "executed", evidence, confidence, disagrees)


def compatible(flow: Role, named: Role) -> bool:
    """Whether two roles can be of one weight: no fact that both state differs.

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
    if flow.variant and named.variant and flow.variant != named.variant:
        return False
    if flow.block == "mixer" and flow.part == "in":  # all that goes into it, whatever it is called there
        return named.part not in ("out", "x", "dt")
    return not flow.part or not named.part or flow.part == named.part


def _filled(role: Role, other: Role) -> Role:
    """The first role, with the facts that it leaves open from a second one of the same block."""
    if role.block != other.block:
        return role
    return dataclasses.replace(role, variant=role.variant or other.variant, part=role.part or other.part)


def with_siblings(seen: Mapping[str, Seen], groups: Collection[Collection[str]]) -> dict[str, Seen]:
    """The same with what did not run given the role of those like it, where all of those that ran agree.

    Args:
        seen: Weight name to what was seen.
        groups: Names of weights that stand in one list of equal modules, such as one matrix of all experts.
    """
    found = dict(seen)
    for group in groups:
        ran = [seen[name] for name in group if name in seen]
        roles = {(one.settled.block, one.settled.variant, one.settled.part) for one in ran if one.settled is not None}
        if len(roles) == 1 and all(one.settled is not None for one in ran):
            for name in group:
                found.setdefault(name, dataclasses.replace(ran[0], siblings=len(ran)))
    return found
