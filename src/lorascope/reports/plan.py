"""A plan as text."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.foreign_text import one_line, shown
from lorascope.names import fold
from lorascope.number_text import count_text, percent
from lorascope.peft_rules.lora_config import peft_arguments
from lorascope.peft_rules.releases import SUPPORTED_PEFT
from lorascope.plans.map_gaps import GAP_CODES, is_incomplete
from lorascope.plans.notes import counted, label
from lorascope.plans.types import Plan, Target
from lorascope.reports.findings import gaps_text
from lorascope.reports.model import heading
from lorascope.reports.tables import bullets, table


def plan_text(plan: Plan) -> str:
    """Gaps of the map, targets by role, totals, notes, and the configuration."""
    trainable, parameters = plan.resolution.trainable, plan.model.dimensions.parameters
    notes = [note for note in plan.notes if note.code not in GAP_CODES]
    parts = [*gaps_text(plan.model), heading(plan.model)]
    parts += [f"rules: {one_line('  '.join(map(str, plan.rules)))}", _settings(plan), ""]
    parts += [_targets(plan), ""]
    parts.append(f"{trainable:,} trainable parameters, {percent(trainable, parameters)} of {count_text(parameters)}")
    if notes:
        parts += ["", bullets(map(str, notes))]
    parts += ["", "adapter configuration:"]
    parts += [f"  {key} = {value!r}" for key, value in peft_arguments(plan.config).items()]
    parts += ["", _verdict(plan)]
    return shown("\n".join(parts))


def _settings(plan: Plan) -> str:
    options = plan.options
    root = "sqrt(r)" if options.rslora else "r"
    scaling = f"scale = alpha / {root}{', rsLoRA' if options.rslora else ''}"
    fixed = f"scale = {options.scale:g}" if options.scale is not None else f"alpha = {options.alpha:g}"
    scope = "unless a rule sets alpha" if any(rule.alpha is not None for rule in plan.rules) else "for all modules"
    settings = [f"{fixed} {scope} ({scaling})", f"dropout {plan.config.lora_dropout:g}", f"bias {options.bias}"]
    return " · ".join([*settings, *(["DoRA"] if options.dora else [])])


def _targets(plan: Plan) -> str:
    groups: dict[tuple[str, int, float], list[Target]] = {}
    for target in plan.targets:
        groups.setdefault((label(target.weight), target.rank, target.alpha), []).append(target)
    rows = [
        (
            role,
            str(len(targets)),
            f"{rank} each" if targets[0].weight.experts > 1 else str(rank),
            f"{alpha:g}",
            f"{targets[0].adapted.scale:.4g}",
            f"{sum(target.adapted.trainable for target in targets):,}",
            ", ".join(fold(target.weight.name for target in targets)),
        )
        for (role, rank, alpha), targets in groups.items()
    ]
    return table(("role", "count", "rank", "alpha", "scale", "trainable", "names"), rows, right=(1, 2, 3, 4, 5))


def _verdict(plan: Plan) -> str:
    """The releases that adapt exactly the plan, or why nobody can say so."""
    targets = counted(len(plan.targets), sum(target.as_parameter for target in plan.targets))
    rules = f"the rules of PEFT {_span(plan.releases)}"
    if is_incomplete(plan.model):
        return (
            f"Not verified: the map does not show the whole model. By {rules} this adapts these {targets}; what it does to "
            "the rest is unknown."
        )
    if plan.model.basis == "names":
        return (
            f"Not verified: this model is known by the names in its checkpoint alone. By {rules} this adapts these "
            f"{targets}, if the model's code uses the same names and layers."
        )
    return f"Verified for PEFT {_span(plan.releases)}: adapts exactly these {targets} (--prove runs PEFT itself)."


def _span(releases: Sequence[str]) -> str:
    """All supported releases by their minor versions, others one by one."""
    if tuple(releases) != SUPPORTED_PEFT:
        return ", ".join(releases)
    first, last = (release.rpartition(".")[0] for release in (releases[0], releases[-1]))
    return f"{first}–{last}"
