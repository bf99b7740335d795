"""The data that ships with the package: `data/` as text and as JSON.

The tests check its form, so that nothing is checked when it is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# A path, not importlib.resources: that takes as long to load as everything else of a light command.
DATA = Path(__file__).parent / "data"


def load_text(name: str) -> str:
    """Text of a packaged file, by its path within `data/`."""
    return (DATA / name).read_text(encoding="utf-8")


def load_json(name: str) -> Any:
    """Value of a packaged JSON file, such as `servers/vllm.json`."""
    return json.loads(load_text(name))
