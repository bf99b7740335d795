"""Module trees from parameter names, by the layouts of transformers' classes.

The table (`layout_table`) describes every class by its *slots*: paths to what it is
made of, through the containers that have no life of their own, with `#` for a list's numbers. Each slot names the
classes that have been seen there. A tree of names is read from the root class downwards; where a slot can hold several
classes, the one whose own names fit decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lorascope import light_dataclasses as dataclasses
from lorascope.model.shapes import is_shape_of
from lorascope.model.types import Module, Trait
from lorascope.sources.checkpoint.layout_table import (
    CONTAINERS,
    Layout,
    ModelFacts,
    class_in_slot,
    class_name,
    config_facts,
    constructed_parts,
    facts_under,
    inner_config,
    layout,
    setting,
    states_part,
    text_config,
)

# Missing members of lists that are named one by one: whole models have fewer.
_MOST_SPELLED = 100_000

Shape = tuple[int, ...]
Node = dict[str, Any]  # name to Shape or Node


@dataclasses.dataclass(frozen=True)
class Part:
    """One model within a model, the whole included.

    Attributes:
        path: Its module's name; empty for the whole.
        key: Its class in the table.
        facts: What is known of that class.
        config: Its own configuration, as the file has it.
        model_type: That configuration's, or the class's where the table does not know it.
    """

    path: str
    key: str
    facts: ModelFacts
    config: Mapping[str, Any]
    model_type: str


@dataclasses.dataclass(frozen=True)
class Tree:
    """The module tree that names imply.

    Attributes:
        modules: Every module, in `named_modules()` order.
        parameters: The root's own parameters.
        buffers: The names that are buffers.
        missing: Parameters that the classes have and the names do not.
        unexplained: Names for which the classes have no place.
    """

    modules: tuple[Module, ...]
    parameters: tuple[tuple[str, Shape], ...] = ()
    buffers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexplained: tuple[str, ...] = ()


class _Placed(NamedTuple):
    """One module of a tree: name, table key, groups, shared identity."""

    name: str
    key: str
    groups: Any = None
    shared: str = ""

    def below(self, owner: str, groups: Any = None) -> _Placed:
        return _Placed(f"{owner}.{self.name}", self.key, self.groups if groups is None else groups, self.shared)


@dataclasses.dataclass(frozen=True)
class _Fit:
    """How well a class fits a node, with its modules."""

    modules: tuple[_Placed, ...] = ()
    buffers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexplained: tuple[str, ...] = ()
    misshapen: int = 0
    distance: int = 0

    @property
    def penalty(self) -> tuple[int, int, int, int]:
        return len(self.unexplained), self.misshapen, len(self.missing), self.distance


def numberless(word: str) -> str:
    """A member without its number: `#` for `12`, `expert_#` for `expert_12`."""
    return f"{word.rstrip('0123456789')}#"


def _number(word: str) -> int:
    """The number that a member's name ends with, or -1."""
    digits = word[len(word.rstrip("0123456789")) :]
    return int(digits) if digits and len(digits) < 10 else -1


