"""PEFT's silent rewrite for fused experts (`_convert_peft_config_moe`).

The names of the old layout (`gate_proj`, `w1`, …) leave `target_modules` and come back in `target_parameters` as the
names of the fused stacks. The rewrite goes by the last component of a name alone, so it also takes dense and shared
layers that happen to be called so, and a string loses every restriction to layers or towers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from lorascope.peft_rules import reasons
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.matchers import ALL_LINEAR, ModuleMatcher, all_linear_targets, parameter_names
from lorascope.peft_rules.releases import Release
from lorascope.peft_rules.types import AdapterConfig

_FIRST_REWRITE = (0, 19)
# Old name -> the parameter that holds it now; per conversion pattern of transformers.
_RENAMED: Mapping[str, Mapping[str, str]] = {
    "mixtral": {"gate": "gate.weight", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"},
    "qwen2_moe": {
        "gate": "gate.weight",
        "gate_proj": "gate_up_proj",
        "up_proj": "gate_up_proj",
        "down_proj": "down_proj",
    },
}
_FUSED = "gate_up_proj"
# Two matrices share the fused one, so PEFT gives it twice the rank, and twice the alpha to keep the scale.
_FUSED_HALVES = 2
_MOST_LETTERS = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Targets:
    """A configuration's targets after the rewrite.

    Attributes:
        modules: A regular expression, list entries, or None where nothing was said.
        parameters: The entries of `target_parameters`.
        rank_pattern: In order.
        alpha_pattern: In order.
        refusal: Why PEFT stops at the rewrite, or None.
        warnings: What the rewrite changed.
    """

    modules: str | frozenset[str] | None
    parameters: frozenset[str] | None
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    refusal: Diagnostic | None = None
    warnings: tuple[Diagnostic, ...] = ()


def rewritten_name(model: ModelMap, name: str, release: Release) -> str:
    """The target parameter that PEFT makes of a target module, or empty.

    A linear layer whose name is rewritten can only be adapted as the parameter `name.weight`.
    """
    renamed = _RENAMED.get(model.moe_conversion)
    if renamed is None or release < _FIRST_REWRITE:
        return ""
    return renamed.get(name.rpartition(".")[2], "")


def converted_targets(model: ModelMap, config: AdapterConfig, saved: tuple[str, ...], release: Release) -> Targets:
    """Rewrite a configuration's targets as PEFT does, if the model needs it.

    Args:
        model: The map of the model.
        config: The configuration.
        saved: `modules_to_save`, with what the task type adds before PEFT matches.
        release: PEFT's release.

    Raises:
        BadPatternError: A string target is not a regular expression.
    """
    modules = config.target_modules
    given = Targets(
        modules=frozenset(modules) if isinstance(modules, tuple) else modules,
        parameters=None if config.target_parameters is None else frozenset(config.target_parameters),
        rank_pattern=config.rank_pattern,
        alpha_pattern=config.alpha_pattern,
    )
    if model.moe_conversion not in _RENAMED or release < _FIRST_REWRITE:
        return given
    if isinstance(given.modules, frozenset):
        return _without_old_names(model, config, given, given.modules, ())
    if given.modules is None:
        warning = reasons.DEFAULT_REWRITTEN.about(model_type=model.model_type)
        return _without_old_names(model, config, given, frozenset(), (warning,))
    names = _names_of_string(model, config, given.modules, saved, release)
    if names is None:
        return given
    reason = reasons.STRING_IN_LETTERS if release < (0, 20) else reasons.STRING_TO_NAMES
    return _without_old_names(model, config, given, names, (reason.about(pattern=given.modules[:_MOST_LETTERS]),))


def _without_old_names(
    model: ModelMap,
    config: AdapterConfig,
    given: Targets,
    modules: frozenset[str],
    warnings: tuple[Diagnostic, ...],
) -> Targets:
    """The targets with the old names moved to parameters."""
    renamed = _RENAMED[model.moe_conversion]
    moved = {target: target.rpartition(".")[2] for target in modules if target.rpartition(".")[2] in renamed}
    halves = {old for old in moved.values() if renamed[old] == _FUSED}
    if len(halves) == 1:
        present = halves.pop()
        missing = next(old for old, new in renamed.items() if new == _FUSED and old != present)
        refusal = reasons.HALF_OF_FUSED.about(
            model_type=model.model_type, present=present, missing=missing, fused=_FUSED
        )
        return dataclasses.replace(given, refusal=refusal)
    ranks, alphas = dict(given.rank_pattern), dict(given.alpha_pattern)
    if halves:
        # Assignment keeps the place of the user's own key, and appends it otherwise: the user's other keys win.
        key = rf".*\.{re.escape(_FUSED)}"
        ranks[key] = config.r * _FUSED_HALVES
        alphas[key] = config.lora_alpha * _FUSED_HALVES
    parameters = {renamed[old] for old in moved.values()}
    if moved:
        reason = reasons.REWRITTEN_TWICE_THE_RANK if halves else reasons.REWRITTEN
        rewritten = reason.about(
            *sorted(moved), model_type=model.model_type, parameters=tuple(sorted(parameters)), fused=_FUSED
        )
        warnings = (*warnings, rewritten)
    return Targets(
        modules - moved.keys(), (given.parameters or frozenset()) | parameters, ranks, alphas, None, warnings
    )


def _names_of_string(
    model: ModelMap, config: AdapterConfig, pattern: str, saved: tuple[str, ...], release: Release
) -> frozenset[str] | None:
    """The last components that a string matches; None if PEFT keeps it."""
    renamed = _RENAMED[model.moe_conversion]
    if release < (0, 20):
        # 0.19 makes a set of the string, which is the set of its letters.
        return frozenset(pattern)
    if pattern.lower() == ALL_LINEAR:
        leaves = {name.rpartition(".")[2] for name in all_linear_targets(model, config.task_type)}
        return frozenset(leaves | renamed.keys())

    matcher = ModuleMatcher(pattern, config, saved, release)
    parameters = _distinct_parameters(model)
    names = ["", *(module.name for module in model.modules), *parameters]
    leaves = {name.rpartition(".")[2] for name in names if matcher.match(name).targeted}
    # The old names exist no more, so PEFT asks the pattern for them where the stack is that took them in.
    for old, new in renamed.items():
        if old not in leaves and any(
            matcher.match(f"{owner}.{old}").targeted
            for owner, _, leaf in (name.rpartition(".") for name in parameters)
            if leaf == new
        ):
            leaves.add(old)
    return frozenset(leaves) or None


def _distinct_parameters(model: ModelMap) -> list[str]:
    again = {name for group in model.ties for name in group[1:]}
    return [name for _, name, _ in parameter_names(model) if name not in again]
