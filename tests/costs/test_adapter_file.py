"""Size of a saved adapter against the file that PEFT writes, to the byte."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

import lorascope as ls
from lorascope.costs.adapter_file import adapter_file_size

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
}
CONFIGS: dict[str, tuple[str, transformers.PretrainedConfig]] = {
    "llama": ("AutoModelForCausalLM", transformers.LlamaConfig(**SMALL, num_key_value_heads=2)),
    "mixtral": (
        "AutoModelForCausalLM",
        transformers.MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4),
    ),
    "bert": ("AutoModelForSequenceClassification", transformers.BertConfig(**SMALL)),
    "gpt2": ("AutoModelForCausalLM", transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64)),
}
PLANS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("qv", {}),
    ("attention,ffn=3", {"dropout": 0.0}),
    ("attention=4", {"dora": True}),
    ("ffn=2", {"bias": "all", "dropout": 0.0}),
    ("embedding.token=8", {}),
    ("head=2", {}),
    ("all", {"dropout": 0.0}),
)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_file_is_as_large_as_said(name: str, dtype: str, tmp_path: Path) -> None:
    loader, config = CONFIGS[name]
    tried = 0
    for rules, options in PLANS:
        torch_type = torch.float32 if dtype == "fp32" else torch.bfloat16
        module = getattr(transformers, loader).from_config(config, dtype=torch_type)
        try:
            plan = ls.plan(ls.inspect(module), rules, **options)
        except ls.LorascopeError:
            continue  # no such weights
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peft.get_peft_model(module, plan.to_peft()).save_pretrained(tmp_path)
        assert adapter_file_size(plan, dtype) == (tmp_path / "adapter_model.safetensors").stat().st_size, rules
        tried += 1
    assert tried == {"bert": 6, "mixtral": 7, "llama": 7, "gpt2": 7}[name]
