"""From targets to the shortest adapter configuration that makes PEFT adapt exactly them.

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
from lorascope.peft_rules.releases import NEWEST, SUPPORTED_PEFT
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.name_forms import all_parameters, full_match, module_forms, shortest_endings
from lorascope.plans.task_types import task_type, unsaved_heads
from lorascope.plans.types import Options, Target

Size = tuple[int, float]


def unfit_releases(model: ModelMap, config: AdapterConfig) -> dict[str, str]:
    """The supported releases of PEFT that cannot wrap this model with this task type at all, each with the reason.

    That is a matter of their wrapper class for the task, not of what is adapted; the newest release is never among
    them.
    """
    if config.task_type != "SEQ_2_SEQ_LM":  # the only task of which the wrapper changed
        return {}
    bare = dataclasses.replace(config, task_type=None)
    found = {}
    for peft in SUPPORTED_PEFT[:-1]:
        error = resolve(model, config, peft).error
        if error and not resolve(model, bare, peft).error:
            found[peft] = error
    return found


def compile_targets(model: ModelMap, targets: Sequence[Target], options: Options) -> AdapterConfig:
    """The adapter configuration of targets.

    Raises:
        LorascopeError: PEFT cannot adapt exactly these targets, with the reason.
    """
    if model.refusal:
        raise LorascopeError(f"PEFT cannot wrap {model.architecture}: {model.refusal}")
    sizes: dict[str, Size] = {peft_name(model, t.weight): (t.rank, t.alpha) for t in targets}
    first = min(target.rule for target in targets)
    headline = Counter((target.rank, target.alpha) for target in targets if target.rule == first).most_common(1)[0][0]
    modules = {t.weight.name for t in targets if not as_parameter(model, t.weight)}
    parameters = sorted(peft_name(model, t.weight) for t in targets if as_parameter(model, t.weight))
    heads = unsaved_heads(model)
    asked = any(t.weight.module == head or t.weight.module.startswith(f"{head}.") for t in targets for head in heads)
    base = _with_sizes(
        AdapterConfig(
            lora_dropout=options.dropout,
            bias=options.bias,
            use_rslora=options.rslora,
            use_dora=options.dora,
            # Conv1D stores (in, out). PEFT finds out by itself, with a warning for each.
            fan_in_fan_out=all(target.weight.kind == "conv1d" for target in targets),
            task_type=task_type(model),
            modules_to_save=None if asked else heads or None,
            target_parameters=shortest_endings(parameters, all_parameters(model)) if parameters else None,
        ),
        sizes,
        headline,
    )
    reasons: list[str] = []
    for form in module_forms(model, modules):
        config = dataclasses.replace(base, **form)
        reasons = [reason for peft in SUPPORTED_PEFT if (reason := _difference(model, config, sizes, peft))]
        if not reasons:
            return config
    raise LorascopeError(
        f"PEFT cannot adapt exactly these {len(targets)} weights: {reasons[0] if reasons else 'nothing to adapt'}",
        where=model.model,
        hint="Take the weights that it names out of the plan, with --exclude or a narrower rule.",
    )


def _difference(model: ModelMap, config: AdapterConfig, sizes: Mapping[str, Size], peft: str) -> str:
    """How what PEFT does differs from the sizes that were asked for; empty if it does not."""
    if peft != NEWEST and config.task_type == "SEQ_2_SEQ_LM":
        # Some older releases cannot wrap any model of a newer transformers for this task (see unfit_releases), which
        # says nothing about the form.
        config = dataclasses.replace(config, task_type=None)
    resolution = resolve(model, config, peft)
    if resolution.error:
        return f"PEFT {peft}: {resolution.error}"
    return size_difference(resolution, sizes, peft)


def size_difference(resolution: Resolution, sizes: Mapping[str, Size], peft: str = NEWEST) -> str:
    """The first weight whose adaptation is not the one asked for, in a sentence; empty if there is none."""
    found = {adapted.name: (adapted.rank, adapted.alpha) for adapted in resolution.adapted}
    if found == dict(sizes):
        return ""
    for name in sorted(found.keys() | sizes.keys()):
        if found.get(name) != sizes.get(name):
            return f"PEFT {peft} gives {name} (rank, alpha) {found.get(name)} where {sizes.get(name)} was asked for"
    return ""


def _with_sizes(config: AdapterConfig, sizes: Mapping[str, Size], headline: Size) -> AdapterConfig:
    """The configuration with the headline's rank and alpha, and the patterns for what differs from them.

    Every weight of another rank gets its alpha written out, even where that is the
    default's, so that the file says what was meant. Keys are disjoint, so their order (which saving changes) is moot.
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
