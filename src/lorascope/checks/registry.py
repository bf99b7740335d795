"""Every rule, in order of consequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType

from lorascope.checks.context import CheckContext
from lorascope.checks.rule import Finder, FindingRule
from lorascope.checks.rules import (
    base_model,
    coverage,
    entries,
    exclusions,
    fused_kernels,
    layers,
    map_doubts,
    map_gaps,
    modules_to_save,
    moe_rewrite,
    options,
    origins,
    parameter_options,
    ranks,
    rare_options,
    reach,
    refusals,
    released_parts,
    releases,
    servers,
    task_types,
    tensors,
    ties,
    trainer_files,
    unmatched,
)
from lorascope.findings import Finding

# What the map does not show: first of all, because every other finding rests on the map.
MAP = (map_gaps,)
# What PEFT does with a configuration: first what decides whether anything is adapted, last what is merely copied.
CONFIGURATION = (
    unmatched,
    entries,
    parameter_options,
    exclusions,
    task_types,
    options,
    rare_options,
    ranks,
    layers,
    moe_rewrite,
    reach,
    fused_kernels,
    ties,
    map_doubts,
    coverage,
    modules_to_save,
    released_parts,
)
RELEASES = (releases,)
# What the files of an adapter say beyond its configuration.
ADAPTER_FILES = (base_model, tensors)
# What is adapted, whoever adapts it.
REACH = (reach, fused_kernels, ties, map_doubts)
COVERAGE = (coverage,)
_EVERY_KIND = (*MAP, refusals, trainer_files, *CONFIGURATION, *RELEASES, *ADAPTER_FILES, origins, servers)


def apply_rules(kinds: tuple[ModuleType, ...], context: CheckContext) -> Iterator[Finding]:
    """The findings of some kinds of rules, in their order."""
    for finder in finders_of(kinds):
        yield from finder.find(context)


def finders_of(kinds: tuple[ModuleType, ...]) -> tuple[Finder, ...]:
    """The finders of some kinds of rules, in their order."""
    return tuple(value for kind in kinds for value in vars(kind).values() if isinstance(value, Finder))


def rules() -> Mapping[str, FindingRule]:
    """Every rule by its code."""
    return {
        value.code: value for kind in _EVERY_KIND for value in vars(kind).values() if isinstance(value, FindingRule)
    }
