"""Models that no first call reaches: inputs are guessed, masked patches tried, parts called by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from lorascope.inspecting import inspect
from lorascope.model.types import ModelMap
from lorascope.tracing.calls.guesses import figure, guessed_calls
from lorascope.tracing.calls.inputs import Call, model_calls
from lorascope.tracing.further_calls import with_further_calls

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 64,
    "patch_size": 16,
}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "boxes of words": (
        transformers.BrosModel,
        {**SMALL, "vocab_size": 50, "hidden_size": 64, "dim_bbox_projection": 16},
    ),
    "features of regions": (transformers.LxmertModel, {**SMALL, "vocab_size": 50, "visual_feat_dim": 16}),
    "states and rewards": (transformers.DecisionTransformerModel, {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "queries": (transformers.Blip2QFormerModel, {**SMALL, "encoder_hidden_size": 24, "vocab_size": 50}),
    "masked patches": (transformers.Dinov2Model, SMALL),
    "patches with a grid": (
        transformers.Qwen3VLVisionModel,
        {
            "hidden_size": 32,
            "depth": 2,
            "num_heads": 4,
            "intermediate_size": 48,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0],
        },
    ),
    "an oblong image": (
        transformers.MgpstrForSceneTextRecognition,
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": [32, 128]},
    ),
    "a series of values": (
        transformers.PatchTSTModel,
        {"d_model": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48},
    ),
}
# What such a call does not reach.
UNREACHED = {"states and rewards": {"encoder.wte"}}


def built(cls: Any, settings: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return cls._from_config(cls.config_class(**settings))


def unreached(model: ModelMap) -> set[str]:
    return {trace.weight for trace in model.traces if trace.status == "unexecuted"}


@pytest.mark.parametrize("what", CASES)
def test_guessed_inputs_reach_every_weight(what: str) -> None:
    cls, settings = CASES[what]
    model = inspect(built(cls, settings), trace=True)
    assert unreached(model) == UNREACHED.get(what, set())
    assert len(model.traces) >= 10
    assert not [note for note in model.notes if "not traced to its end" in note]


def test_without_guesses_no_call_reaches_it() -> None:
    """The reason for guesses: the first call lacks what forward asks for."""
    module = built(*CASES["boxes of words"])
    (call,) = model_calls(module)
    assert "bbox" not in call.arguments
    (first, *_) = guessed_calls(module, call.arguments)
    assert first.arguments["bbox"].shape == (1, 11, 4)


def test_an_image_is_given_where_embeddings_are_queries() -> None:
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone_config=backbone,
        backbone=None,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
    )
    with torch.device("meta"):
        model = inspect(transformers.DetrForObjectDetection._from_config(config), trace=True)
    assert unreached(model) == set()


class Parts(transformers.PreTrainedModel):
    """Two models that no forward joins."""

    config_class = transformers.LlamaConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.first = transformers.LlamaModel(config)
        self.second = transformers.LlamaModel(config)
        self.post_init()


def parts() -> Any:
    config = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, vocab_size=50
    )
    with torch.device("meta"):
        return Parts(config)


def test_parts_are_called_where_the_whole_has_no_forward() -> None:
    model = inspect(parts(), trace=True)
    assert unreached(model) == set()
    assert len(model.traces) == 16


def test_nothing_more_is_tried_near_the_limits() -> None:
    module = parts()
    named = inspect(module)
    asked: list[Call] = []

    def refuse(call: Call) -> None:
        asked.append(call)

    assert with_further_calls(module, named, [], refuse, lambda recorded: set()) == []
    assert [call.method for call in asked] == ["first", "first", "second", "second"]


def test_a_figure_of_a_part_is_found() -> None:
    config = transformers.ClapConfig()
    assert figure(config, "num_mel_bins", default=7) == config.audio_config.num_mel_bins
    assert figure(config, "no_such_figure", default=7) == 7
    assert figure(None, "num_mel_bins", default=7) == 7
