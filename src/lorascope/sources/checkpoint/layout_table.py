"""Table of layouts: the module classes and configurations of transformers.

`tools/build_layouts.py` makes it: `data/layouts.tsv`, with section, key and JSON in each line. Classes that are built
alike share one row; a class's slots are named once and numbered from then on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from lorascope import light_dataclasses as dataclasses
from lorascope.packaged import load_json, load_text
from lorascope.sources.builtin import PREFERRED

# Keys of a configuration that are never those of the part that its other keys describe.
_OWNERS = frozenset({"model_type", "architectures"})
# What a class takes from a part of its configuration: DBRX.
_WITHIN = {"num_key_value_heads": ("attn_config", "kv_n_heads")}
LISTS = frozenset({"ModuleList", "Sequential", "ModuleDict"})
# A plain nn.Module with children is one too; its members have names.
CONTAINERS = LISTS | {"Module"}
# Keys of diffusers' classes begin with this, as both libraries have classes of the same names. They have a table of their
# own, which `tools/build_diffusers_layouts.py` makes.
DIFFUSERS = "diffusers:"


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """Facts of a class that is a model.

    Attributes:
        model_type: Its configuration's.
        base: transformers' `base_model_prefix`.
        ties: Parameters that share another's tensor where the configuration ties embeddings: regular expressions of
            the parameter and its source, as in `_tied_weights_keys`.
        ignored: Tensors that transformers does not load (`_keys_to_ignore_on_load_unexpected`).
        input: Its input embeddings' module.
        output: Its output embeddings' module.
        refusal: Why PEFT cannot wrap it unless the configuration unties its embeddings, or empty.
        generates: It has `prepare_inputs_for_generation`.
        head: The head that transformers lists it under, or `unknown`.
    """

    model_type: str = ""
    base: str = ""
    ties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    input: str = ""
    output: str = ""
    refusal: str = ""
    generates: bool = False
    head: str = "unknown"


def facts_under(facts: ModelFacts, config: Mapping[str, Any]) -> ModelFacts:
    """Facts of a model; no refusal where its embeddings are untied."""
    untied = facts.refusal and config.get("tie_word_embeddings") is False
    return dataclasses.replace(facts, refusal="") if untied else facts


class Deciding(NamedTuple):
    """What decides between the classes of a slot.

    Attributes:
        field: A field of the configuration.
        default: Its value where the file has none: a word, or `true` or `false`.
        classes: The numbers of the slot's classes by its value.
    """

    field: str
    default: str
    classes: Mapping[str, Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """One class of the table.

    Attributes:
        name: The Python class.
        kind: As in `Module`.
        transposed: As in `Module`.
        parameters: Names of its own parameters, in order.
        optional: Those of them that not every instance has.
        buffers: Names of its persistent buffers, which checkpoints hold too.
        slots: Path of each slot to the keys of its classes, in the order of `named_modules()`.
        required: Slots in which every instance has parameters.
        bare: Slots that every instance has, with no parameters in some.
        variants: The other slots that occur together: (with parameters, without).
        when: Of a slot without parameters: the configuration's flag that decides whether it is there.
        deciding: Of a slot whose classes have the same names: the field of the configuration that decides, its default, and
            the classes by its value.
        counts: Of a numbered slot: the configuration's name for the number of its members.
        sources: Of a slot that holds a model: where its configuration lies in that of the model around it.
        copied: Of a slot with a copy of its owner's configuration: fields that the copy takes from others.
        groups: Convolution groups of a slot, or of what stands right below it; `square` where a convolution has as many
            inputs as outputs, so that its shape tells.
        shared: Slots whose module may be one that stands elsewhere too; `named_modules()` gives it once.
        model: Its facts as a model, or None.
    """

    name: str
    kind: str = "other"
    transposed: bool = False
    parameters: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    buffers: frozenset[str] = frozenset()
    slots: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    required: frozenset[str] = frozenset()
    bare: frozenset[str] = frozenset()
    variants: tuple[tuple[frozenset[str], frozenset[str]], ...] = ()
    when: Mapping[str, str] = dataclasses.field(default_factory=dict)
    deciding: Mapping[str, Deciding] = dataclasses.field(default_factory=dict)
    counts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    copied: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    model: ModelFacts | None = None


@cache
def _text(file: str = "layouts.tsv") -> str:
    return load_text(file)


@cache
def _row(section: str, key: str = "") -> Any:
    """One row of the table, or None.

    Parsing the whole table would take longer than everything else.
    """
    if not key.isprintable():  # a configuration's model type may be anything
        return None
    text = _text("diffusers_layouts.tsv" if key.startswith(DIFFUSERS) else "layouts.tsv")
    mark = f"\n{section}\t{key.removeprefix(DIFFUSERS)}\t"
    start = text.find(mark)
    if start < 0:
        return None
    start += len(mark)
    return json.loads(text[start : text.find("\n", start)])


def layouts_version(library: str = "transformers") -> str:
    """The release of transformers or diffusers that the table was made with."""
    return str(_row(library, DIFFUSERS if library == "diffusers" else ""))


def config_facts(model_type: object) -> Mapping[str, Any]:
    """Facts of a configuration class."""
    facts: Mapping[str, Any] = _row("configs", str(model_type)) or {}
    return facts


def _classes(head: str) -> Mapping[str, str]:
    """Classes by model type, for a head or `base`."""
    classes: Mapping[str, str] = (_row("base") if head == "base" else _row("heads", head)) or {}
    return classes


@cache
def layout(key: str) -> Layout | None:
    """A class of the table, by its key.

    That is its name, with `~2` where names are shared.
    """
    owner = DIFFUSERS if key.startswith(DIFFUSERS) else ""
    row = _row("classes", key)
    if isinstance(row, str):  # the first class that is built alike
        row = _row("classes", owner + row)
    if row is None:
        return None
    facts = row.get("model")
    slots = tuple(row.get("slots", ()))

    def named(numbers: Iterable[int]) -> frozenset[str]:
        return frozenset([slots[number] for number in numbers])

    return Layout(
        name=class_name(key),
        kind=row.get("kind", "other"),
        transposed=row.get("transposed", False),
        parameters=tuple(row.get("parameters", ())),
        optional=frozenset(row.get("optional", ())),
        buffers=frozenset(row.get("buffers", ())),
        slots={path: _keys(owner, keys) for path, keys in row.get("slots", {}).items()},
        required=named(row.get("required", ())),
        bare=named(row.get("bare", ())),
        variants=tuple((named(full), named(bare)) for full, bare in row.get("variants", ())),
        when=row.get("when", {}),
        deciding={slot: Deciding(*rule) for slot, rule in row.get("deciding", {}).items()},
        counts=row.get("counts", {}),
        sources=row.get("sources", {}),
        copied=row.get("copied", {}),
        groups=row.get("groups", {}),
        shared=frozenset(row.get("shared", ())),
        model=None if facts is None else ModelFacts(**{**facts, "ignored": tuple(facts.get("ignored", ()))}),
    )


def _keys(owner: str, names: str | Sequence[str]) -> tuple[str, ...]:
    """The classes of a slot, by the keys of their own table."""
    listed = (names,) if isinstance(names, str) else names
    return tuple(name if name in CONTAINERS else f"{owner}{name}" for name in listed)


def class_name(key: str) -> str:
    """The Python class of a key."""
    return key.removeprefix(DIFFUSERS).partition("~")[0]


def classes_of(model_type: str) -> tuple[str, ...]:
    """Keys of all classes that are models of a type."""
    mark = f'"model":{{"model_type":{json.dumps(model_type)},'
    rows = (line.split("\t") for line in _text().splitlines() if mark in line)
    return tuple(key for section, key, _ in rows if section == "classes")


def class_for(model_type: str, head: str) -> str:
    """The class of a model type with a head, or empty."""
    key = _classes(head).get(model_type, "")
    return key if layout(key) is not None else ""


def constructed_parts(key: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Parts that a class has, and has not, whatever its configuration says, with the class that each is in.

    `tools/build_constructed_parts.py` finds them: `BertForMaskedLM` builds its `BertModel` without a pooler.
    """
    row = load_json("constructed_parts.json").get(key, {})
    return row.get("with", {}), row.get("without", {})


