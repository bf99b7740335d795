"""Which class of transformers a configuration means, and what to say where it names another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.foreign_text import is_class_name
from lorascope.model.types import Head

# transformers' mapping of each head. A class that several list has the first of them.
HEAD_MAPPINGS: dict[Head, str] = {
    "image-text-to-text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "seq2seq-lm": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "masked-lm": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "sequence-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
}
# What a class's name says that it is for, as in `MptForCausalLM` or `GPT2LMHeadModel`.
_PURPOSE = re.compile(r"(for[a-z].*|(lmhead|doubleheads)?model)$")


def head_of(architecture: str) -> Head:
    """The head of a model class by transformers' mappings, or `unknown`."""
    for head, mapping in HEAD_MAPPINGS.items():
        if any(architecture in _names(names) for names in _mapping(mapping).values()):
            return head
    return "unknown"


def listed_heads(model_type: str) -> dict[Head, str]:
    """The preferred class of a model type for each head that it has."""
    names = {head: _names(_mapping(mapping).get(model_type)) for head, mapping in HEAD_MAPPINGS.items()}
    return {head: classes[0] for head, classes in names.items() if classes}


def base_class(model_type: str) -> str:
    """The class of a model type without a head, or empty."""
    return next(iter(_names(_mapping("MODEL_MAPPING_NAMES").get(model_type))), "")


def named_class(config: Any) -> str:
    """The class that a configuration names, or empty."""
    named = next(iter(getattr(config, "architectures", None) or ()), "")
    return named if is_class_name(named) else ""


def chosen_class(config: Any, head: Head | None) -> tuple[str, Head]:
    """The class to build of a configuration, and its head.

    Without a head it is the class that the configuration names. Where transformers has none of that name, it is the one
    of the same model type that differs in upper case and underscores alone, or else is for the same: `MPTForCausalLM` is
    transformers' `MptForCausalLM`. Where the class is made of more than this configuration, as
    `Qwen3_5MoeForConditionalGeneration` of a text configuration, it is the type's own.

    Raises:
        LorascopeError: The model type has no such head, or no class for what the named one is for.
    """
    listed = listed_heads(config.model_type)
    named = named_class(config)
    if head is None and named:
        known = _class(named)
        if known is None:
            named = _meant(named, config.model_type)
        elif not _is_part(config, known):
            return named, _head(named, listed)
        else:
            named = ""
        if named:
            return named, _head(named, listed)
    chosen: Head | None = head or next(iter(listed), None)
    if chosen in listed:
        return listed[chosen], chosen
    base = base_class(config.model_type)
    if head is None and base:
        return base, "unknown"
    has = ", ".join(listed) or "none that lorascope knows"
    raise LorascopeError(
        f'model type "{config.model_type}" has no head {chosen or ""}; its heads are: {has}',
        hint="Choose one of them with --head.",
    )


def class_note(config: Any, architecture: str) -> str:
    """The note on a named class that the model is not read as, or empty."""
    named = named_class(config)
    if not named or named == architecture:
        return ""
    known = _class(named)
    if known is None:
        return note_other_class(named, "transformers does not have", architecture)
    return note_other_class(named, has_more_parts(config.model_type), architecture) if _is_part(config, known) else ""


def note_other_class(named: str, why: str, architecture: str) -> str:
    """A sentence on a named class that a model is not read as."""
    return f'the configuration names the class "{named}", which {why}: read as {architecture}'


def has_more_parts(model_type: str) -> str:
    """Why a class is not that of a model type: it is made of several."""
    return f"has more parts than a {model_type} configuration"


def configuration_type(architecture: str) -> str:
    """The model type of a class's configuration, or empty where transformers has no such class."""
    known = _class(architecture)
    return str(getattr(getattr(known, "config_class", None), "model_type", "") or "")


def _head(architecture: str, listed: Mapping[Head, str]) -> Head:
    return next((head for head, name in listed.items() if name == architecture), None) or head_of(architecture)


def _meant(named: str, model_type: str) -> str:
    """The class of a model type that another name stands for.

    Raises:
        LorascopeError: It has none.
    """
    import transformers

    classes = dict.fromkeys(_classes_of(model_type))
    found = namesake(named, classes, by_purpose=not hasattr(transformers, named))  # AutoModel, say, is no model's class
    if found:
        return found
    has = f"it has {', '.join(list(classes)[:6])}" if classes else "it has none"
    raise LorascopeError(
        f'transformers {transformers.__version__} has no model class "{named}"; for model type "{model_type}" {has}',
        where="architectures",
        hint="Choose a head with --head, or upgrade transformers.",
    )


def namesake(named: str, classes: Iterable[str], *, by_purpose: bool = True) -> str:
    """The class that a name stands for, by letters or purpose; or empty."""
    plain = _plain(named)
    purpose = _PURPOSE.search(plain) if by_purpose else None
    others = {name: _plain(name) for name in classes}
    alike = (name for name, other in others.items() if other == plain)
    for_the_same = (
        name
        for name, other in others.items()
        if purpose and (match := _PURPOSE.search(other)) and match[0] == purpose[0]
    )
    return next(alike, "") or next(for_the_same, "")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _classes_of(model_type: str) -> Iterator[str]:
    """Every class that transformers lists for a model type: heads first, in our order."""
    from transformers.models.auto import modeling_auto

    yield from listed_heads(model_type).values()
    others = (name for name in vars(modeling_auto) if name.startswith("MODEL_") and name.endswith("_MAPPING_NAMES"))
    for mapping in others:
        yield from _names(_mapping(mapping).get(model_type))


def _is_part(config: Any, known: type[Any]) -> bool:
    """The class has several parts, and this is the configuration of one."""
    whole = getattr(known, "config_class", None)
    return whole is not None and bool(getattr(whole, "sub_configs", None)) and not isinstance(config, whole)


def _class(name: str) -> type[Any] | None:
    """The model class of a name, or None where transformers has none."""
    import transformers

    try:
        known = getattr(transformers, name, None) if name else None
    except (ImportError, RuntimeError):  # from a broken dependency, which is said where the class is built
        return object  # which may not be transformers' own either: its base class needs the same dependency
    model: type[Any] | None = known if isinstance(known, type) and hasattr(known, "_from_config") else None
    return model


def _mapping(name: str) -> Mapping[str, Any]:
    from transformers.models.auto import modeling_auto

    found: Mapping[str, Any] = getattr(modeling_auto, name)
    return found


def _names(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,) if value else ()
