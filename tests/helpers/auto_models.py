"""Small models of every vision, speech and multimodal class of transformers' Auto mappings, and calls that run them.

The configurations are shrunk as those of the built-in models. Where that leaves something inconsistent, the default
configuration is used, which is of the size of a base model.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from architectures import HEADS, Entry, entries, layouts
from torch import nn
from transformers.models.auto import modeling_auto

from lorascope.tracing.calls.inputs import model_calls
from lorascope.tracing.calls.types import Call
from tests.helpers.small_configs import shrunk

# Heads on text alone: their one linear layer is called as that of a sequence classifier.
_TEXT_HEADS = (
    "TOKEN_CLASSIFICATION",
    "QUESTION_ANSWERING",
    "MULTIPLE_CHOICE",
    "NEXT_SENTENCE",
    "TEXT_ENCODING",
    "PRETRAINING",
)
# Parameters of a default configuration that is still run, where the small one cannot be.
_MOST_PARAMETERS = 150_000_000
_MOST_TRIES = 24


def auto_entries() -> Iterator[Entry]:
    """One entry per class that the Auto mappings list beyond the built-in models; the mapping is the layout."""
    known = [*entries(*HEADS), *layouts()]
    seen = {entry.architecture for entry in known}
    types = {entry.model_type for entry in known}
    found = []
    mappings = sorted(name for name in dir(modeling_auto) if name.endswith("MAPPING_NAMES"))
    for mapping in sorted(mappings, key=lambda name: name != "MODEL_MAPPING_NAMES"):
        if mapping == "CONFIG_MAPPING_NAMES" or any(head in mapping for head in _TEXT_HEADS):
            continue
        for model_type, names in getattr(modeling_auto, mapping).items():
            for architecture in (names,) if isinstance(names, str) else names:
                if architecture not in seen:
                    seen.add(architecture)
                    found.append(Entry("unknown", model_type, architecture))
    # The types of no built-in model first.
    yield from sorted(found, key=lambda entry: entry.model_type in types)


def builds(entry: Entry) -> Iterator[Any]:
    """Functions that build the model, the smallest first."""
    cls = getattr(transformers, entry.architecture)
    for config in _configs(entry, cls):
        try:
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in cls._from_config(copy.deepcopy(config)).parameters())
        except Exception:  # a configuration that does not fit together
            continue
        if size <= _MOST_PARAMETERS:
            yield lambda config=config: cls._from_config(copy.deepcopy(config), dtype=torch.float32).eval()


def _configs(entry: Entry, cls: Any) -> Iterator[Any]:
    makers: tuple[Any, ...] = (lambda: shrunk(entry), lambda: _shallow(entry.config()), entry.config)
    for make in makers:
        try:
            config = make()
        except Exception:
            continue
        wanted = getattr(cls, "config_class", None)
        if wanted is not None and not isinstance(config, wanted):
            for name in getattr(config, "sub_configs", {}):
                inner = getattr(config, name, None)
                if isinstance(inner, wanted):
                    config = inner
                    break
        yield config


def _shallow(config: Any) -> Any:
    """The default configuration with two layers."""
    values = config.to_dict()

    def cut(mapping: dict[str, Any]) -> None:
        for key, value in mapping.items():
            if isinstance(value, dict):
                cut(value)
            elif (
                type(value) is int
                and value > 2
                and re.search(r"(^|_)(num_hidden_layers|num_layers|encoder_layers|decoder_layers)$", key)
            ):
                mapping[key] = 2

    cut(values)
    return type(config).from_dict(values)


def calls_of(model: nn.Module) -> Iterator[list[Call]]:
    """Calls of a model, one list for each guess of what its forward takes."""
    known = [*model_calls(model)]
    rest = [call for call in known if call.method != "forward"]
    own = next((call for call in known if call.method == "forward"), None)
    for arguments in itertools.islice(_arguments(model, dict(own.arguments) if own else {}), _MOST_TRIES):
        yield [Call("forward", arguments, "", "made up"), *rest]
    if known:
        yield known


def _arguments(model: nn.Module, known: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    signature = inspect.signature(model.forward).parameters
    config: Any = getattr(model, "config", None)
    wanted = [
        name
        for name in signature
        if name in _SHAPES and (name not in known or name in ("pixel_values", "inputs_embeds"))
    ]
    if "input_ids" in known and "inputs_embeds" in wanted:
        wanted.remove("inputs_embeds")
    known = dict(known)
    if not {"pixel_values", "input_values", "input_features"}.isdisjoint(wanted):
        for name in ("inputs_embeds", "encoder_outputs"):
            known.pop(name, None)
    choices = [[*_SHAPES[name](config)] for name in wanted]
    base = {name: value for name, value in known.items() if name not in wanted}
    for values in itertools.product(*choices):
        yield {**base, **{name: value for name, value in zip(wanted, values, strict=True) if value is not None}}


def _number(config: Any, *keys: str, default: int) -> int:
    pending = [config]
    while pending:
        one = pending.pop(0)
        for key in keys:
            value = getattr(one, key, None)
            if isinstance(value, (list, tuple)) and value and isinstance(value[0], int):
                value = value[0]
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
        pending += [
            inner for name in getattr(one, "sub_configs", ()) if (inner := getattr(one, name, None)) is not None
        ]
    return default


def _pixels(config: Any) -> Iterator[Any]:
    channels = _number(config, "num_channels", "in_channels", "in_chans", default=3)
    size = _number(config, "image_size", "img_size", "input_size", default=0)
    for side in dict.fromkeys([size or 64, 64, 224, 256, 512]):
        yield torch.ones(1, channels, side, side)
        if _number(config, "num_frames", default=0):
            yield torch.ones(1, _number(config, "num_frames", default=2), channels, side, side)
    yield torch.ones(1, 2, channels, size or 64, size or 64)


def _video(config: Any) -> Iterator[Any]:
    yield torch.ones(
        1,
        _number(config, "num_frames", "frames_per_clip", default=4),
        3,
        *[_number(config, "image_size", "crop_size", default=64)] * 2,
    )
    yield None


def _sound(config: Any) -> Iterator[Any]:
    mels = _number(config, "num_mel_bins", default=80)
    yield torch.ones(1, 8000)
    yield torch.ones(1, 1, 8000)
    yield torch.ones(1, _number(config, "max_length", default=128), mels)
    yield torch.ones(1, 50, mels)
    yield None


def _spectrum(config: Any) -> Iterator[Any]:
    mels = _number(
        config,
        "num_mel_bins",
        "feature_size",
        "input_feat_per_channel",
        "feature_projection_input_dim",
        "input_dim",
        default=80,
    )
    frames = 2 * _number(config, "max_source_positions", default=200)
    yield torch.ones(1, mels, frames)
    yield torch.ones(1, 64, mels)
    yield torch.ones(1, frames, mels)
    side = _number(config, "spec_size", default=256)
    yield torch.ones(1, 1, 1001, _number(config, "num_mel_bins", default=64))
    yield torch.ones(1, 1, side, side)
    yield torch.ones(mels, frames)


def _ids(config: Any) -> Iterator[Any]:
    yield torch.arange(3, 10).unsqueeze(0)


def _image_mask(config: Any) -> Iterator[Any]:
    side = _number(config, "image_size", default=64) // _number(config, "patch_size", default=16)
    yield (torch.arange(side * side) % 2 == 0).unsqueeze(0)


def _points(config: Any) -> Iterator[Any]:
    yield torch.ones(1, 1, 2, 2) * 10


def _boxes(config: Any) -> Iterator[Any]:
    yield torch.tensor([[[1.0, 1.0, 20.0, 20.0]]])


def _bbox(config: Any) -> Iterator[Any]:
    yield torch.ones(1, 11, 4, dtype=torch.long)


def _visual(config: Any) -> Iterator[Any]:
    yield torch.ones(1, 3, _number(config, "visual_embedding_dim", "visual_feat_dim", default=512))


def _visual_places(config: Any) -> Iterator[Any]:
    yield torch.ones(1, 3, 4)


def _series(config: Any) -> Iterator[Any]:
    yield torch.ones(1, _number(config, "context_length", default=32), _number(config, "num_input_channels", default=1))


def _codes(config: Any) -> Iterator[Any]:
    yield torch.ones(1, 8, _number(config, "num_codebooks", "num_quantizers", default=8), dtype=torch.long)
    yield torch.ones(1, _number(config, "num_codebooks", "num_quantizers", default=8), 8, dtype=torch.long)


_SHAPES: dict[str, Any] = {
    "pixel_values": _pixels,
    "pixel_values_videos": _video,
    "input_values": _sound,
    "input_features": _spectrum,
    "decoder_input_ids": _ids,
    "bool_masked_pos": _image_mask,
    "input_points": _points,
    "input_boxes": _boxes,
    "bbox": _bbox,
    "visual_embeds": _visual,
    "visual_feats": _visual,
    "visual_pos": _visual_places,
    "past_values": _series,
    "audio_codes": _codes,
}
