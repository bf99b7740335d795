"""What each entry of a configuration's targets matches by itself, whether or not PEFT takes the whole."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import Case
from lorascope.foreign_text import literal
from lorascope.model.types import Module
from lorascope.peft_rules.matchers import (
    ALL_LINEAR,
    DUMMY_TARGET,
    Match,
    ModuleMatcher,
    NameSet,
    all_linear_targets,
    default_targets,
    parameter_names,
)
from lorascope.peft_rules.modules_to_save import names_before_matching
from lorascope.peft_rules.moe_rewrite import rewritten_name
from lorascope.peft_rules.name_patterns import BadPatternError, compiled
from lorascope.peft_rules.releases import NEWEST, Release, release_of
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import Resolution
from lorascope.plans.name_forms import shortest_endings

Form = Literal["list", "string", "all-linear", "default", "none"]

# So many entries or names are spelled out in a finding.
MOST_SPELLED = 8
# So many entries or keys of one setting are looked into one by one; nobody reads more, and a file may have thousands.
MOST_EXPLAINED = 40
# A message shows so many entries of a list at most, and so many letters of each: no name of a module is longer.
_MOST_SHOWN = 10
_LONGEST_SHOWN = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `target_modules` or `target_parameters`; a string in `target_modules` is one entry.

    Attributes:
        text: As it was written.
        modules: Every module that it names.
        targeted: Those of them that layers, exclusions and saved modules leave in.
        parameters: The parameters that it names, or that PEFT's rewrite for fused experts makes of it.
        rewritten: The parameter that PEFT's rewrite makes of it, or empty.
    """

    text: str
    modules: tuple[Module, ...] = ()
    targeted: tuple[Module, ...] = ()
    parameters: tuple[str, ...] = ()
    rewritten: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """The targets of a configuration, entry by entry.

    Attributes:
        form: How `target_modules` is given; `default` where PEFT's own table fills it in.
        modules: The entries of `target_modules`.
        parameters: The entries of `target_parameters`.
        verdicts: What PEFT's rules say of each module that an entry names.
        faulty: A pattern is no regular expression, so that nothing could be matched.
    """

    form: Form
    modules: tuple[Entry, ...] = ()
    parameters: tuple[Entry, ...] = ()
    verdicts: Mapping[str, Match] = dataclasses.field(default_factory=dict)
    faulty: bool = False

    @property
    def targets(self) -> str | frozenset[str] | None:
        """What PEFT matches names with; None where there is nothing to match, or no way to."""
        if self.faulty or self.form == "none" or not self.modules:
            return None
        if self.form == "string":
            return self.modules[0].text
        if self.form == "all-linear":
            return frozenset(module.name for module in self.modules[0].modules)
        return frozenset(entry.text for entry in self.modules)


def release_in(case: Case) -> Release:
    """The release of PEFT whose rules hold for a case."""
    return release_of(case.peft or NEWEST)


def resolved_with(case: Case, **changes: Any) -> Resolution:
    """What PEFT does with the case's configuration after some changes."""
    return resolve(case.model, dataclasses.replace(case.config, **changes), case.peft or NEWEST)


