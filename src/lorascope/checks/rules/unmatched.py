"""Target entries that match nothing, and what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lorascope.checks.context import CheckContext
from lorascope.checks.entries import Entry
from lorascope.checks.phrases import cut, in_quotes
from lorascope.checks.released_targets import release_with
from lorascope.checks.rule import FindingRule, finds
from lorascope.checks.suggestions import (
    MOST_EXPLAINED,
    MOST_SPELLED,
    inspecting_command,
    planning_command,
)
from lorascope.checks.unmatched_entries import (
    Answer,
    known_name,
    matches_of,
    misspelt_name,
    module_answer,
    parameter_answer,
    reason_for,
    within_names,
)
from lorascope.findings import Finding, Severity
from lorascope.foreign_text import literal
from lorascope.names import listed
from lorascope.peft_rules.matchers import ALL_LINEAR, NameSet
from lorascope.peft_rules.name_patterns import cheap_matches

NO_MATCH = FindingRule(
    "no-match",
    "error",
    "an entry matches nothing",
    "PEFT raises if nothing matches at all, and ignores the entry silently otherwise.",
)
REGEX_IN_LIST = FindingRule(
    "regex-in-list",
    "error",
    "a list entry is a regular expression, and list entries are names",
    "PEFT compares list entries with the ends of names, so the expression matches nothing.",
)
STRING_NOT_LIST = FindingRule(
    "string-not-list",
    "error",
    "a name is given as a string, and a string is one regular expression for whole names",
    '`target_modules="q_proj"` matches nothing; `["q_proj"]` is what is meant.',
)

# No more than so many letters of the end of a text are looked into.
_LONGEST_TAIL = 400


@finds(NO_MATCH, REGEX_IN_LIST, STRING_NOT_LIST)
def find_unmatched(context: CheckContext) -> Iterator[Finding]:
    """Entries that match no module and no parameter."""
    entries = context.entries
    if entries.faulty:
        return
    every = entries.modules + entries.parameters
    severity: Severity = "warning" if any(entry.modules or entry.parameters for entry in every) else "error"
    if entries.form == "list" and not every and context.refused_as("no-match"):
        modules, parameters = map(context.syntax.name, ("target_modules", "target_parameters"))
        also = f" and {parameters} is missing" if context.syntax.has("target_parameters") else ""
        message = f"{modules} is empty{also}: nothing is adapted."
        fix = f"Name modules in {modules}, or generate them: {planning_command(context.model)}"
        yield NO_MATCH.finding(modules, message, fix)
    if entries.form == "string":
        yield from _string(context, entries.modules[0], severity)
    if isinstance(context.config.target_parameters, str):
        yield _parameter_string(context, context.config.target_parameters)
    for (setting, answer), texts in _answers(context).items():
        more = f" and {len(texts) - MOST_SPELLED} more" if texts[MOST_SPELLED:] else ""
        kind = "module" if setting == "target_modules" else "parameter"
        verb, it = ("match", "them") if len(texts) > 1 else ("matches", "it")
        ignored = f"; PEFT ignores {it} silently" if context.resolution.adapted else ""
        why = answer.why or reason_for(context, texts, answer)
        shown = f"{in_quotes(texts[:MOST_SPELLED])}{more}"
        message = f"{shown} {verb} no {kind} of {context.model.model}{ignored}. {why}".rstrip()
        rule = REGEX_IN_LIST if answer.regex else NO_MATCH
        yield rule.finding(context.syntax.name(setting), message, answer.fix, "note" if answer.elsewhere else severity)


def _answers(context: CheckContext) -> dict[tuple[str, Answer], list[str]]:
    """The entries that match nothing, by setting and answer."""
    entries = context.entries
    unexplained = Answer("", f"The names are in: {inspecting_command(context.model)}")
    answers: dict[tuple[str, Answer], list[str]] = {}
    if entries.form in ("list", "default"):
        texts = [entry.text for entry in entries.modules if not entry.modules and not entry.rewritten]
        for number, text in enumerate(texts):
            release = release_with(context, text) if number < MOST_EXPLAINED else ""
            answer = module_answer(context, text) if number < MOST_EXPLAINED else unexplained
            if release:
                why = f"Released models such as {release} have it; this is transformers' default configuration."
                answer = Answer(why, "Check it on your own model: lorascope check FOLDER ADAPTER", elsewhere=True)
            answers.setdefault(("target_modules", answer), []).append(text)
    texts = [entry.text for entry in entries.parameters if not entry.parameters]
    for number, text in enumerate(texts):
        answer = parameter_answer(context, text) if number < MOST_EXPLAINED else unexplained
        answers.setdefault(("target_parameters", answer), []).append(text)
    return answers


# A string, which is one regular expression for whole names.


def _parameter_string(context: CheckContext, text: str) -> Finding:
    names = context.parameter_names
    matches = matches_of(text, names) or cheap_matches(text, names, "fullmatch")
    endings = context.parameter_entries(matches) if matches else ()
    fix = f"Use a list of names: {context.setting('target_parameters', endings or (text,))}."
    return STRING_NOT_LIST.finding(context.syntax.name("target_parameters"), context.refusal, fix)


def _string(context: CheckContext, entry: Entry, severity: Severity) -> Iterator[Finding]:
    if entry.modules:
        return
    text = entry.text
    words = [word for word in re.split(r"[\s,;\[\]'\"]+", text) if word]
    if words and all(re.fullmatch(r"[\w.-]+", word) for word in words):
        yield _string_of_names(context, text, words, severity)
        return
    whole, names = within_names(context.model, text)
    if names:
        why = f"It is found within the names of {len(names)}, such as {listed(names, 2)}, and must match a name as a whole."
        fix = f"Use {literal(whole)}."
    else:
        why, fix = _meant_by_words(context, text)
    shown = f'The regular expression "{cut(text)}" matches no whole module name of {context.model.model}.'
    yield NO_MATCH.finding(context.syntax.name("target_modules"), f"{shown} {why}".rstrip(), fix, severity)


def _string_of_names(context: CheckContext, text: str, words: Sequence[str], severity: Severity) -> Finding:
    setting = context.syntax.name("target_modules")
    message = (
        f'{setting} is the string "{cut(text)}". PEFT reads a string as one regular expression for the whole name of '
        "a module, and no module has that name."
    )
    if len(words) == 1 and words[0].lower() == ALL_LINEAR.replace("-", "_"):
        return STRING_NOT_LIST.finding(setting, message, f'Use "{ALL_LINEAR}".', severity)
    known = NameSet(words)
    hits = {word for name in context.model.module_by_name for word in known.hits(name)}
    fix = f"Use a list: {context.setting('target_modules', words)}."
    for word in [word for word in words if word not in hits][:MOST_SPELLED]:
        answer = module_answer(context, word)
        why = answer.why or reason_for(context, [word], answer)
        fix += f" But {literal(word, 512)} is not a module of {context.model.model}. {why} {answer.fix}".rstrip()
    return STRING_NOT_LIST.finding(setting, message, fix, severity)


def _meant_by_words(context: CheckContext, text: str) -> tuple[str, str]:
    """What the words of an expression mean, from its end."""
    words = [word for word in re.split(r"\W+", text[-_LONGEST_TAIL:].replace("\\d", "")) if word]
    for word in reversed(words):
        answer = known_name(context, word) or misspelt_name(context, word)
        if answer is not None:
            return answer.why or reason_for(context, [word], answer), answer.fix
    return "", f"The names are in: {inspecting_command(context.model)}"
