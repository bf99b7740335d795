"""What must be said about a plan: what comes along, what is left out and how much that is, what costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lorascope.model.types import Trace, Weight
from lorascope.names import listed
from lorascope.peft_rules.addresses import as_parameter
from lorascope.peft_rules.quantization import quantized_needs
from lorascope.plans.compiler import unfit_releases
from lorascope.plans.rules import CONTENTS, FACT_OF
from lorascope.plans.types import Plan

# From this share of the trainable parameters on, routed experts are worth a warning.
EXPERTS_DOMINATE = 0.5
_MOST_NAMED = 4


def remarks(plan: Plan) -> Iterator[str]:
    """The remarks on a plan, the most consequential first, each one sentence."""
    yield from _unexplained(plan)
    yield from _unreachable(plan)
    yield from _along(plan)
    yield from _left_out(plan)
    yield from _experts(plan)
    yield from _encodings(plan)
    yield from _ties(plan)
    yield from _heads(plan)
    yield from quantized(target.weight for target in plan.targets)
    yield from _basis(plan)
    yield from _traced(plan)
    yield from dict.fromkeys(unfit_releases(plan.model, plan.config).values())


def label(weight: Weight) -> str:
    """The weight's role without the component `text`, which goes without saying."""
    return str(weight.role).removeprefix("text.")


def quantized(weights: Iterable[Weight]) -> Iterator[str]:
    """What must be installed, or how the model must be loaded, for PEFT to adapt weights that are stored quantized."""
    by_need: dict[str, list[Weight]] = {}
    for weight in weights:
        if weight.quantization and (need := quantized_needs(weight.quantization, weight.kind)):
            by_need.setdefault(f"{weight.quantization}: {need}", []).append(weight)
    for need, same in by_need.items():
        yield f"{_roles(same)} ({len(same)} weights) stored as {need}"


def _basis(plan: Plan) -> Iterator[str]:
    if plan.model.basis == "names":
        yield (
            f'the plan rests on names alone: model type "{plan.model.model_type}" is not known, so that nobody has checked that '
            "its code calls these modules so, or that they are what PEFT adapts. Try it on the loaded model first: "
            "get_peft_model raises where a name is wrong"
        )


def said_of(trace: Trace) -> str:
    """What the name and the dataflow say of a weight, without the component `text`."""
    named, flow = (str(role).removeprefix("text.") for role in (trace.named, trace.flow))
    said = f"the name says {named}{' (a guess)' if trace.guess else ''}"
    if trace.guess and trace.named.block == "other":
        said = "the name says nothing"
    return said if trace.flow is None else f"{said}, dataflow says {flow}"


def _traced(plan: Plan) -> Iterator[str]:
    """What a forward pass did not confirm of the planned weights."""
    traces = {trace.weight: trace for trace in plan.model.traces}
    doubts: dict[str, list[Weight]] = {}
    for target in plan.targets:
        trace = traces.get(target.weight.name)
        if trace is not None and (trace.disagrees or trace.status != "executed"):
            doubt = "names and dataflow disagree" if trace.disagrees else "no forward pass confirms it"
            doubts.setdefault(f"{doubt}: {said_of(trace)}: {trace.evidence}", []).append(target.weight)
    for doubt, weights in doubts.items():
        yield f"{_roles(weights)} ({len(weights)} weights, such as {weights[0].name}): {doubt}"


def _unexplained(plan: Plan) -> Iterator[str]:
    odd = plan.model.unexplained
    if odd:
        yield f"no rule selects tensors that the map does not explain: {len(odd)} of them: {listed(odd, _MOST_NAMED)}"


def _unreachable(plan: Plan) -> Iterator[str]:
    by_reason: dict[str, list[Weight]] = {}
    for weight, reason in plan.unreachable:
        by_reason.setdefault(reason, []).append(weight)
    for reason, weights in by_reason.items():
        yield f"cannot be adapted: {_roles(weights)} ({len(weights)} weights, such as {weights[0].name}): {reason}"