def asked_targets(case: Case) -> Asked:
    """The targets of a case's configuration, matched one by one."""
    form, targets = _form(case)
    saved = names_before_matching(case.config.modules_to_save, case.config.task_type)
    parameters = [name for owner, name, _ in parameter_names(case.model) if owner]
    given = case.config.target_parameters
    # PEFT refuses a string there, which some callers' types do not keep out.
    listed: tuple[str, ...] = () if isinstance(given, str) else tuple(dict.fromkeys(given or ()))
    own = _by_entry(listed, parameters)
    below = tuple(Entry(text, parameters=tuple(own.get(text, ()))) for text in listed)
    if targets is None or targets == DUMMY_TARGET:
        return Asked(form, parameters=below)
    try:
        matcher = ModuleMatcher(targets, case.config, saved, release_in(case))
        verdicts = {module.name: matcher.match(module.name) for module in case.model.modules}
        pattern = compiled(targets, "target_modules") if isinstance(targets, str) else None
    except BadPatternError:
        texts = (targets,) if isinstance(targets, str) else tuple(sorted(targets))
        return Asked(form, tuple(map(Entry, texts)), below, faulty=True)
    by_name = case.model.module_by_name
    if pattern is not None:
        named = [name for name in by_name if pattern.fullmatch(name)]
        return Asked(form, (_entry(str(targets), named, by_name, verdicts),), below, verdicts)
    if form == "all-linear":
        return Asked(form, (_entry(ALL_LINEAR, sorted(targets), by_name, verdicts),), below, verdicts)
    config = case.config.target_modules
    order = tuple(dict.fromkeys(config)) if isinstance(config, tuple) else tuple(sorted(targets))
    moved = {text: _rewritten(case, text) for text in order}
    stacks = _by_entry([name for name in moved.values() if name], parameters)
    found = _by_entry(order, by_name)
    entries: list[Entry] = []
    for text in order:
        entry = _entry(text, found.get(text, ()), by_name, verdicts)
        if moved[text]:
            stacked = tuple(stacks.get(moved[text], ()))
            entry = dataclasses.replace(entry, targeted=(), parameters=stacked, rewritten=moved[text])
        entries.append(entry)
    return Asked(form, tuple(entries), below, verdicts)


def endings_or_names(wanted: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """List entries that match `wanted` and nothing else of `names`, or nothing where that takes numbers."""
    endings = shortest_endings(sorted(wanted), names, numbers=False)
    return endings if endings and len(endings) <= MOST_SPELLED else ()


def in_quotes(texts: Iterable[str]) -> str:
    """Texts as the inside of a list: `"q_proj", "v_proj"`."""
    return ", ".join(literal(text, _LONGEST_SHOWN) for text in texts)


def cut(text: str) -> str:
    """A text as a message shows it: the beginning of one that is longer than any name."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def some_in_quotes(texts: Collection[str]) -> str:
    """The first ten of many texts, and how many more there are."""
    more = f" and {len(texts) - _MOST_SHOWN:,} more" if len(texts) > _MOST_SHOWN else ""
    return in_quotes(itertools.islice(texts, _MOST_SHOWN)) + more


def pattern_of(names: Sequence[str]) -> str:
    """A regular expression for list entries, without a backslash, so that it reads the same in JSON, YAML and Python."""
    escaped = [plain_pattern(name) for name in names]
    return f"(.*[.])?{escaped[0] if len(escaped) == 1 else '(' + '|'.join(escaped) + ')'}"


def counted(number: int, noun: str) -> str:
    """A number of things: `1 module`, `32 modules`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def plain_pattern(name: str) -> str:
    """A name as a regular expression without a backslash."""
    return "[.]".join(re.escape(word) for word in name.split("."))


def _form(case: Case) -> tuple[Form, str | frozenset[str] | None]:
    targets = case.config.target_modules
    if targets is None:
        if case.model.moe_conversion and release_in(case) >= (0, 19):
            return "none", None
        default = default_targets(case.model.model_type, release_in(case))
        return ("none" if default is None else "default"), default
    if isinstance(targets, str):
        if targets.lower() == ALL_LINEAR:
            return "all-linear", all_linear_targets(case.model, case.config.task_type)
        return "string", targets
    return "list", frozenset(targets)


def _entry(text: str, names: Iterable[str], by_name: Mapping[str, Module], verdicts: Mapping[str, Match]) -> Entry:
    modules = tuple(by_name[name] for name in names)
    return Entry(text, modules, tuple(module for module in modules if verdicts[module.name].targeted))


def _rewritten(case: Case, entry: str) -> str:
    return rewritten_name(case.model, entry, release_in(case))


def _by_entry(entries: Iterable[str], names: Iterable[str]) -> dict[str, list[str]]:
    wanted = NameSet(entries)
    found: dict[str, list[str]] = {}
    for name in names:
        for text in wanted.hits(name):
            found.setdefault(text, []).append(name)
    return found
