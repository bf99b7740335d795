"""What the words of a weight's dotted name say about its role.

Data only; `classify` applies it. A name is read as its words without numbers, `model.layers.3.mlp.up_proj` as
`model layers mlp up_proj`; its last word is the leaf. A row that holds for one model type only, because its names
mislead, stands in `EXCEPTIONS` with what the forward pass does there.
"""

from __future__ import annotations

_words = str.split  # a row of names is read more easily as one text

BLOCK_NAMES = frozenset(_words("attention ffn mixer router indexer modulation embedding head other"))

# Last words that only wrap the module that matters (`q_proj.linear`, a router's bare `gate.weight`).
WRAPPERS = frozenset({"weight", "weights", "linear"})

# Classes that store their experts as (experts, in, out) without saying so by `is_transposed`.
STORED_IN_OUT = frozenset({"Llama4TextExperts"})

# Bare parameters with two or three dimensions that multiply nothing as a matrix: decays, biases, tokens, scales.
NO_MATRIX = frozenset(
    _words(
        "A_log D e_score_correction_bias position_bias time_mix_key time_mix_receptance time_mix_value "
        "r_r_bias r_s_bias r_w_bias seg_embed mask_emb gate_up_proj_bias down_proj_bias dt_proj_bias "
        "input_gate_bias recurrent_gate_bias static_weight scale bias gamma b1 b2 class_embedding cls_token "
        "cls_register_token index_kpool_compress_ape scale_shift_table layer_scale bias_u bias_v pos_bias_u pos_bias_v codevectors mask_token "
        "global_img_feature_extensor sub_img_feature_extensor cls_embedding pad_embed boi eoi"
    )
)

# Parameters of recurrent layers (`nn.LSTM`), which PyTorch reads in one list: an adapter on one of them has no effect.
RECURRENT = ("weight_ih_l", "weight_hh_l")

# Words that make everything below them `other`: neither a block nor a part of one.
OTHER = frozenset(
    _words(
        # Further residual streams, and what mixes them.
        "altup altup_projections altup_unembed_projections attn_hc ffn_hc hc_head attn_hyper_connection "
        "mlp_hyper_connection hyper_connection_mixer message_input "
        # Low-rank or per-token additions to the blocks.
        "laurel per_layer_input_gate per_layer_projection adapter_modules gate_up_proj_adapter_list "
        # What narrows the stream before a block, or widens it after.
        "bottleneck pre_expert_proj post_expert_proj post_projection "
        # Gates inside norms; norms that are bare tables.
        "input_layernorm post_attention_layernorm q_norm k_norm "
        # Convolutional necks, shortcuts, gates and codebook passages; learned queries kept in an nn.Embedding.
        "neck high_res_vision_neck nin_shortcut conv_y conv_b quant_conv post_quant_conv reparam_conv conv_pwl se "
        "upsampler conv_shortcut controlnet_blocks controlnet_single_blocks"
    )
)

# Modules by their whole name that a word of `COMPONENTS` puts elsewhere.
ROOT_COMPONENTS = {
    **dict.fromkeys(
        _words("visual_projection clip.visual_projection owlvit.visual_projection owlv2.visual_projection"), "vision"
    ),
    "audio_projection": "audio",
}

# Which part of a multimodal model a word belongs to; the first row that has a word of the name decides, so what sits
# between a tower and the language model comes before the tower that it may be stored in.
COMPONENTS: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "connector",
        frozenset(
            _words(
                "multi_modal_projector multimodal_projector mm_projector projector connector aligner "
                "generation_aligner generation_embeddings generation_head qformer language_projection "
                "image_to_text_projection visual_projection vision_adapter vision_projection merger patch_merger "
                "merger_list deepstack_merger_list deepstack_mergers perceiver_resampler resampler_model embed_vision "
                "embed_audio layerwise_projectors spatial_projectors modality_projection img_projection_up "
                "img_projection_down up_proj_for_speech down_proj_for_speech up_proj_for_vision_speech "
                "down_proj_for_vision_speech vision_embed_tokens visual_embeddings_table query_tokens "
                "sequence_compressor_resampler mlp1 resampler image_projector image_pooling_2d "
                "linear_proj"
            )
        ),
    ),
    ("protein", frozenset({"protein_encoder"})),
    ("codec", frozenset({"vqmodel", "vocoder", "codec_model", "audio_tokenizer"})),
    (
        "audio",
        frozenset(
            _words(
                "audio_tower audio_encoder audio_embed speech_encoder audio_model word_timestamp_encoder "
                "word_timestamp_head acoustic_tokenizer_encoder semantic_tokenizer_encoder"
            )
        ),
    ),
    ("action", frozenset({"dit", "embed_action_time", "action_out_proj"})),
    ("diffusion", frozenset({"diffusion_head", "flow_head"})),
    (
        "vision",
        frozenset(
            _words(
                "vision_tower vision_model visual vision_encoder image_tower video_tower image_encoder image_embed "
                "high_res_vision_model high_res_vision_neck img_processor vision vision_backbone image_vit vit vpm"
            )
        ),
    ),
    (
        "text",
        frozenset(_words("language_model text_model llm lang_model text_encoder text_decoder global_transformer")),
    ),
)

