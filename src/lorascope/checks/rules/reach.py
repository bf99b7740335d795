"""Adapted weights that few people mean: dead ones, towers, routers and heads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import CheckContext
from lorascope.checks.entries import Entry
from lorascope.checks.exclusions import excluding_fix, fix_without
from lorascope.checks.phrases import places, plural
from lorascope.checks.rule import FindingRule, finds
from lorascope.findings import Finding, Severity
from lorascope.model.role_names import role_of_name
from lorascope.model.types import Weight
from lorascope.names import NUMBER, listed, template
from lorascope.number_text import percent
from lorascope.peft_rules.adaptability import why_not_adaptable
from lorascope.peft_rules.addresses import peft_name
from lorascope.peft_rules.diagnostics import Diagnostic

DEAD_OR_CRASHING = FindingRule(
    "dead-or-crashing",
    "error",
    "an adapter does nothing, or breaks the forward pass",
    "PEFT creates it without an error, and training learns nothing there or fails at its first step.",
)
OUTSIDE = FindingRule(
    "outside",
    "warning",
    "weights of towers or connectors are adapted",
    "Short names such as q_proj match the vision tower too, and servers may leave such adapters out.",
)
ROUTER = FindingRule(
    "router",
    "warning",
    "a router is adapted",
    "Training then changes which expert a token goes to.",
)
HEAD = FindingRule(
    "head",
    "warning",
    "an embedding or a head is adapted",
    "A low-rank change of a new, random head is not what is wanted; of an old one it is rarely meant.",
)

# Trained layers before an output: no vocabulary, and nothing new.
_BEFORE_OUTPUT = frozenset({"pooler", "transform"})

Key = TypeVar("Key")

_MAIN_BLOCKS = ("attention", "ffn", "mixer")
_MOST_NAMED = 3
# What the parts of a head are called.
_HEADS = {
    "lm": "output embedding (the head)",
    "classifier": "classifier",
    "pooler": "pooler",
    "transform": "hidden layer of the head",
    "projection": "projection into the shared space",
}


@finds(DEAD_OR_CRASHING)
def find_dead(context: CheckContext) -> Iterator[Finding]:
    """Adapters that do nothing, or that break the forward pass."""
    explained: set[str] = set()
    model, release = context.model, context.release_name
    groups = _grouped(context.adapted_weights, lambda weight: why_not_adaptable(model, weight, release))
    for diagnostic, weights in groups.items():
        if diagnostic is not None:
            explained.update(weight.name for weight in weights)
            yield DEAD_OR_CRASHING.finding(places(weights), diagnostic, fix_without(context, weights))
    # Modules without a weight in the map, such as the dead output projection within torch's own attention.
    others: dict[Diagnostic, list[str]] = {}
    for warning in context.warnings_of(DEAD_OR_CRASHING.code):
        if not explained.intersection(warning.names):
            others.setdefault(_of_every_layer(warning), []).extend(warning.names)
    for diagnostic, names in others.items():
        yield DEAD_OR_CRASHING.finding(listed(names, _MOST_NAMED), diagnostic, excluding_fix(context, names, names))


def _of_every_layer(diagnostic: Diagnostic) -> Diagnostic:
    """A diagnostic without its module's name and layer."""
    values = {key: NUMBER.sub("*", value) for key, value in diagnostic.values.items()}
    return dataclasses.replace(diagnostic, names=(), values=values)


def _grouped(weights: Iterable[Weight], key: Callable[[Weight], Key]) -> dict[Key, list[Weight]]:
    groups: dict[Key, list[Weight]] = {}
    for weight in weights:
        groups.setdefault(key(weight), []).append(weight)
    return groups


@finds(OUTSIDE, ROUTER, HEAD)
def find_beyond_layers(context: CheckContext) -> Iterator[Finding]:
    """Adapted weights beyond attention, FFN and mixers of the model itself."""
    groups = _grouped(context.adapted_weights, lambda weight: _part(context, weight))
    uncharted = _uncharted(context)
    foreign = [name for name, component in uncharted.items() if component not in context.main_components]
    towers = [weight for part, weights in groups.items() if part.startswith("outside") for weight in weights]
    for part, weights in groups.items():
        code, _, component = part.partition(" ")
        if code == "outside":
            yield _tower(context, component, weights, fix_without(context, towers, foreign))
        elif code == "router":
            yield _router(context, weights)
        elif code == "head":
            yield _head(context, weights)
        elif code:
            many, share = plural(len(weights), "weight"), _share(context, weights)
            message = f"{many} other than attention and FFN {_are(weights)} adapted{share}."
            yield OUTSIDE.finding(places(weights), message, fix_without(context, weights), "note")
    if uncharted:
        names = [*uncharted]
        fix = fix_without(context, towers, foreign) if foreign else excluding_fix(context, names, names)
        yield _no_linear(context, uncharted, fix)


def _part(context: CheckContext, weight: Weight) -> str:
    """The kind of a weight beyond attention, FFN and mixers, or empty."""
    if weight.role.component not in context.main_components:
        return f"outside {weight.role.component}"
    if weight.role.block in _MAIN_BLOCKS:
        return ""
    return {"router": "router", "head": "head", "embedding": "head"}.get(weight.role.block, "inner")


