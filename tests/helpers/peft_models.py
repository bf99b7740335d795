"""Tiny real models on the meta device, one per way in which architectures differ for PEFT."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn.utils import parametrizations, prune
from transformers.pytorch_utils import Conv1D

from lorascope.model.types import ModelMap
from lorascope.sources.transformers.meta_model import map_module

_SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}


def _llama(**changes: Any) -> Any:
    return transformers.LlamaConfig(**{**_SMALL, "tie_word_embeddings": False, **changes})


def _bert(**changes: Any) -> Any:
    small = {name: value for name, value in _SMALL.items() if name != "num_key_value_heads"}
    return transformers.BertConfig(**{**small, "num_hidden_layers": 2, **changes})


def _gpt2() -> Any:
    return transformers.GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=3, n_head=4)


def _mixtral() -> Any:
    return transformers.MixtralConfig(**{**_SMALL, "num_hidden_layers": 2}, num_local_experts=4)


def _qwen3_moe() -> Any:
    return transformers.Qwen3MoeConfig(
        **_SMALL, head_dim=4, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, mlp_only_layers=[0]
    )


def _deepseek_v3() -> Any:
    return transformers.DeepseekV3Config(
        **{**_SMALL, "num_key_value_heads": 4},
        moe_intermediate_size=8,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=4,
        q_lora_rank=6,
        qk_rope_head_dim=2,
        v_head_dim=4,
        qk_nope_head_dim=4,
    )


def _gpt_oss() -> Any:
    return transformers.GptOssConfig(
        **{**_SMALL, "num_hidden_layers": 2}, head_dim=4, num_local_experts=4, num_experts_per_tok=2
    )


def _qwen3_next() -> Any:
    return transformers.Qwen3NextConfig(
        **{**_SMALL, "num_hidden_layers": 4},
        head_dim=4,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=4,
        linear_value_head_dim=4,
    )


def _jetmoe() -> Any:
    small = {name: value for name, value in _SMALL.items() if name not in ("num_attention_heads",)}
    return transformers.JetMoeConfig(
        **{**small, "num_hidden_layers": 2}, kv_channels=4, num_local_experts=4, num_experts_per_tok=2
    )


def _mamba() -> Any:
    return transformers.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4)


def _falcon() -> Any:
    return transformers.FalconConfig(vocab_size=64, hidden_size=16, num_hidden_layers=3, num_attention_heads=4)


def _t5() -> Any:
    return transformers.T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4)


def _bart() -> Any:
    return transformers.BartConfig(
        vocab_size=64,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=32,
    )


def _llava() -> Any:
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, image_size=8, patch_size=4
    )
    return transformers.LlavaConfig(vision_config=vision, text_config=_llama(), image_token_index=63)


def _qwen2_vl() -> Any:
    text = {**_SMALL, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 0], "rope_theta": 10000.0}}
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4}
    return transformers.Qwen2VLConfig(text_config=text, vision_config=vision)


def _siglip() -> Any:
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    return transformers.SiglipVisionConfig(**small, image_size=8, patch_size=4)


class Plain(nn.Module):
    """A module without a configuration: attention of torch's own, convolutions, bare parameters, a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.other_width = nn.MultiheadAttention(16, 4, kdim=8, vdim=8)
        self.conv = nn.Conv2d(3, 8, 4)
        self.grouped = nn.Conv1d(8, 8, 3, groups=4)
        self.volume = nn.Conv3d(3, 8, 2, bias=False)
        self.queries = nn.Parameter(torch.empty(4, 16))
        self.experts = Experts()
        self.norm = nn.LayerNorm(16)
        self.q_proj = nn.Linear(16, 16)
        self.again = self.q_proj
        self.out_head = nn.Linear(16, 4)
        self.head = nn.Linear(16, 4)


class Experts(nn.Module):
    """Parameters of every number of dimensions, stored with the input first."""

    def __init__(self) -> None:
        super().__init__()
        self.is_transposed = True
        self.weight_in = nn.Parameter(torch.empty(4, 16, 24))
        self.weight_out = nn.Parameter(torch.empty(4, 24, 16))
        self.bias = nn.Parameter(torch.empty(4, 16))
        self.scale = nn.Parameter(torch.empty(16))


