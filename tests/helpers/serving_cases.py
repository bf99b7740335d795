"""Adapters that vLLM's own code was given to load, by name: `record_vllm` runs them, `test_serving` compares."""

from __future__ import annotations

from typing import Any

_QV = ["q_proj", "v_proj"]
_ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def _on(*modules: str, **more: Any) -> dict[str, Any]:
    return {"target_modules": list(modules), "r": 8, "lora_alpha": 16, **more}


# name: built-in model, keyword arguments of peft.LoraConfig, other keys of adapter_config.json, with towers
LOADS: dict[str, tuple[str, dict[str, Any], dict[str, Any], bool]] = {
    "llama-qv": ("causal-lm/llama", _on(*_QV), {}, False),
    "llama-all": ("causal-lm/llama", _on(*_ALL), {}, False),
    "llama-k": ("causal-lm/llama", _on("k_proj"), {}, False),
    "llama-gate-alone": ("causal-lm/llama", _on("gate_proj"), {}, False),
    "llama-rank-12": ("causal-lm/llama", _on(*_QV, r=12), {}, False),
    "llama-rank-600": ("causal-lm/llama", _on("q_proj", r=600), {}, False),
    "llama-unequal": ("causal-lm/llama", _on(*_QV, rank_pattern={"q_proj": 4}, alpha_pattern={"v_proj": 5}), {}, False),
    "llama-rslora": ("causal-lm/llama", _on(*_QV, use_rslora=True), {}, False),
    "llama-dora": ("causal-lm/llama", _on(*_QV, use_dora=True), {}, False),
    "llama-bias": ("causal-lm/llama", _on(*_QV, bias="lora_only"), {}, False),
    "llama-lora-bias": ("causal-lm/llama", _on(*_QV, lora_bias=True), {}, False),
    "llama-pissa": ("causal-lm/llama", _on(*_QV), {"init_lora_weights": "pissa"}, False),
    "llama-gaussian": ("causal-lm/llama", _on(*_QV), {"init_lora_weights": "gaussian"}, False),
    "llama-replicated": ("causal-lm/llama", _on(*_QV), {"layer_replication": [[0, 2], [1, 2]]}, False),
    "llama-saved-head": ("causal-lm/llama", _on(*_QV, modules_to_save=["lm_head"]), {}, False),
    "llama-embedding": ("causal-lm/llama", _on(*_QV, "embed_tokens"), {}, False),
    "llama-head": ("causal-lm/llama", _on(*_QV, "lm_head"), {}, False),
    "llama-regex": ("causal-lm/llama", _on(target_modules=r".*\.(q_proj|v_proj)"), {}, False),
    "mistral-qv": ("causal-lm/mistral", _on(*_QV), {}, False),
    "qwen2-all": ("causal-lm/qwen2", _on(*_ALL), {}, False),
    "qwen2-head": ("causal-lm/qwen2", _on("lm_head"), {}, False),
    "qwen3-all": ("causal-lm/qwen3", _on(*_ALL), {}, False),
    "gemma2-all": ("causal-lm/gemma2", _on(*_ALL), {}, False),
    "gemma3-text-all": ("causal-lm/gemma3_text", _on(*_ALL), {}, False),
    "olmo2-all": ("causal-lm/olmo2", _on(*_ALL), {}, False),
    "phi3-fused": ("causal-lm/phi3", _on("qkv_proj", "gate_up_proj", "o_proj", "down_proj"), {}, False),
    "phi-qv": ("causal-lm/phi", _on("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"), {}, False),
    "gpt2": ("causal-lm/gpt2", _on("c_attn"), {}, False),
    "gpt-neox": ("causal-lm/gpt_neox", _on("query_key_value"), {}, False),
    "bloom": ("causal-lm/bloom", _on("query_key_value"), {}, False),
    "falcon": ("causal-lm/falcon", _on("query_key_value"), {}, False),
    "starcoder2-qv": ("causal-lm/starcoder2", _on("q_proj", "v_proj", "c_fc", "c_proj"), {}, False),
    "stablelm-qv": ("causal-lm/stablelm", _on(*_QV), {}, False),
    "granite-all": ("causal-lm/granite", _on(*_ALL), {}, False),
    "cohere-all": ("causal-lm/cohere", _on(*_ALL), {}, False),
    "opt-qv": ("causal-lm/opt", _on(*_QV, "fc1"), {}, False),
    "glm4-all": ("causal-lm/glm4", _on("q_proj", "v_proj", "gate_up_proj"), {}, False),
    "mamba": ("causal-lm/mamba", _on("in_proj", "x_proj"), {}, False),
    "mamba2": ("causal-lm/mamba2", _on("in_proj", "out_proj"), {}, False),
    "falcon-h1": ("causal-lm/falcon_h1", _on("q_proj", "in_proj"), {}, False),
    "mixtral-qv": ("causal-lm/mixtral", _on(*_QV), {}, False),
    "mixtral-experts": ("causal-lm/mixtral", _on(*_QV, target_parameters=_EXPERTS), {}, False),
    "mixtral-w1": ("causal-lm/mixtral", _on("w1", "w2", "w3"), {}, False),
    "mixtral-gate": ("causal-lm/mixtral", _on("gate"), {}, False),
    "qwen3-moe-qv": ("causal-lm/qwen3_moe", _on(*_QV), {}, False),
    "qwen3-moe-experts": ("causal-lm/qwen3_moe", _on(*_QV, target_parameters=_EXPERTS), {}, False),
    "qwen3-moe-gate": ("causal-lm/qwen3_moe", _on("gate"), {}, False),
    "qwen2-moe-all": ("causal-lm/qwen2_moe", _on(*_QV, "shared_expert.gate_proj", "shared_expert_gate"), {}, False),
    "gpt-oss-qv": ("causal-lm/gpt_oss", _on(*_QV), {}, False),
    "gpt-oss-experts": ("causal-lm/gpt_oss", _on(*_QV, target_parameters=_EXPERTS), {}, False),
    "gpt-oss-one-expert-weight": ("causal-lm/gpt_oss", _on(*_QV, target_parameters=_EXPERTS[:1]), {}, False),
    "deepseek-v3-qb": ("causal-lm/deepseek_v3", _on("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa"), {}, False),
    "deepseek-v3-kvb": ("causal-lm/deepseek_v3", _on("kv_b_proj", "o_proj"), {}, False),
    "deepseek-v3-experts": ("causal-lm/deepseek_v3", _on("o_proj", target_parameters=_EXPERTS), {}, False),
    "qwen2-vl-text": (
        "image-text-to-text/qwen2_vl",
        _on(target_modules=r".*language_model.*\.(q_proj|v_proj)"),
        {},
        False,
    ),
    "qwen2-vl-tower": ("image-text-to-text/qwen2_vl", _on("qkv", "q_proj"), {}, False),
    "qwen2-vl-tower-flag": ("image-text-to-text/qwen2_vl", _on("qkv", "q_proj"), {}, True),
    "qwen2-vl-merger-flag": ("image-text-to-text/qwen2_vl", _on("mlp.0", "q_proj"), {}, True),
    "qwen2-5-vl-text": ("image-text-to-text/qwen2_5_vl", _on(target_modules=r".*language_model.*\.q_proj"), {}, False),
    "llava-text": ("image-text-to-text/llava", _on(target_modules=r".*language_model.*\.(q_proj|v_proj)"), {}, False),
    "llava-tower": ("image-text-to-text/llava", _on(*_QV), {}, False),
    "llava-tower-flag": ("image-text-to-text/llava", _on(*_QV), {}, True),
    "llava-projector-flag": ("image-text-to-text/llava", _on("linear_1"), {}, True),
    "bert": ("masked-lm/bert", _on("query", "value"), {}, False),
    "bert-classifier": ("sequence-classification/bert", _on("query", "value"), {}, False),
}
