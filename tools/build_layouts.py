"""Writes `src/lorascope/data/layouts.tsv`: which modules the classes of transformers are made of.

python tools/build_layouts.py            build every model in many variations and write the table
python tools/build_layouts.py --check    build the same, and exit with 1 if the table is another
python tools/build_layouts.py --refusals tell anew for every row whether PEFT can wrap the model (half a minute)

A checkpoint's names do not say what a module is: `mlp.gate.weight` is a linear layer in one model and a router that PEFT
refuses in the next. The table says it, class by class, as seen on models that transformers built on the meta device.
"""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import json
import re
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LAYOUTS = ROOT / "src" / "lorascope" / "data" / "layouts.tsv"
sys.path.insert(0, str(ROOT / "src"))
sys.path.insert(0, str(ROOT))

from lorascope.sources.checkpoint.layout import numberless  # noqa: E402
from lorascope.sources.checkpoint.layout_table import CONTAINERS, LISTS  # noqa: E402

# Fields of a configuration that say nothing of its modules, and those whose numbers may decide whether there is one.
_NO_STRUCTURE = re.compile(
    r"_.*|architectures|dtype|model_type|.*token_id|.*(dropout|pdrop|drop_rate|eps|return|output_\w+|use_cache|_act)"
    r"|.*activation.*|act|act_fn|afn"
)
_DECIDING = re.compile(r".*(layer|expert|rank|dim|size|proj|group|head|depth|every|step|interval|dense).*")
# A field of more words is free text.
_MOST_WORDS = 20
# Seconds for one model: modeling code that divides by what a variation makes zero may never end.
_PATIENCE = 20


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
    groups: dict[str, dict[Any, None]] = dataclasses.field(default_factory=lambda: collections.defaultdict(dict))
    shared: dict[str, None] = dataclasses.field(default_factory=dict)
    # Of a numbered slot: which numbers of the configuration its length has always been, and the lengths.
    counts: dict[str, tuple[set[str], set[int]]] = dataclasses.field(default_factory=dict)
    # In how many instances a slot had parameters, and in how many it had none.
    full: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    bare: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    # Which slots had parameters and, with those, which had none.
    variants: dict[frozenset[str], frozenset[str]] = dataclasses.field(default_factory=dict)
    model: dict[str, Any] = dataclasses.field(default_factory=dict)

    def place(self, path: str, after: str) -> None:
        """Gives a slot that was not there before its place in the order, behind the one that precedes it now."""
        if path not in self.classes:
            self.classes[path] = {}
            self.slots.insert(self.slots.index(after) + 1 if after else 0, path)

    def json(self, others: Mapping[str, Record]) -> dict[str, Any]:
        """What the table keeps of it; what is the rule is left out.

        Args:
            others: All records: convolutions of which a class has several kinds are told apart by its owners.
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
            "sources": self.sources,
            "groups": dict(self._told_groups(others)),
            "shared": list(self.shared),
            "counts": {slot: name for slot in self.slots if (name := self._count(slot))},
            "model": self.model,
        }
        return {name: value for name, value in found.items() if value}

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
        self._types: dict[str, list[type]] = collections.defaultdict(list)

    def key(self, module: Any) -> str:
        """The class's name; with a number where classes of several files share one."""
        known = self._types[type(module).__name__]
        if type(module) not in known:
            known.append(type(module))
        index = known.index(type(module))
        return type(module).__name__ + (f"~{index + 1}" if index else "")

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
        record.transposed |= bool(getattr(module, "is_transposed", False))
        record.parameters.update(name for name, value in module._parameters.items() if value is not None)
        record.buffers.update(
            dict.fromkeys(name for name in module._buffers if name not in module._non_persistent_buffers_set)
        )
        inner = module if self.is_model(module) else owner
        full: dict[str, None] = {}
        bare: dict[str, None] = {}
        last = ""
        for path, child in self._members(module, seen, key):
            (full if any(True for _ in child.parameters()) else bare)[path] = None
            record.place(path, last)
            last = path
            name = type(child).__name__
            if name not in CONTAINERS:
                name = self.see(child, seen, inner)
            record.classes[path][name] = None
            if name == "ModuleList" and inner is not None:
                same = self.numbers(inner.config, len(child))
                names, lengths = record.counts.get(f"{path}.#", (same, set()))
                record.counts[f"{path}.#"] = (names & same, lengths | {len(child)})
            if self.is_model(child):
                record.sources.setdefault(path, _config_path(inner, child))
            for inner_path, groups in self._groups(child):
                record.groups[f"{path}{inner_path}"].setdefault(groups)
        record.full.update(list(full))
        record.bare.update(list(bare))
        record.variants.setdefault(frozenset(full), frozenset(bare.keys() - full.keys()))
        if self.is_model(module) and not record.model:
            record.model = self.facts(module)
        return key

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
    also = {meant: name for name, meant in (config.attribute_map or {}).items()}
    found = {name for name, number in vars(config).items() if type(number) is int and number == value}
    return {also.get(name, name) for name in found if re.search("layer|block|depth|expert|group", also.get(name, name))}


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
    from lorascope.sources.transformers.meta_model import embedding_names, head_of

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


