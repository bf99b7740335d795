"""Meaning of target entries that match nothing, and this model's names for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import CheckContext
from lorascope.checks.name_meanings import (
    Place,
    describe_lack,
    describe_place,
    find_place,
    fix_for_place,
    meanings_of,
    selector_of,
)
from lorascope.checks.phrases import cut, in_quotes, places, plural
from lorascope.checks.suggestions import (
    LONGEST_PATTERN,
    MOST_EXPLAINED,
    MOST_SPELLED,
    inspecting_command,
    pattern_of,
    planning_command,
    suggest_alike,
)
from lorascope.foreign_text import literal
from lorascope.model.types import ModelMap
from lorascope.names import NUMBER, listed, spans, template
from lorascope.peft_rules.matchers import ALL_LINEAR, NameSet, dotted_suffixes
from lorascope.peft_rules.name_patterns import BadPatternError, PatternLimitError, cheap_matches, compiled

_OPERATORS = re.compile(r"[*?+\[\](){}|\\^$]")
# A prefix that saved adapters have and configurations must not.
_PREFIX = "base_model.model."
_TENSOR_ENDINGS = (".weight", ".lora_A", ".lora_B", ".lora_A.weight", ".lora_B.weight")
# How alike two names are for one to be a misspelling of the other; the seven usual names among themselves are less so.
_ALIKE = 0.8
_NO_REGEX = "List entries are names or their endings, never regular expressions."


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Why entries match nothing, and what to write.

    Attributes:
        why: The reason.
        fix: What to write.
        known: The entry is a well-known name, so that one reason explains all such entries.
        regex: The entry is a regular expression.
        elsewhere: Released models have what the built-in one lacks.
    """

    why: str
    fix: str
    known: bool = False
    regex: bool = False
    elsewhere: bool = False


def reason_for(context: CheckContext, texts: Sequence[str], answer: Answer) -> str:
    """Where the model has what well-known names mean."""
    if not answer.known:
        return ""
    meanings = tuple(dict.fromkeys(meaning for text in texts for meaning in meanings_of(text)))
    place = find_place(context, meanings)
    shown = [cut(text) for text in texts[:MOST_SPELLED]]
    return describe_lack(context, shown, meanings) if place is None else describe_place(context, shown, place)


def within_names(model: ModelMap, text: str) -> tuple[str, list[str]]:
    """A pattern's form for whole names, and the modules that it matches."""
    body = text.removeprefix("^").removesuffix("$").removeprefix(".*")
    grouped = f"({body})" if "|" in body and not body.endswith(")") else body
    for whole in (f".*[.]{grouped}", f".*{grouped}", f".*{grouped}.*"):
        names = cheap_matches(whole, model.module_by_name, "fullmatch")
        adaptable = [name for name in names if name in model.weight_by_name]
        if adaptable and len(adaptable) == len(names):
            return whole, adaptable
    return "", []


# An entry of target_modules.


def module_answer(context: CheckContext, text: str) -> Answer:
    """What an entry of `target_modules` meant."""
    if text.lower() == ALL_LINEAR:
        why = f'"{ALL_LINEAR}" works only as a string, not in a list.'
        others = any(entry.text != text for entry in context.entries.modules) and context.entries.form != "string"
        also = " It covers the other entries, which are linear layers too." if others else ""
        return Answer(why, f"Use {context.setting('target_modules', ALL_LINEAR)}.{also}")
    if _OPERATORS.search(text):
        return Answer(*_regex(context, text), regex=True)
    return (
        _bare_parameter(context, text)
        or _other_spelling(context, text)
        or known_name(context, text)
        or misspelt_name(context, text)
        or _nothing(context)
    )


def _bare_parameter(context: CheckContext, text: str) -> Answer | None:
    """The entry names parameters of modules that are no layers."""
    entry, owners = NameSet([text]), context.model.module_by_name
    names = [name for name in context.parameter_names if "." in name and entry.has(name)]
    names = [name for name in names if (owner := owners.get(name.rpartition(".")[0])) and owner.kind == "other"]
    if not names or meanings_of(text):
        return None
    fix = f"Use {context.parameters_setting(context.parameter_entries(names) or (text,))}."
    return Answer(f"It is a parameter here, in {listed(names, 2)}, not a module.", fix)


