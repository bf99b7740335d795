"""What `layers_to_transform` and `layers_pattern` drop, pass over and hit without being meant to."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from lorascope.checks.context import Case
from lorascope.checks.entries import (
    MOST_SPELLED,
    Asked,
    counted,
    endings_or_names,
    in_quotes,
    release_in,
    resolved_with,
)
from lorascope.checks.rules.unmatched import planning_command
from lorascope.findings import Finding, Severity
from lorascope.names import NUMBER, listed, spans
from lorascope.peft_rules.addresses import weight_of
from lorascope.peft_rules.matchers import CONDENSED_FROM, LayerFilter, Match, NameSet
from lorascope.peft_rules.name_patterns import BadPatternError, compiled

_MOST_NAMED = 3
# The most absent layers that are listed.
_MOST_LAYERS = 100
_LONGEST_TAIL = 400
# So many words are tried as a layers_pattern, each on the whole model.
_MOST_TRIED = 8
_SETTING = "layers_to_transform"
_PLANNED = ("attention", "ffn", "mixer")


def layer_findings(case: Case, asked: Asked) -> Iterator[Finding]:
    """`layers-with-string`, `-pattern`, `-dropped`, `-absent`, `-ignored`, `-towers`."""
    yield from _with_string(case, asked)
    yield from _pattern(case)
    config = case.config
    if config.layers_to_transform is None or asked.faulty:
        return
    filter_ = LayerFilter(config.layers_to_transform, config.layers_pattern, release_in(case))
    if not filter_.active:
        return
    if asked.form in ("list", "default"):
        yield from _dropped(case, asked)
        yield from _absent(case, asked, filter_)
        yield from _exact(case, asked, filter_)
        yield from _elsewhere(case, filter_)
    yield from _parameters(case, asked, filter_)
    yield from _towers(case, asked)


def _with_string(case: Case, asked: Asked) -> Iterator[Finding]:
    if case.resolution.cause != "layers-with-string":
        return
    linear = [module.name for entry in asked.modules for module in entry.targeted if module.kind != "other"]
    endings = endings_or_names(linear, [module.name for module in case.model.modules]) if linear else ()
    if not endings:
        leaves = dict.fromkeys(NUMBER.sub("", name).rpartition(".")[2] for name in linear)
        endings = tuple(leaf for leaf in leaves if leaf)[:MOST_SPELLED]
    words = re.findall(r"\w+", str(case.config.target_modules)[-_LONGEST_TAIL:])
    fix = f"Give a list: target_modules=[{in_quotes(endings or words[-1:])}]."
    if asked.form == "string":
        fix += " Or say the layers in the expression and leave layers_to_transform out."
    yield Finding("layers-with-string", "error", "target_modules", case.resolution.error, fix)


def _pattern(case: Case) -> Iterator[Finding]:
    if case.resolution.cause != "layers-pattern":
        return
    fix = "Take layers_pattern out, or name the layers in layers_to_transform."
    yield Finding("layers-pattern", "error", "layers_pattern", case.resolution.error, fix)


def _dropped(case: Case, asked: Asked) -> Iterator[Finding]:
    """Modules of the targets in whose names PEFT finds no layer, where an entry has no others or the model's own are."""
    dropped: dict[str, None] = {}
    wholly = False
    for entry in asked.modules:
        names = [module.name for module in entry.modules if asked.verdicts[module.name] is Match.NO_LAYER]
        weights = [weight for name in names if (weight := case.model.weight_by_name.get(name)) is not None]
        own = any(w.role.component in case.own and w.role.block in _PLANNED for w in weights)
        if names and (not entry.targeted or own):
            dropped.update(dict.fromkeys(names))
            wholly = wholly or not entry.targeted
    if not dropped:
        return
    numbered = [name for name in dropped if NUMBER.search(name)]
    outside = [name for name in dropped if name not in numbered]
    severity: Severity = "warning" if case.resolution.adapted else "error"
    if numbered:
        found = listed(numbered, _MOST_NAMED)
        message = f"PEFT finds no layer number in {found}, so that layers_to_transform drops {counted(len(numbered), 'module')}."
        yield Finding("layers-dropped", severity, _SETTING, message, _pattern_fix(case, numbered))
    if outside:
        message = (
            f"{listed(outside, _MOST_NAMED)} {'lie' if len(outside) > 1 else 'lies'} in no layer, so that "
            "layers_to_transform drops it silently."
        )
        fix = f"Give the full name, to which layers do not apply: {in_quotes(outside[:_MOST_NAMED])}."
        if len(case.config.target_modules or ()) >= CONDENSED_FROM:
            fix = f"Let it be written: {planning_command(case)}"
        yield Finding("layers-dropped", severity if wholly else "note", _SETTING, message, fix)