def _models() -> Iterator[tuple[str, Iterator[Any]]]:
    """Every model class that an Auto class of transformers knows, with configurations to build it from.

    What the project promises is built from its default configuration, a small one, and many that differ from the small
    one in a field; the classes of other heads from a default configuration only.
    """
    from architectures import Entry, entries, layouts
    from transformers.models.auto import modeling_auto

    from tests.helpers.small_configs import shrunk

    promised = [*entries(), *layouts()]
    words = _words(entry.config() for entry in promised)

    def configurations(entry: Entry) -> Iterator[Any]:
        yield entry.config()
        try:
            small = shrunk(entry)
        except Exception:  # it has no small form
            return
        yield small
        yield from _varied(small, words)

    done: set[str] = set()
    for entry in promised:
        done.add(entry.architecture)
        yield entry.architecture, configurations(entry)
    for mapping in sorted(dir(modeling_auto)):
        if mapping.startswith("MODEL_") and mapping.endswith("_MAPPING_NAMES"):
            for model_type, names in getattr(modeling_auto, mapping).items():
                for name in names if isinstance(names, list | tuple) else [names]:
                    if name not in done:
                        done.add(name)
                        yield name, (Entry("unknown", model_type, name).config() for _ in range(1))


def _varied(config: Any, words: Mapping[str, set[str]]) -> Iterator[Any]:
    """Configurations that differ from one in a single field that may decide which modules there are.

    Args:
        config: The configuration to vary.
        words: What each field that holds words, or a word per layer, holds in any configuration.
    """
    for key in ("", *(getattr(config, "sub_configs", None) or ())):
        part = getattr(config, key, None) if key else config
        if part is None or not hasattr(part, "to_dict"):
            continue
        for field, value in list(vars(part).items()):
            for other in _others(field, value, words.get(field, set())):
                changed = copy.deepcopy(config)
                try:
                    setattr(getattr(changed, key) if key else changed, field, other)
                except Exception:  # a configuration refuses what it cannot be
                    continue
                yield changed


def _others(field: str, value: Any, words: set[str]) -> Iterator[Any]:
    if _NO_STRUCTURE.fullmatch(field):
        return
    if isinstance(value, bool):
        yield not value
    elif _DECIDING.fullmatch(field) and (value is None or type(value) is int):
        yield from (number for number in (8, None, 0, 1, 2) if number != value)
    elif isinstance(value, str):
        yield from sorted(words - {value})
    elif isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        for word in sorted(words):
            yield [word] * len(value)
            yield [word, *value[1:]]
    elif isinstance(value, list) and "layer" in field and all(type(one) is int for one in value):
        yield from ([0], value[1::2])


def _words(configurations: Iterable[Any]) -> dict[str, set[str]]:
    """What each field that holds words, or a word per layer, holds in any of the configurations."""
    found: dict[str, set[str]] = collections.defaultdict(set)
    waiting = [config.to_dict() for config in configurations]
    while waiting:
        for field, value in waiting.pop().items():
            if isinstance(value, dict):
                waiting.append({str(key): inner for key, inner in value.items()})
            for word in value if isinstance(value, list) else [value]:
                if isinstance(word, str) and not _NO_STRUCTURE.fullmatch(field):
                    found[field].add(word)
    return {field: options for field, options in found.items() if len(options) <= _MOST_WORDS}