# Words that say a component by their parts: `siglip_vision_encoder`, `video_backbone`, `image_resampler`.
COMPONENT_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"(\w+_)?(projector|resampler|connector|q_?former)", "connector"),
    (r"(\w+_)?(vision|visual|image|video)_(\w+_)?(encoder|model|tower|backbone|transformer|trunk)", "vision"),
    (r"(\w+_)?(audio|speech|acoustic)_(\w+_)?(encoder|model|tower|backbone|transformer)", "audio"),
)

# Words of a model type that say what a model without a vocabulary reads, where its convolutions do not.
MODEL_TYPES = {
    **dict.fromkeys(
        _words("vision vit image video radio superglue superpoint lightglue efficientloftr levit"), "vision"
    ),
    **dict.fromkeys(_words("audio speech wav2vec2 asr spectrogram conformer"), "audio"),
    "vqmodel": "codec",
}

# Words that open a stack of an encoder-decoder.
STACKS = {
    "encoder": "encoder",
    "decoder": "decoder",
    "text_encoder": "encoder",
    "text_decoder": "decoder",
}

# Components whose encoder and decoder are the two ends of one autoencoder, not stacks to choose between.
WITHOUT_STACKS = frozenset({"codec"})

# Words that open a block, as the facts that they give. The last such word of a name decides.
BLOCKS: dict[str, str] = {
    **dict.fromkeys(
        _words(
            "self_attn attn attention self_attention SelfAttention LocalSelfAttention self_att attentions "
            "rel_attn multi_head_attention longformer_self_attn temporal_block channel_attn window_attn "
            "token_mixer self_attends multihead_attn attn_1 attention_input attn1 lang_self_att visn_self_att message_attn"
        ),
        "attention.self",
    ),
    **dict.fromkeys(
        _words(
            "cross_attn cross_attention crossattention encoder_attn EncDecAttention encoder_decoder_attention "
            "x_attn decoding_cross_attention cross_attn_layers gated_cross_attn_layers image_pooling_2d attn2 "
            "encoder_attn_text encoder_attn_image visual_attention cross_attn_token_to_image "
            "cross_attn_image_to_token final_attn_token_to_image"
        ),
        "attention.cross",
    ),
    "linear_attn": "attention.linear",
    **dict.fromkeys(
        _words(
            "mlp ffn ffns feed_forward ff intermediate DenseReluDense ffw_layer_start ffw_layer_end mlps "
            "mlp_block ff1 ff2 feed_forward_in feed_forward_out vision_mlp ffn_layer language_mlp residual_mlp "
            "image_projector ffn1 ffn2 feed_forward1 feed_forward2 intermediate_ffn ff_context img_mlp txt_mlp"
        ),
        "ffn.dense",
    ),
    **dict.fromkeys(_words("experts block_sparse_moe moe text_moe vision_moe"), "ffn.expert"),
    **dict.fromkeys(_words("shared_expert shared_experts shared_mlp"), "ffn.shared"),
    **dict.fromkeys(_words("mamba mixer mlstm_layer rg_lru conv lconv1d conv_module"), "mixer"),
    **dict.fromkeys(_words("router gate router_mlp"), "router"),
    "indexer": "indexer",
    **dict.fromkeys(_words("embeddings entity_embeddings cell_2d_embedding input_preprocessor"), "embedding"),
    **dict.fromkeys(_words("patch_embedder patch_embed patch_embeddings x_embedder"), "embedding.patch"),
    # A time step, a guidance scale or a size becomes a vector: both linear layers of the pair.
    **dict.fromkeys(
        _words(
            "timestep_embedder time_embedder guidance_embedder time_embedding time_embed timestep_embed t_embedder "
            "timestep_embedding timestep_proj time_in guidance_in resolution_embedder aspect_ratio_embedder "
            "size_embedder emb_timesteps time_mlp diffusion_embedding add_time_embedding time_step_embed time_step_proj "
            "condition_embedder"
        ),
        "embedding.time",
    ),
    # A prompt, a caption or a class becomes the tokens or the vector that steer a diffusion model.
    **dict.fromkeys(
        _words(
            "caption_projection caption_embedder context_embedder text_embedder label_embedder class_embedder "
            "y_embedder add_embedding encoder_hid_proj image_embedder txt_in vector_in pooled_projection "
            "text_embedding caption_proj clip_mapper context_projector class_embedding cross_attention_proj global_proj "
            "encoder_hidden_states_proj"
        ),
        "embedding.caption",
    ),
    # Neighboring patches of a tower become one of twice the width.
    "downsample": "embedding.merger",
    **dict.fromkeys(_words("pos_conv_embed query_pos_head query_scale"), "embedding.position"),
    **dict.fromkeys(_words("feature_projection subsampling subsample_conv_projection"), "embedding"),
    **dict.fromkeys(
        _words(
            "adaLN_modulation adaln_modulation adaln_single adaln adaLN modulation img_mod txt_mod "
            "distilled_guidance_layer adaln_proj"
        ),
        "modulation",
    ),
    **dict.fromkeys(
        _words(
            "gated_positional_embedding pre_tile_positional_embedding post_tile_positional_embedding "
            "image_position_embed"
        ),
        "embedding.position",
    ),
    **dict.fromkeys(
        _words(
            "cls lm_head lm_heads generator_predictions predictions entity_predictions score classifier head "
            "classification_head pooler pred_layer projection_head generation_head contact_head bbox_embed bbox_predictor "
            "class_embed class_labels_classifier mask_embed mask_embedder mask_predictor answer_head qa_outputs "
            "enc_output enc_out_bbox_embed enc_bbox_head pre_bbox_head output_hypernetworks_mlps iou_prediction_head "
            "pred_obj_score_head decode_head mlm_head enc_out_class_embed tdnn splinter_qass"
        ),
        "head",
    ),
}