class Normed(nn.Module):
    """What torch computes weights for, layers that PEFT names like its own, recurrent layers, and narrow ones."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(32, 8)
        self.conv = parametrizations.weight_norm(nn.Conv1d(8, 8, 5, groups=2), dim=2)
        self.q_proj = parametrizations.weight_norm(nn.Linear(8, 12))
        self.v_proj = parametrizations.spectral_norm(nn.Linear(8, 6))
        self.rows = parametrizations.spectral_norm(nn.Embedding(16, 8))
        self.square = parametrizations.orthogonal(nn.Linear(8, 8))
        self.pruned = prune.l1_unstructured(nn.Linear(8, 10), "weight", 0.3)
        self.cut = prune.l1_unstructured(nn.Linear(8, 10), "bias", 0.3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it is old, and still in models
            self.older = nn.utils.weight_norm(nn.Linear(8, 10))
        self.default = nn.Linear(8, 6)
        self.inner = nn.ModuleDict({"default": nn.Linear(8, 10), "o_proj": nn.Linear(10, 8)})
        self.recurrent = nn.GRU(8, 6, 2)
        self.cell = nn.LSTMCell(8, 6)
        self.attention = nn.MultiheadAttention(8, 2)
        self.attention_normed = nn.MultiheadAttention(8, 2)
        parametrizations.weight_norm(self.attention_normed.out_proj)
        self.gate = nn.Linear(8, 1)
        self.turned = Conv1D(12, 8)
        self.stack = Stack()
        self.norm = nn.LayerNorm(8)
        self.lm_head = nn.Linear(8, 32, bias=False)


class Stack(nn.Module):
    """A matrix that is called weight, beside one of another shape and a stack."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 8))
        self.other = nn.Parameter(torch.randn(5, 7))
        self.pile = nn.Parameter(torch.randn(3, 5, 7))


_CONFIGS: dict[str, tuple[str, Callable[[], Any]]] = {
    "llama": ("LlamaForCausalLM", _llama),
    "llama-tied": ("LlamaForCausalLM", functools.partial(_llama, tie_word_embeddings=True)),
    "llama-bare": ("LlamaModel", _llama),
    "llama-classifier": ("LlamaForSequenceClassification", functools.partial(_llama, num_labels=3)),
    "gpt2": ("GPT2LMHeadModel", _gpt2),
    "bert": ("BertForMaskedLM", _bert),
    "bert-classifier": ("BertForSequenceClassification", functools.partial(_bert, num_labels=3)),
    "bert-tokens": ("BertForTokenClassification", functools.partial(_bert, num_labels=3)),
    "mixtral": ("MixtralForCausalLM", _mixtral),
    "qwen3_moe": ("Qwen3MoeForCausalLM", _qwen3_moe),
    "deepseek_v3": ("DeepseekV3ForCausalLM", _deepseek_v3),
    "gpt_oss": ("GptOssForCausalLM", _gpt_oss),
    "qwen3_next": ("Qwen3NextForCausalLM", _qwen3_next),
    "jetmoe": ("JetMoeForCausalLM", _jetmoe),
    "mamba": ("MambaForCausalLM", _mamba),
    "falcon": ("FalconForCausalLM", _falcon),
    "t5": ("T5ForConditionalGeneration", _t5),
    "bart": ("BartForConditionalGeneration", _bart),
    "llava": ("LlavaForConditionalGeneration", _llava),
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", _qwen2_vl),
    "siglip": ("SiglipVisionModel", _siglip),
}

NAMES = (*_CONFIGS, "plain")


def build(name: str, device: str = "meta") -> nn.Module:
    """A fresh model."""
    with torch.device(device):
        if name == "plain":
            return Plain()
        if name == "normed":
            return Normed()
        architecture, config = _CONFIGS[name]
        return getattr(transformers, architecture)._from_config(config())


@functools.cache
def mapped(name: str) -> ModelMap:
    """The map of a model."""
    return map_module(build(name, "cpu" if name == "normed" else "meta"), model=name)
