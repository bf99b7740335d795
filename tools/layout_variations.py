"""Configurations to build models from, so that every module that a class can have is seen at least once.

A class is built from its default configuration, a small one, the same with every part that it can have, and many that
differ from the small one in a field, or in two where the code asks for one within the other.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from architectures import Entry, entries, layouts
from layout_configs import optional_part, part_classes
from layout_options import Options, options_of

# Fields of a configuration that say nothing of its modules, and those whose numbers may decide whether there is one.
_NO_STRUCTURE = re.compile(
    r"_.*|architectures|dtype|model_type|.*token_id|.*(dropout|pdrop|drop_rate|eps|return|output_\w+|use_cache|_act)"
    r"|.*activation.*|act|act_fn|afn|.*_implementation|quantization_config|problem_type"
)
_DECIDING = re.compile(r".*(layer|expert|rank|dim|size|proj|group|head|depth|every|step|interval|dense).*")
_COUNTED = re.compile("layer|block|depth|expert|group")
# A field of more words is free text.
_MOST_WORDS = 20
# Pairs of fields per model; and fields that a configuration lacks.
_MOST_PAIRS = 60
_MOST_ABSENT = 24
_MOST_TOGETHER = 16
_ABSENT = object()


@dataclasses.dataclass(frozen=True)
class Buildable:
    """A model class and the configurations to build it from; the first of them has to work."""

    architecture: str
    configurations: Callable[[], Iterator[Any]]


def buildables(novelties: Callable[[], int], model_types: frozenset[str] = frozenset()) -> Iterator[Buildable]:
    """Every model class of transformers, with configurations to build it from.

    What the project promises, and the first class of every other model type, is built in many variations; the other classes
    from a default configuration, and from one with all parts.

    Args:
        novelties: How much has been seen so far; what makes it grow is tried together, too.
        model_types: Leave out all others, if any are given.
    """
    promised = [*entries(), *layouts()]
    words = _words()
    wanted = [entry for entry in promised if not model_types or entry.model_type in model_types]
    done: set[str] = set()
    varied = {entry.model_type for entry in promised}
    for entry in wanted:
        done.add(entry.architecture)
        yield Buildable(entry.architecture, functools.partial(_all_of, entry, words, novelties))
    for model_type, name in _classes():
        if name in done or (model_types and model_type not in model_types):
            continue
        done.add(name)
        entry = Entry("unknown", model_type, name)
        if model_type in varied:
            yield Buildable(name, functools.partial(_usual, entry))
        else:
            varied.add(model_type)
            yield Buildable(name, functools.partial(_all_of, entry, words, novelties))


@functools.cache
def _classes() -> tuple[tuple[str, str], ...]:
    return tuple(_every_class())


def _every_class() -> Iterator[tuple[str, str]]:
    """(model type, name) of the classes that transformers lists under a head, then of those that it exports besides."""
    import transformers
    from transformers.models.auto import modeling_auto

    listed: dict[str, str] = {}
    for mapping in sorted(dir(modeling_auto), key=lambda name: ("BACKBONE" in name, name)):
        if mapping.startswith("MODEL_") and mapping.endswith("_MAPPING_NAMES"):
            for model_type, names in getattr(modeling_auto, mapping).items():
                for name in names if isinstance(names, list | tuple) else [names]:
                    listed.setdefault(name, model_type)
                    yield model_type, name
    for name, module in sorted(transformers._class_to_module.items()):
        cls = _exported(transformers, name) if "modeling_" in module and name not in listed else None
        if cls is not None:
            yield cls.config_class.model_type, name


def _exported(library: Any, name: str) -> Any:
    """A class that transformers exports, if it is a model that can be built; None for all else."""
    try:
        cls: Any = getattr(library, name)
        own: Any = getattr(cls, "config_class", None)
    except Exception:  # of a package that is not installed
        return None
    built = isinstance(cls, type) and issubclass(cls, library.PreTrainedModel) and cls.__name__ == name
    named = bool(getattr(own, "model_type", ""))
    return cls if built and named and not name.endswith("PreTrainedModel") else None


def _usual(entry: Entry) -> Iterator[Any]:
    config = entry.config()
    yield config
    yield from itertools.islice(_with_parts(config), 1)


def _all_of(entry: Entry, words: Mapping[str, set[str]], novelties: Callable[[], int]) -> Iterator[Any]:
    small = entry.config()
    yield small
    if (shrunken := _small(entry)) is not None:
        small = shrunken
        yield small
    whole = small
    for index, changed in enumerate(_with_parts(small)):
        whole = changed if index == 0 else whole
        yield changed
    for path, part in _parts(whole):
        yield from _varied(entry, whole, path, part, words, novelties)
    yield from _shared(whole)


def _small(entry: Entry) -> Any:
    """The small configuration of an entry, if a model can be built of it."""
    from lorascope.sources.transformers.meta_model import build
    from tests.helpers.small_configs import shrunk

    try:
        small = shrunk(entry)
        build(small, architecture=entry.architecture)
    except Exception:  # it has no small form
        return None
    return small


def _shared(config: Any) -> Iterator[Any]:
    """Configurations with every layer twice, of which later ones may be made of earlier ones."""
    for path, part in _parts(config):
        own = part.to_dict()
        for name in (field for field in own if re.fullmatch(r"num_(hidden_)?layers", field)):
            count = own[name]
            numbers = (field for field, value in own.items() if value is None or type(value) is int)
            for field in ("", *(field for field in numbers if "layer" in field and field != name)):
                values = copy.deepcopy(config.to_dict())
                inner = values
                for key in path:
                    inner = inner[key]
                _double(inner, name, count)
                inner.update({field: count} if field else {})
                try:
                    yield type(config).from_dict(values)
                except Exception:  # a configuration refuses what it cannot be
                    continue


def _double(values: dict[str, Any], name: str, count: int) -> None:
    values |= {field: value * 2 for field, value in values.items() if isinstance(value, list) and len(value) == count}
    values[name] = count * 2
    special = values.get("per_layer_config") or {}
    if special:
        values["per_layer_config"] = {**special, **{str(int(at) + count): one for at, one in special.items()}}


def _with_parts(config: Any) -> Iterator[Any]:
    """The configuration with all parts that it lacks, then with each of them alone."""
    from tests.helpers.small_configs import small_values

    parts = {}
    for key in part_classes(config):
        if getattr(config, key, None) is None and (part := optional_part(config, key)) is not None:
            try:
                parts[key] = type(part).from_dict(small_values(part.to_dict()))
            except Exception:  # it has no small form
                parts[key] = part
    for keys in (tuple(parts), *((key,) for key in parts if len(parts) > 1)):
        changed = copy.deepcopy(config)
        for key in keys:
            setattr(changed, key, copy.deepcopy(parts[key]))
        if keys:
            yield changed


def _varied(
    entry: Entry,
    config: Any,
    path: tuple[str, ...],
    part: Any,
    words: Mapping[str, set[str]],
    novelties: Callable[[], int],
) -> Iterator[Any]:
    """Configurations that differ from one in a field or two that may decide which modules there are.

    Args:
        entry: What is built.
        config: The configuration to vary.
        path: Where in it the part lies whose fields are varied.
        part: That part.
        words: What each field that holds words, or a word per layer, holds in any configuration.
        novelties: How much has been seen so far.
    """
    options = _options(entry, config, part)
    changes: dict[str, list[Any]] = {}
    for field, value in [*vars(part).items(), *((name, _ABSENT) for name in _absent(part, options))]:
        if _is_read(part, field, options):
            changes[field] = list(_others(field, value, words.get(field, set()), options))
    single = itertools.chain(
        ({field: value} for field, values in changes.items() for value in values), _equalities(part, options)
    )
    new: list[Mapping[str, Any]] = []
    for fields in itertools.chain(single, itertools.islice(_pairs(changes, options), _MOST_PAIRS)):
        before = novelties()
        yield from _changed(config, path, [fields])
        if novelties() > before:
            new.append(fields)
    # Together, for the order of modules of which the single changes make one each.
    both: dict[str, Any] = {}
    for fields in new[:_MOST_TOGETHER]:
        both |= {field: value for field, value in fields.items() if field not in both}
        yield from _changed(config, path, [both])


def _parts(config: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A configuration and those in it, down to two levels, with the keys that lead to each."""
    yield (), config
    for key in part_classes(config):
        part = getattr(config, key, None)
        if part is not None and hasattr(part, "to_dict"):
            yield (key,), part
            for inner_key in part_classes(part):
                inner = getattr(part, inner_key, None)
                if inner is not None and hasattr(inner, "to_dict"):
                    yield (key, inner_key), inner