# What a word opens that is none of those, by its end: `prompt_cross_attn`, `spatial_attention`, `point_mlp`.
ENDINGS: tuple[tuple[str, str], ...] = (
    (r".*cross_?att(n|ention)s?\d*", "attention.cross"),
    (r"(.*_)?(self_?)?att(n|ention)?s?\d*", "attention.self"),
    (r"(.*_)?(mlp|ffn?|feed_?forward)s?\d*", "ffn.dense"),
    (r"(.*_)?experts", "ffn.expert"),
)

# Ends of words that say a head, tried last.
HEADS = r".*_(heads?|predictors?|classifiers?)\d*"

# What a leaf is inside an attention whose table has no row for it, by the words that underscores divide it into.
ATTENTION_TOKENS: dict[str, str] = {
    **dict.fromkeys(_words("q wq query queries"), "q"),
    **dict.fromkeys(_words("k wk key keys"), "k"),
    **dict.fromkeys(_words("v wv value values"), "v"),
    **dict.fromkeys(_words("o wo out output outputs final"), "o"),
}

# What the leaf is inside its block.
PARTS: dict[str, dict[str, str]] = {
    "attention": {
        **dict.fromkeys(
            _words(
                "q_proj query q Wq q_lin q_head query_proj project_q to_q q_attn query_global e2e_query e2w_query "
                "w2e_query layout_query wq linear_q add_q_proj"
            ),
            "q",
        ),
        **dict.fromkeys(
            _words(
                "k_proj key k Wk k_lin k_head key_proj project_k to_k key_global key_protein layout_key wk linear_k "
                "add_k_proj"
            ),
            "k",
        ),
        **dict.fromkeys(
            _words(
                "v_proj value v Wv v_lin v_head value_proj project_v to_v value_global value_protein layout_value "
                "v_proj_current v_proj_delayed wv linear_v add_v_proj"
            ),
            "v",
        ),
        **dict.fromkeys(
            _words(
                "o_proj out_proj o dense out_lin Wo c_proj proj projection projection_layer post post_proj "
                "attention_out output out to_out proj_out wo language_expert_dense vision_expert_dense output_proj to_add_out"
            ),
            "o",
        ),
        **dict.fromkeys(
            _words(
                "qkv qkv_proj query_key_value Wqkv c_attn in_proj in_proj_weight in_proj_qkv qkv_mlp wqkv W_pack "
                "language_expert_query_key_value vision_expert_query_key_value to_qkv add_qkv_proj to_qkv_mlp_proj"
            ),
            "qkv",
        ),
        **dict.fromkeys(_words("kv_proj to_kv kv key_value"), "kv"),
        # Grounding DINO weighs images by texts and texts by images with the same products.
        **dict.fromkeys(_words("query_key qk_proj vision_proj text_proj"), "qk"),
        "q_gate_proj": "q_gate",
        "in_proj_qkvz": "qkv_gate",
        **dict.fromkeys(_words("gate_proj g_proj output_gate in_proj_z"), "gate"),
        "q_a_proj": "q_a",
        "q_b_proj": "q_b",
        "kv_a_proj_with_mqa": "kv_a",
        "kv_b_proj": "kv_b",
        "o_a_proj": "o_a",
        "o_b_proj": "o_b",
        "g_a_proj": "gate_a",
        "g_b_proj": "gate_b",
        **dict.fromkeys(_words("b_proj in_proj_b"), "beta"),
        **dict.fromkeys(_words("a_proj in_proj_a f_proj"), "decay"),
        "f_a_proj": "decay_a",
        "f_b_proj": "decay_b",
        "in_proj_ba": "beta_decay",
        **dict.fromkeys(
            _words("pos_proj r_kernel r r_proj linear_pos relative_k_proj sampling_offsets relative_position_bias"),
            "position",
        ),
        **dict.fromkeys(_words("relative_pos_embeddings dt_proj sink_proj"), "bias"),
        **dict.fromkeys(_words("conv_kernel_layer conv_out_layer pointwise weight_proj"), "conv"),
        # Deformable attention computes its scores from the query alone.
        "attention_weights": "weight",
    },
    "ffn": {
        **dict.fromkeys(_words("gate_proj w1 w_0 wi_0 proj_up_gate c_fc_0 c_fc2"), "gate"),
        **dict.fromkeys(
            _words(
                "up_proj w3 v1 wi_1 fc1 wi c_fc dense_h_to_4h fc_in lin1 layer_1 linear_1 linear1 linear_fc1 "
                "intermediate proj_up ffw_layer_1 dense1 linear_in w_1 c_fc_1 linear_v proj_1 fc0 intermediate_dense proj_in "
                "in_proj linear_up"
            ),
            "up",
        ),
        **dict.fromkeys(
            _words(
                "down_proj w2 wo fc2 c_proj dense_4h_to_h fc_out lin2 layer_2 linear_2 linear2 linear_fc2 output "
                "proj_down ffw_layer_2 dense2 linear_out w_out Wo ffn_output output_linear proj_2 output_dense proj_out "
                "out_proj linear_down conv_point out_projection net"
            ),
            "down",
        ),
        **dict.fromkeys(_words("gate_up_proj Wi input_linear conv_inverted"), "gate_up"),
    },
    "mixer": {
        **dict.fromkeys(_words("in_proj linear_x linear_start up_conv pointwise_conv1"), "in"),
        **dict.fromkeys(_words("x_proj x_proj_weight"), "x"),
        **dict.fromkeys(_words("dt_proj dt_proj_weight"), "dt"),
        **dict.fromkeys(
            _words("out_proj linear_out linear_end output down_conv ext_pw_conv_1d pointwise_conv2"), "out"
        ),
        **dict.fromkeys(_words("linear_y ogate_preact receptance"), "gate"),
        **dict.fromkeys(_words("input_gate_weight igate_preact"), "input_gate"),
        "recurrent_gate_weight": "recurrent_gate",
        "fgate_preact": "forget_gate",
        "pw_conv": "conv",
        "q": "q",
        **dict.fromkeys(_words("k key"), "k"),
        **dict.fromkeys(_words("v value"), "v"),
    },
    "indexer": {
        **dict.fromkeys(_words("wq_b q_b_proj"), "q"),
        "wk": "k",
        "kv_proj": "kv",
        "index_qk_proj": "qk",
        **dict.fromkeys(_words("gate_proj index_kpool_compress_gate"), "gate"),
        "weights_proj": "weight",
    },
    "embedding": {
        **dict.fromkeys(_words("projection map_inputs_layer"), "projection"),
        **dict.fromkeys(_words("entity_embeddings pronunciation_embed shape_embed"), "token"),
    },
    "head": {
        **dict.fromkeys(_words("decoder proj weight"), "lm"),
        **dict.fromkeys(_words("dense transform linear1 linear2 linear_hidden proj_out"), "transform"),
        **dict.fromkeys(_words("out_proj classifier score regression linear_out"), "classifier"),
    },
}

