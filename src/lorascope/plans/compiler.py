"""Compiles weights into the shortest configuration that adapts exactly them.

Forms are tried from the shortest to the longest: a list of name endings; the same with layers, with exclusions, with
both; one anchored regular expression; a list of full names. The first one that every supported PEFT resolves to the
targets is taken, so a trap in PEFT's rules costs brevity and never exactness.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.peft_rules.addresses import as_parameter, peft_name
from lorascope.peft_rules.agreement import releases_agree
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.releases import NEWEST, SUPPORTED_PEFT
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.name_forms import full_match, module_forms, shortest_endings
from lorascope.plans.task_types import task_type, unsaved_heads
from lorascope.plans.types import Assignment, Options

Size = tuple[int, float]
_OLDER = SUPPORTED_PEFT[:-1]


@dataclasses.dataclass(frozen=True, slots=True)
class Compiled:
    """A configuration, and what the supported releases of PEFT do with it.

    Attributes:
        config: It.
        resolution: What the newest release does.
        refusals: The releases whose wrapper for the task type does not fit the model's class, each with its reason.
    """

    config: AdapterConfig
    resolution: Resolution
    refusals: Mapping[str, Diagnostic]

    @property
    def releases(self) -> tuple[str, ...]:
        """The supported releases that take it, oldest first."""
        return tuple(release for release in SUPPORTED_PEFT if release not in self.refusals)


def compile_targets(model: ModelMap, assignments: Sequence[Assignment], options: Options) -> Compiled:
    """Find the shortest configuration that adapts exactly some weights.

    Args:
        model: The map.
        assignments: The weights, at least one, with their ranks and alphas.
        options: The plan's settings.

    Raises:
        LorascopeError: PEFT cannot adapt exactly these weights, with the reason.
    """
    if model.refusal:
        raise LorascopeError(f"PEFT cannot wrap {model.architecture}: {model.refusal}")
    sizes: dict[str, Size] = {peft_name(model, item.weight): (item.rank, item.alpha) for item in assignments}
    base = _base_config(model, assignments, options, sizes)
    modules = {item.weight.name for item in assignments if not as_parameter(model, item.weight)}
    reason, refused = "nothing to adapt", None
    for form in module_forms(model, modules):
        config = dataclasses.replace(base, **form)
        attempt = _attempt(model, config, sizes)
        if isinstance(attempt, Compiled):
            return attempt
        reason, refused = attempt, config
    if refused:  # say it of the oldest release that deviates
        reason = next(filter(None, (_difference_of(model, refused, sizes, release)[0] for release in _OLDER)), reason)
    raise LorascopeError(
        f"PEFT cannot adapt exactly these {len(assignments)} weights: {reason}",
        where=model.model,
        hint="Take the weights that it names out of the plan, with --exclude or a narrower rule.",
    )


def _base_config(
    model: ModelMap, assignments: Sequence[Assignment], options: Options, sizes: Mapping[str, Size]
) -> AdapterConfig:
    """The configuration without its modules."""
    first = min(item.rule for item in assignments)
    headline = Counter((item.rank, item.alpha) for item in assignments if item.rule == first).most_common(1)[0][0]
    parameters = sorted(peft_name(model, item.weight) for item in assignments if as_parameter(model, item.weight))
    heads = unsaved_heads(model)
    adapted = [item.weight.module for item in assignments]
    heads_adapted = any(name == head or name.startswith(f"{head}.") for name in adapted for head in heads)
    return _with_sizes(
        AdapterConfig(
            lora_dropout=options.dropout or 0.0,
            bias=options.bias,
            use_rslora=options.rslora,
            use_dora=options.dora,
            # Conv1D stores (in, out). PEFT finds out by itself, with a warning for each.
            fan_in_fan_out=all(item.weight.kind == "conv1d" for item in assignments),
            task_type=task_type(model),
            modules_to_save=None if heads_adapted else heads or None,
            target_parameters=shortest_endings(parameters, model.parameter_endings) if parameters else None,
        ),
        sizes,
        headline,
    )


def _attempt(model: ModelMap, config: AdapterConfig, sizes: Mapping[str, Size]) -> Compiled | str:
    """The compiled configuration, or how PEFT deviates from the sizes."""
    resolution = resolve(model, config, NEWEST)
    if difference := _difference(resolution, sizes, NEWEST):
        return difference
    refusals: dict[str, Diagnostic] = {}
    for release in () if releases_agree(model, config) else _OLDER:
        difference, refusal = _difference_of(model, config, sizes, release)
        if difference:
            return difference
        if refusal:
            refusals[release] = refusal
    return Compiled(config, resolution, refusals)


def _difference_of(
    model: ModelMap, config: AdapterConfig, sizes: Mapping[str, Size], release: str
) -> tuple[str, Diagnostic | None]:
    """How an older release deviates from the sizes, and why its wrapper for the task does not fit."""
    resolution, refusal = resolve(model, config, release), None
    if resolution.refusal and config.task_type == "SEQ_2_SEQ_LM":  # the only task whose wrapper changed
        bare = resolve(model, dataclasses.replace(config, task_type=None), release)
        refusal = None if bare.refusal else resolution.refusal
        resolution = bare
    return _difference(resolution, sizes, release), refusal


def _difference(resolution: Resolution, sizes: Mapping[str, Size], release: str) -> str:
    """How a release deviates from the sizes; empty if it does not."""
    if resolution.refusal:
        return f"PEFT {release}: {resolution.refusal}"
    return size_difference(resolution, sizes, release)


def size_difference(resolution: Resolution, sizes: Mapping[str, Size], peft: str = NEWEST) -> str:
    """The first deviation from planned sizes, in words; or empty."""
    resolved = {adapted.name: (adapted.rank, adapted.alpha) for adapted in resolution.adapted}
    if resolved == dict(sizes):
        return ""
    for name in sorted(resolved.keys() | sizes.keys()):
        if resolved.get(name) != sizes.get(name):
            return f"PEFT {peft} gives {name} (rank, alpha) {resolved.get(name)}, not {sizes.get(name)}"
    return ""


def _with_sizes(config: AdapterConfig, sizes: Mapping[str, Size], headline: Size) -> AdapterConfig:
    """The configuration with ranks and alphas: a headline, and patterns.

    Every weight of another rank gets its alpha written out, even where that is the default's, so that the file is
    explicit. Keys are disjoint, so their order (which saving changes) does not matter.
    """
    by_size: dict[Size, list[str]] = {}
    for name, size in sizes.items():
        by_size.setdefault(size, []).append(name)
    rank, alpha = headline
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for (own_rank, own_alpha), names in sorted(by_size.items()):
        if (own_rank, own_alpha) == (rank, alpha):
            continue
        for key in _pattern_keys(names, sizes):
            if own_rank != rank:
                ranks[key] = own_rank
            alphas[key] = _tidy(own_alpha)
    return dataclasses.replace(
        config,
        r=rank,
        lora_alpha=_tidy(alpha),
        rank_pattern=dict(sorted(ranks.items())),
        alpha_pattern=dict(sorted(alphas.items())),
    )


def _pattern_keys(names: Sequence[str], sizes: Mapping[str, Size]) -> list[str]:
    endings = shortest_endings(names, sizes, numbers=False)
    if endings is not None:
        return [re.escape(ending) for ending in endings]
    pattern = full_match(names, sizes)
    return [f"^({pattern})" if "|" in pattern else f"^{pattern}"]


def _tidy(alpha: float) -> float:
    """A whole alpha as an integer, as people write it."""
    return int(alpha) if math.isfinite(alpha) and alpha == int(alpha) else alpha
