"""The tensors of released checkpoints whose code is not in transformers, as their files hold them.

Each layout says where its names and its sizes were read. Names are folded as everywhere in lorascope
(`h.{0-31}` stands for thirty-two), shapes are as stored. Left out is what could not be verified: stored rotary
frequencies, and output heads that share the embedding's tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lorascope.names import template, unfold
from lorascope.sources.checkpoint.types import Stored

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """One released checkpoint.

    Attributes:
        model: What it is called on the Hub.
        model_type: As its configuration has it.
        source: Where names, sizes and the forward pass were read.
        shapes: Folded tensor name to shape.
        kinds: What its code makes of the modules (by template) that are no `nn.Linear`, norm or container.
        buffers: Templates of the tensors that its code registers as buffers.
        embeddings: What `get_input_embeddings()` and `get_output_embeddings()` return.
        parameters: The count that the publisher's own index states, where it states one.
    """

    model: str
    model_type: str
    source: str
    shapes: Shapes
    kinds: Mapping[str, str]
    embeddings: tuple[str, str]
    buffers: frozenset[str] = frozenset()
    parameters: int | None = None

    def tensors(self) -> dict[str, Stored]:
        """Every tensor by name."""
        return {
            name: Stored(name, shape, "BF16", sources=(name,))
            for folded, shape in self.shapes.items()
            for name in unfold(folded)
        }

    def templates(self) -> frozenset[str]:
        """The templates of all tensors."""
        return frozenset(map(template, self.tensors()))


def _with_bias(shapes: Shapes) -> Shapes:
    """The weights, each with the bias of an `nn.Linear`, convolution or LayerNorm."""
    biased = dict(shapes)
    for name, shape in shapes.items():
        biased[name.removesuffix("weight") + "bias"] = shape[:1]
    return biased


def _conv1d_with_bias(shapes: Shapes) -> Shapes:
    """The same for transformers' `Conv1D`, whose weight is stored (in, out)."""
    return {**shapes, **{name.removesuffix("weight") + "bias": shape[1:] for name, shape in shapes.items()}}


def _llama_norms(layers: str, width: int) -> Shapes:
    return {
        f"model.layers.{layers}.input_layernorm.weight": (width,),
        f"model.layers.{layers}.post_attention_layernorm.weight": (width,),
        "model.norm.weight": (width,),
    }


def _internlm2(prefix: str, layers: int, hidden: int, wide: int, heads: int, groups: int, vocabulary: int) -> Shapes:
    block = f"{prefix}model.layers.{{0-{layers - 1}}}"
    return {
        f"{prefix}model.tok_embeddings.weight": (vocabulary, hidden),
        f"{block}.attention.wqkv.weight": ((heads + 2 * groups) * 128, hidden),
        f"{block}.attention.wo.weight": (hidden, heads * 128),
        f"{block}.feed_forward.w1.weight": (wide, hidden),
        f"{block}.feed_forward.w2.weight": (hidden, wide),
        f"{block}.feed_forward.w3.weight": (wide, hidden),
        f"{block}.attention_norm.weight": (hidden,),
        f"{block}.ffn_norm.weight": (hidden,),
        f"{prefix}model.norm.weight": (hidden,),
        f"{prefix}output.weight": (vocabulary, hidden),
    }


_QWEN: Shapes = {
    "transformer.wte.weight": (151936, 4096),
    "transformer.h.{0-31}.ln_1.weight": (4096,),
    **_with_bias({"transformer.h.{0-31}.attn.c_attn.weight": (12288, 4096)}),
    "transformer.h.{0-31}.attn.c_proj.weight": (4096, 4096),
    "transformer.h.{0-31}.ln_2.weight": (4096,),
    "transformer.h.{0-31}.mlp.w1.weight": (11008, 4096),
    "transformer.h.{0-31}.mlp.w2.weight": (11008, 4096),
    "transformer.h.{0-31}.mlp.c_proj.weight": (4096, 11008),
    "transformer.ln_f.weight": (4096,),
    "lm_head.weight": (151936, 4096),
}


