"""The calls that run what a model hears with: its tower for sounds, with what leads into the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lorascope.tracing.calling import Call, Site, number, site, token_ids

if TYPE_CHECKING:
    import torch


def sound_calls(model: torch.nn.Module) -> Iterator[Call]:
    """The calls for sounds, by the method that transformers' models have for them."""
    import torch

    where = site(model, "get_audio_features")
    if where is None:
        return
    config = getattr(where.config, "audio_config", None) or getattr(where.config, "encoder_config", None)
    if config is None:
        return
    mels = number(config, "num_mel_bins", "feature_size", "input_size", "input_dim", default=80)
    frames = 2 * number(config, "max_source_positions", default=200)
    arguments: dict[str, Any] = {}
    if "input_features" in where.names:
        arguments["input_features"] = torch.ones(1, mels, frames)
    for name in ("input_features_mask", "feature_attention_mask", "padding_mask"):
        if name in where.names:
            arguments[name] = torch.ones(1, frames, dtype=torch.long)
    yield Call(where.method("get_audio_features"), arguments, "audio", f"{frames} frames of sound")
