"""The checkpoints of Llama-2-7B and DeepSeek-V3 without their numbers: names, shapes and files, sparse on disk."""

from __future__ import annotations

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.helpers.sparse_checkpoints import Shapes, write_checkpoint

# meta-llama/Llama-2-7b-hf, config.json: what differs from the defaults of LlamaConfig, or says what it is.
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "torch_dtype": "float16",
    "vocab_size": 32000,
}
# deepseek-ai/DeepSeek-V3, config.json; its README_WEIGHTS.md describes the tensors.
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_deepseek.DeepseekV3Config",
        "AutoModel": "modeling_deepseek.DeepseekV3Model",
        "AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM",
    },
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "tie_word_embeddings": False,
    "topk_group": 4,
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 129280,
}


def _linear(name: str, rows: int, columns: int, *, fp8: bool = False) -> dict[str, tuple[str, tuple[int, ...]]]:
    if not fp8:
        return {f"{name}.weight": ("BF16", (rows, columns))}
    scales = (math.ceil(rows / 128), math.ceil(columns / 128))
    return {f"{name}.weight": ("F8_E4M3", (rows, columns)), f"{name}.weight_scale_inv": ("F32", scales)}


def llama() -> Shapes:
    """The 291 tensors of Llama-2-7B."""
    hidden, inner, vocabulary = 4096, 11008, 32000
    tensors = _linear("model.embed_tokens", vocabulary, hidden)
    for layer in range(32):
        at = f"model.layers.{layer}"
        for name in "qkvo":
            tensors |= _linear(f"{at}.self_attn.{name}_proj", hidden, hidden)
        tensors |= _mlp(f"{at}.mlp", inner, hidden)
        tensors |= {f"{at}.{name}_layernorm.weight": ("BF16", (hidden,)) for name in ("input", "post_attention")}
    return tensors | {"model.norm.weight": ("BF16", (hidden,))} | _linear("lm_head", vocabulary, hidden)


def _mlp(at: str, inner: int, hidden: int, *, fp8: bool = False) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        **_linear(f"{at}.gate_proj", inner, hidden, fp8=fp8),
        **_linear(f"{at}.up_proj", inner, hidden, fp8=fp8),
        **_linear(f"{at}.down_proj", hidden, inner, fp8=fp8),
    }


def deepseek() -> Shapes:
    """The 91,991 tensors of DeepSeek-V3: 61 layers, and the one for predicting a token more, which is the 62nd."""
    hidden, heads, vocabulary = 7168, 128, 129280
    tensors = _linear("model.embed_tokens", vocabulary, hidden)
    for layer in range(62):
        at = f"model.layers.{layer}"
        attention = {
            **_linear("q_a_proj", 1536, hidden, fp8=True),
            "q_a_layernorm.weight": ("BF16", (1536,)),
            **_linear("q_b_proj", heads * (128 + 64), 1536, fp8=True),
            **_linear("kv_a_proj_with_mqa", 512 + 64, hidden, fp8=True),
            "kv_a_layernorm.weight": ("BF16", (512,)),
            **_linear("kv_b_proj", heads * (128 + 128), 512, fp8=True),
            **_linear("o_proj", hidden, heads * 128, fp8=True),
        }
        tensors |= {f"{at}.self_attn.{name}": tensor for name, tensor in attention.items()}
        tensors |= {f"{at}.{name}_layernorm.weight": ("BF16", (hidden,)) for name in ("input", "post_attention")}
        if layer < 3:
            tensors |= _mlp(f"{at}.mlp", 18432, hidden, fp8=True)
            continue
        tensors |= _linear(f"{at}.mlp.gate", 256, hidden)
        tensors[f"{at}.mlp.gate.e_score_correction_bias"] = ("F32", (256,))
        tensors |= _mlp(f"{at}.mlp.shared_experts", 2048, hidden, fp8=True)
        for expert in range(256):
            tensors |= _mlp(f"{at}.mlp.experts.{expert}", 2048, hidden, fp8=True)
    at = "model.layers.61"
    tensors |= {f"{at}.{name}.weight": ("BF16", (hidden,)) for name in ("enorm", "hnorm", "shared_head.norm")}
    tensors |= _linear(f"{at}.eh_proj", hidden, 2 * hidden)
    tensors |= _linear(f"{at}.embed_tokens", vocabulary, hidden) | _linear(f"{at}.shared_head.head", vocabulary, hidden)
    return tensors | {"model.norm.weight": ("BF16", (hidden,))} | _linear("lm_head", vocabulary, hidden)


def write_llama(folder: Path) -> Path:
    """Llama-2-7B: 291 tensors in 2 files."""
    return write_checkpoint(folder, llama(), 2, LLAMA)


def write_deepseek(folder: Path) -> Path:
    """DeepSeek-V3 in fp8: 91,991 tensors in 163 files."""
    return write_checkpoint(folder, deepseek(), 163, DEEPSEEK)


def write_gguf(path: Path) -> Path:
    """Llama-2-7B as llama.cpp has it: 291 tensors in half precision, with a vocabulary of 32,000 tokens."""
    import gguf
    import numpy

    parts = {
        "q_proj": "attn_q",
        "k_proj": "attn_k",
        "v_proj": "attn_v",
        "o_proj": "attn_output",
        "gate_proj": "ffn_gate",
        "up_proj": "ffn_up",
        "down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    ends = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(4096)
    writer.add_block_count(32)
    writer.add_feed_forward_length(11008)
    writer.add_head_count(32)
    writer.add_head_count_kv(32)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(32000)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"▁token{number}" for number in range(32000)])
    writer.add_token_scores([-float(number) for number in range(32000)])
    writer.add_token_types([1] * 32000)
    end = 0
    for name, (_, shape) in llama().items():
        stem = name.removesuffix(".weight")
        words = stem.split(".")
        own = ends.get(stem) or f"blk.{words[2]}.{parts[words[-1]]}"
        dtype = numpy.dtype(numpy.float16 if len(shape) > 1 else numpy.float32)
        size = math.prod(shape) * dtype.itemsize
        writer.add_tensor_info(f"{own}.weight", tuple(shape), dtype, size)
        end += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        start = -(-path.stat().st_size // 32) * 32
        file.truncate(start + end)
    return path
