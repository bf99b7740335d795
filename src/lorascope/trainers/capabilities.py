"""A plan said within what a trainer passes on to PEFT, or what of it cannot be said there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import Weight
from lorascope.names import listed
from lorascope.peft_rules.addresses import as_parameter, peft_name
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plans.compiler import size_difference
from lorascope.plans.name_forms import module_forms
from lorascope.plans.types import Plan

_MOST_NAMED = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Surface:
    """Which keys of `peft.LoraConfig` a trainer's configuration can set.

    Attributes:
        title: What the trainer calls itself.
        peft: The release of PEFT that it runs with.
        regex: `target_modules` as a regular expression.
        layers: `layers_to_transform`.
        excludes: `exclude_modules`.
        patterns: `rank_pattern` and `alpha_pattern`.
        parameters: `target_parameters`.
        dora: `use_dora`.
        rslora: `use_rslora`.
        biases: The values of `bias` that it can set.
    """

    title: str
    peft: str
    regex: bool = True
    layers: bool = True
    excludes: bool = True
    patterns: bool = True
    parameters: bool = True
    dora: bool = True
    rslora: bool = True
    biases: tuple[str, ...] = ("none", "all", "lora_only")


def surface_losses(plan: Plan, surface: Surface) -> tuple[str, ...]:
    """What of a plan the surface cannot say, a sentence each."""
    config, title = plan.config, surface.title
    lost = []
    if not surface.patterns and (config.rank_pattern or config.alpha_pattern):
        lost.append(f"ranks and alphas that differ: {_sizes(plan)}. {title} has one rank and one alpha for all")
    bare = [target.weight for target in plan.targets if as_parameter(plan.model, target.weight, surface.peft)]
    if not surface.parameters and bare:
        lost.append(f"{_named(bare)}, which PEFT reaches through target_parameters. {title} has no such setting")
    if not surface.dora and config.use_dora:
        lost.append(f"DoRA. {title} has no such setting")
    if not surface.rslora and config.use_rslora:
        lost.append(f"the scale of rsLoRA. {title} has no such setting")
    if config.bias not in surface.biases:
        lost.append(f"the biases that are trained ({config.bias}). {title} trains {' or '.join(surface.biases)}")
    if lost:
        return tuple(lost)
    fit = fitted(plan, surface)
    if fit is None:
        return (
            f"exactly these weights. {title} cannot tell them from others of the same names, or PEFT {surface.peft} "
            "reads it differently",
        )
    if config.bias != "none":
        trained = resolve(plan.model, fit, surface.peft).trainable
        if trained != plan.resolution.trainable:
            return (
                f"which biases are trained. PEFT {surface.peft} would train {trained:,} parameters with "
                f'bias="{config.bias}", where the plan has {plan.resolution.trainable:,}',
            )
    return ()


def fitted(plan: Plan, surface: Surface) -> AdapterConfig | None:
    """The configuration with which the trainer's own PEFT does the plan, or None if the surface cannot say it."""
    sizes = {peft_name(plan.model, t.weight, surface.peft): (t.rank, t.alpha) for t in plan.targets}
    for config in _candidates(plan, surface):
        resolution = resolve(plan.model, config, surface.peft)
        if resolution.refusal is None and not size_difference(resolution, sizes, surface.peft):
            return config
    return None


def _candidates(plan: Plan, surface: Surface) -> Iterator[AdapterConfig]:
    config = plan.config
    plain: dict[str, Any] = {"layers_to_transform": None, "exclude_modules": None, "layers_pattern": None}
    within = (
        (surface.regex or not isinstance(config.target_modules, str))
        and (surface.layers or config.layers_to_transform is None)
        and (surface.excludes or config.exclude_modules is None)
    )
    if within:
        yield config
    modules = {t.weight.name for t in plan.targets if not as_parameter(plan.model, t.weight, surface.peft)}
    if len(modules) == len(plan.targets):  # Releases before the rewrite reach as modules what later ones do not.
        plain["target_parameters"] = None
    forms = module_forms(plan.model, modules, layers=surface.layers, excludes=surface.excludes, regex=surface.regex)
    for form in forms:
        yield dataclasses.replace(config, **{**plain, **form})


def _sizes(plan: Plan) -> str:
    groups: dict[tuple[int, float], int] = {}
    for target in plan.targets:
        groups[target.rank, target.alpha] = groups.get((target.rank, target.alpha), 0) + 1
    return ", ".join(f"{rank}/{alpha:g} for {count} weights" for (rank, alpha), count in groups.items())


def _named(weights: list[Weight]) -> str:
    return f"{len(weights)} weights ({listed((weight.name for weight in weights), _MOST_NAMED)})"
