"""Loads parts of huggingface_hub, which stop at values of environment variables that they cannot use."""

from __future__ import annotations

import importlib
import os
import urllib.parse
from typing import Any

from lorascope.errors import LorascopeError

_PREFIXES = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_")


def hub_part(name: str, where: str = "") -> Any:
    """A module of huggingface_hub, of whose attributes no type checker knows all.

    Args:
        name: Its name within the package, such as `constants`.
        where: What messages call what is read.

    Raises:
        LorascopeError: It stops at something, which is mostly an environment variable: which one.
        ImportError: It is not installed.
    """
    try:
        importlib.import_module("huggingface_hub")
        return importlib.import_module(f"huggingface_hub.{name}")
    except ImportError:
        raise
    except Exception as error:  # whatever a value makes it raise
        mine = sorted(one for one in os.environ if one.startswith(_PREFIXES) and one.isidentifier())
        found = [one for one in mine if not _usable(one)]
        raise LorascopeError(
            f"huggingface_hub cannot be loaded with {' and '.join(found) or 'this environment'}: {error}",
            where=where,
            hint=f"Correct or unset in the environment: {', '.join(found or mine) or 'nothing of its own is set there'}.",
        ) from error


def _usable(name: str) -> bool:
    """A variable has a value of the kind that its name tells; it may hold a password, and is not shown."""
    value = os.environ.get(name, "")
    try:
        if name.endswith("_ENDPOINT"):
            _ = urllib.parse.urlsplit(value).port
        elif name.endswith("_TIMEOUT"):
            int(value)
    except ValueError:
        return False
    return True
