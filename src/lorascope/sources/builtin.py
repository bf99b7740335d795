"""Built-in maps: the default configuration of every architecture, recorded.

`tools/build_builtin_models.py` makes the files; one JSON file per head and model type lies in `data/builtin`.
"""

from __future__ import annotations

from functools import cache

from lorascope.errors import LorascopeError, did_you_mean
from lorascope.foreign_text import is_model_type
from lorascope.model.json import map_from_json
from lorascope.model.types import Head, ModelMap
from lorascope.packaged import is_packaged, load_json, packaged_names

# Heads in order of preference for a bare model type: the first is that of the released models.
PREFERRED: tuple[Head, ...] = ("image-text-to-text", "seq2seq-lm", "masked-lm", "causal-lm", "sequence-classification")


def builtin_models() -> dict[str, tuple[str, ...]]:
    """Every built-in model with its heads, the preferred one first."""
    heads: dict[str, list[str]] = {}
    for head in PREFERRED:
        for name in _names(head):
            heads.setdefault(name, []).append(head)
    return {name: tuple(heads[name]) for name in sorted(heads)}


def is_builtin(model_type: str) -> bool:
    """A built-in model has this type."""
    return is_model_type(model_type) and any(map(is_packaged, (_file(head, model_type) for head in PREFERRED)))


def load_builtin(model_type: str, head: str = "") -> ModelMap:
    """The recorded map of a model type.

    Args:
        model_type: As in `config.json`: `llama`, `qwen3_moe`.
        head: The head; that of the released models if empty.

    Raises:
        LorascopeError: There is no such built-in model, or not with this head.
    """
    for candidate in (head,) if head else PREFERRED:
        name = _file(candidate, model_type)
        if candidate in PREFERRED and is_model_type(model_type) and is_packaged(name):
            return map_from_json(load_json(name))
    known = builtin_models()
    if model_type in known:
        raise LorascopeError(
            f'the built-in models have "{model_type}" with {", ".join(known[model_type])}, not with the head "{head}"',
            hint="Choose one of these with --head.",
        )
    raise LorascopeError(
        f'"{model_type}" is not a built-in model ({len(known)} types), and no file or folder of that name exists',
        hint=did_you_mean(model_type, known) or "Give a model type such as llama, a folder, a config.json or a Hub id.",
    )


@cache
def _names(head: str) -> frozenset[str]:
    return frozenset(name.removesuffix(".json") for name in packaged_names(f"builtin/{head}"))


def _file(head: str, model_type: str) -> str:
    return f"builtin/{head}/{model_type}.json"
