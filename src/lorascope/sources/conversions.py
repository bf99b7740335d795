"""From the names and shapes that a checkpoint stores to those that the model has when it runs.

transformers 5 renames and merges on loading: experts one by one in the file are one parameter of the model. Its rules
are data (`data/conversions.json`, written by `tools/build_conversions.py`); what they mean is restated here without
tensors, from `transformers/core_model_loading.py` and `transformers/conversion_mapping.py`. Only shapes are computed:
what an operation does to numbers without changing a shape is nothing here.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lorascope.sources.checkpoints import Stored

Shape = tuple[int, ...]
Known = Callable[[str], bool]
Expected = Callable[[str], Shape | None]

_TABLE = Path(__file__).parent.parent / "data" / "conversions.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """One step of a conversion: the class of transformers' operation, and its arguments."""

    name: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    r"""One of transformers' weight transforms.

    Attributes:
        kind: `rename`; `group`, whose later patterns hold once the first was seen; `offset`, which also shifts the
            number it captures; or `convert`, which changes shapes.
        sources: Regular expressions, as transformers has processed them.
        targets: What each match becomes, `\1` for what was captured.
        operations: What is done to the tensors of a `convert`, in order.
        offset: What an `offset` adds.
        scope: The sub-model that the rule is for, without the base model's prefix; None at the root.
        base_model_prefix: The attribute that holds the base model of a model with a head.
    """

    kind: Literal["rename", "group", "offset", "convert"]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operations: tuple[Operation, ...] = ()
    offset: int = 0
    scope: str | None = None
    base_model_prefix: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class SubModel:
    """One of transformers' models within the model, itself included: `path` as in `named_modules()`, root first."""

    path: str
    class_name: str
    model_type: str


@dataclasses.dataclass(frozen=True)
class Converted:
    """A checkpoint's tensors as the model has them.

    Attributes:
        tensors: By run-time name. `dtype` and `quantisation` of merged tensors are joined where they differ.
        unknown: Tensors that the model has no place for: the name in the checkpoint to what the rules make of it.
        faults: What is wrong with tensors that a rule should have converted.
    """

    tensors: Mapping[str, Stored]
    unknown: Mapping[str, str]
    faults: tuple[str, ...] = ()


# --- the table ---------------------------------------------------------------------------------------------------------


def version() -> str:
    """The release of transformers that the rules are those of."""
    return str(_table()["transformers"])


def rules_for(submodels: Sequence[SubModel], base_model_prefix: str) -> tuple[Rule, ...]:
    """The rules of a model, in transformers' order (its `get_model_conversion_mapping`).

    Args:
        submodels: Every `PreTrainedModel` within the model, in the order of `named_modules()`.
        base_model_prefix: The model class's own.
    """
    found: list[Rule] = []
    claimed: defaultdict[str, list[str]] = defaultdict(list)

    def covered(identifier: str, path: str) -> bool:
        return any(seen == "" or path.startswith(seen + ".") for seen in claimed[identifier])

    for model in submodels:
        if covered(model.class_name, model.path):
            continue
        identifier = model.class_name
        rules = _rules(identifier)
        if rules is None:
            identifier = model.model_type
            if not identifier or covered(identifier, model.path):
                continue
            rules = _rules(identifier)
        if rules is None:
            continue
        if model.path:
            scope = model.path.removeprefix(base_model_prefix).removeprefix(".")
            rules = tuple(dataclasses.replace(rule, scope=scope, base_model_prefix=base_model_prefix) for rule in rules)
        found += rules
        claimed[model.class_name].append(model.path)
        if identifier == model.model_type:
            claimed[identifier].append(model.path)
    return (*found, *(_rules("legacy") or ()))


@cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table


@cache
def _rules(identifier: str) -> tuple[Rule, ...] | None:
    """The rules of one class name or model type, or None where it has none."""
    table = _table()
    rows = table["rules"].get(table["aliases"].get(identifier, identifier))
    return None if rows is None else tuple(map(_rule, rows))


def _rule(row: Mapping[str, Any]) -> Rule:
    return Rule(
        kind=row.get("kind", "rename"),
        sources=tuple(row["from"]),
        targets=tuple(row["to"]),
        operations=tuple(Operation(name, arguments) for name, arguments in row.get("by", ())),
        offset=row.get("offset", 0),
    )