class ModelLayout:
    """The layout of one model and the classes of its parts.

    Args:
        root: The whole's class, a key of the table.
        config: The model's configuration.
    """

    def __init__(self, root: str, config: Mapping[str, Any]) -> None:
        facts = (layout(root) or Layout(root)).model
        text = text_config(config)
        if facts is not None and config.get("model_type") != facts.model_type == text.get("model_type"):
            config = text  # as the Auto classes do for the text model of a composite
        self.root = root
        self._chosen: dict[str, str] = {"": root}
        self._alike: dict[str, tuple[str, ...]] = {}
        self._stated: set[str] = set()
        self._absent: set[str] = set()
        self.parts = tuple(self._walk(root, "", config, config))
        self._config_at = {part.path: part for part in self.parts}
        with_parts, without_parts = constructed_parts(root)
        self._present = {path for path, owner in with_parts.items() if self._holds(path, owner)}
        self._absent |= {path for path, owner in without_parts.items() if self._holds(path, owner)}
        self._known: dict[tuple[str, ...], bool] = {}
        self._fits: dict[tuple[Any, ...], _Fit] = {}
        self._signatures: dict[int, tuple[Any, ...]] = {}
        self._spelled = 0

    def kinship(self, key: str) -> int:
        """How many letters a class's name and the whole model's begin with alike."""
        letters = zip(class_name(key), class_name(self.root), strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], letters))

    def _holds(self, path: str, owner: str) -> bool:
        """A part stands in a model of this class."""
        return any(part.key == owner and (not part.path or path.startswith(f"{part.path}.")) for part in self.parts)

    def may_spell(self, count: int) -> bool:
        """So many missing members may still be named one by one."""
        self._spelled += max(0, count)
        if self._spelled <= _MOST_SPELLED:
            return True
        self._spelled -= max(0, count)
        return False

    def _walk(self, key: str, path: str, config: Mapping[str, Any], around: Mapping[str, Any]) -> Iterator[Part]:
        """The models in a model, unnumbered slots only."""
        row = layout(key)
        if row is None or path.count(".") > 8:
            return
        if row.model is not None:
            own_type = str(config.get("model_type") or "")
            model_type = own_type if config_facts(own_type) else row.model.model_type
            yield Part(path, key, facts_under(row.model, config), config, model_type)
            around = config
        for slot, keys in row.slots.items():
            if "#" in slot:
                continue
            inner = f"{path}.{slot}" if path else slot
            chosen, own = keys[0], around
            if slot in row.sources:
                stated = states_part(around, row.sources[slot], _type_of(around, row))
                if stated is False:
                    self._absent.add(inner)
                    continue
                if stated:
                    self._stated.add(inner)
                own = inner_config(around, row.sources[slot], _type_of(around, row))
                for field, other in row.copied.get(slot, {}).items():
                    value = setting(own, other, _type_of(around, row))
                    own = own if value is None else {**own, field: value}
                # One built from its owner's configuration is of the class that stands there, whatever type that names.
                chosen = class_in_slot(keys, str(own.get("model_type", "")), fixed=not row.sources[slot])
                alike = _siblings(chosen, keys)
                if len(alike) > 1:  # the names tell
                    self._alike[inner] = alike
                    yield from self._walk_alike(alike, inner, own, around)
                    continue
                self._chosen[inner] = chosen
            yield from self._walk(chosen, inner, own, around)

    def _walk_alike(
        self, keys: tuple[str, ...], path: str, config: Mapping[str, Any], around: Mapping[str, Any]
    ) -> Iterator[Part]:
        """The parts of each class that may stand in one place, each place once."""
        seen: set[str] = set()
        for key in keys:
            for part in self._walk(key, path, config, around):
                if part.path not in seen:
                    seen.add(part.path)
                    yield part

    def knows(self, name: str) -> bool:
        """The model has a parameter or persistent buffer of this name."""
        words = tuple(name.split("."))
        if words not in self._known:
            self._known[words] = self._accepts(self.root, "", words, self.parts[0])
        return self._known[words]

    def _accepts(self, key: str, path: str, words: tuple[str, ...], part: Part) -> bool:
        row = layout(key)
        if row is None:
            return False
        part = self._config_at.get(path, part) if row.model is not None else part
        if len(words) == 1:
            return words[0] in row.parameters or words[0] in row.buffers
        slot = ""
        for index, word in enumerate(words[:-1]):
            slot = self._slot(row, slot, word, part)
            if not slot:
                return False
            at = ".".join((path, *words[: index + 1])) if path else ".".join(words[: index + 1])
            if at in self._absent:
                return False
            for candidate in self._candidates(row, slot, at, part):
                if candidate not in CONTAINERS and self._accepts(candidate, at, words[index + 1 :], part):
                    return True
        return False

    def _slot(self, row: Layout, prefix: str, word: str, part: Part) -> str:
        """The slot of a member, or empty where there is none."""
        named = f"{prefix}.{word}" if prefix else word
        if named in row.slots:
            return named
        numbered = f"{prefix}.{numberless(word)}"
        if not prefix or _number(word) < 0 or numbered not in row.slots:
            # A member with a slot of its own is made as the others where it was seen without members.
            owner, _, last = prefix.rpartition(".")
            others = f"{owner}.#"
            return self._slot(row, others, word, part) if last.isdecimal() and others in row.slots else ""
        most = self._count(row, numbered, part)
        return "" if most is not None and _number(word) >= most else numbered

    def _count(self, row: Layout, slot: str, part: Part) -> int | None:
        name = row.counts.get(slot)
        value = setting(part.config, name, part.model_type) if name else None
        return value if type(value) is int else None

    def _candidates(self, row: Layout, slot: str, at: str, part: Part) -> tuple[str, ...]:
        if at in self._chosen:
            return (self._chosen[at],)
        if at in self._alike:
            return self._alike[at]
        owner, _, word = slot.rpartition(".")
        numbered = row.slots.get(f"{owner}.#", ()) if word.isdecimal() else ()  # it is in some models one of many
        return tuple(dict.fromkeys((*_decided(row, slot, part), *numbered)))

    def tree(self, shapes: Mapping[str, Shape]) -> Tree:
        """The module tree of parameters and buffers.

        Args:
            shapes: Run-time name to shape.
        """
        self._signatures.clear()  # of nodes that are gone, whose identities others may get
        self._spelled = 0
        root: Node = {}
        for name, shape in shapes.items():
            *owners, leaf = name.split(".")
            node = root
            for word in owners:
                inner = node.setdefault(word, {})
                if not isinstance(inner, dict):  # a module that is a parameter too
                    break
                node = inner
            else:
                if not isinstance(node.get(leaf), dict):
                    node[leaf] = shape
        fit = self._fit(self.root, root, "", self.parts[0])
        buffers = frozenset(fit.buffers)
        modules = []
        met: set[str] = set()
        for name, key, groups, shared in fit.modules:
            if shared in met:
                continue
            met |= {shared} - {""}
            row = layout(key) or Layout(key)
            node = root
            for word in name.split("."):
                node = node.get(word, {})
            own = _own(row, node, name, buffers)
            if groups == "square":
                outputs, per_group = (*_weight(node, own), 1, 1)[:2]  # it may be missing, or flat
                groups = outputs // max(per_group, 1)
            computed = _computed(node, own)
            traits: tuple[Trait, ...] = ("parametrized",) if computed else ()
            modules.append(
                Module(name, row.name, row.kind, own, groups or 1, row.transposed, computed=computed, traits=traits)
            )
        whole = layout(self.root) or Layout(self.root)
        return Tree(
            tuple(modules), _own(whole, root, "", buffers), tuple(sorted(buffers)), fit.missing, fit.unexplained
        )

    def _fit(self, key: str, node: Node, path: str, part: Part) -> _Fit:
        row = layout(key)
        if row is None:
            return _Fit(unexplained=tuple(_leaves(node)))
        part = self._config_at.get(path, part) if row.model is not None else part
        memo = (key, self._signature(node), part.path)
        if path in self._chosen or memo not in self._fits:
            fit = _Fitting(self, key, row, path, part).fit(node)
            if any(chosen.startswith(f"{path}.") for chosen in self._chosen) or not path:
                return fit
            self._fits[memo] = fit
        return self._fits[memo]

    def _signature(self, node: Node) -> tuple[Any, ...]:
        """Names and dimensions that decide how a node is read."""
        signature = self._signatures.get(id(node))
        if signature is None:
            signature = tuple(
                (name, self._signature(value) if isinstance(value, dict) else len(value))
                for name, value in sorted(node.items())
            )
            self._signatures[id(node)] = signature
        return signature


