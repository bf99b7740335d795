"""Configurations that count attention and FFN as layers of their own, of models that have both in one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# `DoryConfig.__post_init__` halves these where its list of layers has an `mlp`; no other class of transformers 5.24
# changes what it reads.
_COUNTS = {"dory": ("num_hidden_layers", "n_input_layers", "n_recurrent_layers", "n_output_layers")}


def with_joined_layers(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration with a layer for each pair, as its class reads it."""
    kinds = config.get("layer_types")
    model_type = config.get("model_type")
    if not (isinstance(model_type, str) and model_type in _COUNTS and isinstance(kinds, list) and "mlp" in kinds):
        return config
    counts = {name: config[name] // 2 for name in _COUNTS[model_type] if type(config.get(name)) is int}
    return {**config, "layer_types": kinds[::2], **counts}
