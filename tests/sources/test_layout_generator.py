"""What the generator of the table sees in modeling code and in the models that it builds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from architectures import Entry
from layout_configs import _entry
from layout_options import options_of
from layout_records import Recorder

from lorascope.sources.dimensions import NAMES

SPEECH: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embedding_groups": 4,
}


def rows(*configs: Any) -> dict[str, dict[str, Any]]:
    """Rows of the classes that the models of some configurations are made of."""
    recorder = Recorder()
    for config in configs:
        with torch.device("meta"):
            recorder.see(transformers.AutoModel.from_config(config))
    return {key: record.json(recorder.records) for key, record in recorder.records.items()}


@pytest.mark.slow
def test_a_field_that_decides_between_classes_with_the_same_names() -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"feat_extract_norm": "layer"},
        {"do_stable_layer_norm": True},
        {"conv_bias": True},
        {"apply_spec_augment": False},
    ]
    seen = rows(*(transformers.HubertConfig(**SPEECH, **way) for way in ways))
    classes = seen["HubertFeatureEncoder"]["slots"]["conv_layers.#"]
    assert classes == ["HubertGroupNormConvLayer", "HubertNoLayerNormConvLayer", "HubertLayerNormConvLayer"]
    rule = ["feat_extract_norm", "group", {"group": [0, 1], "layer": [2]}]
    assert seen["HubertFeatureEncoder"]["deciding"] == {"conv_layers.#": rule}
    assert seen["HubertModel"]["slots"]["encoder"] == ["HubertEncoder", "HubertEncoderStableLayerNorm"]
    assert seen["HubertModel"]["deciding"] == {
        "encoder": ["do_stable_layer_norm", "false", {"false": [0], "true": [1]}]
    }


def test_nothing_decides_where_names_tell() -> None:
    experts = {"num_experts": 4, "moe_intermediate_size": 16, "decoder_sparse_step": 2, "mlp_only_layers": []}
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 50,
    }
    seen = rows(transformers.Qwen2MoeConfig(**sizes, **experts))
    assert len(seen["Qwen2MoeDecoderLayer"]["slots"]["mlp"]) == 2
    assert "deciding" not in seen["Qwen2MoeDecoderLayer"]


def test_conditions_around_a_class_count_for_those_within() -> None:
    options = options_of((transformers.Wav2Vec2Model,))
    assert "do_stable_layer_norm" in options.under["adapter_attn_dim"]
    assert "do_stable_layer_norm" not in options.under["add_adapter"]


def test_fields_that_are_compared_with_each_other() -> None:
    equal = options_of((transformers.ElectraModel,)).equal
    assert equal["embedding_size"] == {"hidden_size": None}


def test_the_default_of_a_figure_under_a_name_of_its_own() -> None:
    wanted = [name for names in NAMES.values() for name in names]
    assert _entry(transformers.SegformerConfig(), wanted)["defaults"]["num_hidden_layers"] == 4
    assert _entry(transformers.ConvNextV2Config(), wanted)["defaults"]["num_hidden_layers"] == 4


def test_a_composite_speech_model_has_its_own_configuration() -> None:
    assert Entry("causal-lm", "musicgen", "MusicgenForCausalLM").config().model_type == "musicgen_decoder"
    whole = Entry("unknown", "musicgen", "MusicgenForConditionalGeneration").config()
    assert (whole.model_type, whole.decoder.model_type) == ("musicgen", "musicgen_decoder")
