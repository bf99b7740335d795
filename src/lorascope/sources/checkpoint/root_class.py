"""Which class of the table a checkpoint is: the one that its configuration means."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.sources.builtin import PREFERRED
from lorascope.sources.checkpoint.conversions.convert import placed
from lorascope.sources.checkpoint.conversions.table import ConversionRule, SubModel, rules_for
from lorascope.sources.checkpoint.layout import ModelLayout
from lorascope.sources.checkpoint.layout_table import (
    DIFFUSERS,
    class_for,
    class_name,
    classes_of,
    config_facts,
    layout,
    layouts_version,
)
from lorascope.sources.transformers.model_classes import has_more_parts, namesake, note_other_class

# diffusers' _CLASS_REMAPPING_DICT for Transformer2DModel, by norm_type.
_REMAPPED = {"ada_norm_zero": "DiTTransformer2DModel", "ada_norm_single": "PixArtTransformer2DModel"}
# So many tensor names decide between the classes of a model type; a class that has this share of them may lack a head.
_MOST_NAMES = 400
_ENOUGH = 0.9


def stated_class(config: Mapping[str, Any]) -> str:
    """The class that the configuration names, or empty."""
    return str(config.get("_class_name") or next(iter(config.get("architectures") or ()), ""))


def has_head(config: Mapping[str, Any], head: str) -> bool:
    """The checkpoint has this head, or its class is unknown."""
    named = stated_class(config)
    row = layout(named)
    if row is None or row.model is None or row.model.head == head:
        return True
    return named == class_for(str(config.get("model_type") or ""), head)  # one class may be listed under two heads


def root_class(config: Mapping[str, Any], head: str, names: Collection[str] = ()) -> str:
    """The table's class of a checkpoint; empty where it has none.

    Without a class that transformers has, it is the one that Auto classes take for the model type, unless the names are
    those of another class of that type.

    Args:
        config: The checkpoint's `config.json`.
        head: The head that the user asks for, or empty.
        names: Its tensors.

    Raises:
        LorascopeError: Another head than the checkpoint's is asked for.
    """
    if (diffusers_class := config.get("_class_name")) is not None:
        return _diffusers_root(str(diffusers_class), config, head)
    named = stated_class(config)
    model_type = str(config.get("model_type") or "")
    row = layout(named)
    if row is not None and row.model is not None and not is_part_of(model_type, row.model.model_type):
        if head and not has_head(config, head):
            raise LorascopeError(
                f"the checkpoint is a {named} ({row.model.head}): it has no weights for the head {head}",
                where="--head",
                hint="Leave --head out, or build the model from its configuration with --source config.",
            )
        return named
    if head:
        return class_for(model_type, head)
    listed = list(dict.fromkeys(key for one in (*PREFERRED, "base") if (key := class_for(model_type, one))))
    known = row is not None and row.model is not None
    meant = "" if known or not named else namesake(named, [*listed, *classes_of(model_type)])
    return meant or _by_names(listed, config, names)


def is_part_of(model_type: str, whole: str) -> bool:
    """The first model type is that of one part; a class of the second has several."""
    own = config_facts(model_type)
    return model_type != whole and bool(own) and "parts" not in own and bool(config_facts(whole).get("parts"))


def _by_names(listed: list[str], config: Mapping[str, Any], names: Collection[str]) -> str:
    """The first listed class, or another that fits the names better.

    Another is taken only where the first lacks more of them than a head has.
    """
    if not listed or not names:
        return next(iter(listed), "")
    some = list(islice(names, 0, None, -(-len(names) // _MOST_NAMES)))  # from all of its parts
    most = _known(listed[0], config, some)
    best = listed[0]
    if most < len(some) * _ENOUGH:
        for key in dict.fromkeys([*listed[1:], *classes_of(str(config.get("model_type") or ""))]):
            count = _known(key, config, some)
            best, most = (key, count) if count > most else (best, most)
    return best


def _known(key: str, config: Mapping[str, Any], names: list[str]) -> int:
    """How many names a class has, with or without the base model's prefix."""
    chosen = ModelLayout(key, config)
    base = chosen.parts[0].facts.base
    return placed(names, conversion_rules(chosen), known=chosen.knows, base_model_prefix=base)


def conversion_rules(chosen: ModelLayout) -> tuple[ConversionRule, ...]:
    """How transformers converts the tensors of a model and the models in it."""
    submodels = [SubModel(part.path, class_name(part.key), part.model_type) for part in chosen.parts]
    return rules_for(submodels, chosen.parts[0].facts.base)


def _diffusers_root(named: str, config: Mapping[str, Any], head: str) -> str:
    """The table's class of a model of diffusers; empty where it has none.

    Raises:
        LorascopeError: A head is asked for.
    """
    if head:
        raise LorascopeError(f"a {named} of diffusers has no head {head}", where="--head", hint="Leave --head out.")
    if named == "Transformer2DModel":  # as diffusers' _CLASS_REMAPPING_DICT
        named = _REMAPPED.get(str(config.get("norm_type")), named)
    key = f"{DIFFUSERS}{named}"
    row = layout(key) if "~" not in named else None
    return key if row is not None and row.model is not None else ""


def class_notes(config: Mapping[str, Any], root: str) -> Iterator[str]:
    """A sentence where the configuration does not name the class that the model is read as."""
    named = stated_class(config)
    architecture = class_name(root)
    model_type = str(config.get("model_type") or "")
    row = layout(named)
    if "_class_name" in config:
        if named != architecture:
            yield f"diffusers builds a {architecture} of what the configuration calls a {named}"
    elif not named:
        yield (
            f"the configuration names no class: read as {architecture}, which transformers {layouts_version()} has for "
            f"{model_type}"
        )
    elif row is not None and row.model is not None and named != architecture:
        yield note_other_class(named, has_more_parts(model_type), architecture)
    elif named != architecture:
        yield note_other_class(named, "the table does not have", architecture)
