"""Kinds of sources that a text may name."""

from __future__ import annotations

import os
import re

from lorascope.sources.builtin import is_builtin

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
MODEL_TYPE = re.compile(r"[\w.-]+")
# What is named like one of these is a file that is missing, never a repository to ask for.
_FILE = re.compile(r".*\.(?:json|jsonl|ya?ml|toml|txt|py|ipynb|sh|safetensors|gguf)", re.IGNORECASE | re.DOTALL)


def is_hub_id(text: str) -> bool:
    """A text that may name a Hub repository, not a file."""
    return HUB_ID.fullmatch(text) is not None and _FILE.fullmatch(text) is None


def names_builtin_model(source: str) -> bool:
    """A text that names a built-in model, not a folder."""
    return (
        bool(MODEL_TYPE.fullmatch(source))
        and is_builtin(source)
        and not os.path.exists(os.path.join(source, "config.json"))
    )
