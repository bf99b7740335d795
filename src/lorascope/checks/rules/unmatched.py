"""Entries of the targets that match nothing: what was probably meant, and how this model calls it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import Case, places
from lorascope.checks.entries import (
    MOST_EXPLAINED,
    MOST_SPELLED,
    Asked,
    Entry,
    counted,
    cut,
    endings_or_names,
    in_quotes,
    pattern_of,
    some_in_quotes,
)
from lorascope.checks.name_meanings import (
    fix_for,
    meanings_of,
    place_in,
    said_lack,
    said_meaning,
    said_place,
    selector_of,
)
from lorascope.errors import alike
from lorascope.findings import Finding, Severity
from lorascope.foreign_text import literal, shell_word
from lorascope.model.types import ModelMap
from lorascope.names import NUMBER, listed, spans, template
from lorascope.peft_rules.matchers import ALL_LINEAR, NameSet, dotted_suffixes, parameter_names
from lorascope.peft_rules.name_patterns import BadPatternError, PatternLimitError, cheap_matches, compiled

_OPERATORS = re.compile(r"[*?+\[\](){}|\\^$]")
# A prefix that saved adapters have and configurations must not.
_PREFIX = "base_model.model."
# How alike two names are for one to be a misspelling of the other; the seven usual names among themselves are less so.
_ALIKE = 0.8
# A pattern of more letters is better written than told; of a text, no more of its end is looked into.
_LONGEST_TEXT = 2_000
_LONGEST_TAIL = 400


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    """Why an entry matches nothing and what to write; entries with one answer are told together."""

    code: str
    why: str
    fix: str
    known: bool = False


def planning_command(case: Case, rules: str = "") -> str:
    """The command that writes a configuration for a case's model."""
    return f"lorascope plan {shell_word(case.model.model)} {rules}".rstrip()


def unmatched_findings(case: Case, asked: Asked) -> Iterator[Finding]:
    """`no-match`, `regex-in-list` and `string-not-list`."""
    entries = asked.modules + asked.parameters
    nothing = not any(entry.modules or entry.parameters for entry in entries)
    severity: Severity = "error" if nothing else "warning"
    if asked.faulty:
        return
    if asked.form == "list" and not entries and case.resolution.cause == "no-match":
        message = "target_modules is empty, and no parameter is named either: there is nothing to adapt."
        fix = f"Name the weights, or let them be written: {planning_command(case)}"
        yield Finding("no-match", "error", "target_modules", message, fix)
    if asked.form == "string":
        yield from _string(case, asked.modules[0], severity)
    if isinstance(case.config.target_parameters, str):
        yield _parameter_string(case, case.config.target_parameters)
    answers: dict[tuple[str, _Answer], list[str]] = {}
    unexplained = _Answer("no-match", "", f"Look at the names with: lorascope inspect {shell_word(case.model.model)}")
    if asked.form in ("list", "default"):
        lost = [entry.text for entry in asked.modules if not entry.modules and not entry.rewritten]
        for place, text in enumerate(lost):
            answer = _module_answer(case, asked, text) if place < MOST_EXPLAINED else unexplained
            answers.setdefault(("target_modules", answer), []).append(text)
    lost = [entry.text for entry in asked.parameters if not entry.parameters]
    for place, text in enumerate(lost):
        answer = _parameter_answer(case, text) if place < MOST_EXPLAINED else unexplained
        answers.setdefault(("target_parameters", answer), []).append(text)
    for (setting, answer), texts in answers.items():
        shown = in_quotes(texts[:MOST_SPELLED]) + (
            f" and {len(texts) - MOST_SPELLED} more" if texts[MOST_SPELLED:] else ""
        )
        kind = "module" if setting == "target_modules" else "parameter"
        verb = "match" if len(texts) > 1 else "matches"
        ignored = ", and PEFT ignores that silently" if case.resolution.adapted else ""
        why = answer.why or _known_why(case, texts, answer)
        message = f"{shown} {verb} no {kind} of {case.model.model}{ignored}. {why}".rstrip()
        yield Finding(answer.code, severity, setting, message, answer.fix)


def _parameter_string(case: Case, text: str) -> Finding:
    names = [name for _, name, _ in parameter_names(case.model)]
    found = _named(text, names) or cheap_matches(text, names, "fullmatch")
    endings = endings_or_names(found, names) if found else ()
    fix = f"Give a list of names: target_parameters=[{in_quotes(endings or (text,))}]."
    return Finding("string-not-list", "error", "target_parameters", case.resolution.error, fix)