def _along(plan: Plan) -> Iterator[str]:
    """A fused part adapts pieces that no rule asked for."""
    extra: dict[tuple[str, str], int] = {}
    for target in plan.targets:
        rule = plan.rules[target.rule]
        asked = {value for values in rule.facts if FACT_OF[values[0]] == "part" for value in values}
        contents = CONTENTS.get(target.weight.role.part, ())
        whole = not asked or target.weight.role.part in asked
        pieces = [] if whole else [piece for piece in contents if piece not in asked]
        if pieces:
            key = (label(target.weight), " and ".join(pieces))
            extra[key] = extra.get(key, 0) + 1
    for (role, said), count in extra.items():
        verb = "come" if " and " in said else "comes"
        yield f"{said} {verb} along: {role} is one matrix for several parts ({count} weights)"


def left_out(plan: Plan) -> Iterator[tuple[str, list[Weight]]]:
    """What of the planned blocks is not planned, block by block."""
    planned = {target.weight.name for target in plan.targets} | {weight.name for weight, _ in plan.unreachable}
    blocks = {(target.weight.role.component, target.weight.role.block) for target in plan.targets}
    for component, block in sorted(blocks):
        out = [
            weight
            for weight in plan.model.weights
            if (weight.role.component, weight.role.block) == (component, block) and weight.name not in planned
        ]
        if out:
            yield (block if component == "text" else f"{component}.{block}"), out


def _left_out(plan: Plan) -> Iterator[str]:
    for name, out in left_out(plan):
        place = (out[0].role.component, out[0].role.block)
        size = sum(w.size for w in plan.model.weights if (w.role.component, w.role.block) == place)
        share = sum(weight.size for weight in out) / size if size else 0.0
        yield f"left out: {share:.1%} of the parameters of {name}: {_roles(out)} ({len(out)} weights)"


def _experts(plan: Plan) -> Iterator[str]:
    counts = {adapted.name: adapted.trainable for adapted in plan.resolution.adapted}
    routed = [target for target in plan.targets if target.weight.experts > 1 and target.weight.role.block == "ffn"]
    cost = sum(counts.get(target.weight.name, 0) for target in routed)
    if not cost or cost < EXPERTS_DOMINATE * plan.resolution.trainable:
        return
    ranks = sorted({target.rank for target in routed})
    experts = max(target.weight.experts for target in routed)
    yield (
        f"experts are {cost / plan.resolution.trainable:.1%} of the trainable parameters: rank "
        f"{' and '.join(map(str, ranks))} is per expert, and there are {experts} in a layer; leave them out with "
        "--exclude ffn.expert"
    )


def _encodings(plan: Plan) -> Iterator[str]:
    model = plan.model
    bare = [t.weight for t in plan.targets if t.weight.kind == "linear" and as_parameter(model, t.weight)]
    if bare:
        yield (
            f"{_roles(bare)} ({len(bare)} weights, such as {bare[0].name}) are adapted through target_parameters, "
            f"because PEFT would rewrite their module names into those of the routed experts ({model.model_type})"
        )
    flat = [t.weight for t in plan.targets if t.weight.role.variant == "expert" and t.weight.kind == "parameter"]
    flat = [weight for weight in flat if len(weight.shape) == 2]
    if flat:
        yield f"{_roles(flat)}: all experts are stacked into one 2-D matrix here, so they share one adapter per layer"


def _ties(plan: Plan) -> Iterator[str]:
    planned = {target.weight.name: target.weight for target in plan.targets}
    for group in plan.model.ties:
        names = [name.removesuffix(".weight") for name in group]
        hit = [name for name in names if name in planned or f"{name}.weight" in planned]
        if hit:
            others = [name for name in names if name not in hit]
            if len(hit) > 1:
                yield (
                    f"{hit[0]} and {len(hit) - 1} more share one tensor and get an adapter each; merging would add all of "
                    "them to that tensor, so keep the adapter unmerged"
                )
                return
            yield f"{hit[0]} shares its tensor with {', '.join(others)}; merging the adapter would change both"


def _heads(plan: Plan) -> Iterator[str]:
    if plan.resolution.saved:
        yield f"trained in full beside the adapters: {', '.join(plan.resolution.saved)}"
    if plan.config.task_type is None and plan.model.head in ("causal-lm", "image-text-to-text", "seq2seq-lm"):
        yield f"no task_type: {plan.model.architecture} cannot generate in the way that PEFT's task wrappers need"


def _roles(weights: Iterable[Weight]) -> str:
    return ", ".join(dict.fromkeys(label(weight) for weight in weights))
