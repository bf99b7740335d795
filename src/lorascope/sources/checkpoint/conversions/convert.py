"""Converts a checkpoint's tensors to those of the running model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.sources.checkpoint.conversions.names import Members, grouped
from lorascope.sources.checkpoint.conversions.operations import (
    OPERATIONS,
    PARTIAL,
    Expected,
    Model,
    Shape,
    ShapeError,
    Step,
    by_sides,
)
from lorascope.sources.checkpoint.conversions.table import ConversionRule
from lorascope.sources.checkpoint.types import Stored

Known = Callable[[str], bool]


@dataclasses.dataclass(frozen=True)
class Converted:
    """A checkpoint's tensors as the model has them.

    Attributes:
        tensors: By run-time name. `dtype` and `quantization` of merged tensors are joined where they differ.
        unknown: Tensors that the model has no place for: the name in the checkpoint to what the rules make of it.
        faults: What is wrong with tensors that a rule should have converted.
    """

    tensors: Mapping[str, Stored]
    unknown: Mapping[str, str]
    faults: tuple[str, ...] = ()


def convert(
    tensors: Mapping[str, Stored],
    rules: Sequence[ConversionRule],
    *,
    known: Known,
    base_model_prefix: str,
    config: Mapping[str, Any],
    expected_shape: Expected,
) -> Converted:
    """Convert a checkpoint's tensors (transformers' `convert_and_load_state_dict_in_model`).

    Args:
        tensors: By name, without quantization.
        rules: Those of the model, from `rules_for`.
        known: Whether the model has a parameter or buffer of this name.
        base_model_prefix: The model class's own; it is added to or taken from a name where only that makes it known.
        config: The checkpoint's configuration.
        expected_shape: A run-time name's shape in the model, or None where only the configuration can tell.
    """
    converters = {source: rule for rule in rules if rule.kind == "convert" for source in rule.sources}
    gathered: defaultdict[str, dict[str, Members]] = defaultdict(dict)  # run-time name, pattern
    unknown: dict[str, str] = {}
    for group in grouped(tensors, rules):
        place = _place(group.renamed, known, base_model_prefix)
        if place is not None:
            gathered[place].setdefault(group.pattern, []).extend(group.members)
            continue
        for _, name in group.members:
            if known(name):  # a rule for other checkpoints has touched a name that was right already
                place = _place(name, known, base_model_prefix) or name
                gathered[place].setdefault("", []).append(((), name))
            else:
                unknown[name] = group.renamed
    result: dict[str, Stored] = {}
    faults: list[str] = []
    model = Model(expected_shape, config)
    for target, groups in gathered.items():
        try:
            made = _made(target, groups, tensors, converters, model)
        except ShapeError as fault:
            faults.append(f"{target}: {fault}")
            continue
        for one in made:
            if not known(one.name):
                unknown |= {name: one.name for members in groups.values() for _, name in members}
            elif one.name in result and result[one.name].shape != one.shape:
                faults.append(
                    f"{one.name}: {by_sides(result[one.name].shape)} and {by_sides(one.shape)} by different ways"
                )
            else:
                result.setdefault(one.name, one)
    faults += [f"{name}: stands for others and is not stacked" for name in unknown if tensors[name].repeats > 1]
    return Converted(result, unknown, tuple(faults))


def stacked(
    pairs: Mapping[str, str], rules: Sequence[ConversionRule], *, known: Known, base_model_prefix: str
) -> dict[str, bool]:
    """Whether pairs of names, number 0 and 1, become one parameter."""
    verdicts: dict[str, bool] = {}
    for group in grouped([*pairs, *pairs.values()], rules):
        if group.pattern:
            names = [name for _, name in group.members]
            one = len(names) == 2 and pairs.get(names[0]) == names[1]
            place = _place(group.renamed, known, base_model_prefix) if one else None
            verdicts |= dict.fromkeys(names, place is not None)
    return verdicts


def placed(names: Iterable[str], rules: Sequence[ConversionRule], *, known: Known, base_model_prefix: str) -> int:
    """How many names the model has, as the rules rename them or as they are."""
    return sum(
        _place(group.renamed, known, base_model_prefix) is not None
        or _place(name, known, base_model_prefix) is not None
        for group in grouped(names, rules)
        for _, name in group.members
    )


def _place(renamed: str, known: Known, prefix: str) -> str | None:
    """A run-time name, with or without the base model's prefix."""
    if renamed.startswith(prefix) and known(renamed[len(prefix) + 1 :]):
        return renamed[len(prefix) + 1 :]
    if known(f"{prefix}.{renamed}"):
        return f"{prefix}.{renamed}"
    return renamed if known(renamed) else None