def _tower(context: CheckContext, component: str, weights: Sequence[Weight], fix: str) -> Finding:
    blocks = ", ".join(dict.fromkeys(weight.role.block for weight in weights))
    part = f"connector ({blocks})" if component == "connector" else f"{component} tower ({blocks})"
    many, share = plural(len(weights), "weight"), _share(context, weights)
    message = f"{many} of the {part} {_are(weights)} adapted too{share}."
    return OUTSIDE.finding(places(weights), message, fix, _severity(context, weights))


def _router(context: CheckContext, weights: Sequence[Weight]) -> Finding:
    many, share = plural(len(weights), "router"), _share(context, weights)
    message = f"{many} {_are(weights)} adapted{share}. Training then changes which expert a token goes to."
    return ROUTER.finding(places(weights), message, fix_without(context, weights), _severity(context, weights))


def _head(context: CheckContext, weights: Sequence[Weight]) -> Finding:
    kinds = " and ".join(dict.fromkeys(_head_word(weight) for weight in weights))
    share = _share(context, weights)
    message = f"The {kinds} {'are' if ' and ' in kinds else 'is'} adapted{share}."
    if context.model.head == "sequence-classification" and "classifier" in kinds:
        message += " It is new and random, so it needs full training, not a low-rank change."
        fix = f"Set {context.setting('task_type', 'SEQ_CLS')}: PEFT then trains it in full and saves it."
    else:
        fix = fix_without(context, weights)
        if all(weight.role.part in _BEFORE_OUTPUT for weight in weights):
            return HEAD.finding(places(weights), message, fix, "note")  # `dense` and all-linear reach them on any BERT
    return HEAD.finding(places(weights), message, fix, _severity(context, weights))


def _are(weights: Sequence[Weight]) -> str:
    return "are" if len(weights) > 1 else "is"


def _severity(context: CheckContext, weights: Sequence[Weight]) -> Severity:
    return "note" if _meant(context, weights) else "warning"


def _share(context: CheckContext, weights: Sequence[Weight]) -> str:
    """How much of what trains some weights are."""
    whole = context.resolution.trainable
    return f", {percent(context.trainable_of(weights), whole)} of the trainable parameters" if whole else ""


def _head_word(weight: Weight) -> str:
    if weight.role.block == "embedding":
        return "position embedding" if weight.role.part == "position" else "input embedding"
    return _HEADS.get(weight.role.part, "head")


def _meant(context: CheckContext, weights: Sequence[Weight]) -> bool:
    """The configuration names these weights, not merely others with them."""
    entries = context.entries
    names = {peft_name(context.model, weight) for weight in weights}
    blocks = {(weight.role.component, weight.role.block) for weight in weights}
    if entries.form == "all-linear":
        return False
    for entry in entries.modules:
        matches = {module.name for module in entry.targeted} | (set(entry.parameters) if entry.rewritten else set())
        if not matches & names:
            continue
        if entries.form == "string":
            if not _speaks_of(entry, names):
                return False
            continue
        by_name = context.model.weight_by_name
        for name in matches - names:
            weight = by_name.get(name.removesuffix(".weight")) or by_name.get(name)
            if weight is not None and (weight.role.component, weight.role.block) not in blocks:
                return False
    return True


def _speaks_of(entry: Entry, names: set[str]) -> bool:
    """The expression holds a word that only these names have."""
    others = {word for module in entry.targeted if module.name not in names for word in module.name.split(".")}
    words = {word for name in names for word in name.split(".")} - others
    if not others:
        return True
    spoken = set(re.findall(r"\w+", entry.text))
    return any(
        word in spoken if word.isidentifier() else re.search(rf"(?<!\w){re.escape(word)}(?!\w)", entry.text) is not None
        for word in words
        if not word.isdecimal()
    )


def _uncharted(context: CheckContext) -> dict[str, str]:
    """Adapted modules without a matrix in the map, with their components."""
    model = context.model
    known = {peft_name(model, weight) for weight in context.adapted_weights}
    known |= {weight.name for weight in context.adapted_weights}
    reported = (*context.warnings_of("dead-or-crashing"), *context.warnings_of("bias"))
    known |= {name for warning in reported for name in warning.names}
    names = [name for name in context.sizes if name not in known]
    return {name: role_of_name(template(name), "conv", model.model_type)[0].component for name in names}


def _no_linear(context: CheckContext, modules: Mapping[str, str], fix: str) -> Finding:
    by_name = context.model.module_by_name
    classes = dict.fromkeys(by_name[name].class_name if name in by_name else "parameter" for name in modules)
    named = context.entries.form == "list" and len(context.entries.modules) == 1
    meant = named or context.main_components.issuperset(modules.values())
    many = plural(len(modules), "adapted module")
    message = f"{many} {'are' if len(modules) > 1 else 'is'} not linear ({', '.join(classes)})."
    return OUTSIDE.finding(listed(modules, _MOST_NAMED), message, fix, "note" if meant else "warning")