def moe_pattern(model_type: str) -> str:
    """See `ModelMap.moe_conversion`."""
    return str(_row("moe", model_type) or "")


def setting(config: Mapping[str, Any], name: str, model_type: str = "") -> Any:
    """A configuration's value by one of its names, else its class's default."""
    facts = config_facts(model_type or config.get("model_type"))
    if name in facts.get("always", {}):
        return facts["always"][name]
    also = facts.get("names", {})
    names = (name, also.get(name), *(other for other, meant in also.items() if meant == name))
    stated = next((config[known] for known in names if known in config), None)
    if stated is None and name in _WITHIN:
        part, inner = _WITHIN[name]
        within = config.get(part)
        stated = within.get(inner) if isinstance(within, dict) else None
    if stated is None and name in facts.get("computed", {}):
        field, factor = facts["computed"][name]
        value = setting(config, field, model_type)
        size = len(value) if isinstance(value, list) else value
        return size * factor if type(size) is int else None
    return facts.get("defaults", {}).get(name) if stated is None else stated


def ties_embeddings(config: Mapping[str, Any], model_type: str) -> bool:
    """A model with this configuration has tied embeddings.

    Some classes tie them whatever the file says, some where a part of the configuration does.
    """
    facts = config_facts(model_type)
    always = facts.get("always", {}).get("tie_word_embeddings")
    if always is not None:
        return _ties_otherwise(config, facts, always)
    if setting(config, "tie_word_embeddings", model_type):
        return True
    return any(
        bool(setting(part, "tie_word_embeddings", str(part["model_type"])))
        for key, stated_too in facts.get("ties_of", {}).items()
        if (stated_too or "tie_word_embeddings" not in config)
        for part in [inner_config(config, key, model_type)]
    )