class _Fitting:
    """Reads one node as one class."""

    def __init__(self, whole: ModelLayout, key: str, row: Layout, path: str, part: Part) -> None:
        self._whole, self._key, self._row, self._path, self._part = whole, key, row, path, part
        self._order = {slot: index for index, slot in enumerate(row.slots)}
        self._modules: list[tuple[tuple[Any, ...], _Placed]] = []  # with their place in the order
        self._found: dict[str, list[str]] = {}  # slot to the relative names that are there
        self._buffers: list[str] = []
        self._missing: list[str] = []
        self._unexplained: list[str] = []
        self._misshapen = 0
        self._distance = 0

    def fit(self, node: Node) -> _Fit:
        row = self._row
        own = {name: value for name, value in node.items() if not isinstance(value, dict)}
        for name, shape in own.items():
            if name in row.buffers:
                self._buffers.append(name)
            elif name not in row.parameters:
                self._unexplained.append(name)
            elif not is_shape_of(row.kind, name, shape) or (row.name.endswith("LayerNorm") and len(shape) > 1):
                self._misshapen += 1
        self._missing += (name for name in row.parameters if name not in row.optional and name not in own)
        self._distance += sum(name not in own for name in row.buffers)
        self._members({name: value for name, value in node.items() if isinstance(value, dict)}, "", "", ())
        lists = {slot.rpartition(".")[0] for slot in self._found}  # a list may have none of the members seen elsewhere
        self._missing += (
            f"{slot}.*"
            for slot in row.slots
            if (slot in row.required or self._is_built(slot))
            and slot not in self._found
            and not (slot.endswith("#") and slot.rpartition(".")[0] in lists)
        )
        self._count_numbered()
        self._add_bare()
        self._modules.sort(key=lambda module: module[0])
        return _Fit(
            tuple(placed for _, placed in self._modules),
            tuple(self._buffers),
            tuple(self._missing),
            tuple(self._unexplained),
            self._misshapen,
            self._distance,
        )

    def _is_built(self, slot: str) -> bool:
        """This instance has the slot, though others of its class have not."""
        at = f"{self._path}.{slot}" if self._path else slot
        if at in self._whole._present:
            return True
        # DPT builds the backbone that its configuration states here, or within a model of the same configuration.
        instead = (other for other in self._found if other not in self._row.required)
        return at in self._whole._stated and not any(self._row.sources.get(other) == "" for other in instead)

    def _members(self, node: Node, prefix: str, slot: str, order: tuple[Any, ...]) -> None:
        row = self._row
        for word, child in node.items():
            name = f"{prefix}.{word}" if prefix else word
            own_slot = self._whole._slot(row, slot, word, self._part)
            at = f"{self._path}.{name}" if self._path else name
            if not own_slot or not isinstance(child, dict) or at in self._whole._absent:
                self._unexplained += (
                    (f"{name}.{leaf}" for leaf in _leaves(child)) if isinstance(child, dict) else [name]
                )
                continue
            candidates = self._whole._candidates(row, own_slot, at, self._part)
            place = (*order, self._rank(own_slot, word))
            self._found.setdefault(own_slot, []).append(name)
            fits = [(key, self._whole._fit(key, child, at, self._part)) for key in candidates if key not in CONTAINERS]
            containers = [key for key in candidates if key in CONTAINERS]
            if containers and all(fit.unexplained for _, fit in fits):  # what it holds is in no class
                self._modules.append((place, _Placed(name, containers[0])))
                self._members(child, name, own_slot, place)
                continue
            # Of equals, the class that is called as the whole model is, then the one that was seen first.
            key, best = min(fits, key=lambda fit: (fit[1].penalty, -self._whole.kinship(fit[0])))
            self._modules.append((place, _Placed(name, key, row.groups.get(own_slot), self._shared(own_slot))))
            self._modules += (
                ((*place, (index, -1)), inner.below(name, row.groups.get(f"{own_slot}.{inner.name}")))
                for index, inner in enumerate(best.modules)
            )
            self._buffers += (f"{name}.{buffer}" for buffer in best.buffers)
            self._missing += (f"{name}.{missing}" for missing in best.missing)
            self._unexplained += (f"{name}.{leaf}" for leaf in best.unexplained)
            self._misshapen += best.misshapen
            self._distance += best.distance

    def _count_numbered(self) -> None:
        """Add missing members of lists, by count or a later member."""
        for slot, names in list(self._found.items()):
            if not slot.endswith(".#"):  # only lists are numbered without gaps
                continue
            lists: dict[str, set[int]] = {}
            for name in names:
                owner, _, number = name.rpartition(".")
                lists.setdefault(owner, set()).add(int(number))
            for owner, numbers in lists.items():
                # Those that have a slot of their own, as in models with a list of one.
                alone = (name.rpartition(".") for found in self._found.values() for name in found)
                numbers |= {int(word) for around, _, word in alone if around == owner and word.isdecimal()}
                count = self._whole._count(self._row, slot, self._part)
                expected = count if count is not None else max(numbers) + 1
                if not self._whole.may_spell(expected - len(numbers)):  # a hostile count
                    self._missing.append(f"{owner}.* ({expected} of them)")
                    continue
                self._missing += (f"{owner}.{number}.*" for number in range(expected) if number not in numbers)
        for slot in self._row.counts:
            owner = slot.removesuffix(".#")
            if owner not in self._found and "#" not in owner and self._whole._count(self._row, slot, self._part):
                self._missing.append(f"{owner}.*")

    def _add_bare(self) -> None:
        """Add modules without parameters that such an instance always has."""
        row = self._row
        bare = [slot for slot in row.slots if slot in row.bare and not slot.endswith("#")]
        if row.variants:
            present = frozenset(self._found) - row.required
            distances = [len(full ^ present) for full, _ in row.variants]
            nearest = distances.index(min(distances))
            self._distance += min(distances)
            bare += (slot for slot in row.slots if slot in row.variants[nearest][1] and slot not in self._found)
        if row.when:
            flags = {slot: setting(self._part.config, flag, self._part.model_type) for slot, flag in row.when.items()}
            bare = [slot for slot in row.slots if flags.get(slot, slot in bare)]
        for slot in bare:
            owner, _, word = slot.rpartition(".")
            for prefix in self._found.get(owner, []) if owner else [""]:
                name = f"{prefix}.{word}" if prefix else word
                if name in self._found.get(slot, ()):
                    continue
                key = row.slots[slot][0]
                self._modules.append((self._place(name), _Placed(name, key, shared=self._shared(slot))))
                self._found.setdefault(slot, []).append(name)
                if key not in CONTAINERS:
                    self._add_inner(name, key)

    def _add_inner(self, name: str, key: str) -> None:
        """Add the modules inside one without parameters."""
        at = f"{self._path}.{name}" if self._path else name
        place = self._place(name)
        inner = self._whole._fit(key, {}, at, self._part).modules
        self._modules += (((*place, (index, -1)), module.below(name)) for index, module in enumerate(inner))

    def _shared(self, slot: str) -> str:
        return f"{self._key}.{slot}" if slot in self._row.shared else ""

    def _place(self, name: str) -> tuple[Any, ...]:
        """A member's place in the order, word by word."""
        place: list[tuple[int, int]] = []
        slot = ""
        for word in name.split("."):
            named = f"{slot}.{word}" if slot else word
            slot = named if named in self._row.slots else f"{slot}.{numberless(word)}"
            place.append(self._rank(slot, word))
        return tuple(place)

    def _rank(self, slot: str, word: str) -> tuple[int, int]:
        """A member's place among those beside it: that of its slot, and in a list its number."""
        others = f"{slot.rpartition('.')[0]}.#"
        return self._order[others if word.isdecimal() and others in self._order else slot], _number(word)