# Two last words, where one is not enough. `{o}` is the attention's output inside an attention, else the FFN's.
TAILS: dict[str, str] = {
    "output.dense": "{o}",
    "layout_output.dense": "{o}",
    "layout_intermediate.dense": "ffn.dense.up",
    "intermediate.dense": "ffn.dense.up",
    "intermediate_query.dense": "ffn.dense.up",
    "output_query.dense": "ffn.dense.down",
    # Pointwise convolutions in place of linear layers.
    "post_attention.conv1d": "attention.self.o",
    "intermediate.conv1d": "ffn.dense.up",
    "output.conv1d": "ffn.dense.down",
    # A feed-forward network of diffusers: `net` is its activation with a linear layer in it, dropout, and the last.
    "net.proj": "ffn.dense.up",
    "pos_embed.proj": "embedding.patch",
    "patch_embed.text_proj": "embedding.caption",
    "norm_out.linear_2": "head",
    "query.proj": "attention.self.q",
    "key.proj": "attention.self.k",
    "value.proj": "attention.self.v",
    "output.proj": "attention.self.o",
    "pw_exp.conv": "ffn.dense.up",
    "pw_proj.conv": "ffn.dense.down",
    "glu.ext_pw_conv_1d": "mixer.in",
    # A learned query pools the tower's output.
    "head.attention": "attention.cross.qkvo",
    "attn_pool.q": "attention.cross.q",
    "attn_pool.kv": "attention.cross.kv",
    "attn_pool.proj": "attention.cross.o",
    # Maps the relative queries to one score bias per distance.
    "rel_logits_proj.proj": "attention.self.bias",
    "relative_position_bias.proj": "attention.self.bias",
    # Changes the width before a gated MLP.
    "linear_proj.linear_proj": "embedding.projection",
    # One matrix for keys and values; the queries have their own.
    "crossattention.c_attn": "attention.cross.kv",
    "fc1.proj": "ffn.dense.gate_up",
    "lang_inter.dense": "ffn.dense.up",
    "lang_output.dense": "ffn.dense.down",
    "visn_inter.dense": "ffn.dense.up",
    "visn_output.dense": "ffn.dense.down",
    # Around the transformer blocks of a UNet's stage.
    **{
        f"{place}.{leaf}": "embedding.projection"
        for place in ("attentions", "temp_attentions", "motion_modules")
        for leaf in ("proj_in", "proj_out")
    },
    "pooler.dense": "head.pooler",
    "lm_head.out_proj": "head.lm",
}

