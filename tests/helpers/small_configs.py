"""The configuration of any promised architecture, made small: all its kinds of layers, hardly any numbers.

A rule per family of keys does nearly all of it. What modeling code computes from several keys at once, or draws from
another library, stands in `_SET`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

from architectures import Entry

# Widths of the language model and of everything beside it: unlike each other, and divisible by the heads.
HIDDEN, OTHER_HIDDEN, HEADS, LAYERS, EXPERTS, VOCABULARY = 64, 32, 4, 4, 4, 128


def shrunk(entry: Entry) -> Any:
    """A small configuration of an entry: about four layers, widths of 32 and 64, four experts, 128 tokens.

    Args:
        entry: One of `architectures.entries()` or `layouts()`.

    Returns:
        A configuration of the same class, whose model has every kind of layer that the entry's own has.
    """
    config = entry.config()
    values = small_values(config.to_dict())
    if entry.model_type == "gemma4_assistant":
        # Valid only while it shares all layers, and buildable only if it does not.
        few = values["text_config"]["num_kv_shared_layers"]
        values["text_config"]["num_kv_shared_layers"] = values["text_config"]["num_hidden_layers"]
        small = type(config).from_dict(values)
        small.text_config.num_kv_shared_layers = few
        return small
    return type(config).from_dict(values)


def small_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration, or of a part of one, made small."""
    small = copy.deepcopy(dict(values))
    _shrink(small, _text_width(small))
    for stages in ("out_features", "out_indices", "stage_names"):  # of a backbone, by layers that are gone
        small.pop(stages, None)
    return small


def small_model(entry: Entry) -> Any:
    """The model of `shrunk(entry)` with numbers, in bfloat16 on the CPU: one that can be saved.

    All but gemma4_assistant: transformers builds it only with a configuration that it then refuses to save.
    """
    import torch
    import transformers

    config = shrunk(entry)
    cls = getattr(transformers, entry.architecture)
    if cls.config_class is not None and cls.config_class is config.sub_configs.get("text_config"):
        config = config.get_text_config()  # as the Auto classes do for the text model of a composite
    return cls._from_config(config, dtype=torch.bfloat16)


def _text_width(values: Mapping[str, Any]) -> int:
    """The hidden size of the language model, which other parts name as the width they end in."""
    text = values
    for key in ("thinker_config", "text_config", "llm_config", "decoder"):
        text = text[key] if isinstance(text.get(key), Mapping) else text
    return next((text[key] for key in ("hidden_size", "d_model", "n_embd", "dim") if isinstance(text.get(key), int)), 0)


def _shrink(values: dict[str, Any], width: int) -> None:
    hidden = next((values[key] for key in ("hidden_size", "d_model", "n_embd", "dim", "embed_dim") if key in values), 0)
    mine = HIDDEN if hidden == width else OTHER_HIDDEN
    counts = _shorten(values)
    for key, value in values.items():
        if isinstance(value, dict) and key == "per_layer_config":
            values[key] = {layer: _small(changes, width, mine) for layer, changes in value.items()}
        elif isinstance(value, dict) and key not in _NOT_SIZES:
            _shrink(value, width)
    values |= _small(values, width, mine) | counts
    merge_into(values, _SET.get(values.get("model_type", ""), {}))


