"""A model map as JSON and back. The module tree is written folded: equal numbered siblings stand once."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from lorascope.errors import LorascopeError
from lorascope.folding import NUMBER, fold, parse_spans, spans, unfold
from lorascope.records import Basis, Confidence, Figures, Head, ModelMap, Module, Role, Status, Trace, Weight
from lorascope.roles.classifying import assemble, parse_role
from lorascope.roles.lexicon import BLOCK_NAMES
from lorascope.shapes import DIMENSIONS, is_shape_of

FORMAT = "lorascope.map/1"
_MOST_MODULES = 1_000_000
_DEEPEST = 64
_LARGEST = 2**60
_LONGEST = 200
_AGAIN = "Make it again with: lorascope inspect … -o FILE"
_SPANS = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
_KINDS = (*DIMENSIONS, "other")

Json = dict[str, Any]


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
        "figures": {key: value for key, value in dataclasses.asdict(model.figures).items() if value is not None},
        "moe_conversion": model.moe_conversion,
        "input_embeddings": model.input_embeddings,
        "output_embeddings": model.output_embeddings,
        "prepares_generation": model.prepares_generation,
        "refusal": model.refusal,
        "notes": list(model.notes),
        # What only maps of checkpoints have.
        **({"basis": model.basis} if model.basis != "code" else {}),
        **({"unexplained": list(model.unexplained)} if model.unexplained else {}),
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
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise LorascopeError(f"not a saved model map: format is {found!r}, not {FORMAT!r}", hint=_AGAIN)
    reader = _Reader(data)
    figures = reader.mapping("figures")
    known = {field.name for field in dataclasses.fields(Figures)}
    reader.expect(set(figures) <= known, f"figures: unknown {sorted(set(figures) - known)}")
    whole = all(type(value) is int and 0 <= value < _LARGEST for value in figures.values())
    reader.expect(whole, "figures: values must be whole numbers from 0")
    reader.expect(data.get("head") in get_args(Head), f"head: {data.get('head')!r} is none of {get_args(Head)}")
    modules: list[Module] = []
    roles: dict[str, tuple[Role, bool]] = {}
    for name, node in _expanded(reader.mapping("modules"), reader):
        modules.append(_module(name, node, reader))
        for key, text in reader.checked(node.get("roles", {}), f"{name}: roles").items():
            role = reader.role(name, text)
            if role is not None:
                roles[f"{name}.{key}" if key else name] = (role, text.endswith("?"))
    root_parameters = tuple((key, reader.shape(key, value)) for key, value in reader.mapping("root_parameters").items())
    fields = {name: reader.text(name) for name in ("model", "model_type", "architecture", "source", "moe_conversion")}
    embeddings = {name: reader.text(name) for name in ("input_embeddings", "output_embeddings", "refusal")}
    ties = tuple(reader.texts("ties", group) for group in reader.items("ties"))
    notes = reader.texts("notes", data.get("notes"))
    unexplained = reader.texts("unexplained", data.get("unexplained", []))
    basis = data.get("basis", "code")
    reader.expect(basis in get_args(Basis), f"basis: {basis!r} is none of {get_args(Basis)}")
    versions = {str(key): str(value) for key, value in reader.mapping("versions").items()}
    reader.expect(isinstance(data.get("prepares_generation"), bool), "prepares_generation: must be true or false")
    weights = assemble(modules, roles)
    traces = _traces(data.get("traces", []), weights, reader)
    reader.finish()
    return ModelMap(
        **fields,
        **embeddings,
        head=data["head"],
        versions=versions,
        figures=Figures(**figures),
        modules=tuple(modules),
        weights=weights,
        root_parameters=root_parameters,
        ties=ties,
        prepares_generation=data["prepares_generation"],
        notes=notes,
        basis=basis,
        unexplained=unexplained,
        traces=traces,
    )


def _role_text(role: Role, guess: bool = False) -> str:
    """What `parse_role` reads as this role: `str(role)`, but that an open fact before others leaves its place empty."""
    words = [role.component] if role.component or role.stack or role.block not in BLOCK_NAMES else []
    words += [role.stack] if role.stack else []
    words.append(role.block)
    if role.block in ("attention", "ffn") and (role.variant or role.part):
        words.append(role.variant)
    words += [role.part] if role.part else []
    return ".".join(words) + ("?" if guess else "")


def _trace_groups(traces: Iterable[Trace]) -> Iterator[Json]:
    """Traces that differ in nothing but the weight as one."""
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
    """The traces of a JSON form, in the order of the weights."""
    if not reader.expect(isinstance(value, list), "traces: must be a list"):
        return ()
    assert isinstance(value, list)
    left = {weight.name for weight in weights}
    found: dict[str, Trace | None] = {}
    for index, group in enumerate(value):
        where = f"traces: {index}"
        group = reader.checked(group, where)
        trace = _trace(where, group, reader)
        names = reader.texts(f"{where}: names", group.get("names"))
        try:
            for name in (name for folded in names for name in unfold(folded)):
                left.remove(name)
                found[name] = trace and dataclasses.replace(trace, weight=name)
        # The first fault in a name ends it: each folded one may stand for a million.
        except KeyError as error:
            reader.expect(False, f"{where}: {error} is no weight of the model, or stands there twice")
            return ()
        except LorascopeError as error:
            reader.expect(False, f"{where}: {error.faults[0]}")
            return ()
    return tuple(trace for weight in weights if (trace := found.get(weight.name)) is not None)


def _trace(where: str, group: Json, reader: _Reader) -> Trace | None:
    """The trace of a group, of no weight yet; None, and faults, where it is none."""
    named = reader.role(where, group.get("named"))
    flow = reader.role(where, group["flow"], open_block=True) if "flow" in group else None
    status, confidence = group.get("status"), group.get("confidence")
    evidence, disagrees = group.get("evidence"), group.get("disagrees", False)
    good = [
        named is not None,
        reader.expect(status in get_args(Status), f"{where}: status {status!r} is none of {get_args(Status)}"),
        reader.expect(
            confidence in get_args(Confidence),
            f"{where}: confidence {confidence!r} is none of {get_args(Confidence)}",
        ),
        reader.expect(isinstance(evidence, str), f"{where}: evidence {evidence!r} is not a text"),
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
    if module.quantisation:
        node["quantisation"] = module.quantisation
    if roles:
        node["roles"] = dict(roles)
    return node


def _folded(node: Json) -> Json:
    """The tree with equal numbered siblings under one key such as `0-31`."""
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


def _expanded(children: object, reader: _Reader, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Json]]:
    """(name, node) of every module below, in `named_modules()` order: numbered siblings by number."""
    if not reader.expect(isinstance(children, dict) and depth < _DEEPEST, f"{prefix or 'modules'}: not a module tree"):
        return
    assert isinstance(children, dict)
    words: list[tuple[str, Json]] = []
    numbered: dict[int, Json] = {}
    for key, node in children.items():
        if not reader.expect(isinstance(node, dict), f"{prefix}{key}: not a module"):
            continue
        if _SPANS.fullmatch(key):
            numbers = parse_spans(key)
            # Counted before they are walked: nested ranges would multiply.
            reader.count_modules(len(numbers))
            reader.expect(numbered.keys().isdisjoint(numbers), f"{prefix}{key}: stands there twice")
            numbered.update((number, node) for number in numbers)
        else:
            reader.count_modules(1)
            if reader.expect(_is_name(key), f"{prefix}{key}: not a name"):
                words.append((key, node))
    # Containers hold either numbers or words; where a module holds both, its words were registered first or last,
    # and nothing depends on which.
    for word, node in [*words, *((str(number), numbered[number]) for number in sorted(numbered))]:
        yield prefix + word, node
        if "children" in node:
            yield from _expanded(node["children"], reader, f"{prefix}{word}.", depth + 1)


def _module(name: str, node: Json, reader: _Reader) -> Module:
    kind = node.get("kind", "other")
    parameters = node.get("parameters", {})
    groups = node.get("groups", 1)
    if not reader.expect(isinstance(kind, str) and kind in _KINDS, f"{name}: kind {kind!r} is none of {_KINDS}"):
        kind = "other"
    reader.expect(type(groups) is int and groups > 0, f"{name}: groups {groups!r} is not a positive number")
    if not reader.expect(isinstance(parameters, dict), f"{name}: parameters must be an object"):
        parameters = {}
    shapes = tuple((key, reader.shape(f"{name}.{key}", value)) for key, value in parameters.items())
    for key, shape in shapes:
        reader.expect(_is_name(key), f"{name}: parameter {key!r} is not a name")
        reader.expect(is_shape_of(kind, key, shape), f"{name}.{key}: {list(shape)} is no shape of a {kind}")
    reader.expect(kind not in ("conv", "conv1d") or "weight" in dict(shapes), f"{name}: a {kind} without weight")
    quantisation = node.get("quantisation", "")
    if not reader.expect(isinstance(quantisation, str), f"{name}: quantisation {quantisation!r} is not a text"):
        quantisation = ""
    return Module(name, str(node.get("class", "")), kind, shapes, groups, node.get("transposed") is True, quantisation)


def _is_name(word: str) -> bool:
    """What a name is made of between two dots; what cannot be printed would drive a terminal."""
    return bool(word) and "." not in word and word.isprintable()


class _Reader:
    """Checks fields and collects every fault, so that a broken file is reported whole."""

    def __init__(self, data: Json) -> None:
        self._data = data
        self._faults: list[str] = []
        self._modules = 0

    def expect(self, true: bool, fault: str) -> bool:
        if not true:
            self._faults.append(fault if len(fault) <= _LONGEST else f"{fault[:_LONGEST]}…")
        return true

    def finish(self) -> None:
        if self._faults:
            shown = self._faults[:10]
            more = len(self._faults) - len(shown)
            raise LorascopeError(*shown, *([f"and {more} more"] if more else []), where="saved model map", hint=_AGAIN)

    def count_modules(self, more: int) -> None:
        self._modules += more
        if self._modules > _MOST_MODULES:
            raise LorascopeError(f"more than {_MOST_MODULES} modules", where="saved model map", hint=_AGAIN)

    def mapping(self, name: str) -> Json:
        return self.checked(self._data.get(name), name)

    def checked(self, value: object, name: str) -> Json:
        return value if self.expect(isinstance(value, dict), f"{name}: must be an object") else {}  # type: ignore[return-value]

    def role(self, name: str, text: object, *, open_block: bool = False) -> Role | None:
        """The role of a text; None, and a fault, where it is none, or leaves the block open and must not."""
        try:
            role = parse_role(text.rstrip("?")) if isinstance(text, str) else None
        except IndexError:  # too few words
            role = None
        # Words that are one too many, or of another order, do not come back.
        same = role is not None and _role_text(role) == str(text).rstrip("?") and bool(role.block or open_block)
        return role if self.expect(same, f"{name}: {text!r} is not a role") else None

    def items(self, name: str) -> list[Any]:
        value = self._data.get(name)
        return value if self.expect(isinstance(value, list), f"{name}: must be a list") else []  # type: ignore[return-value]

    def text(self, name: str) -> str:
        value = self._data.get(name)
        return value if self.expect(isinstance(value, str), f"{name}: must be a text") else ""  # type: ignore[return-value]

    def texts(self, name: str, value: object) -> tuple[str, ...]:
        good = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return tuple(value) if self.expect(good, f"{name}: must be a list of texts") else ()  # type: ignore[arg-type]

    def shape(self, name: str, value: object) -> tuple[int, ...]:
        good = isinstance(value, list) and all(type(size) is int and 0 <= size < _LARGEST for size in value)
        return tuple(value) if self.expect(good, f"{name}: {value!r} is not a shape") else ()  # type: ignore[arg-type]