def _options(entry: Entry, config: Any, part: Any) -> Options:
    """What the model's own code asks of its configurations, and that of the part's model."""
    import transformers

    cls = getattr(transformers, entry.architecture)
    return options_of(tuple(dict.fromkeys((cls, type(config), type(part)))))


def _changed(config: Any, path: tuple[str, ...], changes: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    for fields in changes:
        changed = copy.deepcopy(config)
        part = changed
        for key in path:
            part = getattr(part, key)
        try:
            for field, value in fields.items():
                setattr(part, field, copy.deepcopy(value))
        except Exception:  # a configuration refuses what it cannot be
            continue
        yield changed


def _absent(part: Any, options: Options) -> list[str]:
    """Fields that the code asks for and the configuration does not have."""
    fields = (name for name in options.asked if not _NO_STRUCTURE.fullmatch(name) and not _has(part, name))
    return list(itertools.islice(fields, _MOST_ABSENT))


def _has(part: Any, name: str) -> bool:
    try:
        return hasattr(part, name)
    except Exception:  # one whose layers differ refuses to give a single number for all of them
        return True


def _is_read(part: Any, field: str, options: Options) -> bool:
    also = {stored: name for name, stored in (getattr(part, "attribute_map", None) or {}).items()}
    return not options.read or field in options.read or also.get(field) in options.read


def _pairs(changes: Mapping[str, list[Any]], options: Options) -> Iterator[Mapping[str, Any]]:
    """Changes of two fields of which the code asks for one where the other has been asked for."""
    for field, around in options.under.items():
        for outer in around:
            for one, other in itertools.product(changes.get(outer, ())[:3], changes.get(field, ())[:4]):
                yield {outer: one, field: other}


def _equalities(part: Any, options: Options) -> Iterator[Mapping[str, Any]]:
    """Changes that make two numbers equal that the code compares."""
    for field, others in options.equal.items():
        for other in others:
            if _has(part, field) and _has(part, other) and type(value := getattr(part, other, None)) is int:
                yield {field: value}


def _others(field: str, value: Any, words: set[str], options: Options) -> Iterator[Any]:
    """Other values of a field, each of which may make other modules."""
    if _NO_STRUCTURE.fullmatch(field):
        return
    met = [one for one in options.values.get(field, ()) if one is not None]
    texts = list(dict.fromkeys([*sorted(words), *(one for one in met if isinstance(one, str))]))
    numbers = [one for one in met if type(one) is int and 0 <= one < 65]
    if value is _ABSENT:
        yield from _of_absent(options.defaults.get(field, {}), texts, numbers)
    elif isinstance(value, bool):
        yield not value
    elif value is None or type(value) is int:
        # A number that no condition asks for decides sizes, and how many members a list has.
        usual = (8, None, 0, 1, 2) if field in options.tested else (1, 8) if _COUNTED.search(field) else ()
        usual = usual if _DECIDING.fullmatch(field) else ()
        yield from (number for number in dict.fromkeys((*usual, *numbers)) if number != value)
        if value is None:
            yield from (True, *texts, *_lists(texts))
    elif isinstance(value, float):
        if field in options.tested:
            yield from (0.0 if value else 0.1, None)
    elif isinstance(value, str):
        yield from (text for text in texts if text != value)
    elif isinstance(value, list):
        yield from _other_lists(field, value, texts)


def _of_absent(defaults: Mapping[Any, None], texts: list[str], numbers: list[int]) -> Iterator[Any]:
    """Values of a field that a configuration lacks, by what the code takes in its place."""
    known = {type(value) for value in defaults}
    if not defaults or known & {bool, type(None)}:
        yield from (one for one in (True, False) if defaults != {one: None})
    if not defaults or known & {int, type(None)}:
        yield from dict.fromkeys((*(one for one in defaults if type(one) is int), 1, 8, *numbers))
    yield from texts
    if known & {type(None), list, tuple}:
        yield from _lists(texts)


def _lists(texts: list[str]) -> Iterator[list[str]]:
    if texts:
        yield list(texts)
        yield from ([text] for text in texts if len(texts) > 1)


def _other_lists(field: str, value: list[Any], texts: list[str]) -> Iterator[Any]:
    if value and all(isinstance(one, str) for one in value):
        for text in texts:
            yield [text] * len(value)
            yield [text, *value[1:]]
    elif not value:
        yield from _lists(texts)
    elif "layer" in field and all(type(one) is int for one in value):
        yield from ([0], value[1::2])


@functools.cache
def _words() -> dict[str, set[str]]:
    """What each field that holds words, or a word per layer, holds in any configuration that the project promises."""
    found: dict[str, set[str]] = collections.defaultdict(set)
    waiting = [entry.config().to_dict() for entry in (*entries(), *layouts())]
    while waiting:
        for field, value in waiting.pop().items():
            if isinstance(value, dict):
                waiting.append({str(key): inner for key, inner in value.items()})
            for word in value if isinstance(value, list) else [value]:
                if isinstance(word, str) and not _NO_STRUCTURE.fullmatch(field):
                    found[field].add(word)
    return {field: options for field, options in found.items() if len(options) <= _MOST_WORDS}