# --- names -------------------------------------------------------------------------------------------------------------


@cache
def source_pattern(sources: tuple[str, ...]) -> re.Pattern[str]:
    """The expression that finds any of a rule's sources: group `g2` for the third (`WeightTransform.__init__`)."""
    branches = []
    for index, source in sorted(enumerate(sources), key=lambda item: -len(item[1])):
        pattern = source.replace("*.", r".*\.")
        if re.search(r"[a-zA-Z0-9]$", pattern):
            pattern += r"(?!\w)"  # it ends where a word ends
        branches.append(f"(?P<g{index}>{pattern})")
    return re.compile("|".join(branches))


def _scoped(rule: Rule, key: str) -> tuple[str, str] | None:
    """The prefix of the sub-model that a rule is for, and the rest of the key; None for a key of another part."""
    if rule.scope is None:
        return "", key
    scope = f"{rule.scope}." if rule.scope else ""
    base = f"{rule.base_model_prefix}." if rule.base_model_prefix else ""
    prefix = base + scope if key.startswith(base + scope) else scope
    return (prefix, key[len(prefix) :]) if key.startswith(prefix) else None


def _apply(rule: Rule, key: str, active: set[Rule]) -> tuple[str, str | None]:
    """A key after one rule, and which of its sources matched (`rename_source_key` of each kind of transform).

    Args:
        rule: The rule.
        key: The key.
        active: The groups whose first pattern has been seen; changed here.
    """
    scoped = _scoped(rule, key)
    if scoped is None:
        return key, None
    prefix, rest = scoped
    expression = source_pattern(rule.sources)
    match = expression.search(rest)
    if match is None or match.lastgroup is None:
        return key, None
    index, captured = int(match.lastgroup[1:]), expression.groupindex[match.lastgroup]
    target = rule.targets[0]
    if rule.kind == "group":
        if index == 0:
            active.add(rule)
        elif rule not in active:
            return key, None
        target = re.sub(r"\\(\d+)", lambda number: match.group(captured + int(number.group(1))), rule.targets[index])
    elif r"\1" in target:
        value = match.group(captured + 1)
        target = target.replace(r"\1", str(int(value) + rule.offset) if rule.kind == "offset" else value)
    return prefix + rest.replace(match.group(0), target, 1), rule.sources[index]


# In templates, the numbers of a name are digits of another script: one character each, which `\d`, `\w` and `.` match
# as they match the number itself, and which no pattern means literally.
_MARKS = "٠١٢٣٤٥٦٧٨٩"


@dataclasses.dataclass(frozen=True, slots=True)
class _Renamed:
    """What the rules make of all names of one template: a format for its numbers, and the numbers that vanish."""

    text: str
    pattern: str | None
    merged: tuple[int, ...]


class _Renaming:
    """The rules as one function of a name, remembered by template: 90,000 names have a few dozen."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        # At most one converter applies, after all renamings.
        self._renames = [rule for rule in rules if rule.kind != "convert"]
        self._converters = [rule for rule in rules if rule.kind == "convert"]
        self._active: set[Rule] = set()
        self._templates: dict[str, _Renamed | None] = {}

    def of_template(self, template: str) -> _Renamed | None:
        """What becomes of a template's names, or None where it depends on their numbers or on the names before."""
        if template not in self._templates:
            self._templates[template] = self._of_template(template)
        return self._templates[template]

    def _of_template(self, template: str) -> _Renamed | None:
        key, pattern = template, None
        for rule in (*self._renames, *self._converters):
            if _minds_numbers(rule, key):
                return None
            key, pattern = _apply(rule, key, {rule})
            if pattern is not None and rule.kind == "convert":
                break
            if pattern is not None and rule.kind != "rename":
                return None
            pattern = None
        marks = [mark for mark in _MARKS if mark in template]
        text = key.replace("{", "{{").replace("}", "}}")
        for index, mark in enumerate(marks):
            text = text.replace(mark, f"{{{index}}}")
        return _Renamed(text, pattern, tuple(i for i, mark in enumerate(marks) if mark not in key))

    def of_name(self, name: str) -> tuple[str, str | None]:
        """What becomes of one name; such names must come in natural order, which groups rely on."""
        key = name
        for rule in self._renames:
            key, _ = _apply(rule, key, self._active)
        for rule in self._converters:
            key, pattern = _apply(rule, key, self._active)
            if pattern is not None:
                return key, pattern
        return key, None


