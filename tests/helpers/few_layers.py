"""Models of the real architectures with few layers, on the meta device: what trainers search and adapt in a moment."""

from __future__ import annotations

from typing import Any

import architectures

_LAYERS = 3
_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "depth", "encoder_layers", "decoder_layers")
_LISTS = ("layer_types", "mlp_layer_types", "layers_block_type")
_PARTS = ("text_config", "vision_config", "audio_config", "llm_config", "language_config")


def few_layers(head: str, model_type: str) -> Any:
    """The model of an architecture; with its own number of layers where its configuration cannot have fewer."""
    entry = next(e for e in architectures.entries(head) if e.model_type == model_type)  # type: ignore[arg-type]
    from lorascope.sources.transformers.meta_model import build

    try:
        config = entry.config()
        _shrink(config)
        return build(config, architecture=entry.architecture)
    except Exception:  # whatever a class has against it, and a release of transformers against the default
        config = entry.config()
        return build(config, architecture=entry.architecture)


def _shrink(config: Any) -> None:
    for name in _COUNTS:
        if isinstance(config.__dict__.get(name), int):
            setattr(config, name, _LAYERS)
    for name in _LISTS:
        if isinstance(config.__dict__.get(name), list):
            setattr(config, name, getattr(config, name)[:_LAYERS])
    for part in _PARTS:
        inner = config.__dict__.get(part)
        if inner is not None and hasattr(inner, "to_dict"):
            _shrink(inner)
