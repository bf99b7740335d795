"""Each reason against the installed PEFT: it refuses, breaks, or trains something that nobody reads."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import nn

from lorascope.model.types import ModelMap, Module, Role, Weight
from lorascope.peft_rules.adaptability import constructor_mismatch, known_broken, why_not_adaptable
from lorascope.sources.transformers.meta_model import map_module
from tests.helpers import peft_models


class Around(nn.Module):
    """A model around one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Any) -> Any:
        return self.layer(*inputs)


def layer_of(package: str, name: str) -> Any:
    return getattr(importlib.import_module(f"transformers.models.{package}.modeling_{package}"), name)


def adapt(model: nn.Module, **config: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(model, peft.LoraConfig(init_lora_weights=False, **config))


def weight_of(model: ModelMap, name: str, role: Role | None = None) -> Weight:
    """A weight of the map, or one made up for a parameter that the map does not count as a weight."""
    if name in model.weight_by_name:
        return model.weight_by_name[name]
    if name in model.module_by_name:
        module = model.module_by_name[name]
        return Weight(name, name, module.kind if module.kind != "other" else "linear", (), role or Role())  # type: ignore[arg-type]
    owner, _, leaf = name.rpartition(".")
    own = model.module_by_name[owner].parameters if owner else model.root_parameters
    return Weight(name, owner, "parameter", dict(own)[leaf], role or Role())


CRASHING: dict[str, tuple[str, Callable[[Any], nn.Module], tuple[Any, ...]]] = {
    "Llama4Router": (
        "llama4",
        lambda cls: cls(transformers.Llama4TextConfig(hidden_size=16, num_local_experts=4, num_experts_per_tok=1)),
        (torch.zeros(3, 16),),
    ),
    "PhimoeTopKRouter": (
        "phimoe",
        lambda cls: cls(transformers.PhimoeConfig(hidden_size=16, num_local_experts=4)),
        (torch.zeros(3, 16),),
    ),
    "DeepseekV4GroupedLinear": ("deepseek_v4", lambda cls: cls(8, 12, 2), (torch.zeros(3, 2, 8),)),
    "MuseSparkAudioCausalConv1d": ("muse_spark", lambda cls: cls(4, 8, 3, "key"), (torch.zeros(1, 4, 9),)),
    "VoxtralRealtimeCausalConv1d": ("voxtral_realtime", lambda cls: cls(4, 8, 3, "key"), (torch.zeros(1, 4, 9),)),
    "NemotronAsrStreamingEncoderCausalConv1d": (
        "nemotron_asr_streaming",
        lambda cls: cls(4, 8, 3, "key"),
        (torch.zeros(1, 4, 9),),
    ),
    "MarianSinusoidalPositionalEmbedding": ("marian", lambda cls: cls(32, 16), (torch.Size([1, 7]),)),
    "TrOCRLearnedPositionalEmbedding": (
        "trocr",
        lambda cls: cls(8, 16),
        (torch.full((1, 7), 60),),
    ),
}
MISMATCHED: dict[str, tuple[str, Callable[[Any], nn.Module]]] = {
    "MoonshineStreamingCausalConv1d": ("moonshine_streaming", lambda cls: cls(4, 8, 3)),
    "NemotronAsrStreamingEncoderCausalConv2D": ("nemotron_asr_streaming", lambda cls: cls(4, 8, 3, "key")),
    "AlignVisionDepthwiseConv2d": ("align", lambda cls: cls(4, 1, 3)),
    "EfficientNetDepthwiseConv2d": ("efficientnet", lambda cls: cls(4, 1, 3)),
}


@pytest.mark.parametrize("name", CRASHING)
def test_crashing_classes_crash(name: str) -> None:
    package, build, inputs = CRASHING[name]
    model = Around(build(layer_of(package, name)))
    model(*inputs)
    module = map_module(model).module_by_name["layer"]
    assert known_broken(module)
    adapted = adapt(model, target_modules=["layer"], r=4)
    with pytest.raises((AttributeError, RuntimeError, TypeError, IndexError)):
        adapted(*inputs)


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrices = nn.ParameterList([nn.Parameter(torch.eye(8)) for _ in range(2)])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.matrices[0] @ self.matrices[1]


class Keyed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrices = nn.ParameterDict({"a": nn.Parameter(torch.eye(8))})

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.matrices["a"]


READ: dict[str, Callable[[], nn.Module]] = {
    "layer.matrices.0": Listed,
    "layer.matrices.a": Keyed,
    "layer.parametrizations.weight.original1": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
    "layer.parametrizations.weight.original": lambda: nn.utils.parametrizations.orthogonal(nn.Linear(8, 8)),
}


@pytest.mark.parametrize("name", READ)
def test_parameters_that_are_read_from_a_list_cannot_be_adapted(name: str) -> None:
    model = Around(READ[name]())
    found = map_module(model)
    (weight,) = (weight for weight in found.weights if weight.name == name)
    assert "breaks with an adapter" in str(why_not_adaptable(found, weight))
    model(torch.ones(1, 8))
    adapted = adapt(model, target_modules=[], target_parameters=[name], r=4)
    with pytest.raises(TypeError):
        adapted(torch.ones(1, 8))


@pytest.mark.parametrize("name", MISMATCHED)
def test_constructors_that_do_not_match_fail(name: str) -> None:
    package, build = MISMATCHED[name]
    model = Around(build(layer_of(package, name)))
    assert constructor_mismatch(map_module(model).module_by_name["layer"])
    with pytest.raises(TypeError):
        adapt(model, target_modules=["layer"], r=8)


def test_the_output_projection_of_torch_attention_is_dead() -> None:
    model = Around(nn.MultiheadAttention(16, 4, batch_first=True))
    module = map_module(model).module_by_name["layer.out_proj"]
    assert "itself" in str(known_broken(module))
    inputs = torch.randn(1, 3, 16)
    before = model(inputs, inputs, inputs)[0]
    adapted = adapt(model, target_modules=["layer.out_proj"])
    after = adapted(inputs, inputs, inputs)[0]
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("model", "name", "word"),
    [
        ("plain", "queries", "model itself"),
        ("mamba", "backbone.layers.0.mixer.out_proj", "kernels"),
        ("mamba", "backbone.layers.0.mixer.conv1d", "kernels"),
        ("plain", "experts.scale", "dimensions"),
        ("plain", "other_width", "same width"),
        ("plain", "other_width.out_proj", "dead"),
        ("qwen3_next", "model.layers.0.linear_attn.conv1d", "groups"),
        ("llama", "model.norm", "no adapter"),
        ("bart", "model.shared", "adapt that one"),
    ],
)
def test_why_not(model: str, name: str, word: str) -> None:
    found = str(why_not_adaptable(peft_models.mapped(model), weight_of(peft_models.mapped(model), name)))
    assert word in found
    assert found[0].isupper()
    assert found.endswith(".")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("mamba", "backbone.layers.0.mixer.in_proj"),
        ("plain", "encoder.layers.0.self_attn"),
        ("plain", "grouped"),
        ("plain", "experts.weight_in"),
        ("gpt2", "transformer.wpe"),
        ("bart", "model.encoder.embed_tokens"),
        ("deepseek_v3", "model.layers.1.mlp.shared_experts.down_proj"),
    ],
)
def test_what_can_be_reached(model: str, name: str) -> None:
    assert why_not_adaptable(peft_models.mapped(model), weight_of(peft_models.mapped(model), name)) is None


