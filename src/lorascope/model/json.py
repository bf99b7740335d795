"""A model map as JSON and back, equal numbered siblings folded."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import is_class_name, is_model_type, is_release, quoted
from lorascope.model.classify import assemble
from lorascope.model.lexicon import BLOCK_NAMES
from lorascope.model.role_names import parse_role
from lorascope.model.shapes import DIMENSIONS, is_shape_of
from lorascope.model.types import (
    Basis,
    Confidence,
    Dimensions,
    Head,
    ModelMap,
    Module,
    Role,
    Status,
    Trace,
    Trait,
    Weight,
)
from lorascope.names import MOST_CHARACTERS, NUMBER, Interval, count_written, fold, parse_intervals, spans, unfold_all

FORMAT = "lorascope.map/2"
# Bounds on an expanded map. DeepSeek-V3 has 92,000 modules and 91,000 parameters.
_MOST_MODULES = 1_000_000
_MOST_NAMED = 2_000_000
_MOST_DIMENSIONS = 16
_DEEPEST = 64
_LARGEST = 2**60
_LARGEST_SUM = 2**90
# Dimensions that loops count up to, and the number of all parameters.
_MOST = {
    **dict.fromkeys(("layers", "attention_heads", "key_value_heads", "experts", "active_experts"), _MOST_MODULES),
    "parameters": _LARGEST_SUM,
}
_LONGEST = 200
_LONGEST_NAME = 1_000
_MOST_FAULTS = 10
_WHERE = "saved model map"
_AGAIN = "Make it again with: lorascope inspect … -o FILE"
_SPANS = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
_KINDS = (*DIMENSIONS, "other")
_TRAITS = get_args(Trait)

Json = dict[str, Any]


def _is_class(text: str) -> bool:
    """A class's own name, which may have letters of other scripts."""
    return is_class_name(text) or (text.isidentifier() and len(text) <= _LONGEST)


# Checks of texts that are not empty.
_WORDS: Mapping[str, Callable[[str], bool]] = {
    "model_type": is_model_type,
    "architecture": _is_class,
    "moe_conversion": is_model_type,
}


def map_to_json(model: ModelMap) -> Json:
    """The JSON form of a map; `map_from_json` gives an equal map."""
    roles: dict[str, dict[str, str]] = {}
    for weight in model.weights:
        key = weight.name[len(weight.module) + 1 :]
        roles.setdefault(weight.module, {})[key] = _role_text(weight.role, weight.guess)
    root: Json = {}
    for module in model.modules:
        node = root
        for word in module.name.split("."):
            node = node.setdefault("children", {}).setdefault(word, {})
        node.update(_node(module, roles.get(module.name)))
    return {
        "format": FORMAT,
        "model": model.model,
        "model_type": model.model_type,
        "architecture": model.architecture,
        "head": model.head,
        "source": model.source,
        "versions": dict(model.versions),
        "dimensions": {key: value for key, value in dataclasses.asdict(model.dimensions).items() if value is not None},
        "moe_conversion": model.moe_conversion,
        "input_embeddings": model.input_embeddings,
        "output_embeddings": model.output_embeddings,
        "prepares_generation": model.prepares_generation,
        "refusal": model.refusal,
        "notes": list(model.notes),
        # What only maps of checkpoints have.
        **({"basis": model.basis} if model.basis != "code" else {}),
        **({"unexplained": list(model.unexplained)} if model.unexplained else {}),
        **({"missing": list(model.missing)} if model.missing else {}),
        # What only traced maps have.
        **({"traces": list(_trace_groups(model.traces))} if model.traces else {}),
        "ties": [list(group) for group in model.ties],
        "root_parameters": {name: list(shape) for name, shape in model.root_parameters},
        "modules": _folded(root).get("children", {}),
    }


