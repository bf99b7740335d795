"""Finds what to note on a plan: side effects, omissions, cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from lorascope.model.types import ModelMap, Weight
from lorascope.names import fold
from lorascope.peft_rules.addresses import as_parameter
from lorascope.peft_rules.quantization import quantized_needs
from lorascope.plans.compiler import Compiled
from lorascope.plans.notes import Note, Value, label, trace_values
from lorascope.plans.rules import CONTENTS, FACT_OF
from lorascope.plans.types import LeftOut, Rule, Target

# From this share of the trainable parameters on, routed experts are worth a note.
EXPERTS_DOMINATE = 0.5
_MOST_NAMED = 4


def plan_notes(
    model: ModelMap,
    rules: Sequence[Rule],
    targets: Sequence[Target],
    unreachable: Sequence[tuple[Weight, str]],
    left_out: Iterable[LeftOut],
    compiled: Compiled,
) -> Iterator[Note]:
    """The notes on a plan's parts, the most consequential first."""
    yield from _unexplained(model)
    yield from _unreachable(unreachable)
    yield from _fused_parts(rules, targets)
    yield from (_left_out(model, targets, omission) for omission in left_out)
    yield from _experts(targets, compiled.resolution.trainable)
    yield from _encodings(model, targets)
    yield from _ties(model, targets)
    yield from _heads(model, compiled)
    yield from quantization_notes(model, (target.weight for target in targets))
    if model.basis == "names":
        yield Note("names-only", {"model_type": model.model_type})
    yield from _traced(model, targets)
    yield from _releases(compiled.refusals)


def omissions(
    model: ModelMap, targets: Sequence[Target], unreachable: Sequence[tuple[Weight, str]]
) -> Iterator[LeftOut]:
    """The weights of the planned blocks that are not planned, block by block."""
    planned = {target.weight.name for target in targets} | {weight.name for weight, _ in unreachable}
    blocks: dict[tuple[str, str], list[Weight]] = {
        key: [] for key in sorted({(target.weight.role.component, target.weight.role.block) for target in targets})
    }
    for weight in model.weights:
        if (place := (weight.role.component, weight.role.block)) in blocks:
            blocks[place].append(weight)
    for (component, block), weights in blocks.items():
        out = tuple(weight for weight in weights if weight.name not in planned)
        if out:
            size, whole = (sum(weight.size for weight in some) for some in (out, weights))
            name = block if component == "text" else f"{component}.{block}"
            yield LeftOut(name, out, size, size / whole if whole else 0.0)


def quantization_notes(model: ModelMap, weights: Iterable[Weight]) -> Iterator[Note]:
    """What to install, or how to load the model, for PEFT to adapt weights that are stored quantized."""
    groups: dict[tuple[str, str], list[Weight]] = {}
    for weight in weights:
        if weight.quantization and (need := quantized_needs(weight.quantization, weight.kind)):
            groups.setdefault((weight.quantization, need), []).append(weight)
    for (quantization, need), group in groups.items():
        yield Note("quantized", {**_counted(model, group), "quantization": quantization, "need": need})


def _counted(model: ModelMap, weights: Sequence[Weight]) -> dict[str, Value]:
    """Roles and numbers of some weights: all of them, and those that PEFT reaches as parameters."""
    return {
        "roles": roles(weights),
        "count": len(weights),
        "parameters": sum(as_parameter(model, weight) for weight in weights),
    }


def roles(weights: Iterable[Weight]) -> tuple[str, ...]:
    """The labels of some weights, each once."""
    return tuple(dict.fromkeys(label(weight) for weight in weights))


def _unexplained(model: ModelMap) -> Iterator[Note]:
    if model.unexplained:
        names = fold(model.unexplained)
        shown = tuple(names[:_MOST_NAMED])
        yield Note("unexplained", {"count": len(model.unexplained), "names": shown, "more": len(names) - len(shown)})


def _unreachable(unreachable: Sequence[tuple[Weight, str]]) -> Iterator[Note]:
    groups: dict[str, list[Weight]] = {}
    for weight, reason in unreachable:
        groups.setdefault(reason, []).append(weight)
    for reason, weights in groups.items():
        values: dict[str, Value] = {
            "roles": roles(weights),
            "count": len(weights),
            "example": weights[0].name,
            "reason": reason,
        }
        yield Note("unreachable", values)


