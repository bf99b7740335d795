"""Guesses of a forward's inputs by the names of its arguments, for models whose own call did not come to its end.

A name says what kind of value an argument is, and the configuration its sizes; where either can be several, all are
tried, the likeliest first.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lorascope.sources.modules.python_objects import attribute
from lorascope.tracing.calls.images import image_size, patch_grid, patch_positions
from lorascope.tracing.calls.types import Call, count_up, integers, number, ones, parameters, required, token_ids, width

if TYPE_CHECKING:
    import torch

# Combinations that are tried, and places of each sequence.
_MOST_TRIES = 32
_LENGTH = 11
_FRAMES, _SAMPLES = 128, 16_000
# Parts of a configuration that are looked through for a figure.
_MOST_PARTS = 64

_Maker = Callable[[Any, Any], Iterator[Any]]


def guessed_calls(module: Any, known: Mapping[str, Any]) -> Iterator[Call]:
    """Calls of a module's forward with made-up inputs, the likeliest first.

    Args:
        module: The module.
        known: Arguments of a call that failed; those that can be nothing else are kept.
    """
    forward = attribute(module, "forward")
    config = attribute(module, "config")
    if attribute(forward, "__name__") == "_forward_unimplemented":  # torch's own
        return
    names, needed = parameters(forward), required(forward)
    seen = [grid for grid in ("grid_thw", "image_grid_thw", "pixel_position_ids") if grid in needed]
    if seen:
        yield from _patched(module, seen[0], needed)
        return
    senses = not names.isdisjoint(_SENSES)
    kept = {
        name: value
        for name, value in known.items()
        if name in names and name not in _VALUES and not (senses and name in _INNER and name not in needed)
    }
    choices = {name: list(_choices(module, config, name, needed)) for name in _VALUES if name in names}
    if "input_ids" in choices and "input_ids" not in needed and attribute(module, "main_input_name") != "input_ids":
        choices["input_ids"].append(None)
    if not needed <= {*choices, *kept}:
        return
    tried = itertools.product(*(values or [None] for values in choices.values()))
    for values in itertools.islice(tried, _MOST_TRIES):
        given = {name: value for name, value in zip(choices, values, strict=True) if value is not None}
        if needed <= {*given, *kept}:
            yield Call("forward", {**kept, **given}, "", "made-up inputs")


def masked_call(module: Any, known: Call) -> Call | None:
    """The same call with every other patch masked, which alone reads the tokens that stand for masked patches."""
    if "bool_masked_pos" not in parameters(attribute(module, "forward")) or "bool_masked_pos" in known.arguments:
        return None
    import torch

    config = attribute(module, "config")
    patch = number(config, "patch_size", default=0)
    side = image_size(config) // patch if patch else 0
    frames = number(config, "num_frames", default=1) // number(config, "tubelet_size", default=1)
    if not side or side * side * frames > _FRAMES * _FRAMES:
        return None
    mask = (torch.arange(side * side * max(1, frames)) % 2 == 0).unsqueeze(0)
    return Call(known.method, {**known.arguments, "bool_masked_pos": mask}, known.component, "masked patches")


def _patched(module: Any, sign: str, needed: frozenset[str]) -> Iterator[Call]:
    """Calls of a vision tower that takes patches with their grid or places."""
    pixels = next((name for name in ("pixel_values", "hidden_states") if name in needed), "")
    made = patch_positions(module) if sign == "pixel_position_ids" else patch_grid(module)
    for values, places, about in made:
        arguments = {pixels: values, sign: places}
        if "merge_sizes" in needed:
            arguments["merge_sizes"] = integers(1, value=2)
        if needed <= {*arguments}:
            yield Call("forward", arguments, "", about)


def _choices(module: Any, config: Any, name: str, needed: frozenset[str]) -> Iterator[Any]:
    """Values that an argument may have; None where it may be left out."""
    faults = (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError, ArithmeticError)
    with contextlib.suppress(*faults):  # foreign configurations lack what is asked for
        yield from _VALUES[name](module, config)
    if name in _OPTIONAL and name not in needed:
        yield None


def figure(config: Any, *keys: str, default: int) -> int:
    """The first positive number under one of the keys, in a configuration or one of its parts."""
    waiting = [config]
    for _ in range(_MOST_PARTS):
        if not waiting:
            break
        part = waiting.pop(0)
        if value := number(part, *keys, default=0):
            return value
        names = attribute(part, "sub_configs") or ()
        waiting += [inner for name in names if (inner := attribute(part, name)) is not None]
    return default


# --- values by the names of arguments --------------------------------------------------------------------------------


def _ids(module: Any, config: Any) -> Iterator[torch.Tensor]:
    ids = token_ids(module, _LENGTH)
    books = figure(config, "num_codebooks", "num_channels" if "dia" in str(config.model_type) else "", default=0)
    if books:
        small = integers(1, _LENGTH, books, value=0)
        yield small
        yield integers(1, books, _LENGTH, value=0)
        yield integers(1, _LENGTH, books + 1, value=0)  # a stream of text beside those of sound
    yield ids


def _pixels(module: Any, config: Any) -> Iterator[torch.Tensor]:
    channels = figure(config, "num_channels", "in_channels", "in_chans", default=3)
    size = figure(config, "image_size", "img_size", "input_size", "crop_size", default=0)
    if (oblong := _oblong(config)) is not None:
        yield ones(1, channels, *oblong)
    frames = figure(config, "num_frames", "frames_per_clip", default=0)
    sides = list(dict.fromkeys([size or 64, 224, 256, 512, 64]))
    if frames:
        yield ones(1, frames, channels, sides[0], sides[0])
    for side in sides[:2]:
        yield ones(1, channels, side, side)
    yield ones(1, 2, channels, sides[0], sides[0])  # a pair of images
    yield ones(1, 1, channels, sides[0], sides[0])
    for side in sides[2:]:
        yield ones(1, channels, side, side)
    yield ones(2, channels, sides[0], sides[0])
    if channels != 1:
        yield ones(1, 1, sides[0], sides[0])


def _oblong(config: Any) -> tuple[int, int] | None:
    """Height and width of images that are no squares."""
    for part in (config, attribute(config, "backbone_config")):
        size = attribute(part, "image_size")
        if isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int and side > 0 for side in size):
            return (size[0], size[1]) if size[0] != size[1] else None
    return None


def _prompt(module: Any, config: Any) -> Iterator[torch.Tensor]:
    yield next(_pixels(module, config))


def _few_ids(module: Any, config: Any) -> Iterator[torch.Tensor]:
    yield integers(1, number(config, "task_seq_len", default=_LENGTH))


def _padding(module: Any, config: Any) -> Iterator[torch.Tensor]:
    yield integers(1, figure(config, "context_length", default=32), value=0)


def _one(module: Any, config: Any) -> Iterator[torch.Tensor]:
    yield integers(1, value=0)


def _video(module: Any, config: Any) -> Iterator[torch.Tensor]:
    side = figure(config, "crop_size", "image_size", default=224)
    frames = figure(config, "frames_per_clip", "num_frames", default=4)
    yield ones(1, frames, figure(config, "in_chans", "num_channels", default=3), side, side)
    yield ones(frames, figure(config, "in_chans", "num_channels", default=3), side, side)


def _mels(config: Any) -> int:
    keys = ("num_mel_bins", "feature_size", "input_feat_per_channel", "feature_projection_input_dim", "input_feat_size")
    return figure(config, *keys, "input_dim", "input_size", "n_mels", "model_in_dim", default=80)


def _spectrum(module: Any, config: Any) -> Iterator[torch.Tensor]:
    mels = _mels(config)
    long = 2 * figure(config, "max_source_positions", "max_position_embeddings", default=0)
    yield ones(1, _FRAMES, mels)
    yield ones(1, mels, _FRAMES)
    if 0 < long < _SAMPLES:
        yield ones(1, mels, long)
        yield ones(1, long, mels)
    side = figure(config, "spec_size", default=256)
    yield ones(1, 1, 1001, figure(config, "num_mel_bins", default=64))
    yield ones(1, 1, side * 4, figure(config, "num_mel_bins", default=64))
    yield ones(1, 1, side, side)
    yield ones(1, 1, _FRAMES, mels)
    yield ones(mels, _FRAMES)


def _sound(module: Any, config: Any) -> Iterator[torch.Tensor]:
    yield ones(1, _SAMPLES)
    yield ones(1, 1, _SAMPLES)
    yield ones(1, 2, _SAMPLES)
    yield ones(1, number(config, "max_length", default=_FRAMES), _mels(config))
    yield ones(1, _FRAMES, _mels(config))


def _sound_mask(module: Any, config: Any) -> Iterator[torch.Tensor]:
    import torch

    yield integers(1, _FRAMES)
    yield integers(1, _FRAMES, dtype=torch.bool)


def _series(module: Any, config: Any) -> Iterator[torch.Tensor]:
    length = figure(config, "context_length", default=32)
    channels = figure(config, "num_input_channels", "input_size", default=1)
    lags = attribute(config, "lags_sequence")
    past = length + (max(lags) if isinstance(lags, list | tuple) and lags else 0)
    yield ones(1, length, channels)
    yield ones(1, past, channels) if channels > 1 else ones(1, past)
    yield ones(1, length)


def _past(config: Any) -> int:
    lags = attribute(config, "lags_sequence")
    return figure(config, "context_length", default=32) + (max(lags) if isinstance(lags, list | tuple) and lags else 0)


def _times(module: Any, config: Any) -> Iterator[torch.Tensor]:
    features = number(config, "num_time_features", default=0) + number(config, "num_dynamic_real_features", default=0)
    yield ones(1, _past(config), max(1, features))


def _later_times(module: Any, config: Any) -> Iterator[torch.Tensor]:
    features = number(config, "num_time_features", default=0) + number(config, "num_dynamic_real_features", default=0)
    yield ones(1, number(config, "prediction_length", default=1), max(1, features))


def _later(module: Any, config: Any) -> Iterator[torch.Tensor]:
    yield ones(1, number(config, "prediction_length", default=1))


def _observed(module: Any, config: Any) -> Iterator[torch.Tensor]:
    yield ones(1, _past(config))


def _categories(module: Any, config: Any) -> Iterator[torch.Tensor]:
    if number(config, "num_static_categorical_features", default=0):
        yield integers(1, number(config, "num_static_categorical_features", default=1), value=0)


def _states(module: Any, config: Any) -> Iterator[torch.Tensor]:
    yield ones(1, _LENGTH, width(config))
    yield ones(_LENGTH, width(config))


def _encoded(module: Any, config: Any) -> Iterator[torch.Tensor]:
    size = figure(config, "encoder_hidden_size", "cross_attention_hidden_size", "encoder_dim", default=width(config))
    yield ones(1, 5, size)


def _queries(module: Any, config: Any) -> Iterator[torch.Tensor]:
    yield ones(1, number(config, "num_query_tokens", "query_length", default=8), width(config))


def _wide(*keys: str, default: int = 1) -> _Maker:
    """Vectors of a size that the configuration has, one for each place."""

    def make(module: Any, config: Any) -> Iterator[torch.Tensor]:
        yield ones(1, _LENGTH, figure(config, *keys, default=default) if keys else default)

    return make


def _boxes(module: Any, config: Any) -> Iterator[torch.Tensor]:
    yield integers(1, _LENGTH, 4, value=0)
    yield ones(1, _LENGTH, 8)


def _codes(module: Any, config: Any) -> Iterator[torch.Tensor]:
    books = figure(config, "num_codebooks", "num_quantizers", "n_codebooks", default=8)
    yield integers(1, books, 8, value=0)
    yield integers(1, 8, books, value=0)


def _either(module: Any, config: Any) -> Iterator[torch.Tensor]:
    yield from _ids(module, config)
    yield from _states(module, config)


def _numbers(module: Any, config: Any) -> Iterator[torch.Tensor]:
    yield count_up(_LENGTH).unsqueeze(0)


def _decision(module: Any, config: Any) -> Iterator[torch.Tensor]:
    import torch

    yield integers(1, 1, dtype=torch.bool)


_VALUES: dict[str, _Maker] = {
    "input_ids": _ids,
    "input": _either,
    "hidden_states": _states,
    "pixel_values": _pixels,
    "prompt_pixel_values": _prompt,
    "prompt_masks": _prompt,
    "task_inputs": _few_ids,
    "pixel_values_videos": _video,
    "input_values": _sound,
    "input_features": _spectrum,
    "input_features_mask": _sound_mask,
    "audio_mel": _spectrum,
    "audio_mel_mask": _sound_mask,
    "spectrogram": _spectrum,
    "audio_codes": _codes,
    "is_longer": _decision,
    "query_embeds": _queries,
    "encoder_hidden_states": _encoded,
    "decoder_input_ids": _ids,
    "bbox": _boxes,
    "visual_feats": _wide("visual_feat_dim", default=2048),
    "visual_pos": _wide("visual_pos_dim", default=4),
    "visual_embeds": _wide("visual_embedding_dim", default=512),
    "states": _wide("state_dim", default=17),
    "actions": _wide("act_dim", default=4),
    "rewards": _wide(),
    "returns_to_go": _wide(),
    "timesteps": _numbers,
    "past_values": _series,
    "past_values_padding": _padding,
    "freq": _one,
    "past_time_features": _times,
    "past_observed_mask": _observed,
    "static_categorical_features": _categories,
    "future_values": _later,
    "future_time_features": _later_times,
}
# What is perceived, and what may stand in place of what has been made of it.
_SENSES = frozenset({"pixel_values", "pixel_values_videos", "input_values", "input_features"})
_INNER = frozenset({"inputs_embeds", "encoder_outputs", "decoder_inputs_embeds"})
# Those that are left out, too, where forward does not require them.
_OPTIONAL = frozenset(
    {
        "pixel_values",
        "pixel_values_videos",
        "input_features_mask",
        "audio_codes",
        "is_longer",
        "query_embeds",
        "encoder_hidden_states",
        "past_observed_mask",
        "input_values",
        "input_features",
        "future_values",
    }
)