def _template(name: str) -> tuple[str, list[str]]:
    """A name with marks for the numbers between its dots, and those numbers."""
    parts, numbers = name.split("."), list[str]()
    for position, part in enumerate(parts):
        if part.isdigit():
            if len(numbers) == len(_MARKS) or not name.isascii():
                return name, []
            parts[position] = _MARKS[len(numbers)]
            numbers.append(part)
    return ".".join(parts), numbers


def _minds_numbers(rule: Rule, template: str) -> bool:
    """Whether the rule could treat two names of a template differently: it may mean one of their numbers literally."""
    if rule.scope and any(part.isdigit() for part in rule.scope.split(".")):
        return True
    loose = _loose(rule.sources)
    scoped = _scoped(rule, template) if loose else None
    return bool(loose and scoped and loose.search(scoped[1]))


@cache
def _loose(sources: tuple[str, ...]) -> re.Pattern[str] | None:
    """Finds at least what those sources find that name a number, with any number for it."""
    literal = r"(?<![A-Za-z_\d])\d+"  # a digit after a letter is part of a word: `w1`, `conv2d`
    plain = [source.replace(r"\d", "@") for source in sources]
    found = []
    for source in (source for source in plain if re.search(literal, source)):
        loose = re.sub(r"\(\?<?[!=][^()]*\)", "", source)  # what must not stand beside it
        loose = re.sub(r"\[[^]]*\d[^]]*\]", "@", loose)
        found.append(re.sub(r"\d+", "@+", loose).replace("@+", r"\d+").replace("@", r"\d").replace("*.", r".*\."))
    return re.compile("|".join(found)) if found else None


def natural_key(name: str) -> list[tuple[Any, ...]]:
    """The order of transformers' `dot_natural_key`: parts between dots, their numbers as numbers."""
    key: list[tuple[Any, ...]] = []
    for part in name.split("."):
        text = part.rstrip("0123456789")
        digits = part[len(text) :]
        key.append((0, int(part)) if part.isdecimal() else (1, text, int(digits)) if digits else (1, text))
    return key


# --- shapes ------------------------------------------------------------------------------------------------------------


