"""The table of layouts: what is known of the classes of transformers and of its configurations, row by row.

`tools/build_layouts.py` makes it (`data/layouts.tsv`: section, key and JSON a line).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.sources.builtin import PREFERRED

# A path, not importlib.resources, which takes a tenth of the time that a whole command does.
_TABLE = Path(__file__).parents[2] / "data" / "layouts.tsv"

LISTS = frozenset({"ModuleList", "Sequential", "ModuleDict"})
# A plain nn.Module that code hangs its own children into is one too, whose members have names.
CONTAINERS = LISTS | {"Module"}


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """What the table knows of a class that is a model by itself.

    Attributes:
        model_type: Its configuration's.
        base: transformers' `base_model_prefix`.
        ties: Parameters that share another's tensor where the configuration ties embeddings: regular expressions of
            the parameter and its source, as in `_tied_weights_keys`.
        ignored: What its checkpoints may hold and transformers does not load (`_keys_to_ignore_on_load_unexpected`).
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
    """What is known of a model under its own configuration: one that unties its embeddings keeps PEFT from asking for them."""
    untied = facts.refusal and config.get("tie_word_embeddings") is False
    return dataclasses.replace(facts, refusal="") if untied else facts


@dataclasses.dataclass(frozen=True)
class Layout:
    """One class of the table.

    Attributes:
        name: The Python class.
        kind: As in `Module`.
        transposed: As in `Module`.
        parameters: Names of its own parameters, in order.
        optional: Those of them that not every instance has.
        buffers: Names of its persistent buffers, which checkpoints hold and LoRA has no use for.
        slots: Path of each slot to the keys of its classes, in the order of `named_modules()`.
        required: Slots in which every instance has parameters.
        bare: Slots that every instance has, with no parameters in some.
        variants: Which of the other slots come together: (with parameters, without).
        counts: How many members a numbered slot has: the name of that number in the configuration.
        sources: Of a slot that holds a model: where its configuration lies in that of the model around it.
        groups: Convolution groups of a slot, or of what stands right below it; `square` where a convolution has as many
            inputs as outputs, so that its shape tells.
        shared: Slots whose module may be one that stands elsewhere too; `named_modules()` gives it once.
        model: What is known of it as a model, or None.
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
    counts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    model: ModelFacts | None = None


@cache
def _text() -> str:
    return _TABLE.read_text(encoding="utf-8")


@cache
def _row(section: str, key: str = "") -> Any:
    """A row of the table; None where there is none. Parsing all of it would take longer than all the rest."""
    if not key.isprintable():  # a configuration's model type may be anything
        return None
    mark = f"\n{section}\t{key}\t"
    start = _text().find(mark)
    if start < 0:
        return None
    start += len(mark)
    return json.loads(_text()[start : _text().find("\n", start)])


def layouts_version() -> str:
    """The transformers that the table was made with."""
    return str(_row("transformers"))


def config_facts(model_type: object) -> Mapping[str, Any]:
    """What is known of a configuration class."""
    found: Mapping[str, Any] = _row("configs", str(model_type)) or {}
    return found


def _classes(head: str) -> Mapping[str, str]:
    """Model type to class, for a head or `base`."""
    found: Mapping[str, str] = (_row("base") if head == "base" else _row("heads", head)) or {}
    return found


@cache
def layout(key: str) -> Layout | None:
    """A class of the table by its key: its name, with `~2` where classes share one."""
    row = _row("classes", key)
    if row is None:
        return None
    facts = row.get("model")
    return Layout(
        name=class_name(key),
        kind=row.get("kind", "other"),
        transposed=row.get("transposed", False),
        parameters=tuple(row.get("parameters", ())),
        optional=frozenset(row.get("optional", ())),
        buffers=frozenset(row.get("buffers", ())),
        slots={path: tuple(keys) for path, keys in row.get("slots", {}).items()},
        required=frozenset(row.get("required", ())),
        bare=frozenset(row.get("bare", ())),
        variants=tuple((frozenset(full), frozenset(bare)) for full, bare in row.get("variants", ())),
        counts=row.get("counts", {}),
        sources=row.get("sources", {}),
        groups=row.get("groups", {}),
        shared=frozenset(row.get("shared", ())),
        model=None if facts is None else ModelFacts(**{**facts, "ignored": tuple(facts.get("ignored", ()))}),
    )


def class_name(key: str) -> str:
    """The Python class of a key."""
    return key.partition("~")[0]


def classes_of(model_type: str) -> tuple[str, ...]:
    """The keys of all classes that are models of a type."""
    mark = f'"model":{{"model_type":{json.dumps(model_type)},'
    rows = (line.split("\t") for line in _text().splitlines() if mark in line)
    return tuple(key for section, key, _ in rows if section == "classes")


def class_for(model_type: str, head: str) -> str:
    """The class of a model type with a head (`base` for none), or empty."""
    found = _classes(head).get(model_type, "")
    return found if layout(found) is not None else ""


def moe_pattern(model_type: str) -> str:
    """See `ModelMap.moe_conversion`."""
    return str(_row("moe", model_type) or "")


def setting(config: Mapping[str, Any], name: str, model_type: str = "") -> Any:
    """A configuration's value by one of its names, its class's default where the file leaves it out, or None."""
    facts = config_facts(model_type or config.get("model_type"))
    also = facts.get("names", {})
    names = (name, also.get(name), *(other for other, meant in also.items() if meant == name))
    found = next((config[known] for known in names if known in config), None)
    if found is None and name in facts.get("computed", {}):
        field, factor = facts["computed"][name]
        value = setting(config, field, model_type)
        size = len(value) if isinstance(value, list) else value
        return size * factor if type(size) is int else None
    return facts.get("defaults", {}).get(name) if found is None else found


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that speaks of the language model, with its model type."""
    facts = config_facts(config.get("model_type"))
    key = facts.get("text", "")
    return inner_config(config, key, str(config.get("model_type"))) if key else config


def inner_config(config: Mapping[str, Any], path: str, model_type: str) -> Mapping[str, Any]:
    """A configuration within a configuration, with the model type that its class gives it by default."""
    if path.startswith("="):
        found = next(_with_type(config, path[1:]), {})
        return {"model_type": path[1:], **found}
    for key in path.split(".") if path else ():
        facts = config_facts(model_type)
        default = facts.get("parts", {}).get(key, "")
        value = config.get(key)
        # A part that is left out altogether is what its owner makes it by default, which may not be its own default.
        config = value if isinstance(value, dict) else facts.get("part_defaults", {}).get(key, {})
        model_type = str(config.get("model_type") or default)
        config = {**config, "model_type": model_type}
    return config


def _with_type(config: Mapping[str, Any], model_type: str) -> Iterator[Mapping[str, Any]]:
    for value in config.values():
        if isinstance(value, dict):
            if value.get("model_type") == model_type:
                yield value
            yield from _with_type(value, model_type)


def class_in_slot(keys: tuple[str, ...], model_type: str) -> str:
    """Which class a slot has for a model type: one that was seen there, or what the same Auto class would build."""
    for key in keys:
        row = layout(key)
        if row is not None and row.model is not None and row.model.model_type == model_type:
            return key
    for names in (_classes(head) for head in ("base", *PREFERRED)):
        if not set(keys).isdisjoint(names.values()) and layout(names.get(model_type, "")) is not None:
            return str(names[model_type])
    return keys[0]
