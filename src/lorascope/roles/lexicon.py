"""The table of names: what the words in a weight's dotted name say about its role.

Data only; `classifying` applies it. A name is read as its words without numbers, `model.layers.3.mlp.up_proj` as
`model layers mlp up_proj`. A row that holds for one model type only, because its names mislead, stands in
`EXCEPTIONS` with what the forward pass does there.
"""

from __future__ import annotations

BLOCK_NAMES = frozenset("attention ffn mixer router indexer embedding head other".split())

# Last words that only wrap the module that matters (`q_proj.linear`, a router's bare `gate.weight`).
WRAPPERS = frozenset({"weight", "linear"})

# Bare parameters with two or three dimensions that multiply nothing as a matrix: decays, biases, tokens, scales.
NO_MATRIX = frozenset(
    "A_log D e_score_correction_bias position_bias time_mix_key time_mix_receptance time_mix_value r_r_bias r_s_bias "
    "r_w_bias seg_embed mask_emb gate_up_proj_bias down_proj_bias dt_proj_bias input_gate_bias recurrent_gate_bias "
    "static_weight scale bias gamma b1 b2 class_embedding cls_token cls_register_token probe latents query "
    "latent_query query_1024_resolution query_768_resolution image_positions rel_pos_h rel_pos_w "
    "index_kpool_compress_ape".split()
)

# Which part of a multimodal model a word belongs to; the first row that has a word of the name decides, so what sits
# between a tower and the language model comes before the tower that it may be stored in.
COMPONENTS: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "connector",
        frozenset(
            "multi_modal_projector multimodal_projector mm_projector projector connector aligner generation_aligner "
            "qformer language_projection image_to_text_projection visual_projection vision_adapter vision_projection "
            "merger vit_merger patch_merger merger_list deepstack_merger_list deepstack_mergers perceiver_resampler "
            "resampler_model embed_vision embed_audio layerwise_projectors spatial_projectors modality_projection "
            "img_projection_up img_projection_down up_proj_for_speech down_proj_for_speech up_proj_for_vision_speech "
            "down_proj_for_vision_speech vision_embed_tokens query_tokens gated_cross_attn_layers "
            "sequence_compressor_resampler".split()
        ),
    ),
    ("protein", frozenset({"protein_encoder"})),
    ("codec", frozenset({"vqmodel", "acoustic_tokenizer_encoder", "semantic_tokenizer_encoder", "vocoder"})),
    (
        "audio",
        frozenset("audio_tower audio_encoder audio_embed speech_encoder audio_model word_timestamp_encoder".split()),
    ),
    ("action", frozenset({"dit", "embed_action_time", "action_out_proj"})),
    (
        "vision",
        frozenset(
            "vision_tower vision_model visual vision_encoder image_tower video_tower image_encoder image_embed "
            "high_res_vision_model img_processor".split()
        ),
    ),
)

# Words that open a stack of an encoder-decoder.
STACKS = {
    "encoder": "encoder",
    "decoder": "decoder",
    "text_encoder": "encoder",
    "text_decoder": "decoder",
    "local_encoder": "encoder",
    "local_decoder": "decoder",
}

# Words that open a block, as "block.variant". The last such word of a name decides.
BLOCKS: dict[str, str] = {
    **dict.fromkeys(
        "self_attn attn attention self_attention SelfAttention LocalSelfAttention self_att attentions rel_attn "
        "multi_head_attention longformer_self_attn temporal_block channel_attn window_attn token_mixer self_attends "
        "multihead_attn attn_1 image_pooling_2d attention_input".split(),
        "attention.self",
    ),
    **dict.fromkeys(
        "cross_attn cross_attention crossattention encoder_attn EncDecAttention encoder_decoder_attention x_attn "
        "decoding_cross_attention cross_attn_layers gated_cross_attn_layers".split(),
        "attention.cross",
    ),
    "linear_attn": "attention.linear",
    **dict.fromkeys(
        "mlp ffn ffns feed_forward ff intermediate DenseReluDense ffw_layer_start ffw_layer_end mlps mlp_block ff1 "
        "ff2 feed_forward_in feed_forward_out vision_mlp ffn_layer".split(),
        "ffn.dense",
    ),
    **dict.fromkeys("experts block_sparse_moe moe text_moe vision_moe".split(), "ffn.expert"),
    **dict.fromkeys("shared_expert shared_experts shared_mlp".split(), "ffn.shared"),
    **dict.fromkeys("mamba mixer mlstm_layer rg_lru conv".split(), "mixer"),
    **dict.fromkeys("router gate router_mlp".split(), "router"),
    "indexer": "indexer",
    **dict.fromkeys(
        "embeddings entity_embeddings patch_embedder patch_embed patch_embeddings cell_2d_embedding "
        "gated_positional_embedding pre_tile_positional_embedding post_tile_positional_embedding "
        "image_position_embed input_preprocessor".split(),
        "embedding",
    ),
    **dict.fromkeys(
        "cls lm_head lm_heads generator_predictions predictions entity_predictions score classifier "
        "classification_head pooler pred_layer projection_head generation_head contact_head".split(),
        "head",
    ),
}

