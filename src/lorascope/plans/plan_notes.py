"""Finds what to note on a plan: side effects, omissions, cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lorascope.model.types import ModelMap, Trace, Weight
from lorascope.names import fold, listed
from lorascope.peft_rules.addresses import as_parameter
from lorascope.peft_rules.dead_weights import read_by_kernels, why_ignored_in_eval
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.quantization import quantized_needs, untrainable
from lorascope.plans import notes
from lorascope.plans.notes import label
from lorascope.plans.rules import CONTENTS, FACT_OF
from lorascope.plans.types import LeftOut, Rule, Target
from lorascope.sources.released_parts import released_parts

if TYPE_CHECKING:
    from lorascope.plans.compiler import Compiled

# From this share of the trainable parameters on, routed experts are worth a note.
DOMINANT_SHARE = 0.5
_MOST_PARTS = 4


def plan_notes(
    model: ModelMap,
    rules: Sequence[Rule],
    targets: Sequence[Target],
    unreachable: Sequence[tuple[Weight, Diagnostic]],
    left_out: Iterable[LeftOut],
    compiled: Compiled,
) -> Iterator[Diagnostic]:
    """The notes on a plan's parts, the most consequential first."""
    yield from _not_adaptable(unreachable)
    yield from _dead_with_kernels(model, targets)
    yield from _fused_parts(rules, targets)
    yield from (_left_out(model, targets, omission) for omission in left_out)
    yield from _experts(targets, compiled.resolution.trainable)
    yield from _encodings(model, targets)
    yield from _ties(model, targets)
    yield from _heads(model, compiled)
    yield from quantization_notes(model, (target.weight for target in targets))
    for quantization, fix in untrainable_storage(model).items():
        yield notes.UNTRAINABLE.about(quantization=quantization, fix=fix)
    for parts in released_parts(model)[:1]:
        names = listed([*parts.extra, *(f"no {name}" for name in parts.lacking)], _MOST_PARTS)
        yield notes.RELEASED_PARTS.about(model=model.model, release=parts.release, parts=names)
    if model.basis == "names":
        yield notes.NAMES_ONLY.about(model_type=model.model_type)
    yield from guess_notes(model, [target.weight for target in targets])
    yield from _traced(model, targets)
    yield from dict.fromkeys(compiled.refusals.values())


def omissions(
    model: ModelMap, targets: Sequence[Target], unreachable: Sequence[tuple[Weight, Diagnostic]]
) -> Iterator[LeftOut]:
    """Weights of the planned blocks that are not planned, block by block."""
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


def quantization_notes(model: ModelMap, weights: Iterable[Weight]) -> Iterator[Diagnostic]:
    """What PEFT needs to adapt weights that are stored quantized."""
    groups: dict[tuple[str, str], list[Weight]] = {}
    for weight in weights:
        if weight.quantization and (need := quantized_needs(weight.quantization, weight.kind)):
            groups.setdefault((weight.quantization, need), []).append(weight)
    for (quantization, need), group in groups.items():
        yield notes.QUANTIZED.about(*_roles(group), **_numbers(model, group), quantization=quantization, need=need)


def untrainable_storage(model: ModelMap) -> dict[str, str]:
    """How modules are stored with which transformers' Trainer trains nothing, each with what to do."""
    stored = dict.fromkeys(module.quantization for module in model.modules if module.quantization)
    return {quantization: fix for quantization in stored if (fix := untrainable(quantization))}


def guess_notes(model: ModelMap, weights: Sequence[Weight]) -> Iterator[Diagnostic]:
    """Which of the adapted weights have a guessed role."""
    guesses = [weight for weight in weights if weight.guess]
    if guesses:
        names = fold(weight.name for weight in guesses)
        yield notes.GUESSED_ROLE.about(*names, **_numbers(model, guesses), roles=_roles(guesses))


def _numbers(model: ModelMap, weights: Sequence[Weight]) -> dict[str, Any]:
    """Numbers of all weights and of those reached as parameters."""
    return {"count": len(weights), "parameters": sum(as_parameter(model, weight) for weight in weights)}


def _roles(weights: Iterable[Weight]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label(weight) for weight in weights))


def _not_adaptable(unreachable: Sequence[tuple[Weight, Diagnostic]]) -> Iterator[Diagnostic]:
    groups: dict[Diagnostic, list[Weight]] = {}
    for weight, why in unreachable:
        groups.setdefault(why, []).append(weight)
    for why, group in groups.items():
        yield notes.NOT_ADAPTABLE.about(*_roles(group), count=len(group), example=group[0].name, why=why)