def map_from_json(data: object) -> ModelMap:
    """The map of a JSON form.

    Raises:
        LorascopeError: It is not one, with every field that is wrong.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        form = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise LorascopeError(f"not a saved model map: format is {quoted(form)}, not {FORMAT!r}", hint=_AGAIN)
    reader = _Reader(data)
    fields = _header_fields(data, reader)
    tree = _tree(reader.mapping("modules"), reader)
    modules: list[Module] = []
    roles: dict[str, tuple[Role, bool]] = {}
    if reader.sound:  # or names would be made of what is refused
        _expand(tree, "", modules, roles)
    weights = assemble(modules, roles)
    traces = _traces(data.get("traces", []), weights, reader)
    reader.finish()
    return ModelMap(**fields, modules=tuple(modules), weights=weights, traces=traces)


def _header_fields(data: Json, reader: _Reader) -> dict[str, Any]:
    """Fields of `ModelMap` but for modules, weights and traces."""
    fields: dict[str, Any] = {name: reader.text(name) for name in ("model", "refusal")}
    fields |= {name: reader.word(name, data.get(name)) for name in ("source", "input_embeddings", "output_embeddings")}
    for name, is_good in _WORDS.items():
        fields[name] = text = reader.text(name)
        reader.expect(not text or is_good(text), f"{name}: {quoted(text)} is not a valid name")
    for name, kinds, default in (("head", Head, None), ("basis", Basis, "code")):
        fields[name] = value = data.get(name, default)
        reader.expect(value in get_args(kinds), f"{name}: {quoted(value)} is none of {get_args(kinds)}")
    fields["versions"] = versions = reader.mapping("versions")
    for library, release in versions.items():
        good = is_release(library) and is_release(release)
        reader.expect(good, f"versions: {quoted(library)}: {quoted(release)} is not a release")
    fields["dimensions"] = _dimensions(reader)
    root = tuple((key, reader.shape(key, value)) for key, value in reader.mapping("root_parameters").items())
    for key, _ in root:
        reader.expect(_is_name(key), f"root_parameters: {quoted(key)} is not a name")
    fields["root_parameters"] = root
    fields["ties"] = tuple(reader.texts("ties", group, printable=True) for group in reader.items("ties"))
    fields["notes"] = reader.texts("notes", data.get("notes"))
    for name in ("unexplained", "missing"):
        fields[name] = reader.texts(name, data.get(name, []), printable=True)
    fields["prepares_generation"] = generates = data.get("prepares_generation")
    reader.expect(isinstance(generates, bool), "prepares_generation: must be true or false")
    return fields


def _dimensions(reader: _Reader) -> Dimensions | None:
    """The field `ModelMap.dimensions`; None where a name is unknown."""
    values = reader.mapping("dimensions")
    unknown = set(values) - {field.name for field in dataclasses.fields(Dimensions)}
    whole = all(type(value) is int and 0 <= value < _MOST.get(key, _LARGEST) for key, value in values.items())
    reader.expect(whole, "dimensions: values must be whole numbers from 0, and no larger than those of models")
    known = reader.expect(not unknown, f"dimensions: unknown {quoted(sorted(unknown))}")
    return Dimensions(**values) if known else None


def _role_text(role: Role, guess: bool = False) -> str:
    """The text that `parse_role` reads as this role."""
    words = [role.component] if role.component or role.stack or role.block not in BLOCK_NAMES else []
    words += [role.stack] if role.stack else []
    words.append(role.block)
    if role.block in ("attention", "ffn") and (role.variant or role.part):
        words.append(role.variant)
    words += [role.part] if role.part else []
    return ".".join(words) + ("?" if guess else "")


def _trace_groups(traces: Iterable[Trace]) -> Iterator[Json]:
    """Traces grouped by everything but the weight."""
    groups: dict[Trace, list[str]] = {}
    for trace in traces:
        groups.setdefault(dataclasses.replace(trace, weight=""), []).append(trace.weight)
    for trace, names in groups.items():
        yield {
            "names": fold(names),
            "named": _role_text(trace.named, trace.guess),
            **({"flow": _role_text(trace.flow)} if trace.flow is not None else {}),
            "status": trace.status,
            "evidence": trace.evidence,
            "confidence": trace.confidence,
            **({"disagrees": True} if trace.disagrees else {}),
        }


def _traces(value: object, weights: Sequence[Weight], reader: _Reader) -> tuple[Trace, ...]:
    """Traces of a JSON form, in the order of the weights."""
    if not reader.expect(isinstance(value, list), "traces: must be a list"):
        return ()
    assert isinstance(value, list)
    left = {weight.name for weight in weights}
    named = reader.sound
    by_weight: dict[str, Trace | None] = {}
    for index, group in enumerate(value):
        where = f"traces: {index}"
        group = reader.checked(group, where)
        trace = _trace(where, group, reader)
        names = reader.texts(f"{where}: names", group.get("names"))
        try:
            for name in unfold_all(names, len(left)) if named else ():
                left.remove(name)
                by_weight[name] = trace and dataclasses.replace(trace, weight=name)
        # The first fault in a name ends it: each folded one may stand for a million.
        except KeyError as error:
            reader.expect(False, f"{where}: {quoted(error.args[0])} is not a weight of the model, or is listed twice")
            return ()
        except LorascopeError as error:
            reader.expect(False, f"{where}: {error.faults[0]}")
            return ()
    return tuple(trace for weight in weights if (trace := by_weight.get(weight.name)) is not None)


def _trace(where: str, group: Json, reader: _Reader) -> Trace | None:
    """The trace that a group shares; None where it is faulty."""
    named = reader.role(where, group.get("named"))
    flow = reader.role(where, group["flow"], open_block=True) if "flow" in group else None
    status, confidence = group.get("status"), group.get("confidence")
    evidence, disagrees = group.get("evidence"), group.get("disagrees", False)
    good = [
        named is not None,
        reader.expect(status in get_args(Status), f"{where}: status {quoted(status)} is none of {get_args(Status)}"),
        reader.expect(
            confidence in get_args(Confidence),
            f"{where}: confidence {quoted(confidence)} is none of {get_args(Confidence)}",
        ),
        reader.expect(isinstance(evidence, str), f"{where}: evidence {quoted(evidence)} is not a text"),
        reader.expect(isinstance(disagrees, bool), f"{where}: disagrees must be true or false"),
        reader.expect("flow" not in group or status == "executed", f"{where}: a role by flow of what was not executed"),
    ]
    if not all(good) or named is None:
        return None
    return Trace("", named, str(group["named"]).endswith("?"), flow, status, evidence, confidence, disagrees)  # type: ignore[arg-type]


def _node(module: Module, roles: Mapping[str, str] | None) -> Json:
    node: Json = {"class": module.class_name}
    if module.kind != "other":
        node["kind"] = module.kind
    if module.parameters:
        node["parameters"] = {name: list(shape) for name, shape in module.parameters}
    if module.groups != 1:
        node["groups"] = module.groups
    if module.transposed:
        node["transposed"] = True
    if module.quantization:
        node["quantization"] = module.quantization
    if module.computed:
        node["computed"] = {name: list(shape) for name, shape in module.computed}
    if module.traits:
        node["traits"] = list(module.traits)
    if roles:
        node["roles"] = dict(roles)
    return node


def _folded(node: Json) -> Json:
    """The tree with equal numbered siblings under one key: `0-31`."""
    children: dict[str, Json] = {word: _folded(child) for word, child in node.get("children", {}).items()}
    same: dict[str, list[str]] = {}
    for word, child in children.items():
        same.setdefault(json.dumps(child) if NUMBER.fullmatch(word) else word, []).append(word)
    folded = {
        spans(map(int, words)) if NUMBER.fullmatch(words[0]) else words[0]: children[words[0]]
        for words in same.values()
    }
    return {
        **{key: value for key, value in node.items() if key != "children"},
        **({"children": folded} if folded else {}),
    }


@dataclasses.dataclass(frozen=True, slots=True)
class _Node:
    """One module of the folded tree, however many it stands for.

    Attributes:
        fields: The fields of `Module` behind the name.
        roles: What stands for its weights: parameter or nothing, role, guess.
        words: Its children, by name.
        ranges: Its numbered children: the first and last number of each range, in order.
        modules: How many modules it and all below it are, for each time that it stands there.
        named: How many names these and their parameters and roles have.
        characters: How long these names are in all, counted from this module's own on.
    """

    fields: tuple[Any, ...] = ()
    roles: tuple[tuple[str, Role, bool], ...] = ()
    words: tuple[tuple[str, _Node], ...] = ()
    ranges: tuple[tuple[Interval, _Node], ...] = ()
    modules: int = 1
    named: int = 1
    characters: int = 0


def _tree(children: object, reader: _Reader, prefix: str = "", depth: int = 0) -> _Node:
    """The children of a module, counted and not expanded."""
    if not reader.expect(isinstance(children, dict) and depth < _DEEPEST, f"{prefix or 'modules'}: not a module tree"):
        return _Node(modules=0, named=0)
    assert isinstance(children, dict)
    words: list[tuple[str, _Node]] = []
    ranges: list[tuple[Interval, str, _Node]] = []
    modules = named = characters = 0
    for key, value in children.items():
        if not reader.expect(isinstance(value, dict), f"{prefix}{key}: not a module"):
            continue
        intervals = parse_intervals(key) if _SPANS.fullmatch(key) else []
        if not intervals and not reader.expect(_is_name(key), f"{prefix}{key}: not a name"):
            continue
        node = _node_of(f"{prefix}{key}", value, reader, depth)
        count, length = count_written(intervals) if intervals else (1, len(key))
        modules += count * node.modules
        named += count * node.named
        characters += count * node.characters + (length + count) * node.named
        reader.bound(modules, named, characters)
        if intervals:
            ranges += ((interval, key, node) for interval in intervals)
        else:
            words.append((key, node))
    ranges.sort(key=lambda entry: entry[0])
    for (before, _, _), (after, key, _) in itertools.pairwise(ranges):
        reader.expect(before[1] < after[0], f"{prefix}{key}: stands there twice")
    in_order = tuple((interval, node) for interval, _, node in ranges)
    return _Node((), (), tuple(words), in_order, modules, named, characters)


def _node_of(name: str, value: Json, reader: _Reader, depth: int) -> _Node:
    """A module of the folded tree, with everything below."""
    fields = _fields(name, value, reader)
    roles = []
    for key, text in reader.checked(value.get("roles", {}), f"{name}: roles").items():
        role = reader.role(name, text)
        if role is not None:
            roles.append((key, role, text.endswith("?")))
    below = (
        _tree(value["children"], reader, f"{name}.", depth + 1) if "children" in value else _Node(modules=0, named=0)
    )
    own = [*(key for key, _ in fields[2]), *(key for key, _, _ in roles)]
    return _Node(
        fields=fields,
        roles=tuple(roles),
        words=below.words,
        ranges=below.ranges,
        modules=1 + below.modules,
        named=1 + len(own) + below.named,
        characters=sum(map(len, own)) + len(own) + below.characters,
    )


def _expand(tree: _Node, prefix: str, modules: list[Module], roles: dict[str, tuple[Role, bool]]) -> None:
    """Add every module below, in `named_modules()` order, with its roles.

    Containers hold either numbers or words; where a module holds both, its words were registered first or last, and
    nothing depends on which.
    """
    for word, node in tree.words:
        _add(node, prefix + word, modules, roles)
    for (low, high), node in tree.ranges:
        for number in range(low, high + 1):
            _add(node, f"{prefix}{number}", modules, roles)


def _add(node: _Node, name: str, modules: list[Module], roles: dict[str, tuple[Role, bool]]) -> None:
    modules.append(Module(name, *node.fields))
    for key, role, guess in node.roles:
        roles[f"{name}.{key}" if key else name] = (role, guess)
    if node.words or node.ranges:
        _expand(node, f"{name}.", modules, roles)


def _fields(name: str, node: Json, reader: _Reader) -> tuple[Any, ...]:
    """Fields of `Module` after the name, in order."""
    kind = node.get("kind", "other")
    parameters = node.get("parameters", {})
    groups = node.get("groups", 1)
    if not reader.expect(isinstance(kind, str) and kind in _KINDS, f"{name}: kind {quoted(kind)} is none of {_KINDS}"):
        kind = "other"
    good = type(groups) is int and 0 < groups < _LARGEST
    reader.expect(good, f"{name}: groups {quoted(groups)} is not a positive number")
    if not reader.expect(isinstance(parameters, dict), f"{name}: parameters must be an object"):
        parameters = {}
    shapes = tuple((key, reader.shape(f"{name}.{key}", value)) for key, value in parameters.items())
    for key, shape in shapes:
        reader.expect(_is_name(key), f"{name}: parameter {quoted(key)} is not a name")
        reader.expect(is_shape_of(kind, key, shape), f"{name}.{key}: {list(shape)} is not a shape of a {kind}")
    weights = {**dict(shapes), **(node["computed"] if isinstance(node.get("computed"), dict) else {})}
    reader.expect(kind not in ("conv", "conv1d") or "weight" in weights, f"{name}: a {kind} without weight")
    class_name = reader.word(f"{name}: class", node.get("class", ""))
    quantization = reader.word(f"{name}: quantization", node.get("quantization", ""))
    transposed = node.get("transposed") is True
    return (
        class_name,
        kind,
        shapes,
        groups,
        transposed,
        quantization,
        _computed(name, kind, node, reader),
        _traits(name, node, reader),
    )


def _computed(name: str, kind: str, node: Json, reader: _Reader) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The field `Module.computed`."""
    given = node.get("computed", {})
    if not reader.expect(isinstance(given, dict), f"{name}: computed must be an object"):
        return ()
    shapes = tuple((key, reader.shape(f"{name}.{key}", value)) for key, value in given.items())
    for key, shape in shapes:
        reader.expect(_is_name(key), f"{name}: computed {quoted(key)} is not a name")
        reader.expect(is_shape_of(kind, key, shape), f"{name}.{key}: {list(shape)} is not a shape of a {kind}")
    return shapes


