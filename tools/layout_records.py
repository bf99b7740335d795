"""What has been seen of the module classes of transformers, instance by instance, and what the table keeps of it."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lorascope.sources.checkpoint.layout import numberless
from lorascope.sources.checkpoint.layout_table import CONTAINERS, LISTS

# Fields of a configuration that are true, false or a word, with their values.
Settings = frozenset[tuple[str, bool | str]]

# Fields that decide no class.
_UNREAD = re.compile(r"_.*|transformers_version|.*_implementation|(output|return)_.*|use_cache|.*_act|.*activation.*")
# Numbers of layers, which a stack's copy of a configuration may have from another field.
_COUNTS = frozenset({"num_layers", "num_hidden_layers", "n_layer", "n_layers"})


def _tables() -> dict[str, dict[Any, Any]]:
    return collections.defaultdict(dict)


@dataclasses.dataclass
class Record:
    """What has been seen of one class."""

    kind: str
    transposed: bool = False
    instances: int = 0
    buffers: dict[str, None] = dataclasses.field(default_factory=dict)
    parameters: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    # In the order of named_modules(); where its own configuration lies if it is a model; its convolution groups.
    slots: list[str] = dataclasses.field(default_factory=list)
    classes: dict[str, dict[str, None]] = dataclasses.field(default_factory=dict)
    sources: dict[str, str] = dataclasses.field(default_factory=dict)
    groups: dict[str, dict[Any, None]] = dataclasses.field(default_factory=_tables)
    shared: dict[str, None] = dataclasses.field(default_factory=dict)
    # Of a numbered slot: which numbers of the configuration its length has always been, and the lengths.
    counts: dict[str, tuple[set[str], set[int]]] = dataclasses.field(default_factory=dict)
    # In how many instances a slot had parameters, and in how many it had none.
    full: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    bare: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    # Which slots had parameters and, with those, which had none.
    variants: dict[frozenset[str], frozenset[str]] = dataclasses.field(default_factory=dict)
    # The facts of a model, best of one with a configuration of its own class.
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    own_model: bool = False
    # Of a slot that holds a model with a copy of its owner's configuration: what a field of the copy was always taken from.
    copied: dict[str, dict[str, set[str]]] = dataclasses.field(default_factory=_tables)
    # Slots that have been in one instance, whose order is therefore known.
    met: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    # Instances that differ: which flags of the configuration were set, which slots had parameters, and which had none.
    flagged: dict[tuple[frozenset[str], frozenset[str], frozenset[str]], None] = dataclasses.field(default_factory=dict)
    # Of a slot: what the words and flags of the configuration were, by the class that stood there.
    settings: dict[str, dict[str, dict[Settings, None]]] = dataclasses.field(default_factory=_tables)
    # The words and flags of the configuration's own defaults.
    usual: Settings = frozenset()

    def note_model(self, facts: dict[str, Any], own: bool) -> None:
        """Takes the facts of a model, if none are known, or only those with another class's configuration."""
        if facts and (not self.model or (own and not self.own_model)):
            self.model, self.own_model = facts, own

    def place(self, path: str, after: str) -> None:
        """Gives a slot that was not there before its place in the order, behind the one that precedes it now."""
        if path not in self.classes:
            self.classes[path] = {}
            self.slots.insert(self.slots.index(after) + 1 if after else 0, path)

    def merge(self, other: Record, own: Callable[[str], str]) -> None:
        """Takes in what another record has of the same class; `own` translates its keys of classes."""
        self.transposed |= other.transposed
        self.instances += other.instances
        self.buffers |= other.buffers
        for mine, more in ((self.parameters, other.parameters), (self.full, other.full), (self.bare, other.bare)):
            mine.update(more)
        last = ""
        for path in other.slots:
            self.place(path, last)
            last = path
            self.classes[path] |= {own(key): None for key in other.classes[path]}
        if not other.met <= self.met:
            self.reorder(other.slots)
        for path, values in other.groups.items():
            self.groups[path] |= values
        for path, (names, lengths) in other.counts.items():
            known, seen = self.counts.get(path, (names, set()))
            self.counts[path] = (known & names, seen | lengths)
        for path, fields in other.copied.items():
            for field, names in fields.items():
                self.copied[path][field] = self.copied[path].get(field, names) & names
        self.shared |= other.shared
        self.met |= other.met
        self.sources = {**other.sources, **self.sources}
        self.variants = {**other.variants, **self.variants}
        self.flagged |= other.flagged
        for path, by_class in other.settings.items():
            for key, settings in by_class.items():
                self.settings[path].setdefault(own(key), {}).update(settings)
        self.usual = self.usual or other.usual
        self.note_model(other.model, other.own_model)

    def reorder(self, paths: list[str]) -> None:
        """Puts slots that were never in one instance before into the order that they have in this one."""
        known = [path for path in self.slots if path in paths]
        if known == paths:
            return
        places = {path: index for index, path in enumerate(known)}
        swapped = any(
            (one, other) in self.met
            for index, one in enumerate(paths)
            for other in paths[index + 1 :]
            if places[one] > places[other]
        )
        if not swapped:
            here = iter(paths)
            self.slots = [next(here) if path in places else path for path in self.slots]

    def json(self, others: Mapping[str, Record]) -> dict[str, Any]:
        """What the table keeps of it; what is the rule is left out.

        Args:
            others: All records. Where a class holds several kinds of a convolution, its owners decide.
        """
        present = {path: max(self.full[path], self.bare[path]) for path in self.slots}
        required = {path for path in self.slots if self.full[path] == self.instances}
        always = {path for path in self.slots if present[path] == self.instances}
        variants = {
            (tuple(p for p in self.slots if p in full - required), tuple(p for p in self.slots if p in bare - always))
            for full, bare in self.variants.items()
        }
        found = {
            "kind": self.kind if self.kind != "other" else "",
            "transposed": self.transposed,
            "parameters": list(self.parameters),
            "optional": [name for name, count in self.parameters.items() if count < self.instances],
            "buffers": list(self.buffers),
            "slots": {path: list(self.classes[path]) for path in self.slots},
            "required": [path for path in self.slots if path in required],
            "bare": [path for path in self.slots if path in always and self.bare[path]],
            "variants": sorted(variants) if any(bare for _, bare in variants) else [],
            "when": {path: flag for path in self.slots if path not in always and (flag := self._flag(path))},
            "deciding": {path: rule for path in self.slots if (rule := self._deciding(path, others))},
            "sources": self.sources,
            "copied": {
                path: names
                for path, fields in self.copied.items()
                if (names := {field: min(others) for field, others in fields.items() if others and field not in others})
            },
            "groups": dict(self._told_groups(others)),
            "shared": list(self.shared),
            "counts": {slot: name for slot in self.slots if (name := self._count(slot))},
            "model": self.model,
        }
        return {name: value for name, value in found.items() if value}

    def _deciding(self, slot: str, others: Mapping[str, Record]) -> list[Any]:
        """The field that decides which class a slot holds, its default, and by value which of the slot's classes.

        It is only asked where two of them have the same names, so that a checkpoint does not tell.
        """
        keys = list(self.classes[slot])
        forms = [(frozenset(others[key].parameters), frozenset(others[key].classes)) for key in keys if key in others]
        if len(set(forms)) == len(forms):
            return []
        seen = self.settings.get(slot, {})
        rules = []
        for field in sorted({name for settings in seen.values() for one in settings for name, _ in one}):
            ways: dict[bool | str, set[int]] = collections.defaultdict(set)
            for number, key in enumerate(keys):
                for one in seen.get(key, ()):
                    ways[dict(one).get(field, "")].add(number)
            if len({frozenset(way) for way in ways.values()}) > 1:
                rules.append((sum(map(len, ways.values())) / len(ways), field, ways))
        if not rules:
            return []
        _, field, ways = min(rules, key=lambda rule: rule[:2])
        told = {json.dumps(value) if isinstance(value, bool) else value: sorted(way) for value, way in ways.items()}
        usual = dict(self.usual).get(field, "")
        return [field, json.dumps(usual) if isinstance(usual, bool) else usual, dict(sorted(told.items()))]

    def _flag(self, slot: str) -> str:
        """The flag that decides whether a slot without parameters is there, where the other slots do not tell."""
        if not self.bare[slot]:
            return ""
        ways: dict[frozenset[str], set[bool]] = collections.defaultdict(set)
        for _, full, bare in self.flagged:
            ways[full - {slot}].add(slot in full or slot in bare)
        if not any(len(told) > 1 for told in ways.values()):
            return ""
        names = frozenset.union(*(flags for flags, _, _ in self.flagged))
        decisive = (
            name
            for name in sorted(names)
            if all((name in flags) == (slot in full or slot in bare) for flags, full, bare in self.flagged)
        )
        return next(decisive, "")

    def _told_groups(self, others: Mapping[str, Record]) -> Iterator[tuple[str, Any]]:
        """(path, groups) of the convolutions that it is made of, and of those below where their class has several."""
        for path, values in self.groups.items():
            groups = next(iter(values))
            if path in self.classes:
                if groups != 1:
                    yield path, groups
                continue
            slot = max((slot for slot in self.slots if path.startswith(f"{slot}.")), key=len)
            inner = path[len(slot) + 1 :]
            if any(len(others[key].groups.get(inner, ())) > 1 for key in self.classes[slot] if key in others):
                yield path, groups

    def _count(self, slot: str) -> str:
        """The name of a numbered slot's length; empty where none is sure."""
        names, lengths = self.counts.get(slot, (set(), set()))
        return (
            min(names, key=lambda name: (not name.startswith("num_hidden"), name)) if len(lengths) > 1 and names else ""
        )