def _dead_with_kernels(model: ModelMap, targets: Sequence[Target]) -> Iterator[Diagnostic]:
    """Planned weights that fused kernels, or torch's fast path, read past their adapter."""
    for why, group in read_by_kernels(model, (target.weight for target in targets)).items():
        yield notes.DEAD_WITH_KERNELS.about(*_roles(group), **_numbers(model, group), why=why)
    ignored = {target.weight: one for target in targets if (one := why_ignored_in_eval(model, target.weight))}
    if ignored:
        example = next(iter(ignored.values()))
        yield notes.IGNORED_IN_EVAL.about(*_roles(ignored), **_numbers(model, tuple(ignored)), why=example)


def _fused_parts(rules: Sequence[Rule], targets: Sequence[Target]) -> Iterator[Diagnostic]:
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
        yield notes.FUSED_PART.about(*pieces, role=role, count=len(group), parameters=parameters)


def _left_out(model: ModelMap, targets: Sequence[Target], omission: LeftOut) -> Diagnostic:
    place = omission.weights[0].role.component, omission.weights[0].role.block
    planned = {
        _part(target.weight) for target in targets if (target.weight.role.component, target.weight.role.block) == place
    }
    parts = tuple(dict.fromkeys(_part(weight) for weight in omission.weights))
    return notes.LEFT_OUT.about(
        *_roles(omission.weights),
        **_numbers(model, omission.weights),
        block=omission.block,
        # By themselves only where none of the same name is planned.
        parts=() if "" in parts or planned.intersection(parts) else parts,
        share=omission.share,
    )


def _part(weight: Weight) -> str:
    """A weight within its block: `k`, `expert down`."""
    role = weight.role
    return " ".join(word for word in (role.variant if role.variant not in ("self", "dense") else "", role.part) if word)


def _experts(targets: Sequence[Target], trainable: int) -> Iterator[Diagnostic]:
    routed = [target for target in targets if target.weight.experts > 1 and target.weight.role.block == "ffn"]
    cost = sum(target.adapted.trainable for target in routed)
    if cost and cost >= DOMINANT_SHARE * trainable:
        yield notes.EXPERTS_DOMINATE.about(
            share=cost / trainable,
            ranks=tuple(sorted({target.rank for target in routed})),
            experts=max(target.weight.experts for target in routed),
        )


def _encodings(model: ModelMap, targets: Sequence[Target]) -> Iterator[Diagnostic]:
    bare = [target.weight for target in targets if target.weight.kind == "linear" and target.as_parameter]
    if bare:
        yield notes.AS_PARAMETERS.about(
            *_roles(bare), count=len(bare), example=bare[0].name, model_type=model.model_type
        )
    stacks = [t.weight for t in targets if t.weight.role.variant == "expert" and t.weight.kind == "parameter"]
    flat = [weight for weight in stacks if len(weight.shape) == 2]
    if flat:
        yield notes.SHARED_ADAPTER.about(*_roles(flat))


def _ties(model: ModelMap, targets: Sequence[Target]) -> Iterator[Diagnostic]:
    planned = {target.weight.name for target in targets}
    for group in model.ties:
        names = [name.removesuffix(".weight") for name in group]
        tied = [name for name in names if name in planned or f"{name}.weight" in planned]
        if len(tied) > 1:
            yield notes.TIED_TARGETS.about(tied[0], more=len(tied) - 1)
            return
        if tied:
            yield notes.TIED.about(tied[0], *(name for name in names if name not in tied))


def _heads(model: ModelMap, compiled: Compiled) -> Iterator[Diagnostic]:
    if compiled.resolution.saved:
        yield notes.SAVED.about(*compiled.resolution.saved)
    if compiled.config.task_type is None and model.head in ("causal-lm", "image-text-to-text", "seq2seq-lm"):
        yield notes.NO_TASK_TYPE.about(architecture=model.architecture)


def _traced(model: ModelMap, targets: Sequence[Target]) -> Iterator[Diagnostic]:
    """What a forward pass did not confirm of the planned weights."""
    traces = {trace.weight: trace for trace in model.traces}
    doubts: dict[tuple[object, ...], tuple[Trace, list[Weight]]] = {}
    for target in targets:
        trace = traces.get(target.weight.name)
        if trace is not None and (trace.disagrees or trace.status != "executed"):
            verdict = (trace.disagrees, trace.named, trace.guess, trace.flow, trace.evidence)
            doubts.setdefault(verdict, (trace, []))[1].append(target.weight)
    for trace, group in doubts.values():
        yield notes.TRACED_DOUBT.about(*_roles(group), **_numbers(model, group), example=group[0].name, trace=trace)