class _ShapeError(ValueError):
    """Tensors that an operation cannot take."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Step:
    """What an operation knows beside its tensors: the rule, the run-time name of its first target, and the model."""

    rule: Rule
    target: str
    expected: Expected
    config: Mapping[str, Any]


# Every operation takes and gives: pattern to the shapes collected for it.
_Shapes = dict[str, list[Shape]]


def _only(tensors: _Shapes) -> Shape:
    shapes = [shape for group in tensors.values() for shape in group]
    if len(shapes) != 1:
        raise _ShapeError(f"{len(shapes)} tensors where one is converted")
    return shapes[0]


def _axis(shape: Shape, *dims: int) -> None:
    for dim in dims:
        if not -len(shape) <= dim < len(shape):
            raise _ShapeError(f"a tensor of {_by(shape)} has no axis {dim}")


def _by(shape: Shape) -> str:
    return " × ".join(map(str, shape)) or "one number"


def _merge_modulelist(tensors: _Shapes, step: _Step, *, dim: int) -> _Shapes:
    merged = {}
    for pattern, shapes in tensors.items():
        target = step.rule.targets[0] if len(tensors) == 1 else pattern
        merged[target] = [_stacked(shapes, dim)]
    return merged


def _stacked(shapes: Sequence[Shape], dim: int) -> Shape:
    counts = Counter(shapes)
    if len(counts) > 1:
        (usual, _), *others = counts.most_common()
        odd = ", ".join(f"{count} of {_by(shape)}" for shape, count in others[:3])
        raise _ShapeError(f"the tensors to stack differ: {counts[usual]} of {_by(usual)}, {odd}")
    shape = shapes[0]
    return (*shape[:dim], len(shapes), *shape[dim:])


def _concatenate(tensors: _Shapes, step: _Step, *, dim: int) -> _Shapes:
    in_order = [shape for source in step.rule.sources for shape in tensors.get(source, ())]
    return {step.rule.targets[0]: [_joined(in_order, dim)]}


def _joined(shapes: Sequence[Shape], dim: int) -> Shape:
    first = shapes[0]
    _axis(first, dim)
    if any(len(s) != len(first) or s[:dim] != first[:dim] or s[dim + 1 :] != first[dim + 1 :] for s in shapes):
        raise _ShapeError(
            f"tensors that do not fit together along axis {dim}: {', '.join(map(_by, dict.fromkeys(shapes)))}"
        )
    return (*first[:dim], sum(shape[dim] for shape in shapes), *first[dim + 1 :])


def _chunk(tensors: _Shapes, step: _Step, *, dim: int) -> _Shapes:
    shape = _only(tensors)
    _axis(shape, dim)
    # As torch.chunk: pieces of equal size but for the last.
    size = -(-shape[dim] // len(step.rule.targets))
    sizes = [min(size, shape[dim] - i * size) for i in range(len(step.rule.targets))]
    if min(sizes) <= 0:
        raise _ShapeError(f"a tensor of {_by(shape)} cannot be cut into {len(sizes)} along axis {dim}")
    return _pieces(shape, dim, sizes, step.rule.targets)


def _pieces(shape: Shape, dim: int, sizes: Iterable[int], targets: Iterable[str]) -> _Shapes:
    return {target: [(*shape[:dim], size, *shape[dim + 1 :])] for target, size in zip(targets, sizes, strict=True)}


def _split(tensors: _Shapes, step: _Step, *, dim: int) -> _Shapes:
    shape = _only(tensors)
    _axis(shape, dim)
    targets = step.rule.targets
    sizes = [_expected(step, target)[dim] for target in targets]
    if sum(sizes) != shape[dim]:
        raise _ShapeError(
            f"a tensor of {_by(shape)} cannot be split into {', '.join(map(str, sizes))} along axis {dim}"
        )
    return _pieces(shape, dim, sizes, targets)


def _transpose(tensors: _Shapes, step: _Step, *, dim0: int, dim1: int, check_dims: bool = False) -> _Shapes:
    shape = _only(tensors)
    _axis(shape, dim0, dim1)
    rule = step.rule
    target = rule.sources[0] if len(rule.targets) > 1 else rule.targets[0]
    if check_dims and shape == _expected(step, rule.targets[0], shape):
        return {target: [shape]}
    turned = list(shape)
    turned[dim0], turned[dim1] = shape[dim1], shape[dim0]
    return {target: [tuple(turned)]}


def _interleave(tensors: _Shapes, step: _Step, *, dim: int, inverse: bool = False) -> _Shapes:
    shape = _only(tensors)
    _axis(shape, dim)
    if shape[dim] % 2:
        raise _ShapeError(f"a tensor of {_by(shape)} holds no pairs along axis {dim}")
    return {step.rule.targets[0]: [shape]}


def _permute_for_rope(tensors: _Shapes, step: _Step, **_: Any) -> _Shapes:
    one_to_one = len(step.rule.sources) == len(step.rule.targets) == 1
    return {step.rule.targets[0] if one_to_one else pattern: shapes for pattern, shapes in tensors.items()}


def _ernie_fuse_and_split(tensors: _Shapes, step: _Step, *, stack_dim: int, concat_dim: int) -> _Shapes:
    rule = step.rule
    fused: dict[str, list[Shape]] = {target: [] for target in rule.targets}
    for source in rule.sources:
        shapes = tensors.get(source)
        if shapes is None:
            raise _ShapeError(f'no tensor matches "{source}"')
        size = -(-len(shapes) // len(rule.targets))
        for i, target in enumerate(rule.targets):
            if not shapes[i * size : (i + 1) * size]:
                raise _ShapeError(f"{len(shapes)} tensors cannot be shared out among {len(rule.targets)} stacks")
            fused[target].append(_stacked(shapes[i * size : (i + 1) * size], stack_dim))
    return {target: [_joined(shapes, concat_dim)] for target, shapes in fused.items()}


# transformers' operations by class name. The table's generator refuses any other.
OPERATIONS: Mapping[str, Callable[..., _Shapes]] = {
    "Chunk": _chunk,
    "Concatenate": _concatenate,
    "ErnieFuseAndSplitTextVisionExperts": _ernie_fuse_and_split,
    "Interleave": _interleave,
    "MergeModulelist": _merge_modulelist,
    "PermuteForRope": _permute_for_rope,
    "Split": _split,
    "Transpose": _transpose,
}


def _expected(step: _Step, target: str, shape: Shape = ()) -> Shape:
    """The run-time shape of one of a rule's targets: the model's where it is known, else from the configuration."""
    known = step.expected(step.target.replace(step.rule.targets[0], target))
    return _from_config(target, step.config, shape) if known is None else known


def _from_config(target: str, config: Mapping[str, Any], shape: Shape) -> Shape:
    """The shapes that two architectures need, whose modeling code has these formulas.

    `models/molmo2/modeling_molmo2.py`: q_proj has `num_attention_heads * head_dim` rows, k_proj and v_proj
    `num_key_value_heads * head_dim`. `models/qwen3_vl_moe/modeling_qwen3_vl_moe.py`: gate_up_proj is
    (experts, 2 × intermediate, hidden), down_proj (experts, hidden, intermediate); the one of both orders that has
    `hidden_size` at the right place.
    """
    text = config.get("text_config", config)

    def number(key: str) -> int:
        value = text.get(key) if isinstance(text, Mapping) else None
        if type(value) is not int or value < 1:
            raise _ShapeError(
                f"how the model cuts or turns this tensor depends on {key}, which config.json does not say"
            )
        return value

    match target:
        case "self_attn.q_proj":
            return (number("num_attention_heads") * number("head_dim"),)
        case "self_attn.k_proj" | "self_attn.v_proj":
            return (number("num_key_value_heads") * number("head_dim"),)
        case "mlp.experts.gate_up_proj" | "mlp.experts.down_proj":
            place = 2 if target.endswith("gate_up_proj") else 1
            if shape[place] == number("hidden_size"):
                return shape
            if shape[3 - place] == number("hidden_size"):
                return (shape[0], shape[2], shape[1])
            raise _ShapeError(f"no side of {_by(shape)} is the hidden size, {number('hidden_size')}")
    raise _ShapeError(f'the shape of "{target}" in the running model is not known')


# --- both --------------------------------------------------------------------------------------------------------------


def convert(
    tensors: Mapping[str, Stored],
    rules: Sequence[Rule],
    *,
    known: Known,
    base_model_prefix: str,
    config: Mapping[str, Any],
    expected_shape: Expected,
) -> Converted:
    """What the model has of a checkpoint's tensors (the loop of `convert_and_load_state_dict_in_model`).

    Args:
        tensors: By name, without quantisation.
        rules: Those of the model, from `rules_for`.
        known: Whether the model has a parameter or buffer of this name.
        base_model_prefix: The model class's own; it is added to or taken from a name where only that makes it known.
        config: The checkpoint's configuration.
        expected_shape: A run-time name's shape in the model, or None where only the configuration can tell.
    """
    converters = {source: rule for rule in rules if rule.kind == "convert" for source in rule.sources}
    # Run-time name to pattern (empty for a mere renaming) to what was collected for it.
    gathered: dict[str, dict[str, list[tuple[tuple[int, ...], Stored]]]] = {}
    unknown: dict[str, str] = {}
    for name, renamed, pattern, numbers in _placed(tensors, rules, known, base_model_prefix):
        if numbers is None:
            unknown[name] = renamed
        else:
            gathered.setdefault(renamed, {}).setdefault(pattern, []).append((numbers, tensors[name]))
    result: dict[str, Stored] = {}
    faults: list[str] = []
    for target, groups in gathered.items():
        try:
            made = _made(target, groups, converters, expected_shape, config)
        except _ShapeError as fault:
            faults.append(f"{target}: {fault}")
            continue
        for one in made:
            if not known(one.name):
                unknown |= {stored.name: one.name for group in groups.values() for _, stored in group}
            elif one.name in result and result[one.name].shape != one.shape:
                faults.append(f"{one.name}: {_by(result[one.name].shape)} and {_by(one.shape)} by different ways")
            else:
                result.setdefault(one.name, one)
    return Converted(result, unknown, tuple(faults))


def _placed(
    tensors: Iterable[str], rules: Sequence[Rule], known: Known, base_model_prefix: str
) -> Iterator[tuple[str, str, str, tuple[int, ...] | None]]:
    """Where every tensor goes.

    Yields:
        Its name, its run-time name, the converter's pattern (empty for none), and the numbers that the run-time name
        lacks; None instead of numbers where the model has no such name.
    """
    renaming = _Renaming(rules)
    places: dict[str, str | None] = {}

    def placed(
        name: str, renamed: str, pattern: str | None, numbers: tuple[int, ...]
    ) -> tuple[str, str, str, tuple[int, ...] | None]:
        if renamed not in places:
            places[renamed] = _place(renamed, known, base_model_prefix)
        place = places[renamed]
        if place is None and known(name):
            # A rule for other checkpoints has touched a name that was right already.
            return name, _place(name, known, base_model_prefix) or name, "", ()
        return (name, renamed, "", None) if place is None else (name, place, pattern or "", numbers)

    one_by_one = []
    for name in tensors:
        template, numbers = _template(name)
        made = renaming.of_template(template)
        if made is None:
            one_by_one.append(name)
        else:
            merged = tuple(int(numbers[i]) for i in made.merged)
            yield placed(name, made.text.format(*numbers), made.pattern, merged)
    for name in sorted(one_by_one, key=natural_key):
        yield placed(name, *renaming.of_name(name), ())


def _place(renamed: str, known: Known, prefix: str) -> str | None:
    """A run-time name, with the base model's prefix added or taken away where the model has it only so."""
    if renamed.startswith(prefix) and known(renamed[len(prefix) + 1 :]):
        return renamed[len(prefix) + 1 :]
    if known(f"{prefix}.{renamed}"):
        return f"{prefix}.{renamed}"
    return renamed if known(renamed) else None


