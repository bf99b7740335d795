"""A model map as text, and the heading of every command."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from lorascope.foreign_text import one_line, shown
from lorascope.model.types import Dimensions, ModelMap, Weight
from lorascope.names import fold, listed, spans
from lorascope.number_text import count_text, percent
from lorascope.peft_rules.reach import Reach, weight_reaches
from lorascope.plans.notes import label
from lorascope.plans.plan_notes import quantization_notes
from lorascope.reports.findings import gaps_text
from lorascope.reports.tables import bullets, table
from lorascope.reports.traces import traces_text

Item = TypeVar("Item")

BY = ("role", "layer", "module")
# A model of unknown names could leave thousands of roles to guess.
_MOST_NAMES = 20


def map_text(model: ModelMap, *, by: str = "role", component: str = "") -> str:
    """Gaps of the map, the model's dimensions, and its weights.

    Args:
        model: The map.
        by: How to group them, one of `BY`.
        component: Only weights of this component.
    """
    weights = [weight for weight in model.weights if component in ("", weight.role.component)]
    reaches = weight_reaches(model)
    parts = [*gaps_text(model), heading(model), dimensions_text(model.dimensions), ""]
    if by == "layer":
        parts.append(_by_layer(model, weights))
    elif by == "module":
        parts.append(_by_module(model, weights, reaches))
    else:
        parts.append(_by_role(model, weights, reaches))
    if model.traces:
        parts += ["", traces_text(model, weights)]
    parts += [f"\n{bullets(notes)}" for notes in _notes(model, weights, reaches) if notes]
    return shown("\n".join(parts))


def _notes(model: ModelMap, weights: Sequence[Weight], reaches: Mapping[str, Reach]) -> Iterator[list[str]]:
    """What to know beyond the table, one group after the other."""
    if model.refusal:
        yield [f"PEFT cannot adapt this model: {model.refusal}"]
    else:
        blocked: dict[str, list[str]] = {}
        for weight in weights:
            if (reason := reaches[weight.name].reason) and weight.role.block != "other":
                blocked.setdefault(reason, []).append(weight.name)
        yield [f"{', '.join(fold(names))}: {reason}" for reason, names in blocked.items()]
    yield list(map(str, quantization_notes(model, (weight for weight in weights if weight.role.block != "other"))))
    yield list(_guesses(weights))
    yield list(model.notes)


def _guesses(weights: Sequence[Weight]) -> Iterator[str]:
    """How many weights have no known role, and which."""
    guesses = [weight for weight in weights if weight.guess]
    unknown = [weight.name for weight in guesses if weight.role.block == "other"]
    if unknown:
        of = f"{len(unknown):,} of {len(weights):,} weights"
        yield f"Unknown role, listed as other?: {of}: {listed(unknown, _MOST_NAMES)}"
    for group in _grouped((weight for weight in guesses if weight.role.block != "other"), label):
        names = listed([weight.name for weight in group], _MOST_NAMES)
        yield f"Guessed role, listed as {label(group[0])}: {len(group):,} of {len(weights):,} weights: {names}"


def dimensions_text(dimensions: Dimensions) -> str:
    """The model's dimensions, those that it has."""
    named = (
        ("hidden size", dimensions.hidden_size),
        ("intermediate size", dimensions.intermediate_size),
        ("layers", dimensions.layers),
        ("attention heads", dimensions.attention_heads),
        ("key/value heads", dimensions.key_value_heads),
        ("experts", dimensions.experts),
        ("active experts", dimensions.active_experts),
    )
    sizes = [f"{name} {value}" for name, value in named if value is not None]
    return " · ".join([*sizes, f"parameters {count_text(dimensions.parameters)}"])


def heading(model: ModelMap) -> str:
    """The model and its source, in one line."""
    versions = (f"{name} {model.versions[name][:12]}" for name in ("transformers", "commit") if name in model.versions)
    where = ", ".join((model.source, *(("traced",) if model.traces else ()), *versions))
    return one_line(f"model {model.model}: {model.architecture} ({model.head}; {where})")


def _by_role(model: ModelMap, weights: Sequence[Weight], reaches: Mapping[str, Reach]) -> str:
    rows = []
    stored = _stored_head(model)
    for group in _grouped(weights, lambda weight: (label(weight), weight.kind, weight.shape, weight.quantization)):
        first = group[0]
        share = percent(sum(weight.size for weight in group), model.dimensions.parameters)
        names = ", ".join(fold(weight.name for weight in group))
        reach = _reach(model, [reaches[weight.name] for weight in group])
        rows.append((label(first), str(len(group)), _shape(first), share, *_stored(first, stored), reach, names))
    return table(("role", "count", "shape", "share", *stored, "PEFT", "names"), rows, right=(1, 3))


def _by_layer(model: ModelMap, weights: Sequence[Weight]) -> str:
    described = []
    for group in _grouped(weights, lambda weight: (weight.role.component, weight.role.stack, weight.layer)):
        roles = dict.fromkeys(map(_short_role, group))
        described.append((group[0], len(group), sum(weight.size for weight in group), ", ".join(roles)))
    rows = []
    # Like layers stand in one row.
    for same in _grouped(
        described, lambda row: (row[0].role.component, row[0].role.stack, row[0].layer is None, *row[1:])
    ):
        first, count, size, roles_text = same[0]
        place = ".".join(part for part in (first.role.component, first.role.stack) if part)
        numbers = "-" if first.layer is None else spans(row[0].layer for row in same if row[0].layer is not None)
        rows.append((place, numbers, str(count), percent(size, model.dimensions.parameters), roles_text))
    return table(("component", "layers", "count", "share each", "roles"), rows, right=(2, 3))


def _short_role(weight: Weight) -> str:
    """The role without its component and stack, with `?` for a guess."""
    facts = (weight.role.block, weight.role.variant, weight.role.part)
    return f"{'.'.join(filter(None, facts))}{'?' if weight.guess else ''}"


def _by_module(model: ModelMap, weights: Sequence[Weight], reaches: Mapping[str, Reach]) -> str:
    stored = _stored_head(model)
    rows = [
        (
            weight.name,
            label(weight),
            _shape(weight),
            percent(weight.size, model.dimensions.parameters),
            *_stored(weight, stored),
            _reach(model, [reaches[weight.name]]),
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


def _shape(weight: Weight) -> str:
    return " × ".join(str(size) for size in weight.shape)


def _reach(model: ModelMap, reaches: Sequence[Reach]) -> str:
    """How PEFT reaches some weights, or how many it does not."""
    blocked = sum(not reach.through for reach in reaches)
    if blocked:
        return "no" if blocked == len(reaches) else f"no: {blocked}"
    return f"{reaches[0].through}?" if model.basis == "names" else reaches[0].through