# Leaves that mean the same wherever they stand, unless their block says otherwise.
LEAVES: dict[str, str] = {
    **dict.fromkeys(
        _words(
            "lm_head lm_heads embed_out output_projection proj_out vocab_projector generator_lm_head lm_loss "
            "vision_head output_layer codebooks_head bpe_head wp_head char_head ctc_head joint_head"
        ),
        "head.lm",
    ),
    **dict.fromkeys(
        _words("score classifier classification_head logits_proj final_layer word_timestamp_head qa_outputs logit_fc"),
        "head.classifier",
    ),
    **dict.fromkeys(
        _words("vocab_transform unembedding_projection project_out pre_classifier encoder_projector decoder_projector"),
        "head.transform",
    ),
    **dict.fromkeys(_words("pooler summary"), "head.pooler"),
    "action_out_proj": "head",
    # From a tower's width to the one that texts and images share.
    **dict.fromkeys(_words("text_projection text_proj project_hid"), "head.projection"),
    # A linear layer that scales, shifts or gates another stream by a vector.
    **dict.fromkeys(_words("time_emb_proj time_proj adaln_proj proj_out_1 cond_embeds_mapper"), "modulation"),
    "proj_mlp": "ffn.dense.up",
    "proj_out_2": "head",
    **dict.fromkeys(_words("reduction downsample_proj"), "embedding.merger"),
    # Learned queries, which a resampler or a detector attends with.
    **dict.fromkeys(
        _words(
            "latents latent_query query_tokens probe query_feat query_embed query_position_embeddings queries_embedder "
            "queries_features query_embeddings query_1024 query_768 query_1024_resolution query_768_resolution "
            "object_queries refpoint_embed query_refpoint_embeddings detection_tokens mask_tokens iou_token "
            "obj_score_token"
        ),
        "embedding.query",
    ),
    **dict.fromkeys(
        _words(
            "embed_tokens wte tok_embeddings word_embeddings word_embedding embed_in tokens_embed shared "
            "embeddings embed_tokens_per_layer input_embedding w visual_embeddings_table value_embeddings "
            "generation_embeddings encoder_hash_tok_embedding embed_global embed_audio_tokens audio_bos_eos_token "
            "token_embeddings new_embedding token_embedding"
        ),
        "embedding.token",
    ),
    # Tables looked up by a position or a distance, also those whose rows are added to the attention scores.
    **dict.fromkeys(
        _words(
            "embed_positions position_embeddings position_embedding wpe positions_embed pos_embed "
            "positional_embedding positional_embedding_vlm position_embedding_table x_position_embeddings "
            "y_position_embeddings h_position_embeddings w_position_embeddings row_embedder column_embedder "
            "row_embeddings column_embeddings image_positions relative_attention_bias bias_values rel_pos_emb "
            "rel_pos_h rel_pos_w rel_pos_bias rel_pos_x_bias rel_pos_y_bias relative_position_bias_table attention_biases "
            "distance_embedding"
        ),
        "embedding.position",
    ),
    **dict.fromkeys(_words("token_type_embeddings segment_emb segment_embedding ngram_embeddings"), "embedding.type"),
    **{f"token_type_embeddings_{number}": "embedding.type" for number in range(7)},
    **dict.fromkeys(
        _words(
            "patch_embedding patch_projection video_patch_projection patch_embed vision_embed_tokens img_in "
            "controlnet_x_embedder"
        ),
        "embedding.patch",
    ),
    **dict.fromkeys(
        _words(
            "project_in embeddings_project embedding_hidden_mapping_in embedding_projection conv_out "
            "entity_embedding_dense patch_embedding_projection embedding_transformation "
            "per_layer_model_projection pre_projection input_proj_linear mm_input_projection_weight "
            "action_in_proj state_proj feature_projection subsampling"
        ),
        "embedding.projection",
    ),
    "action_time_mlp_in": "ffn.dense.up",
    "action_time_mlp_out": "ffn.dense.down",
    **dict.fromkeys(_words("shared_expert_gate router"), "router"),
}