def _pattern_fix(case: Case, names: Sequence[str]) -> str:
    """A layers_pattern that finds the numbers, tried."""
    words = dict.fromkeys(
        word for name in names for word in re.findall(r"(?:^|\.)([A-Za-z_]\w*)\.\d+\.", f"{name}.") if word
    )
    for word in itertools.islice(words, _MOST_TRIED):
        if word != case.config.layers_pattern and resolved_with(case, layers_pattern=word).adapted:
            return f'Give layers_pattern="{word}".'
    return f"Say the layers in the names instead: {planning_command(case)}"


def _absent(case: Case, asked: Asked, filter_: LayerFilter) -> Iterator[Finding]:
    """Layers that no target lies in."""
    there: set[int] = set()
    try:
        for entry in asked.modules:
            for module in entry.modules:
                index = filter_.index(module.name)
                if index is not None and asked.verdicts[module.name] is not Match.EXCLUDED:
                    there.add(index)
    except BadPatternError:
        return
    missing = sorted(filter_.wanted - there)
    if not missing or not there:
        return
    nothing = len(missing) == len(filter_.wanted)
    negative = [layer for layer in missing if layer < 0]
    plural = len(missing) > 1
    message = (
        f"layers_to_transform asks for layer{'s' if plural else ''} {_shown(missing)}, where the targets are in layers "
        f"{spans(there)}. " + ("Nothing is left." if nothing else "PEFT ignores that silently.")
    )
    fix = f"The layers with these targets are {spans(there)}."
    if negative:
        last = max(there) + 1
        fix += f" Layers are not counted from the end: {', '.join(f'{n} is {last + n}' for n in negative[:_MOST_LAYERS] if last + n >= 0)}."
    elif max(there) + 1 in missing:
        fix += " They are counted from 0."
    yield Finding("layers-absent", "error" if nothing else "warning", _SETTING, message, fix)


def _shown(numbers: Sequence[int]) -> str:
    text = spans(numbers[:_MOST_LAYERS]) if min(numbers) >= 0 else ", ".join(map(str, numbers[:_MOST_LAYERS]))
    more = len(numbers) - _MOST_LAYERS
    return f"{text} and {more:,} more" if more > 0 else text


def _exact(case: Case, asked: Asked, filter_: LayerFilter) -> Iterator[Finding]:
    """Full names, to which PEFT does not apply the layers, and which mean other ones."""
    try:
        others = [
            name
            for name, verdict in asked.verdicts.items()
            if verdict is Match.EXACT and filter_.index(name) is not None and filter_.index(name) not in filter_.wanted
        ]
    except BadPatternError:
        return
    if len(asked.modules) >= CONDENSED_FROM:
        return  # PEFT shortens so many, and then the layers do apply: `condensed` says so.
    outside = [n for n, v in asked.verdicts.items() if v is Match.EXACT and not NUMBER.search(n)]
    if outside:
        message = f"{listed(outside, _MOST_NAMED)} is adapted too: layers_to_transform does not apply to a full name."
        fix = "Nothing to do if that is meant; otherwise take it out of target_modules."
        yield Finding("layers-ignored", "note", _SETTING, message, fix)
    if not others:
        return
    message = f"{listed(others, _MOST_NAMED)} are full names, for which PEFT ignores layers_to_transform."
    fix = "Take them out of target_modules, or layers_to_transform out of the configuration."
    yield Finding("layers-ignored", "warning", _SETTING, message, fix)