def _known_why(case: Case, texts: Sequence[str], answer: _Answer) -> str:
    """Where the model has what several well-known names mean, said for all of them at once."""
    meanings = tuple(dict.fromkeys(meaning for text in texts for meaning in meanings_of(text)))
    if not answer.known:
        return ""
    place = place_in(case.model, meanings)
    if place is None:
        return f"Elsewhere that is {said_meaning(meanings)}, and {said_lack(case.model, meanings)}."
    stacked = [
        w for w in place.weights if w.role.block == "ffn" and w.role.variant == "expert" and w.kind == "parameter"
    ]
    share = ""
    if stacked:
        own = [w for w in case.model.weights if w.role.component in case.own and w.role.block == "ffn"]
        experts = sum(weight.size for weight in own if weight.role.variant == "expert")
        part = experts / (sum(weight.size for weight in own) or 1)  # all may be without numbers
        share = f" The experts, {part:.1%} of the FFN, are parameters here."
    return f"Elsewhere that is {said_meaning(place.meanings)}, {said_place(case.model, place)}.{share}"


def _string(case: Case, entry: Entry, severity: Severity) -> Iterator[Finding]:
    """A string is one regular expression for whole names, which people forget."""
    if entry.modules:
        return
    text = entry.text
    words = [word for word in re.split(r"[\s,;\[\]'\"]+", text) if word]
    if words and all(re.fullmatch(r"[\w.-]+", word) for word in words):
        message = (
            f'target_modules is the text "{cut(text)}", which PEFT takes as one regular expression for the whole name of a '
            "module, and no module is called that."
        )
        if len(words) == 1 and words[0].lower() == ALL_LINEAR.replace("-", "_"):
            yield Finding("string-not-list", severity, "target_modules", message, f'Write "{ALL_LINEAR}".')
            return
        known = NameSet(words)
        hits = {word for name in case.model.module_by_name for word in known.hits(name)}
        fix = f"Give a list: target_modules=[{some_in_quotes(words)}]."
        lost = [word for word in words if word not in hits]
        for word in lost[:MOST_SPELLED]:
            answer = _module_answer(case, Asked("list"), word)
            why = answer.why or _known_why(case, [word], answer)
            fix += f" But {literal(word, 512)} is no module of {case.model.model}. {why} {answer.fix}".rstrip()
        yield Finding("string-not-list", severity, "target_modules", message, fix)
        return
    whole, found = _within_names(case.model, text)
    if found:
        why = f"It is found within the names of {len(found)}, such as {listed(found, 2)}, but must match them whole."
        fix = f"Write {literal(whole)}."
    else:
        why, fix = "", f"Look at the names with: lorascope inspect {shell_word(case.model.model)}"
        for word in reversed([word for word in re.split(r"\W+", text[-_LONGEST_TAIL:].replace("\\d", "")) if word]):
            meant = _known(case, word) or _misspelt(case, word)
            if meant is not None:
                why, fix = meant.why or _known_why(case, [word], meant), meant.fix
                break
    message = (
        f'The regular expression "{cut(text)}" matches no module of {case.model.model} from beginning to end. {why}'
    )
    yield Finding("no-match", severity, "target_modules", message.rstrip(), fix)


def _module_answer(case: Case, asked: Asked, text: str) -> _Answer:
    model = case.model
    names = [module.name for module in model.modules]
    if text.lower() == ALL_LINEAR:
        why = f'"{ALL_LINEAR}" is only understood as a text of its own, not within a list.'
        others = [entry.text for entry in asked.modules if entry.text != text]
        also = " The other entries are linear layers too, so that it covers them." if others else ""
        return _Answer("no-match", why, f'Write target_modules="{ALL_LINEAR}".{also}')
    if _OPERATORS.search(text):
        return _Answer("regex-in-list", *_regex(model, asked, text))
    parameters = NameSet([text])
    bare = [name for owner, name, _ in parameter_names(model) if owner and parameters.has(name)]
    owners = model.module_by_name
    matrices = [name for name in bare if owners[name.rpartition(".")[0]].kind == "other"]
    if matrices and not meanings_of(text):
        endings = endings_or_names(matrices, [name for _, name, _ in parameter_names(model)])
        fix = f"Give target_parameters=[{in_quotes(endings or (text,))}], with lora_dropout=0."
        return _Answer("no-match", f"It is a parameter here, in {listed(matrices, 2)}, not a module.", fix)
    answer = _rewritten_name(case, text, names)
    return answer or _known(case, text) or _misspelt(case, text) or _nothing(case)


