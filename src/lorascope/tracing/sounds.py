"""The calls that run what a model hears with: its tower for sounds, with what leads into the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lorascope.tracing.calling import Call, Site, number, site

if TYPE_CHECKING:
    import torch

_METHOD = "get_audio_features"


def sound_calls(model: torch.nn.Module) -> Iterator[Call]:
    """The calls for sounds, by the method that transformers' models have for them."""
    where = site(model, _METHOD, lambda config: audio_config(config) is not None)
    if where is None:
        return
    own = _OWN.get(where.config.model_type)
    if own is not None:
        yield from own(where)
    else:
        yield _spectrogram(where)


def audio_config(config: Any) -> Any:
    """The configuration of what a model hears with, or None."""
    for key in ("audio_config", "encoder_config", "acoustic_tokenizer_encoder_config"):
        if getattr(config, key, None) is not None:
            return getattr(config, key)
    return None


def _frames(where: Site) -> tuple[int, int]:
    """Frequencies and frames of a sound."""
    config = audio_config(where.config)
    mels = number(config, "num_mel_bins", "feature_size", "input_feat_size", "input_dim", "input_size", default=80)
    return mels, 2 * number(config, "max_source_positions", default=200)


def _spectrogram(where: Site, *, last: bool = False, boolean: bool = False) -> Call:
    """A call with frequencies before frames (or last), and as many masks as the method names."""
    import torch

    mels, frames = _frames(where)
    arguments: dict[str, Any] = {"input_features": torch.ones(*((1, frames, mels) if last else (1, mels, frames)))}
    for name in ("input_features_mask", "feature_attention_mask", "padding_mask"):
        if name in where.names:
            arguments[name] = torch.ones(1, frames, dtype=torch.bool if boolean else torch.long)
    return Call(where.method(_METHOD), arguments, "audio", f"{frames} frames of sound")


def _last(where: Site) -> Iterator[Call]:
    yield _spectrogram(where, last=True, boolean=True)


def _chunks(where: Site) -> Iterator[Call]:
    import torch

    mels, frames = _frames(where)
    arguments = {"input_features": torch.ones(1, mels, frames), "chunk_sample_lengths": torch.tensor([frames])}
    yield Call(where.method(_METHOD), arguments, "audio", f"{frames} frames of sound")


def _timed(where: Site) -> Iterator[Call]:
    # It asks the token ids how long each sound is: a fourth of the frames.
    import torch

    call = _spectrogram(where)
    places = call.arguments["input_features"].shape[-1] // 4
    ids = torch.full((1, places), int(where.config.audio_token_id))
    yield Call(call.method, {**call.arguments, "input_ids": ids}, call.component, call.about)


def _samples(where: Site) -> Iterator[Call]:
    import torch

    samples = 4 * number(where.config.audio_config, "samples_per_token", default=1920)
    yield Call(where.method(_METHOD), {"input_values": torch.ones(1, samples)}, "audio", f"{samples} samples of sound")


def _codes(where: Site) -> Iterator[Call]:
    import torch

    codes = torch.zeros(1, 6, number(where.config.audio_config, "num_codebooks", default=1), dtype=torch.long)
    yield Call(where.method(_METHOD), {"audio_input_ids": codes}, "audio", "6 codes of sound")


def _waveform(where: Site) -> Iterator[Call]:
    import torch

    samples = 2 * number(where.config, "acoustic_tokenizer_chunk_size", default=24000)
    samples = min(samples, 12800)
    arguments = {"input_values": torch.ones(1, 1, samples)}
    yield Call(where.method(_METHOD), arguments, "audio", f"{samples} samples of sound")


_OWN: dict[str, Callable[[Site], Iterator[Call]]] = {
    "dots3_note": _chunks,
    "gemma3n": _last,
    "granite_speech": _last,
    "granite_speech_plus": _last,
    "inkling_mm_model": _codes,
    "muse_spark": _samples,
    "musicflamingo": _timed,
    "nemo_speechlm": _last,
    "vibevoice_asr": _waveform,
}
