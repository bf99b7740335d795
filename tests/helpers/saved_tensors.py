"""What autograd really keeps of a tiny model's training step, by layer, and the models for it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import peft
import torch
import transformers

import lorascope as ls
from lorascope.plans.types import Plan
from lorascope.sources.transformers.meta_model import map_module

BATCH, LENGTH = 2, 24
_DECODER = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ENCODER = {**_DECODER, "attention_probs_dropout_prob": 0.0}
_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", _DECODER),
    "qwen3": ("Qwen3ForCausalLM", {**_DECODER, "head_dim": 32}),
    "gemma2": ("Gemma2ForCausalLM", {**_DECODER, "head_dim": 32}),
    "phi3": ("Phi3ForCausalLM", _DECODER),
    "gpt2": ("GPT2LMHeadModel", {**_DECODER, "n_embd": 64, "n_layer": 3, "n_head": 4, "attn_pdrop": 0.0}),
    "opt": ("OPTForCausalLM", {**_DECODER, "ffn_dim": 160, "word_embed_proj_dim": 64}),
    "bert": ("BertForMaskedLM", _ENCODER),
    "t5": (
        "T5ForConditionalGeneration",
        {
            **_DECODER,
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 160,
            "num_layers": 3,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
    ),
    "mixtral": ("MixtralForCausalLM", {**_DECODER, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt_neox": ("GPTNeoXForCausalLM", _DECODER),
    "deepseek_v3": (
        "DeepseekV3ForCausalLM",
        {
            **_DECODER,
            "num_key_value_heads": 4,
            "q_lora_rank": 24,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 48,
            "first_k_dense_replace": 1,
        },
    ),
    "mamba": ("MambaForCausalLM", {**_DECODER, "state_size": 16}),
}


@dataclasses.dataclass(frozen=True)
class Saved:
    """What was kept: bytes by the module that first kept a tensor."""

    plan: Plan
    by_module: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.by_module.values())

    def below(self, prefix: str) -> int:
        """What a module and those in it kept."""
        return sum(size for name, size in self.by_module.items() if f"{name}.".startswith(f"{prefix}."))


def built(name: str, dtype: str) -> Any:
    """A tiny model with random weights, and without dropout of attention's scores, which a CPU has no kernel for."""
    architecture, settings = _MODELS[name]
    config = transformers.AutoConfig.for_model(name, **settings, use_cache=False)
    model = getattr(transformers, architecture)._from_config(config, dtype=getattr(torch, dtype))
    for module in model.modules():
        if "Attention" in type(module).__name__ and isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


@functools.cache
def saved_by(
    name: str,
    rules: str,
    dtype: str = "float32",
    *,
    rank: int = 4,
    dropout: float = 0.0,
    masked: bool = True,
    checkpointing: bool = False,
) -> Saved:
    """Trains a tiny model forwards and counts every storage that autograd keeps once, parameters and buffers aside."""
    torch.manual_seed(0)
    model = built(name, dtype)
    plan = ls.plan(map_module(model, model=name), rules, rank=rank, dropout=dropout)
    if checkpointing:
        model.activation_checkpointing_enable()
        model.enable_input_require_grads()
    adapted: Any = peft.get_peft_model(model, plan.to_peft())
    adapted.train()
    running = [""]
    for path, module in adapted.named_modules():
        own = path.replace("base_model.model.", "")
        module.register_forward_pre_hook(lambda *_, own=own: running.append(own))
        module.register_forward_hook(lambda *_: running.pop() and None, always_call=True)
    ours = {tensor.untyped_storage().data_ptr() for tensor in (*adapted.parameters(), *adapted.buffers())}
    found: dict[int, tuple[str, int]] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours and storage.data_ptr() not in found:
            found[storage.data_ptr()] = (running[-1], storage.nbytes())
            alive.append(tensor)
        return tensor

    batch = 2 if masked else 1
    words = torch.randint(5, 500, (batch, LENGTH))
    inputs = {"input_ids": words, "labels": words}
    if masked:
        inputs["attention_mask"] = torch.ones(batch, LENGTH, dtype=torch.long)
        inputs["attention_mask"][1, -5:] = 0
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        adapted(**inputs)
    by_module: dict[str, int] = {}
    for module, size in found.values():
        by_module[module] = by_module.get(module, 0) + size
    return Saved(plan, by_module)
