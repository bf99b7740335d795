"""Layers that `layers_to_transform` and `layers_pattern` drop, pass over or hit by accident."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Sequence

from lorascope.checks.context import CheckContext
from lorascope.checks.phrases import in_quotes, plural
from lorascope.checks.rule import FindingRule, finds
from lorascope.checks.suggestions import MOST_SPELLED, planning_command
from lorascope.findings import Finding, Severity
from lorascope.names import NUMBER, listed, spans
from lorascope.peft_rules.addresses import weight_of
from lorascope.peft_rules.matchers import CONDENSED_FROM, LayerFilter, Match
from lorascope.peft_rules.name_patterns import BadPatternError

LAYERS_WITH_STRING = FindingRule(
    "layers-with-string",
    "error",
    "layers_to_transform is set and target_modules is a string",
    "PEFT raises: a regular expression has to name the layers itself.",
)
LAYERS_PATTERN = FindingRule(
    "layers-pattern",
    "warning",
    "a layers_pattern finds another number than the layer's, or stands alone",
    "It is the name of the list of layers, such as `layers` or `h`; alone it makes PEFT raise.",
)
LAYERS_DROPPED = FindingRule(
    "layers-dropped",
    "warning",
    "entries lie in no layer that PEFT finds",
    "With layers_to_transform, PEFT drops every target without a layer number that it recognizes.",
)
LAYERS_ABSENT = FindingRule(
    "layers-absent",
    "warning",
    "layers_to_transform has layers that the model does not have",
    "Layers count from 0, negative numbers mean nothing, and PEFT ignores absent layers silently.",
)
LAYERS_IGNORED = FindingRule(
    "layers-ignored",
    "warning",
    "targets are adapted whatever layers_to_transform says",
    "PEFT does not apply it to full names and to target_parameters.",
)
LAYERS_TOWERS = FindingRule(
    "layers-towers",
    "note",
    "a layer number counts in several parts of the model",
    "Encoder, decoder and vision tower each have a layer 0.",
)

_MOST_NAMED = 3
_MOST_LAYERS = 100
_LONGEST_TAIL = 400
# So many words are tried as a layers_pattern, each on the whole model.
_MOST_TRIED = 8
_SETTING = "layers_to_transform"
_MAIN_BLOCKS = ("attention", "ffn", "mixer")


@finds(LAYERS_WITH_STRING)
def find_layers_with_string(context: CheckContext) -> Iterator[Finding]:
    """Layers with a string in `target_modules`."""
    if not context.refused_as("layers-with-string"):
        return
    linear = [module.name for entry in context.entries.modules for module in entry.targeted if module.kind != "other"]
    endings = context.module_entries(linear) if linear else ()
    if not endings:
        leaves = dict.fromkeys(NUMBER.sub("", name).rpartition(".")[2] for name in linear)
        endings = tuple(leaf for leaf in leaves if leaf)[:MOST_SPELLED]
    words = re.findall(r"\w+", str(context.config.target_modules)[-_LONGEST_TAIL:])
    fix = f"Use a list: {context.setting('target_modules', endings or words[-1:])}."
    if context.entries.form == "string":
        fix += " Or name the layers in the expression and leave layers_to_transform out."
    yield LAYERS_WITH_STRING.finding("target_modules", context.refusal, fix)


@finds(LAYERS_PATTERN)
def find_lone_pattern(context: CheckContext) -> Iterator[Finding]:
    """A `layers_pattern` that PEFT refuses."""
    if context.refused_as("layers-pattern"):
        fix = "Take layers_pattern out, or set the layers in layers_to_transform."
        yield LAYERS_PATTERN.finding("layers_pattern", context.refusal, fix, "error")


def _filter(context: CheckContext, *, of_lists: bool = False) -> LayerFilter | None:
    """The layers to which the targets are restricted, if they are."""
    config = context.config
    if config.layers_to_transform is None or context.entries.faulty:
        return None
    if of_lists and context.entries.form not in ("list", "default"):
        return None
    layers = LayerFilter(config.layers_to_transform, config.layers_pattern, context.release)
    return layers if layers.active else None


@finds(LAYERS_DROPPED)
def find_dropped(context: CheckContext) -> Iterator[Finding]:
    """Targets in whose names PEFT finds no layer."""
    if not _filter(context, of_lists=True):
        return
    names: dict[str, None] = {}
    whole = False
    for entry in context.entries.modules:
        lost = [module.name for module in entry.modules if context.entries.verdicts[module.name] is Match.NO_LAYER]
        weights = [weight for name in lost if (weight := context.model.weight_by_name.get(name)) is not None]
        own = any(w.role.component in context.main_components and w.role.block in _MAIN_BLOCKS for w in weights)
        if lost and (not entry.targeted or own):
            names.update(dict.fromkeys(lost))
            whole = whole or not entry.targeted
    severity: Severity = "warning" if context.resolution.adapted else "error"
    numbered = [name for name in names if NUMBER.search(name)]
    outside = [name for name in names if not NUMBER.search(name)]
    if numbered:
        message = (
            f"layers_to_transform drops {plural(len(numbered), 'module')}: PEFT finds no layer number in "
            f"{listed(numbered, _MOST_NAMED)}."
        )
        yield LAYERS_DROPPED.finding(_SETTING, message, _pattern_fix(context, numbered), severity)
    if outside:
        verb, it = ("lie", "them") if len(outside) > 1 else ("lies", "it")
        message = f"{listed(outside, _MOST_NAMED)} {verb} in no layer, so layers_to_transform drops {it} silently."
        fix = f"Use the full name, which layers_to_transform does not apply to: {in_quotes(outside[:_MOST_NAMED])}."
        if len(context.config.target_modules or ()) >= CONDENSED_FROM:
            fix = f"Generate the targets: {planning_command(context.model)}"
        yield LAYERS_DROPPED.finding(_SETTING, message, fix, severity if whole else "note")


def _pattern_fix(context: CheckContext, names: Sequence[str]) -> str:
    """A layers_pattern that finds the numbers, tried."""
    words = dict.fromkeys(
        word for name in names for word in re.findall(r"(?:^|\.)([A-Za-z_]\w*)\.\d+\.", f"{name}.") if word
    )
    for word in itertools.islice(words, _MOST_TRIED):
        if word != context.config.layers_pattern and context.resolve_with(layers_pattern=word).adapted:
            return f"Set {context.setting('layers_pattern', word)}."
    return f"Name the layers in the targets instead, or generate them: {planning_command(context.model)}"


@finds(LAYERS_ABSENT)
def find_absent_layers(context: CheckContext) -> Iterator[Finding]:
    """Layers that no target lies in."""
    layers = _filter(context, of_lists=True)
    if layers is None:
        return
    there: set[int] = set()
    try:
        for entry in context.entries.modules:
            for module in entry.modules:
                index = layers.index(module.name)
                if index is not None and context.entries.verdicts[module.name] is not Match.EXCLUDED:
                    there.add(index)
    except BadPatternError:
        return
    missing = sorted(layers.wanted - there)
    if not missing or not there:
        return
    nothing = len(missing) == len(layers.wanted)
    plural = "s" if len(missing) > 1 else ""
    message = f"No target is in layer{plural} {_shown(missing)}: the targets are in {_layers(there)}. " + (
        "Nothing is left to adapt." if nothing else "PEFT ignores that silently."
    )
    fix = f"Choose from {_layers(there)} in layers_to_transform."
    negative = [layer for layer in missing if layer < 0][:_MOST_LAYERS]
    last = max(there) + 1
    if negative:
        counted_back = ", ".join(f"{number} is {last + number}" for number in negative if last + number >= 0)
        fix += f" PEFT does not count from the end: {counted_back}."
    elif last in missing:
        fix += " Layers are counted from 0."
    yield LAYERS_ABSENT.finding(_SETTING, message, fix, "error" if nothing else "warning")


def _layers(numbers: Collection[int]) -> str:
    return f"layer{'s' if len(numbers) > 1 else ''} {spans(numbers)}"


def _shown(numbers: Sequence[int]) -> str:
    text = spans(numbers[:_MOST_LAYERS]) if min(numbers) >= 0 else ", ".join(map(str, numbers[:_MOST_LAYERS]))
    more = len(numbers) - _MOST_LAYERS
    return f"{text} and {more:,} more" if more > 0 else text


@finds(LAYERS_IGNORED)
def find_full_names(context: CheckContext) -> Iterator[Finding]:
    """Full names, to which PEFT does not apply the layers."""
    layers, entries = _filter(context, of_lists=True), context.entries
    if layers is None:
        return
    exact = [name for name, verdict in entries.verdicts.items() if verdict is Match.EXACT]
    try:
        indices = {name: layers.index(name) for name in exact}
    except BadPatternError:
        return
    if len(entries.modules) >= CONDENSED_FROM:
        return  # PEFT shortens so many, and then the layers do apply: `condensed` says so.
    outside = [name for name in exact if not NUMBER.search(name)]
    others = [name for name, index in indices.items() if index is not None and index not in layers.wanted]
    if outside:
        message = f"{listed(outside, _MOST_NAMED)} is adapted too: layers_to_transform does not apply to full names."
        fix = "Nothing to do if that is meant; otherwise take it out of target_modules."
        yield LAYERS_IGNORED.finding(_SETTING, message, fix, "note")
    if others:
        message = f"PEFT ignores layers_to_transform for full names: {listed(others, _MOST_NAMED)}."
        fix = "Take these full names out of target_modules, or leave layers_to_transform out."
        yield LAYERS_IGNORED.finding(_SETTING, message, fix)


@finds(LAYERS_PATTERN)
def find_wrong_indices(context: CheckContext) -> Iterator[Finding]:
    """Weights in whose names PEFT reads another number than the layer's."""
    layers = _filter(context, of_lists=True)
    if layers is None:
        return
    try:
        other = {
            weight.name: (layers.index(weight.name), weight.layer)
            for weight in context.adapted_weights
            if weight.layer is not None and layers.index(weight.name) not in (None, weight.layer)
        }
    except BadPatternError:
        return
    if other:
        number, layer = next(iter(other.values()))
        message = (
            f"PEFT reads the wrong layer index from {listed(other, _MOST_NAMED)}: it finds {number} where the layer is "
            f"{layer}."
        )
        fix = 'Set layers_pattern to the word before the layer number, such as "layers".'
        yield LAYERS_PATTERN.finding("layers_pattern", message, fix)


