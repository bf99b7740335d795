"""Small models that run: what a small configuration must change beyond its sizes, so that a forward pass fits together.

Other tests build the small models and convert or save them; none of that needs numbers that agree across modules.
"""

from __future__ import annotations

from typing import Any

from architectures import Entry

from tests.helpers.small_configs import merge_into, shrunk

_SECTIONS = {"text_config": {"rope_parameters": {"mrope_section": [2, 3, 3]}}}
_POOLED = {"mm_tokens_per_image": 49}
_STACKED = {"vision_config": {"deepstack_visual_indexes": [0, 1, 2]}}
_MERGED = {"insert_layer_id": 1}
_WIDE_SOUND = {"audio_config": {"intermediate_size": 128}}

# Changes of the small configuration, by the model type.
CHANGES: dict[str, dict[str, Any]] = {
    "axk1": {"head_dim": 8},
    "bailing_hybrid": {"num_expert_group": 2},
    "cohere_compass": _STACKED,
    "cosmos3_omni": _STACKED,
    "dbrx": {"attn_config": {"clip_qkv": 8.0}},
    "deepseek_ocr2": {
        "text_config": {"num_experts_per_tok": 2},
        "vision_config": {"sam_config": {"downsample_channels": [32, 64]}},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "deepseek_v3": {"head_dim": 8},
    "dots3_note": {"audio_config": {"downsample_hidden_size": 480}},
    "emu3": {"vq_config": {"hidden_size": 128}},
    "gemma3": _POOLED,
    "gemma3n": {"vision_config": {"hidden_size": 2048}},
    "glm46v": _SECTIONS,
    "glm4v": _SECTIONS,
    "glm4v_moe": {"text_config": {"rope_parameters": {"mrope_section": [1, 1, 2]}}},
    "glm_ocr": _SECTIONS,
    "glmasr": _WIDE_SOUND,
    "glmga": _SECTIONS,
    "granite4_vision": {
        "vision_config": {"patch_size": 16},
        "image_grid_pinpoints": [[224, 448]],
        "spatial_target_layers": [0, 1, 2, 3],
    },
    "granite_docling": _STACKED,
    "hunyuan_vl": {"text_config": {"rope_parameters": {"mrope_section": [2, 2, 2, 2]}}},
    "kimi_k25": {"text_config": {"head_dim": 8}},
    "layoutlmv3": {"coordinate_size": 12, "shape_size": 8},
    "led": {"attention_window": [8] * 4},
    "lilt": {"hidden_size": 96},
    "llama4": {"vision_config": {"intermediate_size": 128}},
    "longcat_flash": {"head_dim": 8},
    "minicpm_ocr": _MERGED,
    "minicpmv4_6": _MERGED,
    "minicpmv4_7": _MERGED,
    "mllama": {"vision_config": {"intermediate_layers_indices": [0, 1], "vision_output_dim": 96}},
    "mobilebert": {"intra_bottleneck_size": 32},
    "muse_glimmer": {"out_hidden_size": 128},
    "muse_spark": {"out_hidden_size": 128},
    "paddleocr_vl": _SECTIONS,
    "qwen2_5_omni_thinker": _SECTIONS,
    "qwen2_5_vl": _SECTIONS,
    "qwen2_vl": _SECTIONS,
    "qwen3_omni_moe_thinker": _STACKED,
    "qwen3_vl": _STACKED,
    "qwen3_vl_moe": _STACKED,
    "shieldgemma2": _POOLED,
    "step3p7": {"text_config": {"sliding_window": 8}},
    "t5gemma2": {"encoder": _POOLED},
    "unlimited_ocr": {"vision_config": {"sam_config": {"downsample_channels": [32, 32]}}},
    "vipllava": {"vision_feature_layer": [-2, -3, -4, -5, 1]},
    "voxtral": _WIDE_SOUND,
    "youtu": {"head_dim": 8},
    "zamba": {"attention_hidden_size": 128, "attention_head_dim": 32},
    "zamba2": {"attention_hidden_size": 128, "attention_head_dim": 32},
}


def runnable(entry: Entry) -> Any:
    """A small model of an entry with float32 numbers on the CPU, in evaluation mode, that can be called.

    Its configuration is that of `shrunk(entry)` with the changes that a forward pass needs.
    """
    import torch
    import transformers

    config = shrunk(entry)
    changes = CHANGES.get(entry.model_type)
    if changes:
        values = config.to_dict()
        merge_into(values, changes)
        config = type(config).from_dict(values)
    cls = getattr(transformers, entry.architecture)
    if cls.config_class is not None and cls.config_class is config.sub_configs.get("text_config"):
        config = config.get_text_config()  # as the Auto classes do for the text model of a composite
    return cls._from_config(config, dtype=torch.float32).eval()