def test_attention_of_three_dimensions_is_no_stack_of_experts() -> None:
    attention = Role(block="attention", part="q")
    with torch.device("meta"):
        model = transformers.XLNetLMHeadModel(
            transformers.XLNetConfig(vocab_size=64, d_model=16, n_layer=1, n_head=4, d_inner=24)
        )
    mapped = map_module(model)
    found = str(why_not_adaptable(mapped, weight_of(mapped, "transformer.layer.0.rel_attn.q", attention)))
    assert "experts" in found
    jetmoe = peft_models.mapped("jetmoe")
    name = "model.layers.0.self_attention.experts.input_linear.weight"
    assert why_not_adaptable(jetmoe, weight_of(jetmoe, name, attention)) is None


def test_the_guard_for_nemotron_came_with_0_20() -> None:
    module = Module("layers.0.mixer.out_proj", "Linear", "linear", (("weight", (4, 4)),))
    model = dataclasses.replace(peft_models.mapped("llama"), model_type="nemotron_h", modules=(module,), weights=())
    weight = Weight(module.name, module.name, "linear", (4, 4), Role())
    assert why_not_adaptable(model, weight, "0.19.1") is None
    assert "refuses" in str(why_not_adaptable(model, weight, "0.20.0"))


def test_parameters_of_an_attention_with_other_widths_since_0_19() -> None:
    plain = peft_models.mapped("plain")
    weight = weight_of(plain, "other_width.q_proj_weight")
    assert "same width" in str(why_not_adaptable(plain, weight, "0.18.1"))
    assert why_not_adaptable(plain, weight, "0.19.1") is None
    assert "same width" in str(why_not_adaptable(plain, weight_of(plain, "other_width"), "0.19.1"))
