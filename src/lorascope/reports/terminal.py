"""A model map and a plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from lorascope.foreign_text import one_line, shown
from lorascope.model.types import Dimensions, ModelMap, Weight
from lorascope.names import fold, listed, spans
from lorascope.peft_rules.adaptability import obstacle
from lorascope.peft_rules.addresses import as_parameter
from lorascope.peft_rules.lora_config import peft_arguments
from lorascope.plans.notes import label
from lorascope.plans.plan_notes import quantization_notes
from lorascope.plans.types import Plan, Target
from lorascope.reports.tables import bullets, percent, short, table
from lorascope.reports.traces import traces_text

Item = TypeVar("Item")

BY = ("role", "layer", "module")
# A checkpoint of another layout than expected could leave thousands of tensors unexplained.
_MOST_NAMES = 20


def map_text(model: ModelMap, *, by: str = "role", component: str = "") -> str:
    """The model's figures and its weights, grouped by role, by layer, or one by one.

    Args:
        model: The map.
        by: One of `BY`.
        component: Only weights of this component.
    """
    weights = [weight for weight in model.weights if component in ("", weight.role.component)]
    parts = [heading(model), dimensions_text(model.dimensions), ""]
    parts.append({"role": _by_role, "layer": _by_layer, "module": _by_module}[by](model, weights))
    if model.traces:
        parts += ["", traces_text(model, weights)]
    obstacles: dict[str, list[str]] = {}
    for weight in weights:
        reason = obstacle(model, weight)
        if reason and weight.role.block != "other":
            obstacles.setdefault(reason, []).append(weight.name)
    if model.refusal:
        parts.append(_notes([f"PEFT cannot adapt this model: {model.refusal}"]))
    elif obstacles:
        parts.append(_notes([f"{', '.join(fold(names))}: {reason}" for reason, names in obstacles.items()]))
    stored = list(map(str, quantization_notes(model, (w for w in weights if w.role.block != "other"))))
    if stored:
        parts.append(_notes(stored))
    guesses = [weight.name for weight in weights if weight.guess]
    if guesses:
        parts.append(_notes([f"no rule knows what these do, so they are listed as other: {', '.join(fold(guesses))}"]))
    if model.notes:
        parts.append(_notes(model.notes))
    if model.unexplained:
        parts.append(_notes([f"tensors that could not be explained: {listed(model.unexplained, _MOST_NAMES)}"]))
    return shown("\n".join(parts))


def dimensions_text(dimensions: Dimensions) -> str:
    """The model's own numbers, those that it has."""
    named = (
        ("hidden size", dimensions.hidden_size),
        ("intermediate size", dimensions.intermediate_size),
        ("layers", dimensions.layers),
        ("attention heads", dimensions.attention_heads),
        ("key/value heads", dimensions.key_value_heads),
        ("experts", dimensions.experts),
        ("active experts", dimensions.active_experts),
    )
    said = [f"{name} {value}" for name, value in named if value is not None]
    return " · ".join([*said, f"parameters {short(dimensions.parameters)}"])


def plan_text(plan: Plan) -> str:
    """The plan's targets by role, the totals, the configuration and everything that must be said."""
    resolution = plan.resolution
    parts = [heading(plan.model), f"rules: {one_line('  '.join(map(str, plan.rules)))}", _policy(plan), ""]
    parts.append(_targets(plan))
    total = percent(resolution.trainable, plan.model.dimensions.parameters)
    parts.append("")
    parts.append(f"{resolution.trainable:,} trainable parameters, {total} of {short(plan.model.dimensions.parameters)}")
    if plan.notes:
        parts.append(_notes(map(str, plan.notes)))
    parts += ["", "adapter configuration:"]
    parts += [f"  {key} = {value!r}" for key, value in peft_arguments(plan.config).items()]
    verb = "adapts" if len(plan.releases) == 1 else "adapt"
    checked = f"PEFT {', '.join(plan.releases)} {verb} exactly these {len(plan.targets)} weights"
    parts += ["", f"checked against PEFT's rules: {checked} (run PEFT itself with --prove)"]
    return shown("\n".join(parts))


def heading(model: ModelMap) -> str:
    """What was read and from where, in one line."""
    versions = (f"{name} {model.versions[name][:12]}" for name in ("transformers", "commit") if name in model.versions)
    where = ", ".join((model.source, *(("traced",) if model.traces else ()), *versions))
    return one_line(f"model {model.model}: {model.architecture} ({model.head}; {where})")