# Leaves that are plain enough to be believed where no word opens a block.
BARE_LEAVES: dict[str, str] = {
    **dict.fromkeys(_words("q_proj q_lin to_q query_proj linear_q queries"), "attention.self.q"),
    **dict.fromkeys(_words("k_proj k_lin to_k key_proj linear_k"), "attention.self.k"),
    **dict.fromkeys(_words("v_proj v_lin to_v value_proj linear_v"), "attention.self.v"),
    **dict.fromkeys(_words("o_proj out_lin to_out attn_out wo"), "attention.self.o"),
    **dict.fromkeys(
        _words("qkv_proj query_key_value att_proj wqkv Wqkv to_qkv queries_keys_values"), "attention.self.qkv"
    ),
    **dict.fromkeys(_words("to_kv keys_values"), "attention.self.kv"),
    **dict.fromkeys(_words("gate_proj ff_proj"), "ffn.dense.gate"),
    "gate_up_proj": "ffn.dense.gate_up",
    **dict.fromkeys(
        _words("up_proj fc1 fc_in lin1 ffn dense_h_to_4h intermediate_dense linear1 linear_up"), "ffn.dense.up"
    ),
    **dict.fromkeys(
        _words("down_proj fc2 fc_out lin2 ffn_output dense_4h_to_h ff_out output_dense linear2 linear_down"),
        "ffn.dense.down",
    ),
    "embedding": "embedding.token",
}

# Linear layers that stand directly under the model itself and have no better name, by their whole name.
ROOT_LEAVES: dict[str, str] = {
    **dict.fromkeys(_words("head decoder output language_model.output model.transformer.ff_out"), "head.lm"),
    **dict.fromkeys(_words("fc timm_model.fc timm_model.head"), "head.classifier"),
    # From a tower's width to the one that texts and images share; `visual_projection` elsewhere is a connector.
    **dict.fromkeys(
        _words(
            "visual_projection clip.visual_projection owlvit.visual_projection owlv2.visual_projection audio_projection"
        ),
        "head.projection",
    ),
    "dense": "head.transform",
    **dict.fromkeys(_words("proj_in embedding_proj output_proj"), "embedding.projection"),
    **dict.fromkeys(_words("proj_to_clip_embeddings project_q"), "head.projection"),
}

# Linear layers of a connector, of a Sequential FFN, or numbered `…1` and `…2`, that no row above knows: one alone
# changes the width, two with an activation between are an MLP.
ALONE = "embedding.projection"
PAIR = ("ffn.dense.up", "ffn.dense.down")

