"""What a configuration does on modules that released models have and a built-in map lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import CheckContext
from lorascope.checks.exclusions import excluded_by
from lorascope.peft_rules.matchers import ModuleMatcher, NameSet
from lorascope.peft_rules.modules_to_save import names_before_matching
from lorascope.peft_rules.name_patterns import BadPatternError
from lorascope.peft_rules.types import AdapterConfig
from lorascope.sources.released_parts import ReleasedParts, released_parts


def released_targets(
    context: CheckContext, *, excluding: bool = True
) -> Iterator[tuple[ReleasedParts, tuple[str, ...]]]:
    """Each released model, with those of its extra modules that the targets match.

    Args:
        context: The configuration on a built-in map.
        excluding: Without what exclude_modules takes out.
    """
    config = context.config if excluding else dataclasses.replace(context.config, exclude_modules=None)
    for parts in released_parts(context.model):
        yield parts, tuple(_matched(context, config, parts))


def excluded_elsewhere(context: CheckContext, exclude: str | Sequence[str]) -> bool:
    """An exclusion takes out a target that released models have and the built-in map lacks.

    Raises:
        BadPatternError: It is not a regular expression.
    """
    elsewhere = {name for _, names in released_targets(context, excluding=False) for name in names}
    return bool(elsewhere and excluded_by(exclude, [name.replace("*", "0") for name in elsewhere]))


def release_with(context: CheckContext, text: str) -> str:
    """A released model that has a module for an entry of a list; empty if none has."""
    entry = NameSet([text])
    for parts in released_parts(context.model):
        if any(entry.has(template.replace("*", "0")) for template in parts.extra):
            return parts.release
    return ""


def _matched(context: CheckContext, config: AdapterConfig, parts: ReleasedParts) -> Iterator[str]:
    patterns = context.entries.patterns
    everything = context.entries.form == "all-linear"
    if patterns is None and not everything:
        return
    names = {template.replace("*", "0"): template for template in parts.extra}
    linear = frozenset(name for name, template in names.items() if parts.extra[template] in ("linear", "conv1d"))
    saved = names_before_matching(config.modules_to_save, config.task_type)
    try:
        matcher = ModuleMatcher(linear if everything else patterns, config, saved, context.release)
        yield from (template for name, template in names.items() if matcher.match(name).targeted)
    except BadPatternError:
        return