def _openelm() -> Shapes:
    """Every layer of OpenELM has its own number of heads and its own width."""
    heads = [16] * 3 + [20] * 7 + [24] * 8 + [28] * 6 + [32] * 4
    wide = [
        0.5, 0.63, 0.76, 0.89, 1.02, 1.15, 1.28, 1.41, 1.54, 1.67, 1.8, 1.93, 2.06, 2.19,
        2.31, 2.44, 2.57, 2.7, 2.83, 2.96, 3.09, 3.22, 3.35, 3.48, 3.61, 3.74, 3.87, 4.0,
    ]  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.token_embeddings.weight": (32000, 2048),
        "transformer.norm.weight": (2048,),
    }
    for layer, (count, factor) in enumerate(zip(heads, wide, strict=True)):
        block = f"transformer.layers.{layer}"
        width = int(factor * 2048 + 128) // 256 * 256  # the nearest multiple of ffn_dim_divisor
        shapes |= {
            f"{block}.attn_norm.weight": (2048,),
            f"{block}.attn.qkv_proj.weight": ((count + 2 * (count // 4)) * 64, 2048),
            f"{block}.attn.q_norm.weight": (64,),
            f"{block}.attn.k_norm.weight": (64,),
            f"{block}.attn.out_proj.weight": (2048, count * 64),
            f"{block}.ffn_norm.weight": (2048,),
            f"{block}.ffn.proj_1.weight": (2 * width, 2048),
            f"{block}.ffn.proj_2.weight": (2048, width),
        }
    return shapes


LAYOUTS = (
    Layout(
        "baichuan-inc/Baichuan2-13B-Chat",
        "baichuan",
        "jrd77/Baichuan2-13B-Chat modeling_baichuan.py; sizes: inclusionAI/Ling "
        "mindie_config/atb_models/build/lib/atb_llm/models/baichuan/v2_13b/config_baichuan.py",
        {
            "model.embed_tokens.weight": (125696, 5120),
            "model.layers.{0-39}.self_attn.W_pack.weight": (15360, 5120),
            "model.layers.{0-39}.self_attn.o_proj.weight": (5120, 5120),
            "model.layers.{0-39}.mlp.gate_proj.weight": (13696, 5120),
            "model.layers.{0-39}.mlp.up_proj.weight": (13696, 5120),
            "model.layers.{0-39}.mlp.down_proj.weight": (5120, 13696),
            **_llama_norms("{0-39}", 5120),
            "lm_head.weight": (125696, 5120),
        },
        # The head is a NormHead of its own, with a bare `weight`: PEFT refuses it, and no name tells.
        {"model.embed_tokens": "embedding", "lm_head": "other"},
        ("model.embed_tokens", "lm_head"),
    ),
    Layout(
        "internlm/internlm2-chat-7b",
        "internlm2",
        "NanSang2000/S1mpleAgent modeling_internlm2.py, config.json, model.safetensors.index.json (its total_size is the "
        "parameters' two bytes each)",
        _internlm2("", layers=32, hidden=4096, wide=14336, heads=32, groups=8, vocabulary=92544),
        {"model.tok_embeddings": "embedding"},
        ("model.tok_embeddings", "output"),
        parameters=15475417088 // 2,
    ),
    Layout(
        "THUDM/chatglm2-6b",
        "chatglm",
        "bq-xiao/chatglm2-6b-model modeling_chatglm.py; sizes: NVIDIA/TensorRT-LLM test of _normalize_chatglm_config; "
        "chatglm3-6b has the same; the stored buffer: ggml-org/llama.cpp gguf-py/gguf/tensor_mapping.py",
        {
            "transformer.embedding.word_embeddings.weight": (65024, 4096),
            "transformer.rotary_pos_emb.inv_freq": (32,),
            "transformer.encoder.layers.{0-27}.input_layernorm.weight": (4096,),
            **_with_bias({"transformer.encoder.layers.{0-27}.self_attention.query_key_value.weight": (4608, 4096)}),
            "transformer.encoder.layers.{0-27}.self_attention.dense.weight": (4096, 4096),
            "transformer.encoder.layers.{0-27}.post_attention_layernorm.weight": (4096,),
            "transformer.encoder.layers.{0-27}.mlp.dense_h_to_4h.weight": (27392, 4096),
            "transformer.encoder.layers.{0-27}.mlp.dense_4h_to_h.weight": (4096, 13696),
            "transformer.encoder.final_layernorm.weight": (4096,),
            "transformer.output_layer.weight": (65024, 4096),
        },
        {"transformer.embedding.word_embeddings": "embedding"},
        ("transformer.embedding.word_embeddings", "transformer.output_layer"),
        frozenset({"transformer.rotary_pos_emb.inv_freq"}),
    ),
    Layout(
        "THUDM/chatglm-6b",
        "chatglm",
        "greensheng/chatglm-6b modeling_chatglm.py, config.json, convert_sat_checkpoint.py (without its image encoder)",
        {
            "transformer.word_embeddings.weight": (130528, 4096),
            **_with_bias(
                {
                    "transformer.layers.{0-27}.input_layernorm.weight": (4096,),
                    "transformer.layers.{0-27}.attention.query_key_value.weight": (12288, 4096),
                    "transformer.layers.{0-27}.attention.dense.weight": (4096, 4096),
                    "transformer.layers.{0-27}.post_attention_layernorm.weight": (4096,),
                    "transformer.layers.{0-27}.mlp.dense_h_to_4h.weight": (16384, 4096),
                    "transformer.layers.{0-27}.mlp.dense_4h_to_h.weight": (4096, 16384),
                    "transformer.final_layernorm.weight": (4096,),
                }
            ),
            "lm_head.weight": (130528, 4096),
        },
        {"transformer.word_embeddings": "embedding"},
        ("transformer.word_embeddings", "lm_head"),
    ),
    Layout(
        "hpcai-tech/grok-1",
        "grok-1",
        "vllm-project/vllm vllm/model_executor/models/grok1.py (load_weights and get_expert_mapping); sizes: "
        "NVIDIA/TensorRT-LLM tensorrt_llm/models/grok/convert.py",
        {
            "model.embed_tokens.weight": (131072, 6144),
            "model.layers.{0-63}.attn.q_proj.weight": (6144, 6144),
            "model.layers.{0-63}.attn.k_proj.weight": (1024, 6144),
            "model.layers.{0-63}.attn.v_proj.weight": (1024, 6144),
            "model.layers.{0-63}.attn.o_proj.weight": (6144, 6144),
            "model.layers.{0-63}.moe_block.gate.weight": (8, 6144),
            "model.layers.{0-63}.moe_block.experts.{0-7}.linear.weight": (32768, 6144),
            "model.layers.{0-63}.moe_block.experts.{0-7}.linear_v.weight": (32768, 6144),
            "model.layers.{0-63}.moe_block.experts.{0-7}.linear_1.weight": (6144, 32768),
            "model.layers.{0-63}.pre_attn_norm.scale": (6144,),
            "model.layers.{0-63}.post_attn_norm.scale": (6144,),
            "model.layers.{0-63}.pre_moe_norm.scale": (6144,),
            "model.layers.{0-63}.post_moe_norm.scale": (6144,),
            "model.norm.scale": (6144,),
        },
        {"model.embed_tokens": "embedding"},
        ("model.embed_tokens", ""),
    ),
    Layout(
        "Qwen/Qwen-7B",
        "qwen",
        "zhangningboo/Qwen-7B modeling_qwen.py, config.json",
        _QWEN,
        {"transformer.wte": "embedding"},
        ("transformer.wte", "lm_head"),
    ),
    Layout(
        "microsoft/Phi-3-small-8k-instruct",
        "phi3small",
        "vllm-project/vllm vllm/model_executor/models/phi3_small.py; sizes: its config.json "
        "(huggingface.co/microsoft/Phi-3-small-8k-instruct)",
        {
            "model.embed_tokens.weight": (100352, 4096),
            **_with_bias(
                {
                    "model.layers.{0-31}.input_layernorm.weight": (4096,),
                    "model.layers.{0-31}.self_attn.query_key_value.weight": (6144, 4096),
                    "model.layers.{0-31}.self_attn.dense.weight": (4096, 4096),
                    "model.layers.{0-31}.post_attention_layernorm.weight": (4096,),
                    "model.layers.{0-31}.mlp.up_proj.weight": (28672, 4096),
                    "model.layers.{0-31}.mlp.down_proj.weight": (4096, 14336),
                    "model.final_layernorm.weight": (4096,),
                }
            ),
        },
        {"model.embed_tokens": "embedding"},
        ("model.embed_tokens", ""),
    ),
    Layout(
        "Tele-AI/telechat-7B",
        "telechat",
        "Tele-AI/Telechat models/7B/config.json, models/7B/pytorch_model.bin.index.json (names of the base model, no "
        "head); Srangrang/torch_extention modeling_telechat.py",
        {
            "word_embeddings.weight": (160256, 4096),
            "h.{0-29}.input_layernorm.weight": (4096,),
            "h.{0-29}.self_attention.query.weight": (4096, 4096),
            "h.{0-29}.self_attention.key_value.weight": (8192, 4096),
            **_with_bias({"h.{0-29}.self_attention.dense.weight": (4096, 4096)}),
            "h.{0-29}.post_attention_layernorm.weight": (4096,),
            "h.{0-29}.mlp.gate_proj.weight": (12288, 4096),
            "h.{0-29}.mlp.up_proj.weight": (12288, 4096),
            **_with_bias({"h.{0-29}.mlp.down_proj.weight": (4096, 12288)}),
            "ln_f.weight": (4096,),
        },
        {"word_embeddings": "embedding"},
        ("word_embeddings", ""),
    ),
    Layout(
        "core42/jais-13b",
        "jais",
        "vllm-project/vllm vllm/model_executor/models/jais.py (load_weights transposes c_attn, c_proj and c_fc, and "
        "skips the masks); sizes: huggingface.co/core42/jais-13b config.json",
        {
            "transformer.wte.weight": (84992, 5120),
            **_with_bias(
                {
                    "transformer.h.{0-39}.ln_1.weight": (5120,),
                    "transformer.h.{0-39}.ln_2.weight": (5120,),
                    "transformer.ln_f.weight": (5120,),
                }
            ),
            **_conv1d_with_bias(
                {
                    "transformer.h.{0-39}.attn.c_attn.weight": (5120, 15360),
                    "transformer.h.{0-39}.attn.c_proj.weight": (5120, 5120),
                    "transformer.h.{0-39}.mlp.c_fc.weight": (5120, 13653),
                    "transformer.h.{0-39}.mlp.c_fc2.weight": (5120, 13653),
                    "transformer.h.{0-39}.mlp.c_proj.weight": (13653, 5120),
                }
            ),
            "transformer.h.{0-39}.attn.bias": (1, 1, 2048, 2048),
            "transformer.h.{0-39}.attn.masked_bias": (),
        },
        {
            "transformer.wte": "embedding",
            "transformer.h.#.attn.c_attn": "conv1d",
            "transformer.h.#.attn.c_proj": "conv1d",
            "transformer.h.#.mlp.c_fc": "conv1d",
            "transformer.h.#.mlp.c_fc2": "conv1d",
            "transformer.h.#.mlp.c_proj": "conv1d",
        },
        ("transformer.wte", ""),
        frozenset({"transformer.h.#.attn.bias", "transformer.h.#.attn.masked_bias"}),
    ),
    Layout(
        "apple/OpenELM-1_1B",
        "openelm",
        "ggml-org/llama.cpp gguf-py/gguf/tensor_mapping.py; sizes: huggingface.co/mlx-community/OpenELM-1_1B-Instruct-4bit "
        "config.json; the GLU: class OpenELMFeedForwardNetwork of modeling_openelm.py",
        _openelm(),
        {"transformer.token_embeddings": "embedding"},
        ("transformer.token_embeddings", ""),
    ),
    Layout(
        "OpenGVLab/InternVL2-2B",
        "internvl_chat",
        "zylluan/ft-uav_internvl2-2B modeling_internvl_chat.py, config.json; rynmurdock/pooled_vlm modeling_intern_vit.py",
        {
            "vision_model.embeddings.class_embedding": (1, 1, 1024),
            "vision_model.embeddings.position_embedding": (1, 1025, 1024),
            **_with_bias(
                {
                    "vision_model.embeddings.patch_embedding.weight": (1024, 3, 14, 14),
                    "vision_model.encoder.layers.{0-23}.attn.qkv.weight": (3072, 1024),
                    "vision_model.encoder.layers.{0-23}.attn.proj.weight": (1024, 1024),
                    "vision_model.encoder.layers.{0-23}.mlp.fc1.weight": (4096, 1024),
                    "vision_model.encoder.layers.{0-23}.mlp.fc2.weight": (1024, 4096),
                    "vision_model.encoder.layers.{0-23}.norm1.weight": (1024,),
                    "vision_model.encoder.layers.{0-23}.norm2.weight": (1024,),
                    "mlp1.0.weight": (4096,),
                    "mlp1.1.weight": (2048, 4096),
                    "mlp1.3.weight": (2048, 2048),
                }
            ),
            "vision_model.encoder.layers.{0-23}.ls1": (1024,),
            "vision_model.encoder.layers.{0-23}.ls2": (1024,),
            **_internlm2("language_model.", layers=24, hidden=2048, wide=8192, heads=16, groups=8, vocabulary=92553),
        },
        {
            "vision_model.embeddings": "other",
            "vision_model.embeddings.patch_embedding": "conv",
            "language_model.model.tok_embeddings": "embedding",
        },
        ("language_model.model.tok_embeddings", "language_model.output"),
    ),
    Layout(
        "Qwen/Qwen-VL-Chat",
        "qwen",
        "x1ngzai/Qwen-VL-Chat-Int4 visual.py, config.json; its language model is Qwen-7B's",
        {
            **_QWEN,
            "transformer.visual.conv1.weight": (1664, 3, 14, 14),
            "transformer.visual.positional_embedding": (256, 1664),
            **_with_bias(
                {
                    "transformer.visual.ln_pre.weight": (1664,),
                    "transformer.visual.transformer.resblocks.{0-47}.ln_1.weight": (1664,),
                    "transformer.visual.transformer.resblocks.{0-47}.ln_2.weight": (1664,),
                    "transformer.visual.transformer.resblocks.{0-47}.attn.in_proj.weight": (4992, 1664),
                    "transformer.visual.transformer.resblocks.{0-47}.attn.out_proj.weight": (1664, 1664),
                    "transformer.visual.transformer.resblocks.{0-47}.mlp.c_fc.weight": (8192, 1664),
                    "transformer.visual.transformer.resblocks.{0-47}.mlp.c_proj.weight": (1664, 8192),
                    "transformer.visual.attn_pool.attn.out_proj.weight": (4096, 4096),
                    "transformer.visual.attn_pool.ln_q.weight": (4096,),
                    "transformer.visual.attn_pool.ln_kv.weight": (4096,),
                    "transformer.visual.ln_post.weight": (4096,),
                }
            ),
            "transformer.visual.attn_pool.query": (256, 4096),
            "transformer.visual.attn_pool.pos_embed": (256, 4096),
            "transformer.visual.attn_pool.kv_proj.weight": (4096, 1664),
            "transformer.visual.attn_pool.attn.in_proj_weight": (12288, 4096),
            "transformer.visual.attn_pool.attn.in_proj_bias": (12288,),
            "transformer.visual.proj": (4096, 4096),
        },
        {
            "transformer.wte": "embedding",
            "transformer.visual": "other",
            "transformer.visual.conv1": "conv",
            "transformer.visual.attn_pool": "other",
            "transformer.visual.attn_pool.attn": "multihead_attention",
        },
        ("transformer.wte", "lm_head"),
    ),
    Layout(
        "THUDM/cogvlm-chat-hf",
        "cogvlm",
        "Niky-san/cogvlm2_surce modeling_cogvlm.py; sizes: mindspore-lab/mindnlp "
        "mindnlp/transformers/models/cogvlm/configuration_cogvlm.py; visual.py as luolib has it (its PatchEmbedding, "
        "Transformer and GLU)",
        {
            "model.embed_tokens.weight": (32000, 4096),
            "model.layers.{0-31}.self_attn.vision_expert_query_key_value.weight": (12288, 4096),
            "model.layers.{0-31}.self_attn.vision_expert_dense.weight": (4096, 4096),
            "model.layers.{0-31}.self_attn.language_expert_query_key_value.weight": (12288, 4096),
            "model.layers.{0-31}.self_attn.language_expert_dense.weight": (4096, 4096),
            "model.layers.{0-31}.mlp.language_mlp.gate_proj.weight": (11008, 4096),
            "model.layers.{0-31}.mlp.language_mlp.up_proj.weight": (11008, 4096),
            "model.layers.{0-31}.mlp.language_mlp.down_proj.weight": (4096, 11008),
            "model.layers.{0-31}.mlp.vision_mlp.gate_proj.weight": (11008, 4096),
            "model.layers.{0-31}.mlp.vision_mlp.up_proj.weight": (11008, 4096),
            "model.layers.{0-31}.mlp.vision_mlp.down_proj.weight": (4096, 11008),
            **_llama_norms("{0-31}", 4096),
            "model.vision.patch_embedding.cls_embedding": (1, 1792),
            "model.vision.patch_embedding.position_embedding.weight": (1226, 1792),
            **_with_bias(
                {
                    "model.vision.patch_embedding.proj.weight": (1792, 3, 14, 14),
                    "model.vision.transformer.layers.{0-62}.input_layernorm.weight": (1792,),
                    "model.vision.transformer.layers.{0-62}.attention.query_key_value.weight": (5376, 1792),
                    "model.vision.transformer.layers.{0-62}.attention.dense.weight": (1792, 1792),
                    "model.vision.transformer.layers.{0-62}.post_attention_layernorm.weight": (1792,),
                    "model.vision.transformer.layers.{0-62}.mlp.fc1.weight": (15360, 1792),
                    "model.vision.transformer.layers.{0-62}.mlp.fc2.weight": (1792, 15360),
                    "model.vision.linear_proj.norm1.weight": (4096,),
                }
            ),
            "model.vision.linear_proj.linear_proj.weight": (4096, 1792),
            "model.vision.linear_proj.dense_h_to_4h.weight": (11008, 4096),
            "model.vision.linear_proj.gate_proj.weight": (11008, 4096),
            "model.vision.linear_proj.dense_4h_to_h.weight": (4096, 11008),
            "model.vision.boi": (1, 1, 4096),
            "model.vision.eoi": (1, 1, 4096),
            "lm_head.weight": (32000, 4096),
        },
        {
            "model.embed_tokens": "embedding",
            "model.vision": "other",
            "model.vision.patch_embedding": "other",
            "model.vision.patch_embedding.proj": "conv",
            "model.vision.patch_embedding.position_embedding": "embedding",
        },
        ("model.embed_tokens", "lm_head"),
    ),
    Layout(
        "Snowflake/snowflake-arctic-instruct",
        "arctic",
        "vllm-project/vllm vllm/model_executor/models/arctic.py (load_weights, ArcticMLP); sizes: "
        "huggingface.co/Snowflake/snowflake-arctic-instruct config.json",
        {
            "model.embed_tokens.weight": (32000, 7168),
            "model.layers.{0-34}.self_attn.q_proj.weight": (7168, 7168),
            "model.layers.{0-34}.self_attn.k_proj.weight": (1024, 7168),
            "model.layers.{0-34}.self_attn.v_proj.weight": (1024, 7168),
            "model.layers.{0-34}.self_attn.o_proj.weight": (7168, 7168),
            "model.layers.{0-34}.block_sparse_moe.gate.weight": (128, 7168),
            "model.layers.{0-34}.block_sparse_moe.experts.{0-127}.w1.weight": (4864, 7168),
            "model.layers.{0-34}.block_sparse_moe.experts.{0-127}.w2.weight": (7168, 4864),
            "model.layers.{0-34}.block_sparse_moe.experts.{0-127}.w3.weight": (4864, 7168),
            "model.layers.{0-34}.residual_mlp.w1.weight": (7168, 7168),
            "model.layers.{0-34}.residual_mlp.w2.weight": (7168, 7168),
            "model.layers.{0-34}.residual_mlp.w3.weight": (7168, 7168),
            "model.layers.{0-34}.residual_layernorm.weight": (7168,),
            **_llama_norms("{0-34}", 7168),
            "lm_head.weight": (32000, 7168),
        },
        {"model.embed_tokens": "embedding"},
        ("model.embed_tokens", "lm_head"),
    ),
    Layout(
        "LGAI-EXAONE/EXAONE-3.0-7.8B-Instruct",
        "exaone",
        "ggml-org/llama.cpp gguf-py/gguf/tensor_mapping.py; the MLP: class ExaoneGatedMLP of modeling_exaone.py; sizes: "
        "huggingface.co/heegyu/EXAONE-3.0-7.8B-Instruct-bf16 config.json",
        {
            "transformer.wte.weight": (102400, 4096),
            "transformer.h.{0-31}.ln_1.weight": (4096,),
            "transformer.h.{0-31}.attn.attention.q_proj.weight": (4096, 4096),
            "transformer.h.{0-31}.attn.attention.k_proj.weight": (1024, 4096),
            "transformer.h.{0-31}.attn.attention.v_proj.weight": (1024, 4096),
            "transformer.h.{0-31}.attn.attention.out_proj.weight": (4096, 4096),
            "transformer.h.{0-31}.ln_2.weight": (4096,),
            "transformer.h.{0-31}.mlp.c_fc_0.weight": (14336, 4096),
            "transformer.h.{0-31}.mlp.c_fc_1.weight": (14336, 4096),
            "transformer.h.{0-31}.mlp.c_proj.weight": (4096, 14336),
            "transformer.ln_f.weight": (4096,),
            "lm_head.weight": (102400, 4096),
        },
        {"transformer.wte": "embedding"},
        ("transformer.wte", "lm_head"),
    ),
    Layout(
        "GSAI-ML/LLaDA-8B-Instruct",
        "llada",
        "ggml-org/llama.cpp gguf-py/gguf/tensor_mapping.py; LLaDALlamaBlock of modeling_llada.py; sizes: "
        "huggingface.co/GSAI-ML/LLaDA-8B-Instruct config.json, whose index of 298 lines holds these 291 tensors",
        {
            "model.transformer.wte.weight": (126464, 4096),
            "model.transformer.blocks.{0-31}.attn_norm.weight": (4096,),
            "model.transformer.blocks.{0-31}.q_proj.weight": (4096, 4096),
            "model.transformer.blocks.{0-31}.k_proj.weight": (4096, 4096),
            "model.transformer.blocks.{0-31}.v_proj.weight": (4096, 4096),
            "model.transformer.blocks.{0-31}.attn_out.weight": (4096, 4096),
            "model.transformer.blocks.{0-31}.ff_norm.weight": (4096,),
            "model.transformer.blocks.{0-31}.ff_proj.weight": (12288, 4096),
            "model.transformer.blocks.{0-31}.up_proj.weight": (12288, 4096),
            "model.transformer.blocks.{0-31}.ff_out.weight": (4096, 12288),
            "model.transformer.ln_f.weight": (4096,),
            "model.transformer.ff_out.weight": (126464, 4096),
        },
        {"model.transformer.wte": "embedding"},
        ("model.transformer.wte", "model.transformer.ff_out"),
    ),
    Layout(
        "allenai/Molmo-7B-D-0924",
        "molmo",
        "reubzdubz/Molmo7B_D_NF4Quant model.safetensors.index.json (its total_parameters), config.json; "
        "vllm-project/vllm vllm/model_executor/models/molmo.py (VisionBackboneConfig, ViTMLP); SwiGLU and LlamaSwiGLU of "
        "modeling_molmo.py",
        {
            "model.transformer.wte.embedding": (152064, 3584),
            "model.transformer.wte.new_embedding": (128, 3584),
            **_with_bias({"model.transformer.blocks.{0-27}.att_proj.weight": (4608, 3584)}),
            "model.transformer.blocks.{0-27}.attn_norm.weight": (3584,),
            "model.transformer.blocks.{0-27}.attn_out.weight": (3584, 3584),
            "model.transformer.blocks.{0-27}.ff_norm.weight": (3584,),
            "model.transformer.blocks.{0-27}.ff_proj.weight": (37888, 3584),
            "model.transformer.blocks.{0-27}.ff_out.weight": (3584, 18944),
            "model.transformer.ln_f.weight": (3584,),
            "model.transformer.ff_out.weight": (152064, 3584),
            "model.vision_backbone.pad_embed": (2, 2048),
            "model.vision_backbone.image_vit.class_embedding": (1024,),
            "model.vision_backbone.image_vit.positional_embedding": (577, 1024),
            "model.vision_backbone.image_vit.patch_embedding.weight": (1024, 588),
            **_with_bias(
                {
                    "model.vision_backbone.image_vit.pre_ln.weight": (1024,),
                    **{
                        f"model.vision_backbone.image_vit.transformer.resblocks.{{0-22}}.{name}.weight": shape
                        for name, shape in {
                            "attention.wq": (1024, 1024),
                            "attention.wk": (1024, 1024),
                            "attention.wv": (1024, 1024),
                            "attention.wo": (1024, 1024),
                            "attention_norm": (1024,),
                            "feed_forward.w1": (4096, 1024),
                            "feed_forward.w2": (1024, 4096),
                            "ffn_norm": (1024,),
                        }.items()
                    },
                    "model.vision_backbone.image_pooling_2d.wq.weight": (1024, 2048),
                    "model.vision_backbone.image_pooling_2d.wk.weight": (1024, 2048),
                    "model.vision_backbone.image_pooling_2d.wv.weight": (1024, 2048),
                    "model.vision_backbone.image_pooling_2d.wo.weight": (1024, 1024),
                }
            ),
            "model.vision_backbone.image_projector.w1.weight": (18944, 1024),
            "model.vision_backbone.image_projector.w2.weight": (3584, 18944),
            "model.vision_backbone.image_projector.w3.weight": (18944, 1024),
        },
        {
            "model.transformer.wte": "other",
            "model.vision_backbone": "other",
            "model.vision_backbone.image_vit": "other",
        },
        ("model.transformer.wte", "model.transformer.ff_out"),
        parameters=8021025280,
    ),
    Layout(
        "WisdomShell/CodeShell-7B",
        "kclgpt",
        "modeling_codeshell.py (CodeShellAttention, CodeShellMLP: GPT-2's names on nn.Linear); sizes: "
        "huggingface.co/WisdomShell/CodeShell-7B config.json; the stored buffer: ggml-org/llama.cpp "
        "gguf-py/gguf/tensor_mapping.py",
        {
            "transformer.wte.weight": (70144, 4096),
            **_with_bias(
                {
                    "transformer.h.{0-41}.ln_1.weight": (4096,),
                    "transformer.h.{0-41}.attn.c_attn.weight": (6144, 4096),
                    "transformer.h.{0-41}.attn.c_proj.weight": (4096, 4096),
                    "transformer.h.{0-41}.ln_2.weight": (4096,),
                    "transformer.h.{0-41}.mlp.c_fc.weight": (16384, 4096),
                    "transformer.h.{0-41}.mlp.c_proj.weight": (4096, 16384),
                    "transformer.ln_f.weight": (4096,),
                }
            ),
            "transformer.h.{0-41}.attn.rotary_emb.inv_freq": (64,),
        },
        {"transformer.wte": "embedding"},
        ("transformer.wte", ""),
        frozenset({"transformer.h.#.attn.rotary_emb.inv_freq"}),
    ),
)
