"""The data that ships with the package: `data/` as text and as JSON.

The tests check its form, so that nothing is checked when it is read.
"""

from __future__ import annotations

import json
import os
from typing import Any

# Neither importlib.resources nor pathlib: the first takes as long to load as all else of a light command.
_DATA = os.path.join(os.path.dirname(__file__), "data")


def load_text(name: str) -> str:
    """Text of a packaged file, by its path within `data/`."""
    with open(os.path.join(_DATA, name), encoding="utf-8") as file:
        return file.read()


def load_json(name: str) -> Any:
    """Value of a packaged JSON file, such as `servers/vllm.json`."""
    return json.loads(load_text(name))


def is_packaged(name: str) -> bool:
    """A packaged file has this path within `data/`."""
    return os.path.isfile(os.path.join(_DATA, name))


def packaged_names(folder: str) -> list[str]:
    """Names of the packaged files of a folder."""
    return os.listdir(os.path.join(_DATA, folder))
