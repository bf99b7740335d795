"""Calls that run a model's audio tower."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lorascope.tracing.calls.types import Call, Site, find_site, integers, number, ones, width

if TYPE_CHECKING:
    import torch

_METHOD = "get_audio_features"
# Sound for models that take any length: a second, and frames that can be halved five times.
_SAMPLES, _FRAMES = 16_000, 128


def audio_calls(model: torch.nn.Module) -> Iterator[Call]:
    """Calls for audio, by the method that transformers' models have for it."""
    apart = _APART.get(getattr(getattr(model, "config", None), "model_type", ""))
    if apart is not None:
        yield from apart(model)
    where = find_site(model, _METHOD, lambda config: audio_config(config) is not None)
    if where is None:
        return
    own = _OWN.get(where.config.model_type)
    if own is not None:
        yield from own(where)
    else:
        yield _spectrogram(where)


def sound(module: torch.nn.Module, names: frozenset[str]) -> tuple[dict[str, Any], str] | None:
    """What a speech model's forward takes, and a few words about it; None for other models.

    Args:
        module: A model of transformers, which names its main input.
        names: The parameters of its forward.
    """
    main = getattr(module, "main_input_name", "")
    if main == "inputs":  # an encoder of any kind takes either
        main = "input_values"
    if main not in ("input_features", "input_values") or main not in names:
        return None
    config = getattr(module, "config", None)
    parts = [part for part in (config, audio_config(config), getattr(config, "encoder", None)) if part is not None]

    def figure(*keys: str) -> int:
        return next((value for part in parts if (value := number(part, *keys, default=0))), 0)

    frames, mels = _FRAMES, figure("num_mel_bins")
    if width := figure("feature_projection_input_dim"):
        values = ones(1, frames, width)
    elif per_channel := figure("input_feat_per_channel"):
        values = ones(1, frames, per_channel * max(1, figure("input_channels")))
    elif main == "input_values" and (not mels or figure("conv_stride")):
        return {main: ones(1, _SAMPLES)}, f"{_SAMPLES} samples of sound"
    elif main == "input_values":
        frames = figure("max_length") or frames
        values = ones(1, frames, mels)
    elif mels and figure("max_source_positions"):  # whisper's encoder takes one length alone
        frames = 2 * figure("max_source_positions")
        values = ones(1, mels, frames)
    else:
        values = ones(1, frames, mels or figure("input_dim", "input_size") or 80)
    return {main: values}, f"{frames} frames of sound"


def audio_config(config: Any) -> Any:
    """The configuration of the audio tower, or None."""
    for key in ("audio_config", "encoder_config", "acoustic_tokenizer_encoder_config"):
        if getattr(config, key, None) is not None:
            return getattr(config, key)
    return None


def _frames(where: Site) -> tuple[int, int]:
    """Mel bins and frames of a sound."""
    config = audio_config(where.config)
    keys = ("num_mel_bins", "feature_size", "input_feat_size", "input_dim", "input_size")
    mels = number(config, *keys, default=0) or number(getattr(config, "asr_config", None), *keys, default=80)
    return mels, 2 * number(config, "max_source_positions", default=200)


def _spectrogram(where: Site, *, last: bool = False, boolean: bool = False) -> Call:
    """A call with a spectrogram and every mask that the method takes."""
    import torch

    mels, frames = _frames(where)
    arguments: dict[str, Any] = {"input_features": ones(*((1, frames, mels) if last else (1, mels, frames)))}
    for name in ("input_features_mask", "feature_attention_mask", "padding_mask"):
        if name in where.names:
            arguments[name] = integers(1, frames, dtype=torch.bool if boolean else torch.long)
    return Call(where.method(_METHOD), arguments, "audio", f"{frames} frames of sound")


def _last(where: Site) -> Iterator[Call]:
    yield _spectrogram(where, last=True, boolean=True)


def _aligned(where: Site) -> Iterator[Call]:
    # The times of words are computed from the tower's states.
    yield from _last(where)
    audio = audio_config(where.config)
    places = 8
    arguments = {
        "asr_last_hidden_state": ones(1, places, width(audio)),
        "input_features_mask": integers(1, places * audio.subsampling_factor),
    }
    yield Call("get_word_timestamp_logits", arguments, "audio", f"{places} states of sound")


def _chunks(where: Site) -> Iterator[Call]:
    import torch

    mels, frames = _frames(where)
    arguments = {"input_features": ones(1, mels, frames), "chunk_sample_lengths": torch.tensor([frames])}
    yield Call(where.method(_METHOD), arguments, "audio", f"{frames} frames of sound")


def _timed(where: Site) -> Iterator[Call]:
    # The token ids tell the length of each sound: a fourth of the frames.
    call = _spectrogram(where)
    places = call.arguments["input_features"].shape[-1] // 4
    ids = integers(1, places, value=int(where.config.audio_token_id))
    yield Call(call.method, {**call.arguments, "input_ids": ids}, call.component, call.about)


def _samples(where: Site) -> Iterator[Call]:

    samples = 4 * number(where.config.audio_config, "samples_per_token", default=1920)
    yield Call(where.method(_METHOD), {"input_values": ones(1, samples)}, "audio", f"{samples} samples of sound")


def _codes(where: Site) -> Iterator[Call]:

    codes = integers(1, 6, number(where.config.audio_config, "num_codebooks", default=1), value=0)
    yield Call(where.method(_METHOD), {"audio_input_ids": codes}, "audio", "6 codes of sound")


def _waveform(where: Site) -> Iterator[Call]:

    samples = 2 * number(where.config, "acoustic_tokenizer_chunk_size", default=24000)
    samples = min(samples, 12800)
    arguments = {"input_values": ones(1, 1, samples)}
    yield Call(where.method(_METHOD), arguments, "audio", f"{samples} samples of sound")


def _tower(model: Any) -> Iterator[Call]:

    audio = model.config.audio_config
    frames = 2 * number(audio, "max_source_positions", default=200)
    features = ones(1, number(audio, "num_mel_bins", default=128), frames)
    yield Call("model.audio_tower", {"input_features": features}, "audio", f"{frames} frames of sound")
    states = ones(1, 6, width(audio))
    yield Call("model.multi_modal_projector", {"audio_features": states}, "connector", "6 states of sound")


def _embedded(model: Any) -> Iterator[Call]:
    # Speech, and sound that goes with an image, have projections of their own.
    import torch

    audio = model.config.audio_config
    places = 10
    frames = places * number(audio, "time_reduction", default=8)
    arguments = {
        "input_ids": integers(1, places, value=int(audio.audio_token_id)),
        "inputs_embeds": ones(1, places, width(model.config)),
        "audio_input_features": ones(1, frames, number(audio, "input_size", default=80)),
        "audio_embed_sizes": torch.tensor([places]),
    }
    for mode in ("speech", "vision"):
        given = {**arguments, "audio_projection_mode": mode}
        yield Call("model.embed_tokens_extend.audio_embed", given, "audio", f"{frames} frames of sound")


# Models without a method for audio, by model type.
_APART: dict[str, Callable[[Any], Iterator[Call]]] = {"phi4_multimodal": _embedded, "qwen2_audio": _tower}
_OWN: dict[str, Callable[[Site], Iterator[Call]]] = {
    "dots3_note": _chunks,
    "gemma3n": _last,
    "granite_speech": _last,
    "granite_speech_plus": _last,
    "inkling_mm_model": _codes,
    "muse_spark": _samples,
    "musicflamingo": _timed,
    "nemo_speechlm": _aligned,
    "vibevoice_asr": _waveform,
}
