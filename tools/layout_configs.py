"""Configuration classes as the table of layouts keeps them: defaults, names of keys, parts and how those are read.

What a class does with a file is tried out, not read: the class is given small dictionaries, and what it made of them is
the rule. So it does not matter where in its code a type is fixed or a key renamed.
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Fields of a part that a trial changes: whole numbers that say how much there is of something.
_TRIED = re.compile(r"(num_hidden|num|n|encoder|decoder)_?layers?|depth|(hidden|intermediate)_size|d_model|n_embd|dim")
# Types of parts that other configurations have, to see whether a class lets a file choose.
_FOREIGN = ("clip_vision_model", "siglip_vision_model", "llama", "qwen2", "whisper", "bert", "dinov2", "wav2vec2")
_TYPE = re.compile(r"[a-z][a-z0-9_.-]{2,40}")


def configs(wanted: Sequence[str]) -> dict[str, Any]:
    """What is needed of each configuration class: default figures, other names of keys, parts.

    Args:
        wanted: The figures whose defaults the table keeps.
    """
    from architectures import Entry
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    found: dict[str, Any] = {}
    for model_type in CONFIG_MAPPING_NAMES:
        config = _default(model_type) or _made_default(Entry("unknown", model_type, ""))
        if config is None:  # it has no defaults, and then every figure is in the file
            continue
        entry = _entry(config, wanted) | part_rules(config)
        found[model_type] = {key: value for key, value in entry.items() if value}
    return found


def _default(model_type: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(model_type)
    except Exception:  # some defaults do not pass the checks of their own class
        return None


def _made_default(entry: Any) -> Any:
    """The default with what the project adds to build it, or None."""
    try:
        config = entry.config()
    except Exception:
        return None
    return config if config.model_type == entry.model_type else None


def _entry(config: Any, wanted: Sequence[str]) -> dict[str, Any]:
    inner = default_parts(config)
    parts = {key: type(part).model_type for key, part in inner.items()}
    try:
        text = config.get_text_config()
    except ValueError:  # several
        text = config
    fields = config.to_dict()
    defaults = {name: value for name in wanted if name in fields and type(value := _plain(config, name)) is int}
    defaults |= {name: value for name in wanted if (value := _aliased(config, name, wanted))}
    computed = {name: rule for name in wanted if name not in fields and (rule := _computed(config, name))}
    computed |= {name: [field, 1] for name in defaults if (field := _followed(config, name, defaults))}
    return {
        "defaults": defaults | ({"tie_word_embeddings": True} if _plain(config, "tie_word_embeddings") else {}),
        "names": dict(config.attribute_map or {}),
        "computed": computed,
        "parts": parts,
        "part_defaults": {key: values for key, part in inner.items() if (values := _own_defaults(part, wanted))},
        "text": next((key for key in parts if getattr(config, key) is text), ""),
    }


def _aliased(config: Any, name: str, wanted: Sequence[str]) -> int:
    """The default of a figure that the class keeps under a name of its own, or 0."""
    stored = (config.attribute_map or {}).get(name)
    value = _plain(config, name) if stored and stored not in wanted else None
    return value if type(value) is int else 0


def part_classes(config: Any) -> dict[str, Any]:
    """The keys of a configuration's parts, with what its class says they are (`AutoConfig` where the file decides)."""
    return dict(getattr(config, "sub_configs", None) or {})


def default_parts(config: Any) -> dict[str, Any]:
    """The parts of a configuration; of those that it has not by default, their own defaults."""
    found = {}
    for key in part_classes(config):
        part = getattr(config, key, None)
        if part is None:
            part = optional_part(config, key)
        if part is not None and hasattr(part, "model_type"):
            found[key] = part
    return found


def optional_part(config: Any, key: str) -> Any:
    """A part that a configuration has not by default, as its class makes it from an empty dictionary; else None."""
    for values in ({}, {"model_type": _spec_type(config, key)}):
        made = _made(config, {key: values})
        if made is not None and hasattr(part := getattr(made, key, None), "to_dict"):
            return part
    return None


def _spec_type(config: Any, key: str) -> str:
    spec = (getattr(config, "sub_configs_defaults", None) or {}).get(key)
    return str(getattr(spec, "model_type", "") or "")


def _made(config: Any, values: Mapping[str, Any]) -> Any:
    """A configuration of the same class from a file's values; None where the class refuses them."""
    try:
        return type(config).from_dict(copy.deepcopy(dict(values)))
    except Exception:  # configurations check themselves in many ways
        return None