def _siblings(chosen: str, keys: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of a slot that are models of one type, the chosen one first."""
    types = {key: row.model.model_type for key in keys if (row := layout(key)) is not None and row.model is not None}
    return tuple(dict.fromkeys((chosen, *(key for key, one in types.items() if one == types.get(chosen)))))


def _decided(row: Layout, slot: str, part: Part) -> tuple[str, ...]:
    """The classes that a slot may hold; those that the configuration says first, where names do not tell."""
    keys = row.slots[slot]
    rule = row.deciding.get(slot)
    if rule is None:
        return keys
    value = setting(part.config, rule.field, part.model_type)
    word = ("false", "true")[value] if isinstance(value, bool) else value if isinstance(value, str) else rule.default
    said = [keys[number] for number in rule.classes.get(word, ()) if number < len(keys)]
    return tuple(dict.fromkeys((*said, *keys)))


def _type_of(config: Mapping[str, Any], row: Layout) -> str:
    return str(config.get("model_type") or (row.model.model_type if row.model else ""))


def _own(row: Layout, node: Node, name: str, buffers: frozenset[str]) -> tuple[tuple[str, Shape], ...]:
    """A module's own parameters, in the class's order."""
    prefix = f"{name}." if name else ""
    return tuple(
        (leaf, node[leaf])
        for leaf in row.parameters
        if not isinstance(node.get(leaf, {}), dict) and f"{prefix}{leaf}" not in buffers
    )


def _computed(node: Node, own: tuple[tuple[str, Shape], ...]) -> tuple[tuple[str, Shape], ...]:
    """What a module computes of parametrizations, such as the weight that weight normalization makes."""
    inner = node.get("parametrizations")
    originals = inner.items() if isinstance(inner, dict) else ()
    shapes = ((name, _original(tensors)) for name, tensors in originals)
    return tuple((name, shape) for name, shape in shapes if shape and name not in dict(own))


def _original(tensors: Node | Shape) -> Shape:
    """The tensor of a parametrization that has the shape of the result: the directions of weight normalization."""
    found = (tensors.get("original1") or tensors.get("original")) if isinstance(tensors, dict) else ()
    return found if isinstance(found, tuple) else ()


def _weight(node: Node, own: tuple[tuple[str, Shape], ...]) -> Shape:
    """The shape of a convolution's weight, also of one that is computed from its direction and norms."""
    for word in ("parametrizations", "weight", "original1"):
        node = node.get(word, {}) if isinstance(node, dict) else {}
    shape: Shape = dict(own).get("weight") or (node if isinstance(node, tuple) else ())
    return shape


def _leaves(node: Node, prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