def _configs() -> dict[str, Any]:
    """What is needed of each configuration class: default figures, other names of keys, parts."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    from lorascope.sources.dimensions import NAMES

    wanted = [name for names in NAMES.values() for name in names]
    found: dict[str, Any] = {}
    for model_type in CONFIG_MAPPING_NAMES:
        try:
            config = AutoConfig.for_model(model_type)
        except Exception:  # some have no defaults, and then every figure is in the file
            continue
        inner = {key: getattr(config, key, None) for key in getattr(config, "sub_configs", None) or {}}
        parts = {
            key: part.model_type for key, part in inner.items() if part is not None and hasattr(part, "model_type")
        }
        try:
            text = config.get_text_config()
        except ValueError:  # several
            text = config
        fields = config.to_dict()
        defaults = {name: value for name in wanted if name in fields and type(value := _plain(config, name)) is int}
        computed = {name: rule for name in wanted if name not in fields and (rule := _computed(config, name))}
        computed |= {name: [field, 1] for name in defaults if (field := _followed(config, name, defaults))}
        entry = {
            "defaults": defaults | ({"tie_word_embeddings": True} if _plain(config, "tie_word_embeddings") else {}),
            "names": dict(config.attribute_map or {}),
            "computed": computed,
            "parts": parts,
            "part_defaults": {key: values for key, part in inner.items() if (values := _own_defaults(part, wanted))},
            "text": next((key for key in parts if getattr(config, key) is text), ""),
        }
        found[model_type] = {key: value for key, value in entry.items() if value}
    return found


def _own_defaults(part: Any, wanted: Sequence[str]) -> dict[str, int]:
    """What a configuration's part is by default, where that is not the default of the part's own class."""
    from transformers import AutoConfig

    try:
        usual = AutoConfig.for_model(part.model_type)
    except Exception:
        return {}
    fields = part.to_dict()
    values = {name: _plain(part, name) for name in wanted if name in fields}
    return {name: value for name, value in values.items() if type(value) is int and value != _plain(usual, name)}


def _computed(config: Any, name: str) -> list[Any]:
    """[field, factor] of a property that is a multiple of another field, or of a list's length; empty if it is neither."""
    value = _plain(config, name)
    if type(value) is not int or name in (config.attribute_map or {}):
        return []
    for field, other in config.to_dict().items():
        size = len(other) if isinstance(other, list) else other
        if type(size) is not int or not re.search("layer|block", field) or size < 1 or value % size:
            continue
        changed = copy.deepcopy(config)
        setattr(changed, field, other[:-1] if isinstance(other, list) else other + 1)
        if _plain(changed, name) == value // size * (size + (-1 if isinstance(other, list) else 1)):
            return [field, value // size]
    return []


def _followed(config: Any, name: str, defaults: dict[str, int]) -> str:
    """The field whose value a field has where the file leaves it out, such as key and value heads those of queries."""
    from transformers import AutoConfig

    for field, value in defaults.items():
        if field == name or value != defaults[name] or value % 2:
            continue
        try:
            halved = AutoConfig.for_model(config.model_type, **{field: value // 2})
        except Exception:  # a value that the class refuses
            continue
        if _plain(halved, name) == value // 2 and name not in (config.attribute_map or {}):
            return field
    return ""


def _plain(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except Exception:  # a configuration whose layers differ refuses to give one number for all of them
        return None


def table() -> dict[str, Any]:
    """The whole table, made anew."""
    import transformers
    from architectures import HEADS, mend_torchvision
    from transformers.models.auto import modeling_auto

    from lorascope.sources.transformers.meta_model import build, moe_conversion

    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    mend_torchvision()
    recorder = Recorder()
    builds = 0
    signal.signal(signal.SIGALRM, _give_up)
    for classes, (name, configurations) in enumerate(_models(), 1):
        try:
            for index, config in enumerate(configurations):
                try:
                    signal.alarm(_PATIENCE)
                    recorder.see(build(config, architecture=name))
                    builds += 1
                except Exception:
                    if index == 0:
                        raise
                finally:
                    signal.alarm(0)
        except Exception as error:  # a class without usable defaults has no row
            print(f"\rnot built: {name}: {str(error)[:100]!r}", file=sys.stderr)
        print(f"\r{classes} models in {builds} variations, {len(recorder.records)} classes", end="", file=sys.stderr)
    print(file=sys.stderr)
    configs = _configs()
    return {
        "transformers": transformers.__version__,
        "moe": {name: pattern for name in configs if (pattern := moe_conversion(name))},
        "heads": {head: _first(getattr(modeling_auto, mapping)) for head, mapping in HEADS.items()},
        "base": _first(modeling_auto.MODEL_MAPPING_NAMES),
        "configs": configs,
        "classes": {name: record.json(recorder.records) for name, record in sorted(recorder.records.items())},
    }


def _give_up(*_: object) -> None:
    raise TimeoutError(f"not built within {_PATIENCE} seconds")


def _first(mapping: Any) -> dict[str, str]:
    return {name: found[0] if isinstance(found, list | tuple) else found for name, found in mapping.items()}


def layouts_text(found: dict[str, Any]) -> str:
    """The file of the table: section, key and JSON a line, so that a reader parses what it needs and a diff is readable."""
    lines = [f"transformers\t\t{json.dumps(found['transformers'])}", f"base\t\t{_compact(found['base'])}"]
    for section in ("heads", "moe", "configs"):
        lines += (f"{section}\t{key}\t{_compact(value)}" for key, value in found[section].items())
    lines += (f"classes\t{key}\t{row}" for key, row in _class_rows(found["classes"]))
    return "\n" + "\n".join(lines) + "\n"


def _class_rows(classes: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(key, row) of each class: slots by number once they are named, and of classes built alike the first one's key.

    Models keep rows of their own, among which those of one model type are searched for.
    """
    first: dict[str, str] = {}
    for key, value in classes.items():
        row = dict(value)
        numbers = {slot: number for number, slot in enumerate(row.get("slots", ()))}
        for field in ("required", "bare"):
            if field in row:
                row[field] = [numbers[slot] for slot in row[field]]
        if "variants" in row:
            row["variants"] = [[[numbers[slot] for slot in slots] for slots in pair] for pair in row["variants"]]
        if "slots" in row:
            row["slots"] = {slot: keys[0] if len(keys) == 1 else keys for slot, keys in row["slots"].items()}
        text = _compact(row)
        yield key, text if "model" in row or text not in first else _compact(first[text])
        first.setdefault(text, key)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def retold(text: str) -> str:
    """The table with every row's `refusal` made anew, which does not take the many variations of a model.

    A class that transformers does not build by itself is judged by its own attributes.
    """
    import transformers
    from architectures import Entry, entries, layouts, mend_torchvision

    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    mend_torchvision()
    promised = {entry.architecture: entry for entry in (*entries(), *layouts())}
    lines = []
    for line in text.split("\n"):
        section, _, rest = line.partition("\t")
        key, _, value = rest.partition("\t")
        row = json.loads(value) if section == "classes" else {}
        facts = row.get("model") if isinstance(row, dict) else None
        # Only where the input embeddings have no name is there a fault that PEFT could meet.
        if facts and not facts.get("input"):
            name = key.partition("~")[0]
            entry = promised.get(name) or Entry("unknown", facts.get("model_type", ""), name)
            told = _refusal(entry, facts)
            row["model"] = {
                field: told if field == "refusal" else facts.get(field)
                for field in (
                    "model_type",
                    "base",
                    "ties",
                    "ignored",
                    "input",
                    "output",
                    "refusal",
                    "generates",
                    "head",
                )
            }
            row["model"] = {field: one for field, one in row["model"].items() if one}
            line = f"{section}\t{key}\t{_compact(row)}"
        lines.append(line)
    return "\n".join(lines)


def _refusal(entry: Any, facts: Mapping[str, Any]) -> str:
    """Why PEFT cannot wrap the model of an entry, or empty."""
    from lorascope.sources.transformers.meta_model import build, embedding_names

    signal.signal(signal.SIGALRM, _give_up)
    try:
        signal.alarm(_PATIENCE)
        return embedding_names(build(entry.config(), architecture=entry.architecture)).refusal
    except Exception:  # a part of other models alone: by its class, of which a dictionary of ties makes PEFT ask
        return str(facts.get("refusal", "")) if facts.get("ties") else ""
    finally:
        signal.alarm(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--refusals", action="store_true")
    if parser.parse_args().refusals:
        LAYOUTS.write_text(retold(LAYOUTS.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    text = layouts_text(table())
    if parser.parse_args().check:
        return int(text != LAYOUTS.read_text(encoding="utf-8"))
    LAYOUTS.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