def _ties_otherwise(config: Mapping[str, Any], facts: Mapping[str, Any], always: bool) -> bool:
    """Ties of a class that decides them, unless the file states them for its text model."""
    key = facts.get("text", "")
    stated = (_stated_part(config, key, facts) or {}).get("tie_word_embeddings")
    if type(stated) is not bool or stated is always:
        return always
    own = config.get("tie_word_embeddings")
    return stated or (own if type(own) is bool else key not in facts.get("ties_of", {}))


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a configuration, with its model type."""
    facts = config_facts(config.get("model_type"))
    key = facts.get("text", "")
    return inner_config(config, key, str(config.get("model_type"))) if key else config


def inner_config(config: Mapping[str, Any], path: str, model_type: str) -> Mapping[str, Any]:
    """A configuration within a configuration, with the model type that transformers reads it as."""
    if path.startswith("="):
        part = next(_with_type(config, path[1:]), {})
        return {"model_type": path[1:], **part}
    for key in path.split(".") if path else ():
        facts = config_facts(model_type)
        config = _part(config, key, facts)
        model_type = _part_type(str(config.get("model_type") or ""), key, facts)
        config = {**config, "model_type": model_type}
    return config


def states_part(config: Mapping[str, Any], path: str, model_type: str) -> bool | None:
    """A part of a configuration is in the file; None where its class always has it."""
    owner, _, key = path.rpartition(".")
    if owner:
        config = inner_config(config, owner, model_type)
        model_type = str(config["model_type"])
    facts = config_facts(model_type)
    return isinstance(_stated_part(config, key, facts), dict) if key in facts.get("optional", ()) else None


def _stated_part(config: Mapping[str, Any], key: str, facts: Mapping[str, Any]) -> Any:
    others = (other for other, meant in facts.get("renamed", {}).items() if meant == key)
    return next((config[known] for known in (key, *others) if isinstance(config.get(known), dict)), None)


def _part(config: Mapping[str, Any], key: str, facts: Mapping[str, Any]) -> Mapping[str, Any]:
    part = _stated_part(config, key, facts)
    if part is not None:
        return dict(part)
    # A missing part has its owner's defaults, which may differ from its own class's.
    defaults: Mapping[str, Any] = facts.get("part_defaults", {}).get(key, {})
    if facts.get("flat") != key:
        return defaults
    own = {name: value for name, value in config.items() if not isinstance(value, dict) and name not in _OWNERS}
    return {**defaults, **own}


def _part_type(stated: str, key: str, facts: Mapping[str, Any]) -> str:
    default: str = facts.get("parts", {}).get(key, "")
    if key in facts.get("fixed", ()):
        return default
    read_as = facts.get("read_as", {}).get(key, {})
    return str(read_as.get(stated) or stated or default)


def _with_type(config: Mapping[str, Any], model_type: str) -> Iterator[Mapping[str, Any]]:
    for value in config.values():
        if isinstance(value, dict):
            if value.get("model_type") == model_type:
                yield value
            yield from _with_type(value, model_type)


def class_in_slot(keys: tuple[str, ...], model_type: str, *, fixed: bool = False) -> str:
    """The class in a slot for a model type; if it is fixed, one of the keys."""
    for key in keys:
        row = layout(key)
        if row is not None and row.model is not None and row.model.model_type == model_type:
            return key
    if fixed:
        return keys[0]
    for names in (_classes(head) for head in ("base", *PREFERRED)):
        if not set(keys).isdisjoint(names.values()) and layout(names.get(model_type, "")) is not None:
            return str(names[model_type])
    return keys[0]
