"""Exclusions that take out nothing, everything, or not what they seem to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import CheckContext
from lorascope.checks.exclusions import excluded_by
from lorascope.checks.phrases import cut, plural
from lorascope.checks.released_targets import excluded_elsewhere
from lorascope.checks.rule import FindingRule, finds
from lorascope.checks.rules.unmatched import NO_MATCH
from lorascope.checks.suggestions import LONGEST_PATTERN, MOST_EXPLAINED, pattern_of, plain_pattern, suggest_alike
from lorascope.findings import Finding
from lorascope.foreign_text import literal
from lorascope.names import NUMBER, listed
from lorascope.peft_rules.matchers import Match, ModuleMatcher
from lorascope.peft_rules.modules_to_save import names_before_matching
from lorascope.peft_rules.name_patterns import BadPatternError, cheap_matches

EXCLUDE_UNMATCHED = FindingRule(
    "exclude-unmatched",
    "warning",
    "exclude_modules excludes nothing",
    "What was meant to stay out is adapted.",
)

_ALIKE = 0.7
_SETTING = "exclude_modules"
_TAKE_OUT = "Take it out."


@finds(NO_MATCH, EXCLUDE_UNMATCHED)
def find_idle_exclusions(context: CheckContext) -> Iterator[Finding]:
    """Exclusions that take no target out, or all of them."""
    config, entries = context.config, context.entries
    exclude, patterns = config.exclude_modules, context.entries.patterns
    if not exclude or patterns is None:
        return
    saved = names_before_matching(config.modules_to_save, config.task_type)
    try:
        matcher = ModuleMatcher(patterns, dataclasses.replace(config, exclude_modules=None), saved, context.release)
        targets = [name for name in context.module_names if matcher.match(name).targeted]
        texts = [exclude] if isinstance(exclude, str) else list(exclude[:MOST_EXPLAINED])
        taken = {text: excluded_by(text if isinstance(exclude, str) else [text], targets) for text in texts}
    except BadPatternError:
        return
    left = any(entry.targeted or entry.parameters for entry in entries.modules)
    gone = [
        module.name
        for entry in entries.modules
        for module in entry.modules
        if entries.verdicts[module.name] is Match.EXCLUDED
    ]
    if context.refused_as("no-match") and gone and not left:
        who = "exclude_modules and modules_to_save take" if saved else "exclude_modules takes"
        message = f"{who} out every target ({listed(gone, 2)}): nothing is left to adapt."
        yield NO_MATCH.finding(_SETTING, message, "Exclude less, or name other targets.")
    for text in texts:
        if not taken[text] and not excluded_elsewhere(context, text if isinstance(exclude, str) else [text]):
            why, fix = _no_effect(context, text, targets)
            yield EXCLUDE_UNMATCHED.finding(_SETTING, f'"{cut(text)}" excludes no target. {why}'.rstrip(), fix)


def _no_effect(context: CheckContext, text: str, targets: list[str]) -> tuple[str, str]:
    """Why an exclusion takes nothing out, and what to write."""
    is_string = isinstance(context.config.exclude_modules, str)
    if not is_string and any(sign in text for sign in "*?+[](){}|\\^$"):
        return _regex_in_list(context, text, targets)
    answer = _part_of_names(context, text, targets) if is_string else _below(context, text, targets)
    if answer is not None:
        return answer
    matches = [name for name in context.module_names if name == text or name.endswith(f".{text}")]
    if matches:
        return f"{listed(matches, 2)} is not a target anyway.", _TAKE_OUT
    words = sorted({word for name in targets for word in NUMBER.sub("", name).split(".") if word})
    question = suggest_alike(text.rpartition(".")[2], words, 2, _ALIKE)
    return f"{context.model.model} has no such module.", question or _TAKE_OUT


def _regex_in_list(context: CheckContext, text: str, targets: list[str]) -> tuple[str, str]:
    why = "List entries are names or their endings, never regular expressions."
    for whole in (text, f".*{text}.*"):
        if matches := cheap_matches(whole, targets, "fullmatch"):
            what = "a string, " if whole == text else ""
            return (
                why,
                f"Set {what}{context.setting('exclude_modules', whole)}, which takes out {plural(len(matches), 'target')}.",
            )
    return why, f"As an expression it would exclude nothing either. {_TAKE_OUT}"


def _part_of_names(context: CheckContext, text: str, targets: list[str]) -> tuple[str, str] | None:
    why = "A string is one regular expression for the whole name."
    for whole in (f"(.*[.])?{text}", f"(.*[.])?{text}[.].*", f".*{text}.*"):
        if matches := cheap_matches(whole, targets, "fullmatch"):
            return (
                why,
                f"Set {context.setting('exclude_modules', whole)}, which takes out {plural(len(matches), 'target')}.",
            )
    return None


def _below(context: CheckContext, text: str, targets: list[str]) -> tuple[str, str] | None:
    """An entry that is the name of a block around targets."""
    below = f"(.*[.])?{plain_pattern(text)}[.].*"
    matches = cheap_matches(below, targets, "fullmatch")
    if not matches:
        return None
    why = "An entry excludes modules of that name, not the modules within them."
    others: Sequence[str] = [entry for entry in context.config.exclude_modules or () if entry != text]
    whole = "|".join(([pattern_of(others)] if others else []) + [below])
    if len(whole) > LONGEST_PATTERN:
        return why, f"Use {literal(below)} in a string with the other entries: it takes out {len(matches)} targets."
    return why, f"Set {context.setting('exclude_modules', whole)}, which takes out {len(matches)} of these targets."


@finds(EXCLUDE_UNMATCHED)
def find_unexcluded_parameters(context: CheckContext) -> Iterator[Finding]:
    """Parameters, which `exclude_modules` does not reach."""
    exclude, entries = context.config.exclude_modules, context.entries
    if not exclude:
        return
    every = (*entries.modules, *entries.parameters)
    names = [name for entry in every for name in entry.parameters if name in context.sizes]
    owners = {name: name.rpartition(".")[0] for name in names}
    try:
        meant = set(excluded_by(exclude, {*names, *owners.values()}))
    except BadPatternError:
        return
    beyond = [name for name in names if name in meant or owners[name] in meant]
    if beyond:
        message = f"PEFT adapts {listed(beyond, 2)} all the same: exclude_modules does not apply to parameters."
        fix = "Name in target_parameters only what you mean, with its layer where that matters."
        yield EXCLUDE_UNMATCHED.finding(_SETTING, message, fix)