def _policy(plan: Plan) -> str:
    options = plan.options
    if options.scale is not None:
        alpha = f"alpha follows the rank: scale {options.scale:g} for every weight"
    else:
        alpha = f"alpha {options.alpha:g} for every weight whatever its rank"
    own = any(rule.alpha is not None for rule in plan.rules)
    root = "sqrt(rank) (rsLoRA)" if options.rslora else "rank"
    said = [f"{alpha}{', but where a rule says otherwise' if own else ''}, scale = alpha / {root}"]
    said.append(f"dropout {options.dropout:g}")
    said.append(f"bias {options.bias}")
    if options.dora:
        said.append("DoRA")
    return " · ".join(said)


def _targets(plan: Plan) -> str:
    groups: dict[tuple[str, int, float], list[Target]] = {}
    for target in plan.targets:
        groups.setdefault((label(target.weight), target.rank, target.alpha), []).append(target)
    rows = []
    for (role, rank, alpha), targets in groups.items():
        first = targets[0]
        per = " each" if first.weight.experts > 1 else ""
        cost = sum(target.adapted.trainable for target in targets)
        names = ", ".join(fold(target.weight.name for target in targets))
        rows.append(
            (role, str(len(targets)), f"{rank}{per}", f"{alpha:g}", f"{first.adapted.scale:g}", f"{cost:,}", names)
        )
    return table(("role", "weights", "rank", "alpha", "scale", "trainable", "names"), rows, right=(1, 2, 3, 4, 5))


def _by_role(model: ModelMap, weights: Sequence[Weight]) -> str:
    rows = []
    stored = _stored_head(model)
    for group in _grouped(weights, lambda weight: (str(weight.role), weight.kind, weight.shape, weight.quantization)):
        first = group[0]
        size = sum(weight.size for weight in group)
        names = ", ".join(fold(weight.name for weight in group))
        share = percent(size, _whole(model))
        rows.append(
            (label(first), str(len(group)), _shape(first), share, *_stored(first, stored), _reach(model, group), names)
        )
    head = ("role", "weights", "shape", "share", *stored, "PEFT", "names")
    return table(head, rows, right=(1, 3))


def _by_layer(model: ModelMap, weights: Sequence[Weight]) -> str:
    rows = []
    layers = _grouped(weights, lambda weight: (weight.role.component, weight.role.stack, weight.layer))
    described = []
    for group in layers:
        roles = ", ".join(
            dict.fromkeys(".".join(p for p in (w.role.block, w.role.variant, w.role.part) if p) for w in group)
        )
        size = sum(weight.size for weight in group)
        described.append((group[0], len(group), size, roles))
    # Like layers stand in one row.
    for same in _grouped(
        described, lambda row: (row[0].role.component, row[0].role.stack, row[0].layer is None, *row[1:])
    ):
        first = same[0][0]
        place = ".".join(part for part in (first.role.component, first.role.stack) if part)
        numbers = "-" if first.layer is None else spans(row[0].layer for row in same if row[0].layer is not None)
        rows.append((place, numbers, str(same[0][1]), percent(same[0][2], _whole(model)), same[0][3]))
    return table(("component", "layers", "weights", "share each", "roles"), rows, right=(2, 3))


def _by_module(model: ModelMap, weights: Sequence[Weight]) -> str:
    stored = _stored_head(model)
    rows = [
        (
            weight.name,
            label(weight),
            _shape(weight),
            percent(weight.size, _whole(model)),
            *_stored(weight, stored),
            _reach(model, [weight]),
        )
        for weight in weights
    ]
    return table(("name", "role", "shape", "share", *stored, "PEFT"), rows, right=(3,))


def _stored_head(model: ModelMap) -> tuple[str, ...]:
    """A column for how weights are stored, where some are quantized."""
    return ("stored",) if any(weight.quantization for weight in model.weights) else ()


def _stored(weight: Weight, head: tuple[str, ...]) -> tuple[str, ...]:
    return (weight.quantization or "plain",) if head else ()


def _grouped(items: Iterable[Item], key: Callable[[Item], object]) -> list[list[Item]]:
    groups: dict[object, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _whole(model: ModelMap) -> int:
    return model.dimensions.parameters


def _shape(weight: Weight) -> str:
    return " × ".join(str(size) for size in weight.shape)


def _reach(model: ModelMap, weights: Sequence[Weight]) -> str:
    blocked = sum(bool(obstacle(model, weight)) for weight in weights)
    if blocked or model.refusal:
        return "no" if blocked == len(weights) or model.refusal else f"no: {blocked}"
    reached = "parameter" if as_parameter(model, weights[0]) else "module"
    return f"{reached}?" if model.basis == "names" else reached


def _notes(notes: Iterable[str]) -> str:
    return f"\n{bullets(notes)}"