def _regex(context: CheckContext, text: str) -> tuple[str, str]:
    model = context.model
    names = cheap_matches(text if _is_pattern(text) else _as_glob(text), model.module_by_name, "fullmatch")
    whole = text
    if not names:
        whole, names = within_names(model, text)
    if not names:
        return (
            f"{_NO_REGEX} As an expression it would match nothing either.",
            f"Generate the targets: {planning_command(model)}",
        )
    adaptable = [name for name in names if name in model.weight_by_name]
    endings = context.module_entries(adaptable) if adaptable else ()
    why = f"{_NO_REGEX} As an expression it would match {plural(len(names), 'module')}, such as {listed(names, 2)}."
    if endings:
        return why, f"Use the names: {in_quotes(endings)}."
    entries = context.entries.modules
    plain = [entry.text for entry in entries if not _OPERATORS.search(entry.text) and entry.modules]
    texts = [entry.text for entry in entries if _OPERATORS.search(entry.text) and _is_pattern(entry.text)]
    ways = (texts if whole in texts else [whole]) + ([pattern_of(plain)] if plain else [])
    pattern = "|".join(ways)
    if len(pattern) > LONGEST_PATTERN:
        return why, f"Generate the targets: {planning_command(model)}"
    return why, f"Use one string instead of the list: {context.setting('target_modules', pattern)}."


def _is_pattern(text: str) -> bool:
    """The text compiles, or may take too long to try."""
    try:
        compiled(text)
    except BadPatternError:
        return False
    except PatternLimitError:
        return True
    return True


def _as_glob(text: str) -> str:
    """A file pattern as a regular expression of bounded steps."""
    return re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")


def _other_spelling(context: CheckContext, text: str) -> Answer | None:
    """The entry without its prefix, ending, case or number."""
    names = context.module_names
    short = text.removeprefix(_PREFIX)
    if short != text and matches_of(short, names):
        return Answer(f"Names are those of the model, without {_PREFIX}", f"Use {literal(short)}.")
    for ending in _TENSOR_ENDINGS:
        short = text.removesuffix(ending)
        if short != text and matches_of(short, names):
            return Answer("Entries name modules, not their tensors.", f"Use {literal(short)}.")
    lower = text.lower()
    for name in names:
        if name.lower() == lower or name.lower().endswith(f".{lower}"):
            return Answer("Only upper and lower case differ.", f"Use {literal(name[-len(text) :])}.")
    if answer := _other_number(context, text, names):
        return answer
    # A shorter form that is longer than all names is none of them.
    parts = 1 + max((name.count(".") for name in names), default=0)
    for short in [ending for ending in dotted_suffixes(text, parts) if "." in ending][::-1]:
        if matches := matches_of(short, names):
            return Answer(f"Here it is called {listed(matches, 2)}.", f"Use {literal(short)}.")
    return None


def _other_number(context: CheckContext, text: str, names: Sequence[str]) -> Answer | None:
    """The entry with a layer that the model does not have."""
    shape = template(text)
    if shape == text:
        return None
    length = text.count(".") + 1
    tails = [_tail(name, length) for name in names]
    matches = [NUMBER.search(tail) for tail in tails if template(tail) == shape]
    numbers = spans(int(match[0]) for match in matches if match)
    if not numbers:
        return None
    why = f"There is no such layer: {context.model.model} has {numbers}."
    return Answer(why, "Use one of these numbers.")


def matches_of(text: str, names: Iterable[str]) -> list[str]:
    """The names that an entry matches."""
    entry = NameSet([text])
    return [name for name in names if entry.has(name)]


def _tail(name: str, length: int) -> str:
    """So many of the last words of a name."""
    return ".".join(name.split(".")[-length:])


