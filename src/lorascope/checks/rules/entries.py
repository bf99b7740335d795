"""Target entries that match blocks, numbers, or nothing new."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lorascope.checks.context import CheckContext
from lorascope.checks.entries import Entry
from lorascope.checks.name_meanings import find_place, fix_for_place
from lorascope.checks.phrases import in_quotes, plural, some_in_quotes
from lorascope.checks.rule import FindingRule, finds
from lorascope.checks.suggestions import MOST_EXPLAINED, MOST_SPELLED, planning_command
from lorascope.findings import Finding, Severity
from lorascope.foreign_text import literal
from lorascope.model.types import Module
from lorascope.names import NUMBER, listed
from lorascope.peft_rules.matchers import dotted_suffixes
from lorascope.peft_rules.name_patterns import BadPatternError, compiled

BAD_PATTERN = FindingRule(
    "bad-pattern",
    "error",
    "a regular expression does not compile",
    "PEFT compiles it when it looks for targets, layers or keys, and raises.",
)
UNSUPPORTED = FindingRule(
    "unsupported",
    "error",
    "an entry matches a module that PEFT has no adapter for",
    "PEFT raises at the first block, norm or kernel-bound layer that a target matches.",
)
DIGIT_NAME = FindingRule(
    "digit-name",
    "error",
    "an entry is a number, so it matches layers",
    "Lists made of the last words of names hold numbers, and every layer of that number ends so.",
)
DEFAULT_TARGETS = FindingRule(
    "default-targets",
    "warning",
    "target_modules is missing, so PEFT decides",
    "PEFT has defaults for some model types, mostly query and value alone, and raises for the others.",
)
TWICE = FindingRule(
    "twice",
    "error",
    "one weight is targeted as a module and as a parameter",
    "PEFT wraps a layer once, so it raises.",
)
COVERED = FindingRule(
    "covered",
    "note",
    "another entry already matches everything that this one does",
    "Harmless if the short entry is meant; if only the long one is, far more is adapted.",
)

_MOST_NAMED = 3
_MOST_FAULTS = 10
_LONGEST_TAIL = 200
_PLAIN = re.compile(r"[\w.-]*")
_TAKE_OUT = "Take it out of the targets."


@finds(BAD_PATTERN)
def find_bad_patterns(context: CheckContext) -> Iterator[Finding]:
    """Texts that PEFT compiles and that are no regular expressions."""
    several = False
    severity: Severity = "error" if context.refusal else "warning"
    for setting, (texts, before, after) in _patterns(context).items():
        faults = [(text, error) for text in texts if (error := _fault(text, before, after, setting)) is not None]
        several = several or bool(faults)
        for text, error in faults[:_MOST_FAULTS]:
            fix = f'Write an expression, such as ".*[.]{_last_word(text)}", or escape the characters meant literally.'
            yield BAD_PATTERN.finding(setting, error.diagnostic, fix, severity)
        if rest := faults[_MOST_FAULTS:]:
            message = f"{len(rest):,} more are not regular expressions: {some_in_quotes([text for text, _ in rest])}."
            yield BAD_PATTERN.finding(setting, message, "Take them out.", severity)
    if context.refused_as("bad-pattern") and not several:
        fix = 'Use a layers_pattern without groups of its own, such as layers_pattern="layers".'
        yield BAD_PATTERN.finding("target_modules, layers_pattern", context.refusal, fix)


def _patterns(context: CheckContext) -> dict[str, tuple[Sequence[str], str, str]]:
    """The texts that PEFT compiles, with what it puts around them."""
    config = context.config
    key = (r"(.*\.)?(", ")$")
    return {
        "target_modules": ([config.target_modules] if isinstance(config.target_modules, str) else [], "", ""),
        "exclude_modules": ([config.exclude_modules] if isinstance(config.exclude_modules, str) else [], "", ""),
        "layers_pattern": (
            [config.layers_pattern] if isinstance(config.layers_pattern, str) else config.layers_pattern or (),
            r"(?:^|.*?\.)",
            r"\.(?P<idx>\d+)\.",
        ),
        "rank_pattern": (list(config.rank_pattern), *key),
        "alpha_pattern": (list(config.alpha_pattern), *key),
        "modules_to_save": (config.modules_to_save or (), r"(^|.*\.)", r"($|\..*)"),
    }


def _fault(text: str, before: str, after: str, setting: str) -> BadPatternError | None:
    """Why PEFT cannot compile a text, by itself if possible."""
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


@finds(UNSUPPORTED)
def find_unsupported(context: CheckContext) -> Iterator[Finding]:
    """Modules of a class that PEFT has no adapter for."""
    if context.expanded:
        return  # the trainer says what its own search does
    entries, where = context.entries, context.syntax.name("target_modules")
    refused = [one for one in entries.modules if one.refused and not one.text.rpartition(".")[2].isdecimal()]
    for number, entry in enumerate(refused[:_MOST_FAULTS], 1):
        classes = ", ".join(dict.fromkeys(module.class_name for module in entry.refused))
        subject = "The regular expression" if entries.form == "string" else f'"{entry.text}"'
        names = listed((module.name for module in entry.refused), _MOST_NAMED)
        many = plural(len(entry.refused), "module")
        message = f"{subject} matches {many} that PEFT cannot adapt ({classes}): {names}. PEFT raises."
        fix = _layers_within(context, entry) if number <= MOST_EXPLAINED else _TAKE_OUT
        yield UNSUPPORTED.finding(where, message, fix)
    if rest := refused[_MOST_FAULTS:]:
        message = (
            f"{len(rest):,} more match modules that PEFT cannot adapt: {some_in_quotes([one.text for one in rest])}."
        )
        yield UNSUPPORTED.finding(where, message, _TAKE_OUT)
    digits = any(entry.refused for entry in _digit_entries(context))
    if context.refused_as("unsupported") and not refused and not digits:
        yield UNSUPPORTED.finding("the targets", context.refusal, _tried_exclusions(context))


def _tried_exclusions(context: CheckContext) -> str:
    """Exclusions with which PEFT takes the rest, tried one by one."""
    given = context.config.exclude_modules
    if isinstance(given, str):
        return _TAKE_OUT
    names, refusal = list(given or ()), context.refusal
    while refusal and len(names) < MOST_SPELLED:
        leaf = refusal.names[0].rpartition(".")[2] if refusal.names else ""
        if refusal.code != UNSUPPORTED.code or not leaf or leaf in names:
            return _TAKE_OUT
        names.append(leaf)
        refusal = context.resolve_with(exclude_modules=tuple(names)).refusal
    return _TAKE_OUT if refusal else f"Set {context.setting('exclude_modules', names)}; PEFT takes the rest."


def _layers_within(context: CheckContext, entry: Entry) -> str:
    """The layers within modules that PEFT refuses, as entries."""
    inside = tuple(f"{module.name}." for module in entry.refused)
    weights = [weight for weight in context.model.weights if weight.name.startswith(inside)]
    layers = [weight.name for weight in weights if weight.kind != "parameter"]
    parameters = [weight.name for weight in weights if weight.kind == "parameter"]
    wanted = layers + [module.name for module in entry.targeted if module.kind != "other"]
    ways = []
    if wanted:
        ways.append(f"name the layers: {in_quotes(context.module_entries(set(wanted)) or _last_words(wanted))}")
    if parameters:
        names = context.parameter_entries(parameters) or parameters[:_MOST_NAMED]
        ways.append(f"use {context.parameters_setting(names)}")
    if not ways:
        leaf = entry.refused[0].name.rpartition(".")[2]
        ways = [f"take it out; to train it in full, set {context.setting('modules_to_save', [leaf])}"]
    text = ", and ".join(ways)
    return f"{text[0].upper()}{text[1:]}."


def _last_words(names: Sequence[str]) -> list[str]:
    """Entries that may match more than these names: their last words."""
    leaves = dict.fromkeys(NUMBER.sub("", name).rpartition(".")[2] for name in names)
    return [leaf for leaf in leaves if leaf][:MOST_SPELLED]


def _digit_entries(context: CheckContext) -> list[Entry]:
    entries = context.entries
    if entries.form not in ("list", "default"):
        return []
    return [entry for entry in entries.modules if entry.text.rpartition(".")[2].isdecimal() and entry.modules]


@finds(DIGIT_NAME)
def find_digit_names(context: CheckContext) -> Iterator[Finding]:
    """Numbers as names, which match every member of that number."""
    if context.expanded:
        return
    for entry in _digit_entries(context):
        number = entry.text.rpartition(".")[2]
        layers: list[Module] = [module for module in entry.modules if module.kind != "other"]
        blocks = len(layers) < len(entry.modules)
        if "." in entry.text and not blocks:
            continue
        classes = ", ".join(dict.fromkeys(module.class_name for module in entry.modules))
        names = listed((module.name for module in entry.modules), _MOST_NAMED)
        many = plural(len(entry.modules), "module")
        raises = " PEFT raises: it adapts linear layers, not blocks." if blocks else ""
        message = f'"{entry.text}" is a number and matches {many} ({classes}): {names}.{raises}'
        if layers:
            owners = listed((literal(module.name) for module in layers), _MOST_NAMED)
            fix = f"Use a longer name for the layers you mean: {owners}."
        else:
            fix = f"To adapt that layer, name what is in it and set {context.setting('layers_to_transform', [int(number)])}."
        yield DIGIT_NAME.finding(
            context.syntax.name("target_modules"), message, fix, "error" if entry.refused else "warning"
        )


@finds(DEFAULT_TARGETS)
def find_default_targets(context: CheckContext) -> Iterator[Finding]:
    """No `target_modules` at all."""
    config, form = context.config, context.entries.form
    if config.target_modules is not None:
        return
    warnings = context.warnings_of("default-targets")
    for warning in warnings:
        if config.target_parameters:
            fix = f"Set {context.setting('target_modules', [])} if the parameters alone are meant."
            yield DEFAULT_TARGETS.finding(context.syntax.name("target_modules"), warning, fix)
        elif form == "none":
            yield DEFAULT_TARGETS.finding(context.syntax.name("target_modules"), warning, _query_and_value(context))
        else:
            fix = "Nothing to do if that is meant; otherwise name the modules in target_modules."
            yield DEFAULT_TARGETS.finding(context.syntax.name("target_modules"), warning, fix, "note")
    if warnings or not context.refusal or config.target_parameters:
        return
    if form == "none":
        type_ = context.model.model_type or "this model"
        why = "it has no default for it"
        if context.model.moe_conversion:
            why = "its rewrite for fused experts turns that into an empty list"
        message = f"target_modules is missing, and PEFT adapts nothing by itself on {type_}: {why}."
        yield DEFAULT_TARGETS.finding(
            context.syntax.name("target_modules"), message, _query_and_value(context), "error"
        )
    else:
        names = some_in_quotes([entry.text for entry in context.entries.modules])
        message = f"target_modules is missing, so PEFT uses its default: {names}."
        yield DEFAULT_TARGETS.finding(context.syntax.name("target_modules"), message, _query_and_value(context))


def _query_and_value(context: CheckContext) -> str:
    place = find_place(context, (("attention", "q"), ("attention", "v")))
    if place:
        return fix_for_place(context, place, planning_command(context.model, "qv"))
    return f"Name the modules in target_modules, or generate them: {planning_command(context.model)}"


@finds(TWICE)
def find_twice_targeted(context: CheckContext) -> Iterator[Finding]:
    """One layer as a module and through its parameter."""
    if not context.refused_as("twice"):
        return
    entries = context.entries
    owners = {name.rpartition(".")[0] for entry in entries.parameters for name in entry.parameters}
    both = [entry.text for entry in entries.modules if any(module.name in owners for module in entry.targeted)]
    fix = f"Take {in_quotes(both[:MOST_SPELLED])} out of target_modules." if both else "Leave one of them out."
    yield TWICE.finding("target_modules, target_parameters", context.refusal, fix)


@finds(COVERED)
def find_covered(context: CheckContext) -> Iterator[Finding]:
    """Entries of a list all of whose modules another entry matches too."""
    entries = context.entries
    if entries.form != "list" or len(entries.modules) < 2 or context.expanded:
        return
    by_text = {entry.text: entry for entry in entries.modules}
    inner: dict[str, list[str]] = {}
    for entry in entries.modules:
        # One that matches is no longer than a name.
        for ending in dotted_suffixes(entry.text)[::-1] if entry.modules else ():
            if ending in by_text:
                inner.setdefault(ending, []).append(entry.text)
                break
    for outer, texts in inner.items():
        verb = "is" if len(texts) == 1 else "are"
        message = f'{listed(texts, _MOST_NAMED)} {verb} already matched by "{outer}", which matches all others of that name too.'
        fix = f"Take {literal(outer)} out if only those are meant, and them otherwise."
        yield COVERED.finding(context.syntax.name("target_modules"), message, fix)