# Modules found next to the projections of a linear attention, never of a softmax attention. Some models
# alternate the two under one name.
LINEAR_ATTENTION_SIBLINGS = frozenset(_words("output_gate forget_gate b_proj f_proj f_a_proj in_proj_ba A_log"))

# (model types, pattern on the folded name, role, what the forward pass does). Numbers are folded to #. A role that
# ends in `*` only says what block it is; the part is read from the leaf.
EXCEPTIONS: tuple[tuple[str, str, str, str], ...] = (
    ("aria", r".*\.cross_attn\.linear", "attention.cross.o", "comes after the inner multi-head attention"),
    ("aya_vision cohere2_vision", r".*projector\.linear_1", "ffn.dense.gate_up", "is split into value and gate"),
    ("aya_vision cohere2_vision", r".*projector\.linear_2", "ffn.dense.down", "comes after the gate"),
    ("deepseek_vl_hybrid", r".*aligner\.(high_res_)?vision_proj", "ffn.dense.up", "the halves of the first layer"),
    ("deepseek_vl_hybrid", r".*aligner\.proj", "ffn.dense.down", "comes after the activation"),
    ("evolla", r".*\.sequence_compressor_resampler\.layers\..*to_.*", "attention.cross.*", "queries are latents"),
    ("evolla", r".*\.adapter\..*", "attention.cross.*", "text queries; keys and values come from the protein"),
    ("focalnet", r".*\.modulation\.projection_in", "mixer.in", "makes query, context and gates"),
    ("focalnet", r".*\.modulation\.projection_out", "mixer.out", "writes back"),
    ("focalnet", r".*\.modulation\..*", "mixer.conv", "gathers the context"),
    ("granite_docling", r".*\.connector\.(coarse|fine)\.projection", "ffn.dense.up", "an activation follows"),
    ("granite_docling", r".*\.connector\.mlp_fc2", "ffn.dense.down", "comes after the activation"),
    ("granite_speech5_encoder", "out", "head.lm", "CTC logits halfway up the tower"),
    ("granite_speech5_encoder", "out_mid", "embedding.projection", "reads those back in"),
    ("granite_speech5_ctc", r"encoder\.out", "head.lm", "CTC logits halfway up the tower"),
    ("granite_speech5_ctc", r"encoder\.out_mid", "embedding.projection", "reads those back in"),
    ("granite_speech granite_speech_plus", r"model\.encoder\.input_linear", "embedding.projection", "reads features"),
    ("granite_speech granite_speech_plus", r"model\.encoder\.out", "head.lm", "CTC logits halfway up the tower"),
    ("granite_speech granite_speech_plus", r"model\.encoder\.out_mid", "embedding.projection", "reads those back in"),
    ("grok-1", r".*\.experts\.#\.linear", "ffn.expert.gate", "gelu follows; `linear_v` is the value"),
    ("grok-1", r".*\.experts\.#\.linear_1", "ffn.expert.down", "comes after the product"),
    (
        "hunyuan_vl hy_v4_vl",
        r".*\.patch_merger\.proj_out",
        "ffn.dense.down",
        "after the activation; `mlp` is one matrix",
    ),
    ("idefics2", r".*\.perceiver_resampler\..*self_attn\..*", "attention.cross.*", "queries are latents"),
    ("inkling_mm_model", r".*\.vision_tower\..*\.projection", "embedding.patch", "folds neighboring patches"),
    ("janus", r".*aligner\.hidden_layers\.#", "ffn.dense.down", "comes after the activation"),
    ("jetmoe", r".*\.self_attention\.experts\.input_linear\.weight", "attention.self.q", "one query matrix per expert"),
    ("jetmoe", r".*\.self_attention\.experts\.output_linear\.weight", "attention.self.o", "one output per expert"),
    ("minimax", r".*\.self_attn\.(qkv_proj|out_proj|output_gate)", "attention.linear.*", "lightning attention"),
    ("levit", r".*\.projection\.linear", "attention.self.o", "writes back what the attention weighs"),
    ("mobilebert", r"cls\.predictions\.dense", "head.lm", "more columns of the vocabulary projection"),
    ("moshi", r".*\.mlp\.fc1", "ffn.dense.gate_up", "is split into gate and value"),
    ("nemo_speechlm", r".*\.embedder\.projection", "embedding.patch", "folds neighboring frames"),
    ("nemo_speechlm", r".*\.diarization_model\.model\.proj", "embedding.projection", "only changes the width"),
    ("ovis2", r".*\.head_linear", "head.lm", "logits over the visual vocabulary"),
    ("phi4_multimodal", r".*\.(up_proj_for_\w+|img_projection_up)", "ffn.dense.up", "an activation follows"),
    ("phi4_multimodal", r".*\.(down_proj_for_\w+|img_projection_down)", "ffn.dense.down", "after the activation"),
    ("phi4_multimodal", r".*\.encoder\.embed\.out", "embedding.projection", "ends the convolutional front"),
    ("phi4_multimodal", r".*\.encoder\.embed\.conv\.#", "other", "pointwise step of the convolutional front"),
    ("muse_glimmer_assistant", r"encoder\.fc", "embedding.projection", "narrows the hidden states of five layers"),
    ("muse_spark_audio", "proj", "embedding.projection", "only changes the width"),
    ("neomme", r".*\.patch_embeddings\.(up|down)_proj", "ffn.dense.*", "an MLP from pixels to the text width"),
    ("pp_formulanet vibevoice_asr", r".*projector\..*linear_\d", "embedding.projection", "no activation between them"),
    ("qwen", r".*\.mlp\.w1", "ffn.dense.up", "is multiplied with silu of `w2`"),
    ("qwen", r".*\.mlp\.w2", "ffn.dense.gate", "silu follows"),
    ("qwen", r".*\.attn_pool\.kv_proj", "embedding.projection", "comes before the attention that pools"),
    ("qwen", r".*\.attn_pool\.attn", "attention.cross.qkvo", "queries are learned"),
    ("qwen", r"transformer\.visual\.proj", "embedding.projection", "ends the resampler"),
    ("recurrent_gemma", r".*\.temporal_block\.linear_(x|y|out)", "mixer.*", "around the recurrence"),
    ("reformer", r".*\.feed_forward\.dense\.dense", "ffn.dense.up", "the output is `output.dense`"),
    ("rwkv", r".*\.attention\.(key|value|receptance|output)", "mixer.*", "a recurrence without attention scores"),
    ("rwkv", r".*\.feed_forward\.key", "ffn.dense.up", "squared ReLU follows"),
    ("rwkv", r".*\.feed_forward\.receptance", "ffn.dense.gate", "sigmoid follows"),
    ("rwkv", r".*\.feed_forward\.value", "ffn.dense.down", "writes back"),
    ("timesformer", r".*\.temporal_dense", "attention.self.o", "a second output of the attention over time"),
    ("vibevoice", r".*\.diffusion_head\.layers\.#\.linear", "modulation", "is split into shift, scale and gate"),
    ("vibevoice", r".*\.diffusion_head\.final_layer\.linear_1", "modulation", "is split into shift and scale"),
    ("vibevoice", r".*\.diffusion_head\.final_layer\.linear_2", "head", "writes the latents"),
    ("xclip", r".*\.message_fc", "embedding.projection", "makes a token for the exchange between frames"),
    ("zamba zamba2", r".*\.layers\.#\.linear", "other", "brings the shared block's output into the mamba stream"),
)

