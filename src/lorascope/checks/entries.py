"""Matches each target entry on its own, even if PEFT rejects the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap, Module
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
from lorascope.peft_rules.releases import Release
from lorascope.peft_rules.types import AdapterConfig

Form = Literal["list", "string", "all-linear", "default", "none"]


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `target_modules` or `target_parameters`; a string is one.

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

    @property
    def refused(self) -> tuple[Module, ...]:
        """The targeted modules of a class that PEFT has no adapter for."""
        return tuple(module for module in self.targeted if module.kind == "other")


@dataclasses.dataclass(frozen=True, slots=True)
class TargetEntries:
    """The targets of a configuration, entry by entry.

    Attributes:
        form: How `target_modules` is given; `default` where PEFT's own table fills it in.
        modules: The entries of `target_modules`.
        parameters: The entries of `target_parameters`.
        verdicts: What PEFT's rules say of each module that an entry names.
        faulty: A pattern is not a regular expression, so that nothing could be matched.
    """

    form: Form
    modules: tuple[Entry, ...] = ()
    parameters: tuple[Entry, ...] = ()
    verdicts: Mapping[str, Match] = dataclasses.field(default_factory=dict)
    faulty: bool = False

    @property
    def patterns(self) -> str | frozenset[str] | None:
        """What PEFT matches names with; None if that is nothing."""
        if self.faulty or self.form == "none" or not self.modules:
            return None
        if self.form == "string":
            return self.modules[0].text
        if self.form == "all-linear":
            return frozenset(module.name for module in self.modules[0].modules)
        return frozenset(entry.text for entry in self.modules)


def match_entries(model: ModelMap, config: AdapterConfig, release: Release) -> TargetEntries:
    """The targets of a configuration, matched one by one."""
    form, targets = _form(model, config, release)
    parameters = [name for owner, name, _ in parameter_names(model) if owner]
    below = _parameter_entries(config, parameters)
    if targets is None or targets == DUMMY_TARGET:
        return TargetEntries("none" if targets else form, parameters=below)
    try:
        saved = names_before_matching(config.modules_to_save, config.task_type)
        matcher = ModuleMatcher(targets, config, saved, release)
        verdicts = {module.name: matcher.match(module.name) for module in model.modules}
        pattern = compiled(targets, "target_modules") if isinstance(targets, str) else None
    except BadPatternError:
        texts = (targets,) if isinstance(targets, str) else tuple(sorted(targets))
        return TargetEntries(form, tuple(map(Entry, texts)), below, faulty=True)
    by_name = model.module_by_name
    if pattern is not None:
        names = [name for name in by_name if pattern.fullmatch(name)]
        return TargetEntries(form, (_entry(str(targets), names, by_name, verdicts),), below, verdicts)
    if form == "all-linear":
        return TargetEntries(form, (_entry(ALL_LINEAR, sorted(targets), by_name, verdicts),), below, verdicts)
    given = config.target_modules
    texts = tuple(dict.fromkeys(given)) if isinstance(given, tuple) else tuple(sorted(targets))
    rewritten = {text: rewritten_name(model, text, release) for text in texts}
    stacks = _by_entry([name for name in rewritten.values() if name], parameters)
    matches = _by_entry(texts, by_name)
    entries: list[Entry] = []
    for text in texts:
        entry = _entry(text, matches.get(text, ()), by_name, verdicts)
        if stack := rewritten[text]:
            entry = dataclasses.replace(entry, targeted=(), parameters=tuple(stacks.get(stack, ())), rewritten=stack)
        entries.append(entry)
    return TargetEntries(form, tuple(entries), below, verdicts)


def _parameter_entries(config: AdapterConfig, parameters: Iterable[str]) -> tuple[Entry, ...]:
    given = config.target_parameters
    # PEFT refuses a string there, which some callers' types do not keep out.
    texts: tuple[str, ...] = () if isinstance(given, str) else tuple(dict.fromkeys(given or ()))
    matches = _by_entry(texts, parameters)
    return tuple(Entry(text, parameters=tuple(matches.get(text, ()))) for text in texts)


def _form(model: ModelMap, config: AdapterConfig, release: Release) -> tuple[Form, str | frozenset[str] | None]:
    targets = config.target_modules
    if targets is None:
        if model.moe_conversion and release >= (0, 19):
            return "none", None
        default = default_targets(model.model_type, release)
        return ("none" if default is None else "default"), default
    if isinstance(targets, str):
        if targets.lower() == ALL_LINEAR:
            return "all-linear", all_linear_targets(model, config.task_type)
        return "string", targets
    return "list", frozenset(targets)


def _entry(text: str, names: Iterable[str], by_name: Mapping[str, Module], verdicts: Mapping[str, Match]) -> Entry:
    modules = tuple(by_name[name] for name in names)
    return Entry(text, modules, tuple(module for module in modules if verdicts[module.name].targeted))


def _by_entry(entries: Iterable[str], names: Iterable[str]) -> dict[str, list[str]]:
    wanted = NameSet(entries)
    matches: dict[str, list[str]] = {}
    for name in names:
        for text in wanted.hits(name):
            matches.setdefault(text, []).append(name)
    return matches