def part_rules(config: Any) -> dict[str, Any]:
    """What a configuration class does with the parts of a file.

    Returns:
        `fixed`: parts whose type the class decides whatever the file says. `read_as`: types in a file that it takes for
        others, by part. `optional`: parts that a file may leave out. `flat`: the part that the file's own keys describe where
        it is missing. `renamed`: other keys of a part. `always`: a value that a field has whatever the file says.
        `ties_of`: parts whose ties are the whole's too, and whether even where the file unties the whole.
    """
    parts = default_parts(config)
    rules: dict[str, Any] = {
        "fixed": [],
        "read_as": {},
        "optional": [key for key in parts if getattr(config, key, None) is None],
        "flat": next((key for key, part in parts.items() if _is_flat(config, key, part)), ""),
        "renamed": dict(_renamed(config, parts)),
        "always": _constants(config),
        "ties_of": {
            key: stated for key, part in parts.items() if (stated := _ties_whole(config, key, part)) is not None
        },
    }
    words = _words_of(type(config)) if parts else set()
    for key, part in parts.items():
        usual = str(type(part).model_type)
        if all(_type_made(config, key, tried) in (usual, "") for tried in (*_FOREIGN, config.model_type)):
            rules["fixed"].append(key)
            continue
        tried = {config.model_type, "", *words}
        read = {word: made for word in tried if (made := _type_made(config, key, word)) not in ("", word)}
        rules["read_as"][key] = {word: made for word, made in sorted(read.items()) if (word, made) != ("", usual)}
    rules["read_as"] = {key: read for key, read in rules["read_as"].items() if read}
    return rules


def _type_made(config: Any, key: str, model_type: str) -> str:
    """The type of a part that a file gives a type, or none; empty where the class refuses it."""
    made = _made(config, {key: {"model_type": model_type} if model_type else {}})
    part: Any = getattr(made, key, None)
    cls: Any = type(part)
    return str(cls.model_type) if hasattr(part, "to_dict") else ""


def _words_of(cls: type) -> set[str]:
    """The texts in a class's code that could be model types."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return set()
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {text for text in texts if _TYPE.fullmatch(text)}


def _trials(part: Any) -> Iterator[tuple[str, int]]:
    """(field, another value) of a part's whole numbers; doubled, so that what must divide it still does."""
    for field, value in part.to_dict().items():
        if _TRIED.fullmatch(field) and type(value) is int and value > 0:
            yield field, value * 2


def _takes(config: Any, key: str, values: Mapping[str, Any], field: str, expected: int) -> bool:
    made = getattr(_made(config, values), key, None)
    return hasattr(made, "to_dict") and bool(_plain(made, field) == expected)


def _is_flat(config: Any, key: str, part: Any) -> bool:
    """The file's own keys are the part's where it has no such part."""
    own = config.to_dict()
    return any(_takes(config, key, {field: value}, field, value) for field, value in _trials(part) if field not in own)


def _renamed(config: Any, parts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(other key, key) of parts that a file may have under another name."""
    known = {*parts, *config.to_dict()}
    words = {word for word in _words_of(type(config)) if re.search("config|model|encoder|decoder|tower", word)}
    for word in sorted({*words, *(f"{key}_dict" for key in parts), *(config.attribute_map or {})} - known):
        for key, part in parts.items():
            tried = list(_trials(part))
            kind = {"model_type": type(part).model_type}
            if any(_takes(config, key, {word: {**kind, field: value}}, field, value) for field, value in tried):
                yield word, key


def _constants(config: Any) -> dict[str, Any]:
    """Ties that a class decides whatever a file says."""
    made = [_plain(_made(config, {"tie_word_embeddings": value}), "tie_word_embeddings") for value in (True, False)]
    return {"tie_word_embeddings": made[0]} if made[0] == made[1] and type(made[0]) is bool else {}


def _ties_whole(config: Any, key: str, part: Any) -> bool | None:
    """Whether the whole's ties are the part's even where the file says something of its own; None where they never are."""
    kind = {"model_type": type(part).model_type}

    def tied(inner: bool, **own: bool) -> Any:
        made = _made(config, {**own, key: {**kind, "tie_word_embeddings": inner}})
        return _plain(made, "tie_word_embeddings")

    if tied(True) is not True or tied(False) is not False:
        return None
    return tied(True, tie_word_embeddings=False) is True


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
    """[field, factor] of a property that is a multiple of a field; or empty.

    Of a list, its length counts.
    """
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
    """The field that a missing field takes its value from, or empty.

    Key and value heads are as many as those of queries, for example.
    """
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