def known_name(context: CheckContext, text: str) -> Answer | None:
    """What a well-known name means on this model."""
    meanings = meanings_of(text)
    if not meanings:
        return None
    place = find_place(context, meanings)
    if place is None:
        return Answer("", "Leave it out.", known=True)
    if place.parameters and not place.modules:
        place = _joint_place(context) or place
    command = planning_command(context.model, selector_of(place.meanings))
    return Answer("", fix_for_place(context, place, command), known=True)


def _joint_place(context: CheckContext) -> Place | None:
    """The parameters that all unmatched names mean: one setting, since two of them would take each other's place."""
    texts = [entry.text for entry in context.entries.modules if not entry.modules and not entry.rewritten]
    meanings = dict.fromkeys(meaning for text in texts[:MOST_EXPLAINED] for meaning in meanings_of(text))
    place = find_place(context, meanings)
    return place if place and place.parameters and not place.modules else None


def misspelt_name(context: CheckContext, text: str) -> Answer | None:
    """The names that one may be a misspelling of."""
    length = text.count(".") + 1
    words = {_tail(weight.name, length) for weight in context.model.weights}
    words |= {_tail(NUMBER.sub("0", module.name), length) for module in context.model.modules if module.kind != "other"}
    question = suggest_alike(text, (word for word in words if word.count(".") + 1 == length), 2, _ALIKE)
    return Answer("", question) if question else None


def _nothing(context: CheckContext) -> Answer:
    leaves = dict.fromkeys(
        weight.name.rpartition(".")[2]
        for weight in context.model.weights
        if weight.role.component in context.main_components
        and weight.kind != "parameter"
        and weight.role.block != "embedding"
    )
    shown = ", ".join(list(leaves)[:MOST_SPELLED])
    fix = f"The linear layers are called {shown}; all names are in: {inspecting_command(context.model)}"
    return Answer("", fix)


# An entry of target_parameters.


def parameter_answer(context: CheckContext, text: str) -> Answer:
    """What an entry of `target_parameters` meant."""
    names = context.parameter_names
    if answer := _module_for_parameter(context, text):
        return answer
    if _OPERATORS.search(text):
        matches = cheap_matches(text, names, "search")
        endings = context.parameter_entries(matches) if matches else ()
        why = "List entries are names of parameters or their endings, never regular expressions."
        command = planning_command(context.model)
        fix = f"Use the names: {in_quotes(endings)}." if endings else f"Generate the targets: {command}"
        return Answer(why, fix, regex=True)
    if answer := _other_number(context, text, names):
        return answer
    if answer := known_name(context, text):
        return answer
    if question := suggest_alike(text, {_tail(name, text.count(".") + 1) for name in names}, 2, _ALIKE):
        return Answer("", question)
    stacks = [weight for weight in context.model.weights if weight.kind == "parameter" and weight.role.block == "ffn"]
    if stacks:
        return Answer("", f"Parameters that can be adapted: {places(stacks)}.")
    fix = "Leave target_parameters out; linear layers go into target_modules."
    return Answer("The model has no fused experts.", fix)


def _module_for_parameter(context: CheckContext, text: str) -> Answer | None:
    """The entry names a module instead of its parameter."""
    model, entry = context.model, NameSet([text])
    modules = [module for module in model.modules if entry.has(module.name)]
    own = [f"{module.name}.{name}" for module in modules for name, shape in module.parameters if len(shape) in (2, 3)]
    # Biases of stacked experts have two dimensions as well.
    own = [name for name in own if (w := model.weight_by_name.get(name)) is None or w.role.block != "other"]
    if not modules:
        return None
    if not own:
        return Answer("It is a module without a parameter of its own.", "Name the layers within it.")
    why = "It is a module, not a parameter."
    if all(module.kind != "other" for module in modules):
        return Answer(why, f"Move it to {context.syntax.name('target_modules')}, or use {literal(f'{text}.weight')}.")
    return Answer(why, f"Use its parameters: {in_quotes(context.parameter_entries(own) or own[:MOST_SPELLED])}.")