def _traits(name: str, node: Json, reader: _Reader) -> tuple[Trait, ...]:
    given = node.get("traits", [])
    known = isinstance(given, list) and all(isinstance(trait, str) and trait in _TRAITS for trait in given)
    return tuple(given) if reader.expect(known, f"{name}: traits must be of {', '.join(_TRAITS)}") else ()


def _is_shape(sizes: list[Any]) -> bool:
    if len(sizes) > _MOST_DIMENSIONS or not {*map(type, sizes)} <= {int}:
        return False
    return all(0 <= size < _LARGEST for size in sizes) and math.prod(sizes) < _LARGEST_SUM


def _is_role(role: Role) -> bool:
    return all(
        not word or (word.isascii() and word.isprintable())
        for word in (role.component, role.stack, role.block, role.variant, role.part)
    )


def _is_name(word: str) -> bool:
    """A printable word without dots."""
    return bool(word) and "." not in word and word.isprintable()


class _Reader:
    """Reads fields and collects all faults of a file."""

    def __init__(self, data: Json) -> None:
        self._data = data
        self._faults: list[str] = []
        self._more = 0

    @property
    def sound(self) -> bool:
        """No fault so far."""
        return not self._faults

    def expect(self, true: bool, fault: str) -> bool:
        if not true and len(self._faults) < _MOST_FAULTS:
            self._faults.append(fault if len(fault) <= _LONGEST else f"{fault[:_LONGEST]}…")
        elif not true:
            self._more += 1
        return true

    def finish(self) -> None:
        if self._faults:
            more = [f"and {self._more} more"] if self._more else []
            raise LorascopeError(*self._faults, *more, where=_WHERE, hint=_AGAIN)

    def bound(self, modules: int, named: int, characters: int) -> None:
        """Refuse what stands for more than any model.

        Raises:
            LorascopeError: At once, as it is not to be walked through for further faults.
        """
        for count, most, what in (
            (modules, _MOST_MODULES, "modules"),
            (named, _MOST_NAMED, "modules, parameters and roles"),
            (characters, MOST_CHARACTERS, "characters of names"),
        ):
            if count > most:
                raise LorascopeError(f"it stands for more than {most} {what}", where=_WHERE, hint=_AGAIN)

    def mapping(self, name: str) -> Json:
        return self.checked(self._data.get(name), name)

    def checked(self, value: object, name: str) -> Json:
        return value if self.expect(isinstance(value, dict), f"{name}: must be an object") else {}  # type: ignore[return-value]

    def role(self, name: str, text: object, *, open_block: bool = False) -> Role | None:
        """The role of a text; None, with a fault, for others."""
        role = None
        if isinstance(text, str) and len(text) <= _LONGEST:
            with contextlib.suppress(IndexError):  # too few words
                role = parse_role(text.rstrip("?"))
        # Words that are one too many, or of another order, do not come back; nor does what no role is made of.
        same = role is not None and _role_text(role) == str(text).rstrip("?") and bool(role.block or open_block)
        same = same and role is not None and _is_role(role)
        return role if same or self.expect(False, f"{name}: {quoted(text)} is not a role") else None

    def items(self, name: str) -> list[Any]:
        value = self._data.get(name)
        return value if self.expect(isinstance(value, list), f"{name}: must be a list") else []  # type: ignore[return-value]

    def text(self, name: str) -> str:
        value = self._data.get(name)
        return value if self.expect(isinstance(value, str), f"{name}: must be a text") else ""  # type: ignore[return-value]

    def word(self, name: str, value: object) -> str:
        """A printable text of a name's length; it may be empty."""
        if isinstance(value, str) and len(value) <= _LONGEST_NAME and value.isprintable():
            return value
        fault = (
            f"{name}: must be a text" if not isinstance(value, str) else f"{name}: {quoted(value)} cannot be printed"
        )
        self.expect(False, fault)
        return ""

    def texts(self, name: str, value: object, *, printable: bool = False) -> tuple[str, ...]:
        good = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not self.expect(good, f"{name}: must be a list of texts"):
            return ()
        assert isinstance(value, list)
        odd = [item for item in value if not item.isprintable()] if printable else []
        self.expect(not odd, f"{name}: {quoted(odd[:1])} cannot be printed")
        return tuple(value)

    def shape(self, name: str, value: object) -> tuple[int, ...]:
        if isinstance(value, list) and _is_shape(value):
            return tuple(value)
        self.expect(False, f"{name}: {quoted(value)} is not a shape")
        return ()