# (pattern on the start of the folded name, component) by model type, tried before `COMPONENTS`.
COMPONENT_EXCEPTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "dots3_note": ((r"model\.audio_tower\.adapter\.", "connector"),),
    "granite_speech": ((r"model\.encoder\.", "audio"),),
    "granite_speech_plus": ((r"model\.encoder\.", "audio"),),
    "muse_spark": ((r"model\.audio_tower\.proj$", "connector"),),
    "neomme": ((r"model\.patch_embeddings\.", "connector"),),
    "ovis2": ((r"model\.vision_tower\.head_linear$", "connector"),),
    "phi4_multimodal": ((r".*\.image_embed\.\w+_feature_extensor$", "connector"),),
    "pix2struct": ((r"encoder\.", "vision"),),
    "pp_formulanet": ((r"model\.encoder\.multi_modal_projector\.", "connector"), (r"model\.encoder\.", "vision")),
    "qwen": ((r"transformer\.visual\.(attn_pool\.|proj$)", "connector"),),
    "qwen2_5_omni_thinker": ((r"model\.audio_tower\.proj$", "connector"),),
    "qwen3_omni_moe_thinker": ((r"model\.audio_tower\.proj\d$", "connector"),),
    "uvdoc": ((r"(model\.)?head\.bridge_connector\.", "vision"),),
    "vision-encoder-decoder": ((r"encoder\.|enc_to_dec_proj", "vision"),),
}