# What a leaf is inside its block.
PARTS: dict[str, dict[str, str]] = {
    "attention": {
        **dict.fromkeys(
            "q_proj query q Wq q_lin q_head query_proj project_q to_q q_attn query_global e2e_query e2w_query "
            "w2e_query".split(),
            "q",
        ),
        **dict.fromkeys("k_proj key k Wk k_lin k_head key_proj project_k to_k key_global".split(), "k"),
        **dict.fromkeys("v_proj value v Wv v_lin v_head value_proj project_v to_v value_global".split(), "v"),
        **dict.fromkeys(
            "o_proj out_proj o dense out_lin Wo c_proj proj projection projection_layer post post_proj attention_out "
            "output out to_out".split(),
            "o",
        ),
        **dict.fromkeys(
            "qkv qkv_proj query_key_value Wqkv c_attn in_proj in_proj_weight in_proj_qkv qkv_mlp".split(), "qkv"
        ),
        **dict.fromkeys("kv_proj to_kv kv".split(), "kv"),
        **dict.fromkeys("query_key qk_proj".split(), "qk"),
        "q_gate_proj": "q_gate",
        "in_proj_qkvz": "qkv_gate",
        **dict.fromkeys("gate_proj g_proj output_gate in_proj_z".split(), "gate"),
        "q_a_proj": "q_a",
        "q_b_proj": "q_b",
        "kv_a_proj_with_mqa": "kv_a",
        "kv_b_proj": "kv_b",
        "o_a_proj": "o_a",
        "o_b_proj": "o_b",
        "g_a_proj": "gate_a",
        "g_b_proj": "gate_b",
        **dict.fromkeys("b_proj in_proj_b".split(), "beta"),
        **dict.fromkeys("a_proj in_proj_a f_proj".split(), "decay"),
        "f_a_proj": "decay_a",
        "f_b_proj": "decay_b",
        "in_proj_ba": "beta_decay",
        **dict.fromkeys("pos_proj r_kernel r relative_pos_embeddings linear_pos relative_k_proj".split(), "position"),
        **dict.fromkeys("relative_attention_bias dt_proj".split(), "bias"),
    },
    "ffn": {
        **dict.fromkeys("gate_proj w1 wi_0 proj_up_gate".split(), "gate"),
        **dict.fromkeys(
            "up_proj w3 wi_1 fc1 wi c_fc dense_h_to_4h fc_in lin1 layer_1 linear_1 linear1 linear_fc1 intermediate "
            "proj_up ffw_layer_1 dense1 linear_in w_1".split(),
            "up",
        ),
        **dict.fromkeys(
            "down_proj w2 wo fc2 c_proj dense_4h_to_h fc_out lin2 layer_2 linear_2 linear2 linear_fc2 output proj_down "
            "ffw_layer_2 dense2 linear_out w_out Wo ffn_output".split(),
            "down",
        ),
        **dict.fromkeys("gate_up_proj Wi input_linear".split(), "gate_up"),
        "output_linear": "down",
        "w_0": "gate",
    },
    "mixer": {
        **dict.fromkeys("in_proj linear_x".split(), "in"),
        **dict.fromkeys("x_proj x_proj_weight".split(), "x"),
        **dict.fromkeys("dt_proj dt_proj_weight".split(), "dt"),
        **dict.fromkeys("out_proj linear_out".split(), "out"),
        "linear_y": "gate",
        **{part: part for part in ("q", "k", "v")},
    },
    "head": {
        **dict.fromkeys("decoder proj weight".split(), "lm"),
        **dict.fromkeys("dense transform linear1 linear2".split(), "transform"),
        **dict.fromkeys("out_proj classifier score regression".split(), "classifier"),
    },
}