def merge_into(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Set keys of a configuration, those of inner ones one by one."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            merge_into(values[key], value)
        else:
            values[key] = value


def _small(values: Mapping[str, Any], width: int, mine: int) -> dict[str, Any]:
    new: dict[str, Any] = {}
    for key, value in values.items():
        if type(value) is int and value > 0:
            new[key] = _number(key, value, width, mine)
        elif isinstance(value, list) and value and re.search("intermediate|heads_per_layer", key):
            new[key] = [_number(key, one, width, mine) if type(one) is int else one for one in value]
        elif key == "attn_layer_indices" and value:
            new[key] = [1]
        else:
            new[key] = value
    # As many keys as queries: every head its own, which some architectures insist on.
    if values.get("num_attention_heads", 0) == values.get("num_key_value_heads"):
        new["num_key_value_heads"] = new["num_attention_heads"]
    return new


def _number(key: str, value: int, width: int, mine: int) -> int:
    for pattern, small in _NUMBERS:
        if re.search(pattern, key):
            return min(value, small if isinstance(small, int) else small(value, width, mine))
    return value


def _wide(value: int, width: int, mine: int) -> int:
    return HIDDEN if value == width else OTHER_HIDDEN


def _head(value: int, width: int, mine: int) -> int:
    # A multiple, where layers differ in it: gemma 4 has 256 in most and 512 in some.
    return mine // HEADS * (2 if value == 512 else 1)


# The first pattern that is found in a key decides; nothing grows.
_NUMBERS: tuple[tuple[str, int | Callable[[int, int, int], int]], ...] = (
    (r"vocab_size|^(codebook_size|num_embeddings|num_centroids)$|_vocab$", VOCABULARY),
    (r"token_(id|index)$|^vocab_offset$|_index$", lambda value, *_: value % 97),
    (r"^(mamba_n_heads|mamba_num_heads)$", 8),
    (r"(^|_)(num_key_value_heads|num_kv_heads|kv_n_heads|num_query_groups|linear_num_key_heads)$", 2),
    (r"(^|_)(num_attention_heads|attention_heads|num_heads|n_heads?|num_value_heads|linear_num_heads)$", HEADS),
    (r"n_groups$|^mamba_ngroups$", 2),
    (r"^(qk_rope_head_dim|rotary_dim)$", 8),
    (r"^qk_head_dim$", 24),
    (r"head_dim$|^d_kv$|_head_size$|^kv_channels$|d_head$|^dim_head$|^mamba_headdim$", _head),
    (r"^(kv|q|o)_lora_rank$|^hc_lowrank$", 24),
    (r"experts_per_tok|top_?k|^moe_k$", 2),
    (r"^(n_group|topk_group|n_shared_experts|num_shared_experts|moe_num_shared_experts)$", 2),
    (r"experts$|^zero_expert_num$", EXPERTS),
    (r"(^|_)(num_hidden_layers|num_layers|n_layers?|encoder_layers|decoder_layers|depth|layers|num_blocks)$", LAYERS),
    (r"^first_k_dense_replace$", 1),
    (r"^max_window_layers$|^num_sparse_\w+_layers$|^num_res_blocks$", 2),
    (r"position_embeddings$|^n_positions$|^max_(source|target)_positions$", 64),
    (r"shared\w*_(intermediate|expert)\w*size|share_expert_dim", 40),
    (r"moe\w*_(intermediate|ffn)\w*_size|expert\w*_size", 32),
    (r"intermediate\w*(size|dim)|ffn_dim|ffn\w*size|^d_ff$|^dff$|^mlp_dim$|^d_inner$|^dim_ff$|feed_forward_size",
     lambda value, width, mine: mine * 3 // 2),
    (r"^hidden_size_per_layer_input$", 16),
    (r"hidden\w*size|^adapter_input_size$|hidden_dim$|^d_model$|^n_embd$|embed_dim$|^embedding_(size|dim)$|_dim$|^dim$|^lru_width$", _wide),
    (r"channels?$", OTHER_HIDDEN),
)  # fmt: skip

# Lists of layer numbers, not of one value per layer.
_NUMBERED = ("moe_layers", "full_attn_idxs", "kv_source_layers", "rope_scaling_layers")

# What the rules above leave inconsistent or large, by the model type of the (sub-)configuration.
_SET: dict[str, dict[str, Any]] = {
    "apertus1p5": {
        "image_token_offset": 0,
        "audio_token_offset": VOCABULARY // 2,
        "vision_config": {"codebook_size": VOCABULARY // 2},
        "audio_config": {"codebook_size": VOCABULARY // 2},
    },
    "blt": {
        "encoder_config": {"hidden_size_global": HIDDEN},
        "decoder_config": {"hidden_size_global": HIDDEN},
        "global_config": {"hidden_size": HIDDEN, "head_dim": HIDDEN // HEADS},
    },
    "clip_vision_model": {"hidden_size": HIDDEN},
    "cosmos3_edge_text": {"rope_parameters": {"mrope_section": [2, 3, 3]}},
    "dory": {  # it lists attention and FFN as layers of their own
        "layer_types": ["sliding_attention", "mlp", "full_attention", "mlp"] * 2,
        "num_hidden_layers": 8,
        "n_input_layers": 2,
        "n_recurrent_layers": 4,
        "n_output_layers": 2,
    },
    "dots3_note_text": {"head_dim": 24},
    "ernie4_5_vl_moe_text": {"rope_parameters": {"mrope_section": [3, 3, 2]}},
    "ernie4_5_vl_moe_vision": {"hidden_size": HIDDEN},
    "falcon_h1": {"mamba_d_ssm": HIDDEN, "mamba_d_head": 8},
    "fast_vlm": {
        "vision_config": {
            "model_args": {"embed_dims": [16, 16, 32, 32, 32], "layers": [2, 2, 2, 2, 2]},
            "hidden_size": 64,
        }
    },
    "florence_vision": {
        "depths": [1, 1, 1, 1],
        "embed_dim": [16, 32, 48, 64],
        "num_heads": [1, 2, 2, 4],
        "num_groups": [1, 2, 2, 4],
        "projection_dim": HIDDEN,
    },
    "gemma3n_vision": {"model_args": {"channel_multiplier": 0.1}},
    "glm5_next_text": {"index_topk": 16},
    "granite4_vision": {"deepstack_layer_map": [[-2, 1], [-3, 2]], "spatial_target_layers": [1, 2]},
    "hrm_text": {"num_layers_per_stack": 2, "num_hidden_layers": 16},
    "hy_v4_vl_text": {"rope_parameters": {"mrope_section": [2, 1, 1]}},
    "inkling_vision": {"patch_size": 8},
    "jamba": {"attn_layer_period": 4, "attn_layer_offset": 2},
    "mamba2": {"num_heads": 8},
    "molmo2_adapter": {"vision_feature_layer": [3, 1]},
    "muse_spark_audio": {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "patch_sizes": [16, 6, 5, 4]},
    "perceiver": {"d_latents": HIDDEN, "num_self_attends_per_block": 2},
    "perception_lm": {"vision_config": {"model_args": {"embed_dim": HIDDEN, "num_heads": HEADS, "depth": 3}}},
    "reformer": {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 48]},
    "vibevoice_acoustic_tokenizer_encoder": {"num_filters": 2, "depths": [1] * 7},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "num_hidden_layers": 4},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "hybrid_layer_ids": [1, 3],
        "num_hidden_layers": 4,
    },
}
# Mappings whose numbers are no sizes.
_NOT_SIZES = ("id2label", "label2id", "rope_parameters", "max_value_projector_patch_to_query_dict",
              "projector_patch_to_query_dict", "vocabulary_map")  # fmt: skip


def _shorten(values: dict[str, Any]) -> dict[str, Any]:
    """Keeps one layer of every kind that lists with one value per layer tell apart, and at least two layers.

    Returns:
        The keys that count layers, with the new count.
    """
    counts = {
        value for key, value in values.items() if type(value) is int and re.search(r"layers?$", key) and value > 2
    }
    lists = {key: value for key, value in values.items() if isinstance(value, list) and len(value) in counts}
    lists = {key: value for key, value in lists.items() if key not in _NUMBERED and not isinstance(value[0], list)}
    if not lists:
        return {}
    count = len(next(iter(lists.values())))
    special = {int(layer): changes for layer, changes in (values.get("per_layer_config") or {}).items()}
    shared = values.get("num_kv_shared_layers") or 0
    dense = values.get("first_k_dense_replace") or 0
    kinds = [
        str([*(column[i] for column in lists.values()), special.get(i), i >= count - shared, i < dense])
        for i in range(count)
    ]
    kept = sorted({*(i for i, kind in enumerate(kinds) if kind not in kinds[:i]), 0, 1})
    for key, column in lists.items():
        values[key] = [column[i] for i in kept]
    for key in (key for key in _NUMBERED if values.get(key)):
        values[key] = [kept.index(i) for i in values[key] if i in kept]
    if special:
        values["per_layer_config"] = {f"{kept.index(i):02}": changes for i, changes in special.items() if i in kept}
    new = {key: len(kept) for key, value in values.items() if value == count and re.search(r"layers?$", key)}
    if shared:
        new["num_kv_shared_layers"] = sum(i >= count - shared for i in kept)
    if dense:
        new["first_k_dense_replace"] = sum(i < dense for i in kept)
    return new
