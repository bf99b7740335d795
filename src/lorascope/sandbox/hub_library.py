"""Loads huggingface_hub, which can fail on environment variables."""

from __future__ import annotations

import importlib
import os
import urllib.parse
from typing import Any

from lorascope.errors import LorascopeError

_PREFIXES = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_")


def hub_part(name: str, where: str = "") -> Any:
    """A module of huggingface_hub.

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
    except Exception as error:  # a value can make it raise anything
        variables = sorted(
            variable for variable in os.environ if variable.startswith(_PREFIXES) and variable.isidentifier()
        )
        unusable = [variable for variable in variables if not _usable(variable)]
        raise LorascopeError(
            f"huggingface_hub cannot be loaded with {' and '.join(unusable) or 'this environment'}: {error}",
            where=where,
            hint=f"Correct or unset in the environment: {', '.join(unusable or variables) or 'nothing of its own is set there'}.",
        ) from error


def _usable(name: str) -> bool:
    """The variable's value parses. It may hold a password."""
    value = os.environ.get(name, "")
    try:
        if name.endswith("_ENDPOINT"):
            _ = urllib.parse.urlsplit(value).port
        elif name.endswith("_TIMEOUT"):
            int(value)
    except ValueError:
        return False
    return True