class Recorder:
    """Collects what every class of every model that it is shown is made of."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.novelties = 0  # slots, their classes and parameters that no instance had before
        self.types: dict[str, list[str]] = collections.defaultdict(list)
        self._known: dict[Settings, Settings] = {}
        self._defaults: dict[Any, Settings] = {}

    def key(self, module: Any) -> str:
        """The class's name; with a number where classes of several files share one."""
        return self._key(type(module).__name__, type(module).__module__)

    def _key(self, name: str, file: str) -> str:
        known = self.types[name]
        if file not in known:
            known.append(file)
        index = known.index(file)
        return name + (f"~{index + 1}" if index else "")

    def merge(self, other: Recorder) -> None:
        """Takes in what another recorder has seen, as if this one had seen it next."""

        def own(key: str) -> str:
            name, _, number = key.partition("~")
            return key if name in CONTAINERS else self._key(name, other.types[name][int(number or 1) - 1])

        for key, record in other.records.items():
            mine = self.records.setdefault(own(key), Record(record.kind))
            mine.merge(record, own)

    def see(self, module: Any, seen: set[int] | None = None, owner: Any = None) -> str:
        """Records a module and all below it, and gives its key.

        Args:
            module: What to record.
            seen: The modules that were met before, which `named_modules()` does not give again.
            owner: The innermost model around it.
        """
        from lorascope.sources.transformers.meta_model import module_kind

        seen = {id(module)} if seen is None else seen
        key = self.key(module)
        record = self.records.setdefault(key, Record(module_kind(module)))
        record.instances += 1
        self.novelties += sum(
            value is not None for name, value in module._parameters.items() if name not in record.parameters
        )
        record.transposed |= bool(getattr(module, "is_transposed", False))
        record.parameters.update(name for name, value in module._parameters.items() if value is not None)
        record.buffers.update(
            dict.fromkeys(name for name in module._buffers if name not in module._non_persistent_buffers_set)
        )
        inner = module if self.is_model(module) else owner
        full: dict[str, None] = {}
        bare: dict[str, None] = {}
        paths: dict[str, None] = {}
        last = ""
        for path, child in self._members(module, seen, key):
            (full if any(True for _ in child.parameters()) else bare)[path] = None
            paths.setdefault(path)
            record.place(path, last)
            last = path
            name = type(child).__name__
            if name not in CONTAINERS:
                name = self.see(child, seen, inner)
            self.novelties += name not in record.classes[path]
            record.classes[path][name] = None
            if inner is not None and name not in CONTAINERS and type(child).__module__.startswith("transformers."):
                record.settings[path].setdefault(name, {})[self._settings(inner.config)] = None
                record.usual = record.usual or self._usual(type(inner.config))
            if name == "ModuleList" and inner is not None:
                same = self.numbers(inner.config, len(child))
                names, lengths = record.counts.get(f"{path}.#", (same, set()))
                record.counts[f"{path}.#"] = (names & same, lengths | {len(child)})
            if self.is_model(child):
                record.sources.setdefault(path, _config_path(inner, child))
                if record.sources[path] == "" and inner is not None:
                    _note_copied(record.copied[path], inner.config, child.config)
            for inner_path, groups in self._groups(child):
                record.groups[f"{path}{inner_path}"].setdefault(groups)
        record.full.update(list(full))
        record.bare.update(list(bare))
        record.variants.setdefault(frozenset(full), frozenset(bare.keys() - full.keys()))
        if inner is not None:
            record.flagged.setdefault((_flags(inner.config), frozenset(full), frozenset(bare)))
        self._note_order(record, [*paths])
        if self.is_model(module) and not record.own_model:
            own = type(module.config) is getattr(module, "config_class", None)
            record.note_model(self.facts(module), own)
        return key

    def _settings(self, config: Any) -> Settings:
        """The words and flags of a configuration; equal ones are one object."""
        found = _settings(config)
        return self._known.setdefault(found, found)

    def _usual(self, cls: Any) -> Settings:
        """Those of a configuration class by default."""
        if cls not in self._defaults:
            try:
                self._defaults[cls] = _settings(cls())
            except Exception:  # its defaults do not pass its own checks
                self._defaults[cls] = frozenset()
        return self._defaults[cls]

    def is_model(self, module: Any) -> bool:
        """It has a configuration of its own, which the file says."""
        from transformers import PreTrainedModel

        return isinstance(module, PreTrainedModel)

    def numbers(self, config: Any, value: int) -> set[str]:
        """Names of a configuration's counts that have a value."""
        return _numbers(config, value)

    def facts(self, module: Any) -> dict[str, Any]:
        """What the table keeps of a model as a whole."""
        return _model_facts(module)

    def _note_order(self, record: Record, paths: list[str]) -> None:
        pairs = (
            {(paths[at], other) for at in range(len(paths)) for other in paths[at + 1 :]} if len(paths) < 60 else set()
        )
        if not pairs <= record.met:
            record.reorder(paths)
            record.met |= pairs | {(other, one) for one, other in pairs}

    def _members(self, module: Any, seen: set[int], owner: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """(path, module) of what a module is made of, through containers; numbered members of one kind share a path."""
        children = {name: child for name, child in module._modules.items() if child is not None}
        full = [any(True for _ in child.parameters()) for child in children.values()]
        same = len({self.key(child) for child in children.values()}) == 1 and len(children) > 1
        listed = type(module).__name__ == "ModuleList"
        numbered = type(module).__name__ in LISTS and ((same and any(full)) or (listed and all(full)))
        for name, child in children.items():
            path = prefix + (numberless(name) if numbered and name[-1].isdecimal() else name)
            if id(child) in seen:
                self.records[owner].shared[path] = None
                continue
            seen.add(id(child))
            yield path, child
            if type(child).__name__ in CONTAINERS:
                yield from self._members(child, seen, owner, f"{path}.")

    def _groups(self, module: Any) -> Iterator[tuple[str, Any]]:
        """The groups of a convolution, or of those that a module has right below: where one class has several."""
        from lorascope.sources.transformers.meta_model import module_kind

        for name, conv in [("", module), *((f".{name}", child) for name, child in module.named_children())]:
            if module_kind(conv) == "conv":
                square = conv.groups > 1 and conv.in_channels == conv.out_channels
                yield name, "square" if square else conv.groups


def _numbers(config: Any, value: int) -> set[str]:
    """The layer and expert counts of a configuration that have a value."""
    aliases = (config.attribute_map or {}).items()
    also = {meant: name for name, meant in aliases if not meant.startswith("num_hidden")}  # the usual name itself
    found = {name for name, number in vars(config).items() if type(number) is int and number == value}
    return {also.get(name, name) for name in found if re.search("layer|block|depth|expert|group", also.get(name, name))}


def _note_copied(copied: dict[str, set[str]], config: Any, copy: Any) -> None:
    """Note which numbers of layers a copy of a configuration has from another of its fields."""
    for field in _COUNTS.intersection(vars(copy)) & vars(config).keys():
        value = vars(copy)[field]
        same = {
            name for name, other in vars(config).items() if type(other) is int and other == value and "layer" in name
        }
        copied[field] = copied.get(field, same) & same


def _settings(config: Any) -> Settings:
    """The fields of a configuration that are true, false or one word."""
    found = [(name, value) for name, value in vars(config).items() if isinstance(value, bool | str)]
    return frozenset((name, value) for name, value in found if not _UNREAD.fullmatch(name))


def _flags(config: Any) -> frozenset[str]:
    """The fields of a configuration that are true."""
    return frozenset(name for name, value in vars(config).items() if value is True)


def _config_path(owner: Any, child: Any) -> str:
    """Where in its owner's configuration a sub-model has its own: keys joined by dots, empty for the same one."""
    waiting = [("", owner.config)]
    while waiting:
        path, config = waiting.pop(0)
        if config is child.config:
            return path.removesuffix(".")
        subs = getattr(config, "sub_configs", None) or {}
        inner = ((key, getattr(config, key, None)) for key in subs)
        waiting += [(f"{path}{key}.", value) for key, value in inner if hasattr(value, "model_type")]
    # A copy: T5's stacks have their model's own with another flag.
    return "" if child.config.model_type == owner.config.model_type else f"={child.config.model_type}"


def _model_facts(module: Any) -> dict[str, Any]:
    from lorascope.sources.transformers.meta_model import embedding_names
    from lorascope.sources.transformers.model_classes import head_of

    names = embedding_names(module)
    head = head_of(type(module).__name__)
    facts = {
        "model_type": module.config.model_type,
        "base": module.base_model_prefix,
        "ties": dict(module._tied_weights_keys or {}),
        "ignored": sorted(module._keys_to_ignore_on_load_unexpected or ()),
        "input": names.input,
        "output": names.output,
        "refusal": names.refusal,
        "generates": hasattr(module, "prepare_inputs_for_generation"),
        "head": head if head != "unknown" else "",
    }
    return {name: value for name, value in facts.items() if value}
