"""Every architecture that the project promises: one entry per (head, model type) of transformers' mappings.

The generator of built-in maps, the conformance suite and the documentation tools all walk this list, so that none of them
can quietly cover fewer models than another.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

from lorascope.model.types import Head

# transformers' own mapping for each head.
HEADS: dict[Head, str] = {
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "image-text-to-text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "seq2seq-lm": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "masked-lm": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "sequence-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One architecture: `label` is unique (`mistral`, or `mamba+…` for a released layout)."""

    head: Head
    model_type: str
    architecture: str
    layout: str = ""

    @property
    def label(self) -> str:
        return f"{self.model_type}+{self.layout}" if self.layout else self.model_type

    def config(self) -> Any:
        """A fresh configuration of this entry; some defaults are incomplete and are completed as released models are."""
        return _configuration(self.model_type, self.head, self.layout)

    def build(self) -> Any:
        """The model on the meta device."""
        from lorascope.sources.transformers.meta_model import build

        return build(self.config(), architecture=self.architecture)


def mend_torchvision() -> None:
    """Let timm import beside a CPU-only torch; without torchvision, do nothing.

    torchvision's published wheel may be built for another accelerator than the installed torch. Its compiled
    operators then do not load, and declaring the two that it registers at import time is all that timm needs.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        return  # transformers does without; the few models that need timm do not
    except (ImportError, OSError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)


_LIBRARIES: list[Any] = []  # a torch library lives only as long as its Python object


def entries(*heads: Head) -> Iterator[Entry]:
    """The entries of the given heads (all heads but sequence classification where none is given)."""
    from transformers.models.auto import modeling_auto

    for head in heads or tuple(h for h in HEADS if h != "sequence-classification"):
        for model_type, names in getattr(modeling_auto, HEADS[head]).items():
            architecture = names[0] if isinstance(names, tuple | list) else names
            yield Entry(head, model_type, architecture)


def _rope() -> dict[str, dict[str, Any]]:
    default = {"rope_type": "default", "rope_theta": 10000.0}
    return {"full_attention": dict(default), "sliding_attention": dict(default)}


_INDEXER = {
    "indexer_n_heads": 8,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 256,
    "indexer_budget": 2048,
    "indexer_compress_ratio": 16,
}
_PERCEPTION_ENCODER = {
    "embed_dim": 1024,
    "img_size": [448, 448],
    "depth": 23,
    "global_pool": "",
    "use_post_transformer_norm": False,
    "init_values": 0.1,
    "ref_feat_shape": [32, 32],
}

# Default configurations that transformers cannot build, completed with the values of a released model.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "aya_vision": {"vision_config": {"model_type": "siglip_vision_model", "num_attention_heads": 16}},
    "chameleon": {"vocabulary_map": {"<image>": 8711}},
    "cohere_compass": {"text_config": {"model_type": "cohere_compass_text", "rope_parameters": _rope()}},
    "cohere_compass_text": {"rope_parameters": _rope()},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense"] + ["sparse"] * 31}},
    "diffusion_gemma": {"text_config": {"num_experts": 128, "top_k_experts": 8, "moe_intermediate_size": 704}},
    "dots1": {
        "n_routed_experts": 128,
        "n_shared_experts": 2,
        "first_k_dense_replace": 1,
        "num_experts_per_tok": 6,
    },
    "emu3": {"vocabulary_map": {"<image>": 0, "<|extra_200|>": 1}},
    "esm": {"vocab_size": 33},
    "granite4_vision": {"downsample_rate": "1/2", "deepstack_layer_map": [[-2, 1], [-4, 5]]},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "hunyuan_vl": {"text_config": {"head_dim": 128}},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
    "perception_lm": {
        "vision_config": {
            "model_type": "timm_wrapper",
            "architecture": "vit_pe_core_large_patch14_336",
            "model_args": _PERCEPTION_ENCODER,
        }
    },
    "qwen4_exp": {"text_config": dict(_INDEXER)},
    "qwen4_exp_text": dict(_INDEXER),
    "reformer": {"is_decoder": True},  # of its causal head only
}

# Released layouts that the default configuration hides, as (head, model type, layout name, arguments).
_LAYOUTS: tuple[tuple[Head, str, str, dict[str, Any]], ...] = (
    ("causal-lm", "bamba", "attention", {"attn_layer_indices": [9, 18, 27]}),
    (
        "causal-lm",
        "granitemoehybrid",
        "attention",
        {"layer_types": (["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 3 + ["mamba"] * 2},
    ),
    (
        "causal-lm",
        "gemma4_text",
        "experts",
        {"enable_moe_block": True, "num_experts": 128, "top_k_experts": 8, "moe_intermediate_size": 704},
    ),
    ("causal-lm", "lfm2", "conv", {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8}),
    ("causal-lm", "jamba", "dense", {"num_experts": 1, "num_experts_per_tok": 1}),
    ("causal-lm", "gpt2", "cross", {"add_cross_attention": True}),
    ("causal-lm", "opt", "projected", {"hidden_size": 1024, "word_embed_proj_dim": 512, "num_attention_heads": 16}),
    ("causal-lm", "falcon", "new-decoder", {"new_decoder_architecture": True, "num_kv_heads": 8}),
    ("causal-lm", "deepseek_v2", "lite", {"q_lora_rank": None}),
    ("causal-lm", "bert", "cross", {"is_decoder": True, "add_cross_attention": True}),
    ("causal-lm", "nemotron_h", "experts", {"layers_block_type": ["mamba", "moe", "attention", "moe"] * 7}),
    ("seq2seq-lm", "t5", "gated", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
)


def layouts() -> Iterator[Entry]:
    """Released layouts that differ in their modules from the default configuration."""
    by_key = {(entry.head, entry.model_type): entry for entry in entries()}
    for head, model_type, layout, _ in _LAYOUTS:
        yield dataclasses.replace(by_key[head, model_type], layout=layout)


def _configuration(model_type: str, head: str, layout: str) -> Any:
    import transformers

    arguments = _ARGUMENTS.get(model_type, {})
    if model_type == "reformer" and head != "causal-lm":
        arguments = {}
    if layout:
        arguments = next(a for h, t, name, a in _LAYOUTS if (h, t, name) == (head, model_type, layout))
    if model_type == "dbrx":
        config = transformers.DbrxConfig(**arguments)
        config.attn_config.rope_theta = 5e5
        return config
    if head == "causal-lm" and model_type in ("musicgen", "musicgen_melody"):  # the decoder of the composite model
        return transformers.AutoConfig.for_model(model_type).decoder
    if model_type == "gemma4_assistant":
        text = {"model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
        config = transformers.AutoConfig.for_model(model_type, text_config=text)
        config.text_config.num_kv_shared_layers = config.text_config.num_hidden_layers - 12
        return config
    if model_type == "gemma4_unified_assistant":
        config = transformers.AutoConfig.for_model(model_type)
        config.text_config.num_kv_shared_layers = config.text_config.num_hidden_layers - 12
        return config
    return transformers.AutoConfig.for_model(model_type, **copy.deepcopy(arguments))