@finds(LAYERS_IGNORED)
def find_unrestricted_parameters(context: CheckContext) -> Iterator[Finding]:
    """Parameters, which PEFT adapts in every layer."""
    layers, entries = _filter(context), context.entries
    if layers is None:
        return
    # Who spells a number in an entry has chosen the layer.
    chosen = [entry for entry in (*entries.modules, *entries.parameters) if not NUMBER.search(entry.text)]
    beyond = []
    for name in [name for entry in chosen for name in entry.parameters if name in context.sizes]:
        weight = weight_of(context.model, name)
        if weight is not None and weight.layer is not None and weight.layer not in layers.wanted:
            beyond.append(name)
    if not beyond:
        return
    leaf = next((entry.text for entry in entries.parameters if entry.parameters), "mlp.experts.down_proj")
    stem = next(iter(re.findall(r"([A-Za-z_]+)\.\d+\.", beyond[0])), "layers")
    below = NUMBER.split(beyond[0], maxsplit=1)[-1].lstrip(".") or leaf
    spelled = [f"{stem}.{layer}.{below}" for layer in sorted(layers.wanted)[:2]]
    message = (
        f"PEFT adapts {listed(beyond, _MOST_NAMED)} all the same: layers_to_transform does not apply to parameters."
    )
    fix = f"Put the layers into the names: {context.setting('target_parameters', spelled)}."
    yield LAYERS_IGNORED.finding(_SETTING, message, fix)


@finds(LAYERS_TOWERS)
def find_layers_of_towers(context: CheckContext) -> Iterator[Finding]:
    """One number, which counts in every tower and stack."""
    if _filter(context) is None:
        return
    modules = [weight for weight in context.adapted_weights if weight.layer is not None and weight.kind != "parameter"]
    parts: dict[str, list[str]] = {}
    for weight in modules:
        part = " ".join(word for word in (weight.role.component, weight.role.stack) if word)
        parts.setdefault(part, []).append(weight.name)
    if len(parts) < 2:
        return
    names = "; ".join(f"{part}: {listed(names, 2)}" for part, names in parts.items())
    message = f"layers_to_transform counts separately in {len(parts)} parts of the model: {names}."
    components = {weight.role.component for weight in modules}
    if len(components) > 1 and not components <= context.main_components:
        yield LAYERS_TOWERS.finding(_SETTING, message, "To exclude the other part, see outside.", "warning")
    else:
        yield LAYERS_TOWERS.finding(_SETTING, message, "Nothing to do if that is meant.")