def _made(
    target: str,
    groups: Mapping[str, list[tuple[tuple[int, ...], Stored]]],
    converters: Mapping[str, Rule],
    expected: Expected,
    config: Mapping[str, Any],
) -> list[Stored]:
    """The tensors that come of those which were collected for one run-time name.

    Raises:
        _ShapeError: They do not fit together.
    """
    together = [stored for group in groups.values() for _, stored in group]
    if list(groups) == [""]:
        shapes = list(dict.fromkeys(stored.shape for stored in together))
        if len(shapes) > 1:
            names = ", ".join(stored.name for stored in together[:3])
            raise _ShapeError(f"{names} all go there, with shapes {', '.join(map(_by, shapes[:3]))}")
        return [_stored(target, shapes[0], together)]
    if "" in groups:
        raise _ShapeError(f"{groups[''][0][1].name} is there already, beside tensors to be converted to it")
    rule = converters[next(iter(groups))]
    collected = {pattern: _in_order(group) for pattern, group in groups.items()}
    missing = [source for source in rule.sources if source not in groups]
    if missing and len(rule.sources) > 1:
        raise _ShapeError(f'nothing matches "{missing[0]}", which belongs to {next(iter(groups.values()))[0][1].name}')
    step = _Step(rule, target, expected, config)
    for operation in rule.operations:
        collected = OPERATIONS[operation.name](collected, step, **operation.arguments)
    # The results have the rule's target patterns as names; what is around the first of them is around all of them.
    full = target.replace("*.", "0.")
    before, _, after = next((full.partition(name) for name in collected if name in full), ("", "", ""))
    return [_stored(before + name + after, shapes[0], together) for name, shapes in collected.items()]


def _in_order(group: list[tuple[tuple[int, ...], Stored]]) -> list[Shape]:
    """The shapes of a list's members by number, which must be 0 to n - 1."""
    if len(group) == 1 and not group[0][0]:
        return [group[0][1].shape]
    group.sort(key=lambda member: member[0])
    for index, (numbers, stored) in enumerate(group):
        if len(numbers) == 1 and numbers[0] != index:
            odd = f"number {index} is missing" if numbers[0] > index else f"number {numbers[0]} comes twice"
            raise _ShapeError(f"of {len(group)} tensors such as {stored.name}, {odd}")
    return [stored.shape for _, stored in group]


def _stored(name: str, shape: Shape, together: Sequence[Stored]) -> Stored:
    if len(together) == 1:
        (one,) = together
        return one if (one.name, one.shape) == (name, shape) else dataclasses.replace(one, name=name, shape=shape)
    quantisation = dict.fromkeys(stored.quantisation for stored in together)
    return Stored(
        name=name,
        shape=shape,
        dtype=" + ".join(dict.fromkeys(stored.dtype for stored in together)),
        quantisation=" + ".join(kind or "none" for kind in quantisation) if any(quantisation) else "",
        sources=tuple(source for stored in together for source in stored.sources),
    )
