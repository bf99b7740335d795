"""Speech and vision models of transformers: traced whole, and planned as PEFT adapts them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import transformers

from lorascope.inspecting import inspect
from lorascope.sources.checkpoint.layout_table import layout
from tests.conformance.verdicts import measure_plans

MODELS = {
    "WhisperForConditionalGeneration": "whisper",
    "WhisperForAudioClassification": "whisper",
    "Wav2Vec2ForCTC": "wav2vec2",
    "Wav2Vec2BertForSequenceClassification": "wav2vec2-bert",
    "HubertForSequenceClassification": "hubert",
    "WavLMForCTC": "wavlm",
    "Data2VecAudioForCTC": "data2vec-audio",
    "UniSpeechForCTC": "unispeech",
    "ASTForAudioClassification": "audio-spectrogram-transformer",
    "Speech2TextForConditionalGeneration": "speech_to_text",
    "MoonshineForConditionalGeneration": "moonshine",
    "CLIPModel": "clip",
    "SiglipModel": "siglip",
    "Siglip2Model": "siglip2",
    "ViTForImageClassification": "vit",
    "Dinov2ForImageClassification": "dinov2",
    "DINOv3ViTModel": "dinov3_vit",
    "BeitForImageClassification": "beit",
    "SwinForImageClassification": "swin",
    "VideoMAEForVideoClassification": "videomae",
    "SamModel": "sam",
    "SegformerForImageClassification": "segformer",
}
# What such a call does not run: tokens in place of masked patches, norms of a weight, a second mask or prompt.
UNREACHED = re.compile(
    r".*\.mask_token|.*pos_conv_embed\.conv\.parametrizations\.weight\.original0|prompt_encoder\.(no_mask_embed|point_embed\.\d)"
)


def built(name: str, model_type: str) -> Any:
    """A model of two layers, where its configuration has their number."""
    config = transformers.AutoConfig.for_model(model_type)
    for key in ("num_hidden_layers", "encoder_layers", "decoder_layers"):
        if type(getattr(config, key, None)) is int:
            setattr(config, key, 2)
    with torch.device("meta"):
        return getattr(transformers, name)._from_config(config)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_speech_or_vision_model(name: str) -> None:
    module = built(name, MODELS[name])
    model = inspect(module, trace=True)
    assert layout(name) is not None
    unexecuted = [trace.weight for trace in model.traces if trace.status == "unexecuted"]
    assert [weight for weight in unexecuted if not UNREACHED.fullmatch(weight)] == []
    rules = {"qv": ("qv",), "qv+ffn": ("qv+ffn",)}
    outcomes = list(measure_plans(module, inspect(module), rules=rules))
    dead = name.startswith(
        "WavLM"
    )  # its attention reads the weights of q, k and v, and an adapter there trains nothing
    assert [outcome.verdict for outcome in outcomes] == ["refused" if dead else "exact", "exact"], outcomes
    assert outcomes[1].weights >= 4