def _made(
    target: str,
    groups: Mapping[str, Members],
    tensors: Mapping[str, Stored],
    converters: Mapping[str, ConversionRule],
    model: Model,
) -> list[Stored]:
    """The tensors of one run-time name.

    Raises:
        ShapeError: They do not fit together.
    """
    together = [tensors[name] for members in groups.values() for _, name in members]
    if list(groups) == [""]:
        if any(stored.repeats > 1 for stored in together):
            raise ShapeError("stands for others and is not stacked")
        shapes = list(dict.fromkeys(stored.shape for stored in together))
        if len(shapes) > 1:
            names = ", ".join(stored.name for stored in together[:3])
            raise ShapeError(f"{names} all go there, with shapes {', '.join(map(by_sides, shapes[:3]))}")
        return [_stored(target, shapes[0], together)]
    if "" in groups:
        raise ShapeError(f"{groups[''][0][1]} is there already, beside tensors to be converted to it")
    rule = converters[next(iter(groups))]
    missing = [source for source in rule.sources if source not in groups]
    if missing and rule.operations[0].name not in PARTIAL:
        raise ShapeError(f'nothing matches "{missing[0]}", which belongs to {together[0].name}')
    shapes_of: dict[str, list[Shape]] = {}
    for pattern, members in groups.items():
        ordered = [tensors[name] for name in _in_order(members)]
        shapes_of[pattern] = [stored.shape for stored in ordered for _ in range(stored.repeats)]
    step = Step(rule, target, model)
    for operation in rule.operations:
        shapes_of = OPERATIONS[operation.name](shapes_of, step, **operation.arguments)
    # The results have the rule's target patterns as names; what is around the first of them is around all of them.
    full = target.replace("*.", "0.")
    before, _, after = next((full.partition(name) for name in shapes_of if name in full), ("", "", ""))
    return [_stored(before + name + after, shapes[0], together) for name, shapes in shapes_of.items()]


def _in_order(members: Members) -> list[str]:
    """Names of a list's members, by consecutive number."""
    if not members[0][0]:
        return [name for _, name in members]
    ordered = sorted([(tuple(map(int, numbers)), name) for numbers, name in members])
    for index, (numbers, name) in enumerate(ordered):
        if len(numbers) == 1 and numbers[0] != index:
            odd = f"number {index} is missing" if numbers[0] > index else f"number {numbers[0]} comes twice"
            raise ShapeError(f"of {len(members)} tensors such as {name}, {odd}")
    return [name for _, name in ordered]


def _stored(name: str, shape: Shape, together: Sequence[Stored]) -> Stored:
    if len(together) == 1:
        (one,) = together
        return one if (one.name, one.shape) == (name, shape) else one._replace(name=name, shape=shape, repeats=1)
    quantization = dict.fromkeys([stored.quantization for stored in together])
    return Stored(
        name=name,
        shape=shape,
        dtype=" + ".join(dict.fromkeys([stored.dtype for stored in together])),
        quantization=" + ".join(kind or "none" for kind in quantization) if any(quantization) else "",
        sources=tuple([source for stored in together for source in stored.sources]),
    )
