"""Target entries that match nothing, and what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import CheckContext
from lorascope.checks.entries import Entry
from lorascope.checks.name_meanings import (
    describe_lack,
    describe_place,
    find_place,
    fix_for_place,
    meanings_of,
    selector_of,
)
from lorascope.checks.phrases import cut, in_quotes, places, plural
from lorascope.checks.rule import Rule, finds
from lorascope.checks.suggestions import (
    LONGEST_PATTERN,
    MOST_EXPLAINED,
    MOST_SPELLED,
    inspecting_command,
    pattern_of,
    planning_command,
    suggest_alike,
)
from lorascope.findings import Finding, Severity
from lorascope.foreign_text import literal
from lorascope.model.types import ModelMap
from lorascope.names import NUMBER, listed, spans, template
from lorascope.peft_rules.matchers import ALL_LINEAR, NameSet, dotted_suffixes
from lorascope.peft_rules.name_patterns import BadPatternError, PatternLimitError, cheap_matches, compiled

NO_MATCH = Rule(
    "no-match",
    "error",
    "an entry matches nothing",
    "PEFT raises if nothing matches at all, and ignores the entry silently otherwise.",
)
REGEX_IN_LIST = Rule(
    "regex-in-list",
    "error",
    "a list entry is a regular expression, and list entries are names",
    "PEFT compares list entries with the ends of names, so the expression matches nothing.",
)
STRING_NOT_LIST = Rule(
    "string-not-list",
    "error",
    "a name is given as a string, and a string is one regular expression for whole names",
    '`target_modules="q_proj"` matches nothing; `["q_proj"]` is what is meant.',
)

_OPERATORS = re.compile(r"[*?+\[\](){}|\\^$]")
# A prefix that saved adapters have and configurations must not.
_PREFIX = "base_model.model."
_TENSOR_ENDINGS = (".weight", ".lora_A", ".lora_B", ".lora_A.weight", ".lora_B.weight")
# How alike two names are for one to be a misspelling of the other; the seven usual names among themselves are less so.
_ALIKE = 0.8
# No more than so many letters of the end of a text are looked into.
_LONGEST_TAIL = 400
_NO_REGEX = "List entries are names or their endings, never regular expressions."


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    """Why entries match nothing, and what to write.

    Attributes:
        rule: Of the finding.
        why: The reason.
        fix: What to write.
        known: The entry is a well-known name, so that the reason is told for all such entries at once.
    """

    rule: Rule
    why: str
    fix: str
    known: bool = False


@finds(NO_MATCH, REGEX_IN_LIST, STRING_NOT_LIST)
def find_unmatched(context: CheckContext) -> Iterator[Finding]:
    """Entries that match no module and no parameter."""
    entries = context.entries
    if entries.faulty:
        return
    every = entries.modules + entries.parameters
    severity: Severity = "warning" if any(entry.modules or entry.parameters for entry in every) else "error"
    if entries.form == "list" and not every and context.refused_as("no-match"):
        message = "target_modules is empty and target_parameters is missing: nothing is adapted."
        fix = f"Name modules in target_modules, or generate them: {planning_command(context.model)}"
        yield NO_MATCH.finding("target_modules", message, fix)
    if entries.form == "string":
        yield from _string(context, entries.modules[0], severity)
    if isinstance(context.config.target_parameters, str):
        yield _parameter_string(context, context.config.target_parameters)
    for (setting, answer), texts in _answers(context).items():
        more = f" and {len(texts) - MOST_SPELLED} more" if texts[MOST_SPELLED:] else ""
        kind = "module" if setting == "target_modules" else "parameter"
        verb, it = ("match", "them") if len(texts) > 1 else ("matches", "it")
        ignored = f"; PEFT ignores {it} silently" if context.resolution.adapted else ""
        why = answer.why or _known_why(context, texts, answer)
        shown = f"{in_quotes(texts[:MOST_SPELLED])}{more}"
        message = f"{shown} {verb} no {kind} of {context.model.model}{ignored}. {why}".rstrip()
        yield answer.rule.finding(setting, message, answer.fix, severity)


def _answers(context: CheckContext) -> dict[tuple[str, _Answer], list[str]]:
    """The entries that match nothing, by setting and answer."""
    entries = context.entries
    unexplained = _Answer(NO_MATCH, "", f"The names are in: {inspecting_command(context.model)}")
    answers: dict[tuple[str, _Answer], list[str]] = {}
    if entries.form in ("list", "default"):
        texts = [entry.text for entry in entries.modules if not entry.modules and not entry.rewritten]
        for number, text in enumerate(texts):
            answer = _module_answer(context, text) if number < MOST_EXPLAINED else unexplained
            answers.setdefault(("target_modules", answer), []).append(text)
    texts = [entry.text for entry in entries.parameters if not entry.parameters]
    for number, text in enumerate(texts):
        answer = _parameter_answer(context, text) if number < MOST_EXPLAINED else unexplained
        answers.setdefault(("target_parameters", answer), []).append(text)
    return answers


def _known_why(context: CheckContext, texts: Sequence[str], answer: _Answer) -> str:
    """Where the model has what well-known names mean."""
    if not answer.known:
        return ""
    meanings = tuple(dict.fromkeys(meaning for text in texts for meaning in meanings_of(text)))
    place = find_place(context, meanings)
    shown = [cut(text) for text in texts[:MOST_SPELLED]]
    return describe_lack(context, shown, meanings) if place is None else describe_place(context, shown, place)


# A string, which is one regular expression for whole names.


def _parameter_string(context: CheckContext, text: str) -> Finding:
    names = context.parameter_names
    matches = _named(text, names) or cheap_matches(text, names, "fullmatch")
    endings = context.parameter_entries(matches) if matches else ()
    fix = f"Use a list of names: {context.setting('target_parameters', endings or (text,))}."
    return STRING_NOT_LIST.finding("target_parameters", context.refusal, fix)


def _string(context: CheckContext, entry: Entry, severity: Severity) -> Iterator[Finding]:
    if entry.modules:
        return
    text = entry.text
    words = [word for word in re.split(r"[\s,;\[\]'\"]+", text) if word]
    if words and all(re.fullmatch(r"[\w.-]+", word) for word in words):
        yield _string_of_names(context, text, words, severity)
        return
    whole, names = _within_names(context.model, text)
    if names:
        why = f"It is found within the names of {len(names)}, such as {listed(names, 2)}, and must match a name as a whole."
        fix = f"Use {literal(whole)}."
    else:
        why, fix = _meant_by_words(context, text)
    shown = f'The regular expression "{cut(text)}" matches no whole module name of {context.model.model}.'
    yield NO_MATCH.finding("target_modules", f"{shown} {why}".rstrip(), fix, severity)


def _string_of_names(context: CheckContext, text: str, words: Sequence[str], severity: Severity) -> Finding:
    message = (
        f'target_modules is the string "{cut(text)}". PEFT reads a string as one regular expression for the whole name of '
        "a module, and no module has that name."
    )
    if len(words) == 1 and words[0].lower() == ALL_LINEAR.replace("-", "_"):
        return STRING_NOT_LIST.finding("target_modules", message, f'Use "{ALL_LINEAR}".', severity)
    known = NameSet(words)
    hits = {word for name in context.model.module_by_name for word in known.hits(name)}
    fix = f"Use a list: {context.setting('target_modules', words)}."
    for word in [word for word in words if word not in hits][:MOST_SPELLED]:
        answer = _module_answer(context, word)
        why = answer.why or _known_why(context, [word], answer)
        fix += f" But {literal(word, 512)} is not a module of {context.model.model}. {why} {answer.fix}".rstrip()
    return STRING_NOT_LIST.finding("target_modules", message, fix, severity)


def _meant_by_words(context: CheckContext, text: str) -> tuple[str, str]:
    """What the words of an expression mean, from its end."""
    words = [word for word in re.split(r"\W+", text[-_LONGEST_TAIL:].replace("\\d", "")) if word]
    for word in reversed(words):
        answer = _known(context, word) or _misspelt(context, word)
        if answer is not None:
            return answer.why or _known_why(context, [word], answer), answer.fix
    return "", f"The names are in: {inspecting_command(context.model)}"


def _within_names(model: ModelMap, text: str) -> tuple[str, list[str]]:
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


def _module_answer(context: CheckContext, text: str) -> _Answer:
    if text.lower() == ALL_LINEAR:
        why = f'"{ALL_LINEAR}" works only as a string, not in a list.'
        others = any(entry.text != text for entry in context.entries.modules) and context.entries.form != "string"
        also = " It covers the other entries, which are linear layers too." if others else ""
        return _Answer(NO_MATCH, why, f"Use {context.setting('target_modules', ALL_LINEAR)}.{also}")
    if _OPERATORS.search(text):
        return _Answer(REGEX_IN_LIST, *_regex(context, text))
    return (
        _bare_parameter(context, text)
        or _other_spelling(context, text)
        or _known(context, text)
        or _misspelt(context, text)
        or _nothing(context)
    )


def _bare_parameter(context: CheckContext, text: str) -> _Answer | None:
    """The entry names parameters of modules that are no layers."""
    entry, owners = NameSet([text]), context.model.module_by_name
    names = [name for name in context.parameter_names if "." in name and entry.has(name)]
    names = [name for name in names if (owner := owners.get(name.rpartition(".")[0])) and owner.kind == "other"]
    if not names or meanings_of(text):
        return None
    fix = f"Use {context.parameters_setting(context.parameter_entries(names) or (text,))}."
    return _Answer(NO_MATCH, f"It is a parameter here, in {listed(names, 2)}, not a module.", fix)


def _regex(context: CheckContext, text: str) -> tuple[str, str]:
    model = context.model
    names = cheap_matches(text if _is_pattern(text) else _as_glob(text), model.module_by_name, "fullmatch")
    whole = text
    if not names:
        whole, names = _within_names(model, text)
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


def _other_spelling(context: CheckContext, text: str) -> _Answer | None:
    """The entry without its prefix, ending, case or number."""
    names = context.module_names
    short = text.removeprefix(_PREFIX)
    if short != text and _named(short, names):
        return _Answer(NO_MATCH, f"Names are those of the model, without {_PREFIX}", f"Use {literal(short)}.")
    for ending in _TENSOR_ENDINGS:
        short = text.removesuffix(ending)
        if short != text and _named(short, names):
            return _Answer(NO_MATCH, "Entries name modules, not their tensors.", f"Use {literal(short)}.")
    lower = text.lower()
    for name in names:
        if name.lower() == lower or name.lower().endswith(f".{lower}"):
            return _Answer(NO_MATCH, "Only upper and lower case differ.", f"Use {literal(name[-len(text) :])}.")
    if answer := _other_number(context, text, names):
        return answer
    # A shorter form that is longer than all names is none of them.
    parts = 1 + max((name.count(".") for name in names), default=0)
    for short in [ending for ending in dotted_suffixes(text, parts) if "." in ending][::-1]:
        if matches := _named(short, names):
            return _Answer(NO_MATCH, f"Here it is called {listed(matches, 2)}.", f"Use {literal(short)}.")
    return None


def _other_number(context: CheckContext, text: str, names: Sequence[str]) -> _Answer | None:
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
    return _Answer(NO_MATCH, why, "Use one of these numbers.")


def _named(text: str, names: Iterable[str]) -> list[str]:
    """The names that an entry matches."""
    entry = NameSet([text])
    return [name for name in names if entry.has(name)]


def _tail(name: str, length: int) -> str:
    """So many of the last words of a name."""
    return ".".join(name.split(".")[-length:])


def _known(context: CheckContext, text: str) -> _Answer | None:
    meanings = meanings_of(text)
    if not meanings:
        return None
    place = find_place(context, meanings)
    if place is None:
        return _Answer(NO_MATCH, "", "Leave it out.", known=True)
    command = planning_command(context.model, selector_of(place.meanings))
    return _Answer(NO_MATCH, "", fix_for_place(context, place, command), known=True)


def _misspelt(context: CheckContext, text: str) -> _Answer | None:
    length = text.count(".") + 1
    words = {_tail(weight.name, length) for weight in context.model.weights}
    words |= {_tail(NUMBER.sub("0", module.name), length) for module in context.model.modules if module.kind != "other"}
    question = suggest_alike(text, (word for word in words if word.count(".") + 1 == length), 2, _ALIKE)
    return _Answer(NO_MATCH, "", question) if question else None


def _nothing(context: CheckContext) -> _Answer:
    leaves = dict.fromkeys(
        weight.name.rpartition(".")[2]
        for weight in context.model.weights
        if weight.role.component in context.main_components
        and weight.kind != "parameter"
        and weight.role.block != "embedding"
    )
    shown = ", ".join(list(leaves)[:MOST_SPELLED])
    fix = f"The linear layers are called {shown}; all names are in: {inspecting_command(context.model)}"
    return _Answer(NO_MATCH, "", fix)


# An entry of target_parameters.


def _parameter_answer(context: CheckContext, text: str) -> _Answer:
    names = context.parameter_names
    if answer := _module_for_parameter(context, text):
        return answer
    if _OPERATORS.search(text):
        matches = cheap_matches(text, names, "search")
        endings = context.parameter_entries(matches) if matches else ()
        why = "List entries are names of parameters or their endings, never regular expressions."
        command = planning_command(context.model)
        fix = f"Use the names: {in_quotes(endings)}." if endings else f"Generate the targets: {command}"
        return _Answer(REGEX_IN_LIST, why, fix)
    if answer := _other_number(context, text, names):
        return answer
    if answer := _known(context, text):
        return answer
    if question := suggest_alike(text, {_tail(name, text.count(".") + 1) for name in names}, 2, _ALIKE):
        return _Answer(NO_MATCH, "", question)
    stacks = [weight for weight in context.model.weights if weight.kind == "parameter" and weight.role.block == "ffn"]
    if stacks:
        return _Answer(NO_MATCH, "", f"Parameters that can be adapted: {places(stacks)}.")
    fix = "Leave target_parameters out; linear layers go into target_modules."
    return _Answer(NO_MATCH, "The model has no fused experts.", fix)


def _module_for_parameter(context: CheckContext, text: str) -> _Answer | None:
    """The entry names a module instead of its parameter."""
    model, entry = context.model, NameSet([text])
    modules = [module for module in model.modules if entry.has(module.name)]
    own = [f"{module.name}.{name}" for module in modules for name, shape in module.parameters if len(shape) in (2, 3)]
    # Biases of stacked experts have two dimensions as well.
    own = [name for name in own if (w := model.weight_by_name.get(name)) is None or w.role.block != "other"]
    if not modules:
        return None
    if not own:
        return _Answer(NO_MATCH, "It is a module without a parameter of its own.", "Name the layers within it.")
    why = "It is a module, not a parameter."
    if all(module.kind != "other" for module in modules):
        return _Answer(NO_MATCH, why, f"Move it to target_modules, or use {literal(f'{text}.weight')}.")
    return _Answer(
        NO_MATCH, why, f"Use its parameters: {in_quotes(context.parameter_entries(own) or own[:MOST_SPELLED])}."
    )