def _regex(model: ModelMap, asked: Asked, text: str) -> tuple[str, str]:
    why = "Entries of a list are names or their endings, never regular expressions."
    as_pattern = text if _is_pattern(text) else _as_glob(text)
    found = cheap_matches(as_pattern, model.module_by_name, "fullmatch")
    whole = text
    if not found:
        whole, found = _within_names(model, text)
    if not found:
        return (
            f"{why} As one it would match nothing either.",
            f"Let it be written: lorascope plan {shell_word(model.model)}",
        )
    adaptable = [name for name in found if name in model.weight_by_name]
    endings = endings_or_names(adaptable, model.module_by_name) if adaptable else ()
    why = f"{why} As one, it would match {counted(len(found), 'module')}, such as {listed(found, 2)}."
    if endings:
        return why, f"Write the names: {in_quotes(endings)}."
    plain = [entry.text for entry in asked.modules if not _OPERATORS.search(entry.text) and entry.modules]
    texts = [entry.text for entry in asked.modules if _OPERATORS.search(entry.text) and _is_pattern(entry.text)]
    ways = (texts if whole in texts else [whole]) + ([pattern_of(plain)] if plain else [])
    joined = "|".join(ways)
    if len(joined) > _LONGEST_TEXT:
        return why, f"Let it be written: lorascope plan {shell_word(model.model)}"
    return why, f"Give one text instead of the list: target_modules={literal(joined)}."


def _rewritten_name(case: Case, text: str, names: Sequence[str]) -> _Answer | None:
    """The entry under a prefix, ending or case that this model does not have."""
    short = text.removeprefix(_PREFIX)
    if short != text and _named(short, names):
        return _Answer("no-match", f"Names are those of the model, without {_PREFIX}", f"Write {literal(short)}.")
    for ending in (".weight", ".lora_A", ".lora_B", ".lora_A.weight", ".lora_B.weight"):
        short = text.removesuffix(ending)
        if short != text and _named(short, names):
            return _Answer("no-match", "Entries name modules, not their tensors.", f"Write {literal(short)}.")
    lower = text.lower()
    for name in names:
        if name.lower() == lower or name.lower().endswith(f".{lower}"):
            return _Answer("no-match", "Only upper and lower case differ.", f"Write {literal(name[-len(text) :])}.")
    numbers = _numbers_instead(text, names)
    if numbers:
        why = f"There is no such layer: {case.model.model} has {numbers}."
        return _Answer("no-match", why, "Write one of these numbers.")
    # A shorter form that is longer than all names is none of them.
    parts = 1 + max((name.count(".") for name in names), default=0)
    for short in [ending for ending in dotted_suffixes(text, parts) if "." in ending][::-1]:
        found = _named(short, names)
        if found:
            return _Answer("no-match", f"It is called {listed(found, 2)} here.", f"Write {literal(short)}.")
    return None


def _named(text: str, names: Iterable[str]) -> list[str]:
    """The names that an entry matches."""
    entry = NameSet([text])
    return [name for name in names if entry.has(name)]


def _numbers_instead(text: str, names: Iterable[str]) -> str:
    """The numbers that the model has where an entry has another one; empty if more than numbers differ."""
    shape = template(text)
    if shape == text:
        return ""
    length = text.count(".") + 1
    tails = [_tail(name, length) for name in names]
    found = [NUMBER.search(tail) for tail in tails if template(tail) == shape]
    return spans(int(match[0]) for match in found if match)


def _tail(name: str, length: int) -> str:
    """So many of the last words of a name."""
    return ".".join(name.split(".")[-length:])


def _known(case: Case, text: str) -> _Answer | None:
    meanings = meanings_of(text)
    if not meanings:
        return None
    place = place_in(case.model, meanings)
    if place is None:
        return _Answer("no-match", "", "Leave it out.", known=True)
    command = planning_command(case, selector_of(place.meanings))
    return _Answer("no-match", "", fix_for(case.model, place, command), known=True)


