"""Recorded maps of the default configuration of every architecture: no torch, no network.

`tools/build_builtin_models.py` makes the files; one JSON file per head and model type lies in `data/builtin`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from lorascope.errors import LorascopeError, did_you_mean
from lorascope.foreign_text import is_model_type
from lorascope.model.json import map_from_json
from lorascope.model.types import Head, ModelMap

# A path, not importlib.resources, which takes a tenth of the time that a whole command does.
_BUILTIN = Path(__file__).parent.parent / "data" / "builtin"

# The head that a bare model type means, where it has several: the one that the released models have.
PREFERRED: tuple[Head, ...] = ("image-text-to-text", "seq2seq-lm", "masked-lm", "causal-lm", "sequence-classification")


def builtin_models() -> dict[str, tuple[str, ...]]:
    """Every built-in model with its heads, the preferred one first."""
    heads: dict[str, list[str]] = {}
    for head in PREFERRED:
        for name in _names(head):
            heads.setdefault(name, []).append(head)
    return {name: tuple(found) for name, found in sorted(heads.items())}


def is_builtin(model_type: str) -> bool:
    """Whether a built-in model has this type."""
    return is_model_type(model_type) and any((_BUILTIN / head / f"{model_type}.json").is_file() for head in PREFERRED)


def load_builtin(model_type: str, head: str = "") -> ModelMap:
    """The recorded map of a model type.

    Args:
        model_type: As in `config.json`: `llama`, `qwen3_moe`.
        head: Which head, where the type has several; the one that released models have if empty.

    Raises:
        LorascopeError: There is no such built-in model, or not with this head.
    """
    for candidate in (head,) if head else PREFERRED:
        path = _BUILTIN / candidate / f"{model_type}.json"
        if candidate in PREFERRED and is_model_type(model_type) and path.is_file():
            return map_from_json(json.loads(path.read_text(encoding="utf-8")))
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
    return frozenset(path.stem for path in (_BUILTIN / head).glob("*.json"))
