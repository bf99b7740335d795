"""Entries of the targets that match other things than layers, or nothing that another entry does not match."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lorascope.checks.context import Case
from lorascope.checks.entries import (
    MOST_EXPLAINED,
    MOST_SPELLED,
    Asked,
    Entry,
    counted,
    endings_or_names,
    in_quotes,
    resolved_with,
    some_in_quotes,
)
from lorascope.checks.name_meanings import fix_for, place_in
from lorascope.checks.rules.unmatched import planning_command
from lorascope.findings import Finding, Severity
from lorascope.foreign_text import literal
from lorascope.model.types import Module
from lorascope.names import NUMBER, listed
from lorascope.peft_rules.matchers import dotted_suffixes, parameter_names
from lorascope.peft_rules.name_patterns import BadPatternError, compiled

_MOST_NAMED = 3
_MOST_FAULTS = 10
_LONGEST_TAIL = 200
_PLAIN = re.compile(r"[\w.-]*")


def entry_findings(case: Case, asked: Asked) -> Iterator[Finding]:
    """`bad-pattern`, `digit-name`, `unsupported`, `default-targets`, `twice` and `covered`."""
    yield from _bad_patterns(case)
    yield from _unsupported(case, asked)
    yield from _digits(case, asked)
    yield from _default(case, asked)
    yield from _twice(case, asked)
    yield from _covered(asked)


def _bad_patterns(case: Case) -> Iterator[Finding]:
    config = case.config
    # Each with what PEFT puts around it.
    patterns: dict[str, tuple[Sequence[str], str, str]] = {
        "target_modules": ([config.target_modules] if isinstance(config.target_modules, str) else [], "", ""),
        "exclude_modules": ([config.exclude_modules] if isinstance(config.exclude_modules, str) else [], "", ""),
        "layers_pattern": (
            [config.layers_pattern] if isinstance(config.layers_pattern, str) else config.layers_pattern or (),
            r"(?:^|.*?\.)",
            r"\.(?P<idx>\d+)\.",
        ),
        "rank_pattern": (list(config.rank_pattern), r"(.*\.)?(", ")$"),
        "alpha_pattern": (list(config.alpha_pattern), r"(.*\.)?(", ")$"),
        "modules_to_save": (config.modules_to_save or (), r"(^|.*\.)", r"($|\..*)"),
    }
    told = False
    severity: Severity = "error" if case.resolution.error else "warning"
    for setting, (texts, before, after) in patterns.items():
        bad = [(text, error) for text in texts if (error := _fault(text, before, after, setting)) is not None]
        told = told or bool(bad)
        for text, error in bad[:_MOST_FAULTS]:
            fix = f'Write it as one, such as ".*[.]{_last_word(text)}", or escape what stands for itself.'
            yield Finding("bad-pattern", severity, setting, str(error), fix)
        if rest := bad[_MOST_FAULTS:]:
            message = f"{len(rest):,} more are not regular expressions: {some_in_quotes([text for text, _ in rest])}."
            yield Finding("bad-pattern", severity, setting, message, "Take them out.")
    if case.resolution.cause == "bad-pattern" and not told:
        fix = 'Give a layers_pattern without groups of its own, such as layers_pattern="layers".'
        yield Finding("bad-pattern", "error", "target_modules, layers_pattern", case.resolution.error, fix)


def _fault(text: str, before: str, after: str, setting: str) -> BadPatternError | None:
    """Why PEFT cannot compile a text, said of the text alone where that is reason enough."""
    if _PLAIN.fullmatch(text):
        return None
    try:
        compiled(f"{before}{text}{after}", setting)
    except BadPatternError as error:
        try:
            compiled(text, setting)
        except BadPatternError as alone:
            return alone
        return error
    return None


def _last_word(text: str) -> str:
    words = re.findall(r"\w+", text[-_LONGEST_TAIL:])
    return words[-1] if words else "q_proj"


def _unsupported(case: Case, asked: Asked) -> Iterator[Finding]:
    """Modules of a class that PEFT has no adapter for: it raises at the first one."""
    told = 0
    for entry in asked.modules:
        refused = [module for module in entry.targeted if module.kind == "other"]
        if not refused or entry.text.rpartition(".")[2].isdecimal():
            continue
        told += 1
        classes = ", ".join(dict.fromkeys(module.class_name for module in refused))
        subject = "The regular expression" if asked.form == "string" else f'"{entry.text}"'
        names = listed((module.name for module in refused), _MOST_NAMED)
        message = f"{subject} matches what is no layer ({counted(len(refused), 'module')}, {classes}): {names}. PEFT refuses it."
        fix = _within(case, asked, entry, refused) if told <= MOST_EXPLAINED else "Take it out of the targets."
        yield Finding("unsupported", "error", "target_modules", message, fix)
    numbers = any(module.kind == "other" for entry in _digit_entries(asked) for module in entry.targeted)
    if case.resolution.cause == "unsupported" and not told and not numbers:
        error = case.resolution.error
        yield Finding("unsupported", "error", "the targets", error, _excluding(case))


def _excluding(case: Case) -> str:
    """Exclusions with which PEFT takes the rest, tried: it names one module after the other."""
    given = case.config.exclude_modules
    if isinstance(given, str):
        return "Take it out of the targets."
    names, resolution = list(given or ()), case.resolution
    while resolution.error and len(names) < MOST_SPELLED:
        name = re.search(r'"([\w.-]+)"', resolution.error)
        leaf = name[1].rpartition(".")[2] if name else ""
        if resolution.cause != "unsupported" or not leaf or leaf in names:
            return "Take it out of the targets."
        names.append(leaf)
        resolution = resolved_with(case, exclude_modules=tuple(names))
    return (
        "Take it out of the targets."
        if resolution.error
        else f"Give exclude_modules=[{in_quotes(names)}]: PEFT takes the rest."
    )


def _within(case: Case, asked: Asked, entry: Entry, refused: Sequence[Module]) -> str:
    """The layers within modules that PEFT refuses, as entries."""
    model = case.model
    inside = tuple(f"{module.name}." for module in refused)
    layers = [w for w in model.weights if w.name.startswith(inside) and w.kind != "parameter"]
    bare = [w for w in model.weights if w.name.startswith(inside) and w.kind == "parameter"]
    matched = [module.name for module in entry.targeted if module.kind != "other"]
    ways = []
    if layers or matched:
        wanted = [weight.name for weight in layers] + matched
        names = [module.name for module in model.modules]
        endings = endings_or_names(set(wanted), names)
        if not endings:  # An entry may match more than is within: names of the last word alone.
            leaves = dict.fromkeys(NUMBER.sub("", name).rpartition(".")[2] for name in wanted)
            endings = tuple(leaf for leaf in leaves if leaf)[:MOST_SPELLED]
        ways.append(f"name the layers: {in_quotes(endings)}")
    if bare:
        ends = endings_or_names((weight.name for weight in bare), [name for _, name, _ in parameter_names(model)])
        shown = in_quotes(ends or [weight.name for weight in bare[:_MOST_NAMED]])
        ways.append(f"give target_parameters=[{shown}] with lora_dropout=0")
    if not ways:
        leaf = refused[0].name.rpartition(".")[2]
        ways = [f"take it out; to train it in full, give modules_to_save=[{literal(leaf)}]"]
    text = ", and ".join(ways)
    return f"{text[0].upper()}{text[1:]}."


def _digit_entries(asked: Asked) -> list[Entry]:
    if asked.form not in ("list", "default"):
        return []
    return [entry for entry in asked.modules if entry.text.rpartition(".")[2].isdecimal() and entry.modules]


def _digits(case: Case, asked: Asked) -> Iterator[Finding]:
    """A number as a name matches every member of that number, layers among them."""
    for entry in _digit_entries(asked):
        number = entry.text.rpartition(".")[2]
        refused = [module for module in entry.modules if module.kind == "other"]
        layers = [module for module in entry.modules if module.kind != "other"]
        classes = ", ".join(dict.fromkeys(module.class_name for module in entry.modules))
        places = listed((module.name for module in entry.modules), _MOST_NAMED)
        raising = ", and PEFT refuses what is no layer" if refused else ""
        if "." in entry.text and not refused:
            continue
        message = f'"{entry.text}" is a number, and matches {counted(len(entry.modules), "module")} ({classes}): {places}{raising}.'
        if layers:
            owners = listed((literal(module.name) for module in layers), _MOST_NAMED)
            fix = f"Name the layers that are meant by more than the number: {owners}."
        else:
            fix = f"For the layer of that number, name what is in it and give layers_to_transform=[{number}]."
        severity: Severity = "error" if any(module.kind == "other" for module in entry.targeted) else "warning"
        yield Finding("digit-name", severity, "target_modules", message, fix)


def _default(case: Case, asked: Asked) -> Iterator[Finding]:
    """No `target_modules` at all."""
    if case.config.target_modules is not None:
        return
    told = [one for one in case.resolution.warnings if one.code == "default-targets"]
    place = place_in(case.model, (("attention", "q"), ("attention", "v")))
    command = planning_command(case, "qv")
    fix = (
        fix_for(case.model, place, command) if place else f"Name them, or let them be written: {planning_command(case)}"
    )
    for one in told:
        severity: Severity = "warning" if case.config.target_parameters or asked.form == "none" else "note"
        if case.config.target_parameters:
            fix = "Give target_modules=[] if the parameters alone are meant."
        elif severity == "note":
            fix = "Nothing to do if that is meant. Otherwise name the modules."
        yield Finding("default-targets", severity, "target_modules", one.message, fix)
    if not told and case.resolution.error and not case.config.target_parameters:
        if asked.form == "none":
            on = f"on {case.model.model_type or 'this model'}"
            why = (
                "its rewrite for fused experts turns that into an empty list"
                if case.model.moe_conversion
                else "its table has no default for it"
            )
            message = f"target_modules is missing, and PEFT adapts nothing by itself {on}: {why}."
            yield Finding("default-targets", "error", "target_modules", message, fix)
        else:
            message = f"target_modules is missing, so that PEFT takes its default: {some_in_quotes([e.text for e in asked.modules])}."
            yield Finding("default-targets", "warning", "target_modules", message, fix)


def _twice(case: Case, asked: Asked) -> Iterator[Finding]:
    """One layer as a module and through its parameter."""
    if case.resolution.cause != "twice":
        return
    owners = {name.rpartition(".")[0] for entry in asked.parameters for name in entry.parameters}
    both = [entry.text for entry in asked.modules if any(module.name in owners for module in entry.targeted)]
    fix = f"Take {in_quotes(both[:MOST_SPELLED])} out of target_modules." if both else "Leave one of them out."
    yield Finding("twice", "error", "target_modules, target_parameters", case.resolution.error, fix)


def _covered(asked: Asked) -> Iterator[Finding]:
    """Entries of a list all of whose modules another entry matches too."""
    if asked.form != "list" or len(asked.modules) < 2:
        return
    by_text = {entry.text: entry for entry in asked.modules}
    covered: dict[str, list[str]] = {}
    for entry in asked.modules:
        # One that matches is no longer than a name.
        for ending in dotted_suffixes(entry.text)[::-1] if entry.modules else ():
            outer = by_text.get(ending)
            if outer is not None:
                covered.setdefault(outer.text, []).append(entry.text)
                break
    for outer_text, texts in covered.items():
        shown = listed((f"{text}" for text in texts), _MOST_NAMED)
        verb = "is" if len(texts) == 1 else "are"
        message = f'{shown} {verb} matched by "{outer_text}" anyway, which also matches all others of that name.'
        fix = f"Take {literal(outer_text)} out if only those are meant, and them otherwise."
        yield Finding("covered", "note", "target_modules", message, fix)
