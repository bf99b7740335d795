"""What a source given as text may be: a built-in model or a Hub id."""

from __future__ import annotations

import re
from pathlib import Path

from lorascope.sources.builtin import is_builtin

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
MODEL_TYPE = re.compile(r"[\w.-]+")
# What is named like one of these is a file that is missing, never a repository to ask for.
_FILE = re.compile(r".*\.(?:json|jsonl|ya?ml|toml|txt|py|ipynb|sh|safetensors|gguf)", re.IGNORECASE | re.DOTALL)


def is_hub_id(text: str) -> bool:
    """Whether a text may name a Hub repository: not a file of a kind that is read here."""
    return HUB_ID.fullmatch(text) is not None and _FILE.fullmatch(text) is None


def names_builtin_model(source: str) -> bool:
    """Whether a text means a built-in model: no folder of that name holds a model."""
    return bool(MODEL_TYPE.fullmatch(source)) and is_builtin(source) and not Path(source, "config.json").exists()