def _fused_parts(rules: Sequence[Rule], targets: Sequence[Target]) -> Iterator[Note]:
    """Pieces of a fused matrix that no rule names."""
    groups: dict[tuple[str, tuple[str, ...]], list[Target]] = {}
    for target in targets:
        parts = {value for values in rules[target.rule].facts if FACT_OF[values[0]] == "part" for value in values}
        if not parts or target.weight.role.part in parts:
            continue
        pieces = tuple(piece for piece in CONTENTS.get(target.weight.role.part, ()) if piece not in parts)
        if pieces:
            groups.setdefault((label(target.weight), pieces), []).append(target)
    for (role, pieces), group in groups.items():
        parameters = sum(target.as_parameter for target in group)
        yield Note("fused-part", {"role": role, "pieces": pieces, "count": len(group), "parameters": parameters})


def _left_out(model: ModelMap, targets: Sequence[Target], omission: LeftOut) -> Note:
    first = omission.weights[0].role
    planned = {
        _part(target.weight)
        for target in targets
        if (target.weight.role.component, target.weight.role.block) == (first.component, first.block)
    }
    parts = tuple(dict.fromkeys(_part(weight) for weight in omission.weights))
    values: dict[str, Value] = {
        "block": omission.block,
        **_counted(model, omission.weights),
        # By themselves only where none of the same name is planned.
        "parts": () if "" in parts or planned.intersection(parts) else parts,
        "share": omission.share,
    }
    return Note("left-out", values)


def _part(weight: Weight) -> str:
    """A weight within its block: `k`, `expert down`."""
    role = weight.role
    return " ".join(word for word in (role.variant if role.variant not in ("self", "dense") else "", role.part) if word)


def _experts(targets: Sequence[Target], trainable: int) -> Iterator[Note]:
    routed = [target for target in targets if target.weight.experts > 1 and target.weight.role.block == "ffn"]
    cost = sum(target.adapted.trainable for target in routed)
    if cost and cost >= EXPERTS_DOMINATE * trainable:
        values: dict[str, Value] = {
            "share": cost / trainable,
            "ranks": tuple(sorted({target.rank for target in routed})),
            "experts": max(target.weight.experts for target in routed),
        }
        yield Note("experts-dominate", values)


def _encodings(model: ModelMap, targets: Sequence[Target]) -> Iterator[Note]:
    bare = [t.weight for t in targets if t.weight.kind == "linear" and as_parameter(model, t.weight)]
    if bare:
        values: dict[str, Value] = {
            "roles": roles(bare),
            "count": len(bare),
            "example": bare[0].name,
            "model_type": model.model_type,
        }
        yield Note("as-parameters", values)
    stacks = [t.weight for t in targets if t.weight.role.variant == "expert" and t.weight.kind == "parameter"]
    flat = [weight for weight in stacks if len(weight.shape) == 2]
    if flat:
        yield Note("shared-adapter", {"roles": roles(flat)})


def _ties(model: ModelMap, targets: Sequence[Target]) -> Iterator[Note]:
    planned = {target.weight.name for target in targets}
    for group in model.ties:
        names = [name.removesuffix(".weight") for name in group]
        hits = [name for name in names if name in planned or f"{name}.weight" in planned]
        if len(hits) > 1:
            yield Note("tied-targets", {"name": hits[0], "more": len(hits) - 1})
            return
        if hits:
            yield Note("tied", {"name": hits[0], "others": tuple(name for name in names if name not in hits)})


def _heads(model: ModelMap, compiled: Compiled) -> Iterator[Note]:
    if compiled.resolution.saved:
        yield Note("saved", {"modules": compiled.resolution.saved})
    if compiled.config.task_type is None and model.head in ("causal-lm", "image-text-to-text", "seq2seq-lm"):
        yield Note("no-task-type", {"architecture": model.architecture})


def _traced(model: ModelMap, targets: Sequence[Target]) -> Iterator[Note]:
    """What a forward pass did not confirm of the planned weights."""
    traces = {trace.weight: trace for trace in model.traces}
    doubts: dict[tuple[Value, ...], tuple[dict[str, Value], list[Weight]]] = {}
    for target in targets:
        trace = traces.get(target.weight.name)
        if trace is not None and (trace.disagrees or trace.status != "executed"):
            doubt: dict[str, Value] = {"disagrees": trace.disagrees, **trace_values(trace)}
            doubts.setdefault(tuple(doubt.values()), (doubt, []))[1].append(target.weight)
    for doubt, weights in doubts.values():
        yield Note("traced-doubt", {**_counted(model, weights), "example": weights[0].name, **doubt})


def _releases(refusals: Mapping[str, str]) -> Iterator[Note]:
    for reason in dict.fromkeys(refusals.values()):
        releases = tuple(release for release, other in refusals.items() if other == reason)
        yield Note("release", {"releases": releases, "reason": reason})
