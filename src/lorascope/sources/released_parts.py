"""What released models have that the built-in map of their type lacks.

A built-in map is that of transformers' default configuration; `tools/build_released_parts.py` compared it with those of
released configurations.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from lorascope.packaged import load_json


@dataclasses.dataclass(frozen=True, slots=True)
class ReleasedParts:
    """A released model beside the built-in map of its type.

    Attributes:
        release: Its Hub id.
        extra: Modules that it has and the built-in map lacks, by their names with `*` for numbers.
        lacking: Modules of the built-in map that it lacks.
    """

    release: str
    extra: Mapping[str, str]
    lacking: tuple[str, ...]


def released_parts(model: ModelMap) -> tuple[ReleasedParts, ...]:
    """The released models that differ from a built-in map; none for other maps."""
    if model.source != "built-in":
        return ()
    rows = _table().get(f"{model.head}/{model.model_type}", ())
    return tuple(ReleasedParts(row["release"], row["extra"], tuple(row["lacking"])) for row in rows)


@functools.lru_cache(maxsize=1)
def _table() -> Mapping[str, Any]:
    table: dict[str, Any] = load_json("released_parts.json")
    return table