def _misspelt(case: Case, text: str) -> _Answer | None:
    length = text.count(".") + 1
    words = {_tail(weight.name, length) for weight in case.model.weights}
    words |= {_tail(NUMBER.sub("0", module.name), length) for module in case.model.modules if module.kind != "other"}
    near = alike(text, (w for w in words if w.count(".") + 1 == length), 2, _ALIKE)
    if not near:
        return None
    return _Answer("no-match", "", f"Did you mean {' or '.join(in_quotes([name]) for name in near)}?")


def _nothing(case: Case) -> _Answer:
    leaves = dict.fromkeys(
        weight.name.rpartition(".")[2]
        for weight in case.model.weights
        if weight.role.component in case.own and weight.kind != "parameter" and weight.role.block != "embedding"
    )
    shown = ", ".join(list(leaves)[:MOST_SPELLED])
    return _Answer(
        "no-match", "", f"The linear layers are called {shown}; see: lorascope inspect {shell_word(case.model.model)}"
    )


def _parameter_answer(case: Case, text: str) -> _Answer:
    model = case.model
    ends = NameSet([text])
    modules = [module for module in model.modules if ends.has(module.name)]
    own = [f"{module.name}.{name}" for module in modules for name, shape in module.parameters if len(shape) in (2, 3)]
    # Biases of stacked experts have two dimensions as well.
    own = [name for name in own if (w := model.weight_by_name.get(name)) is None or w.role.block != "other"]
    all_names = [name for _, name, _ in parameter_names(model)]
    if modules and own:
        endings = endings_or_names(own, all_names)
        linear = [module.name for module in modules if module.kind != "other"]
        why = "It is a module, not a parameter."
        if len(linear) == len(modules):
            return _Answer("no-match", why, f"Move it to target_modules, or write {literal(f'{text}.weight')}.")
        return _Answer("no-match", why, f"Write its parameters: {in_quotes(endings or own[:MOST_SPELLED])}.")
    if modules:
        return _Answer("no-match", "It is a module without a parameter of its own.", "Name the layers within it.")
    if _OPERATORS.search(text):
        found = cheap_matches(text, all_names, "search")
        endings = endings_or_names(found, all_names) if found else ()
        why = "Entries are names of parameters or their endings, never regular expressions."
        fix = f"Write the names: {in_quotes(endings)}." if endings else f"Let it be written: {planning_command(case)}"
        return _Answer("regex-in-list", why, fix)
    if numbers := _numbers_instead(text, all_names):
        why = f"There is no such layer: {model.model} has {numbers}."
        return _Answer("no-match", why, "Write one of these numbers.")
    return _known(case, text) or _misspelt_parameter(case, text, all_names) or _no_parameters(case)


def _misspelt_parameter(case: Case, text: str, names: Sequence[str]) -> _Answer | None:
    near = alike(text, {_tail(name, text.count(".") + 1) for name in names}, 2, _ALIKE)
    if near:
        return _Answer("no-match", "", f"Did you mean {' or '.join(in_quotes([name]) for name in near)}?")
    return None


def _no_parameters(case: Case) -> _Answer:
    bare = [weight for weight in case.model.weights if weight.kind == "parameter" and weight.role.block == "ffn"]
    if bare:
        return _Answer("no-match", "", f"Parameters that can be adapted: {places(bare)}.")
    fix = "Take target_parameters out; linear layers go into target_modules."
    return _Answer("no-match", "The model has no stacked experts.", fix)


def _within_names(model: ModelMap, text: str) -> tuple[str, list[str]]:
    """The form of a pattern that matches whole names, and the adaptable modules that it matches."""
    body = text.removeprefix("^").removesuffix("$").removeprefix(".*")
    grouped = f"({body})" if "|" in body and not body.endswith(")") else body
    for whole in (f".*[.]{grouped}", f".*{grouped}", f".*{grouped}.*"):
        found = cheap_matches(whole, model.module_by_name, "fullmatch")
        adaptable = [name for name in found if name in model.weight_by_name]
        if adaptable and len(adaptable) == len(found):
            return whole, adaptable
    return "", []


def _is_pattern(text: str) -> bool:
    """The text compiles; one that may take long is not tried, and taken for a pattern."""
    try:
        compiled(text)
    except BadPatternError:
        return False
    except PatternLimitError:
        return True
    return True


def _as_glob(text: str) -> str:
    """A file pattern as a regular expression that repeats single characters alone, so that its steps are bounded."""
    return re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")