# Leaves that mean the same wherever they stand.
LEAVES: dict[str, str] = {
    **dict.fromkeys(
        "lm_head embed_out output_projection proj_out vocab_projector generator_lm_head lm_loss unembedding_projection "
        "vision_head".split(),
        "head.lm",
    ),
    **dict.fromkeys("score classifier classification_head pooler.dense".split(), "head.classifier"),
    "vocab_transform": "head.transform",
    "pooler": "head.pooler",
    **dict.fromkeys(
        "embed_tokens wte tok_embeddings word_embeddings word_embedding embed_in tokens_embed shared embeddings "
        "embed_tokens_per_layer input_embedding w visual_embeddings_table value_embeddings "
        "encoder_hash_tok_embedding".split(),
        "embedding.token",
    ),
    **dict.fromkeys(
        "embed_positions position_embeddings position_embedding wpe positions_embed pos_embed positional_embedding "
        "positional_embedding_vlm position_embedding_table x_position_embeddings y_position_embeddings "
        "h_position_embeddings w_position_embeddings row_embedder column_embedder row_embeddings column_embeddings "
        "ngram_embeddings embed_global".split(),
        "embedding.position",
    ),
    **dict.fromkeys("token_type_embeddings segment_emb segment_embedding".split(), "embedding.type"),
    **dict.fromkeys(
        "patch_embedding patch_projection video_patch_projection patch_embed".split(), "embedding.patch"
    ),
    **dict.fromkeys(
        "project_in project_out embeddings_project embedding_hidden_mapping_in embedding_projection "
        "entity_embedding_dense patch_embedding_projection embedding_transformation".split(),
        "embedding.projection",
    ),
    **dict.fromkeys("shared_expert_gate router".split(), "router"),
    **dict.fromkeys("relative_attention_bias rel_pos_emb".split(), "attention.self.bias"),
}

# Leaves that are plain enough to be believed where no word opens a block.
BARE_LEAVES: dict[str, str] = {
    **{leaf: f"attention.self.{part}" for leaf, part in PARTS["attention"].items() if leaf.endswith("_proj")},
    **{leaf: f"attention.self.{part}" for leaf, part in PARTS["attention"].items() if leaf.endswith(("_lin", "to_q"))},
    **{leaf: f"ffn.dense.{part}" for leaf, part in PARTS["ffn"].items() if leaf.startswith(("fc", "lin1", "lin2"))},
    **{leaf: f"ffn.dense.{part}" for leaf, part in PARTS["ffn"].items() if leaf in ("up_proj", "down_proj", "ffn")},
    "gate_proj": "ffn.dense.gate",
    "gate_up_proj": "ffn.dense.gate_up",
    "ffn": "ffn.dense.up",
    "ffn_output": "ffn.dense.down",
    "to_kv": "attention.self.kv",
    "to_out": "attention.self.o",
}

# Two last words, where one is not enough. `{o}` is the attention's output inside an attention, else the FFN's.
TAILS: dict[str, str] = {
    "output.dense": "{o}",
    "intermediate.dense": "ffn.dense.up",
    "intermediate_query.dense": "ffn.dense.up",
    "output_query.dense": "ffn.dense.down",
    "pooler.dense": "head.pooler",
}

# (model types, pattern on the folded name, role, what the forward pass does). Numbers are folded to #.
EXCEPTIONS: tuple[tuple[str, str, str, str], ...] = ()

# (pattern on the start of the folded name, component) by model type, tried before `COMPONENTS`.
COMPONENT_EXCEPTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "vision-encoder-decoder": ((r"encoder\.|enc_to_dec_proj", "vision"),),
    "pix2struct": ((r"encoder\.", "vision"),),
}