def _elsewhere(case: Case, filter_: LayerFilter) -> Iterator[Finding]:
    """The number that PEFT reads is not the layer's."""
    try:
        other = [w.name for w in case.hit if w.layer is not None and filter_.index(w.name) not in (None, w.layer)]
    except BadPatternError:
        return
    if other:
        message = f"PEFT takes another number for the layer in {listed(other, _MOST_NAMED)} than the layer's own."
        fix = 'Give layers_pattern the word before the layer\'s number, such as layers_pattern="layers".'
        yield Finding("layers-pattern", "warning", "layers_pattern", message, fix)


def _parameters(case: Case, asked: Asked, filter_: LayerFilter) -> Iterator[Finding]:
    """Parameters are adapted in every layer."""
    # Who spells a number in an entry has chosen the layer.
    entries = [entry for entry in (*asked.modules, *asked.parameters) if not NUMBER.search(entry.text)]
    names = [name for entry in entries for name in entry.parameters]
    adapted = {one.name for one in case.resolution.adapted}
    beyond = []
    for name in names:
        weight = weight_of(case.model, name)
        if name in adapted and weight is not None and weight.layer is not None and weight.layer not in filter_.wanted:
            beyond.append(name)
    if not beyond:
        return
    wanted = sorted(filter_.wanted)[:2]
    leaf = next((entry.text for entry in asked.parameters if entry.parameters), "mlp.experts.down_proj")
    stem = next(iter(re.findall(r"([A-Za-z_]+)\.\d+\.", beyond[0])), "layers")
    spelled = [f"{stem}.{layer}.{_below(beyond[0], leaf)}" for layer in wanted]
    message = (
        f"layers_to_transform does not apply to parameters: {listed(beyond, _MOST_NAMED)} are adapted all the same."
    )
    yield Finding(
        "layers-ignored", "warning", _SETTING, message, f"Spell the layers: target_parameters=[{in_quotes(spelled)}]."
    )


def _below(name: str, leaf: str) -> str:
    """What follows the layer's number in a name."""
    return NUMBER.split(name, maxsplit=1)[-1].lstrip(".") or leaf


def _towers(case: Case, asked: Asked) -> Iterator[Finding]:
    """One number counts in every tower and stack."""
    modules = [weight for weight in case.hit if weight.layer is not None and weight.kind != "parameter"]
    places: dict[str, list[str]] = {}
    for weight in modules:
        place = " ".join(word for word in (weight.role.component, weight.role.stack) if word)
        places.setdefault(place, []).append(weight.name)
    if len(places) < 2:
        return
    components = {weight.role.component for weight in modules}
    said = "; ".join(f"{place}: {listed(names, 2)}" for place, names in places.items())
    message = f"layers_to_transform counts in every part of the model that has the targets: {said}."
    other = [weight.name for weight in modules if weight.role.component not in case.own]
    fix = "Nothing to do if that is meant."
    severity: Severity = "note"
    if len(components) > 1 and other:
        severity = "warning"
        fix = "Exclude the other part: see outside."
    yield Finding("layers-towers", severity, _SETTING, message, fix)


def excluded_by(pattern: str | Sequence[str], names: Iterable[str]) -> list[str]:
    """The names that an `exclude_modules` of this value takes out.

    Raises:
        BadPatternError: It is no regular expression.
    """
    if isinstance(pattern, str):
        regex = compiled(pattern, "exclude_modules")
        return [name for name in names if regex.fullmatch(name)]
    entries = NameSet(pattern)
    return [name for name in names if entries.has(name)]
