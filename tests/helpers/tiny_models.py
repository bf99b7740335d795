"""Model folders that trainers can load and train in seconds: weights, a tokenizer with a chat template, a few lines of data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
# What each family needs beside the shape.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 8},
    "mixtral": _EXPERTS,
    "qwen3_moe": {**_EXPERTS, "head_dim": 8, "decoder_sparse_step": 1, "mlp_only_layers": []},
}
_CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tiny_model(folder: Path, family: str = "llama", **changes: Any) -> Path:
    """A trained-looking checkpoint of a family in a folder, with its tokenizer."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **{**_SHAPE, **FAMILIES[family], **changes})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    """One token a byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: at for at, token in enumerate(["<pad>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    wrapped.chat_template = _CHAT
    return wrapped


def instructions(file: Path, rows: int = 16) -> Path:
    """Data in the Alpaca form: instruction, input, output, one JSON object a line."""
    lines = [
        json.dumps({"instruction": f"Add {n} and {n + 1}.", "input": "", "output": str(2 * n + 1)}) for n in range(rows)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def conversations(file: Path, rows: int = 16) -> Path:
    """Data in the form of messages."""
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"Add {n} and {n + 1}."},
                    {"role": "assistant", "content": str(2 * n + 1)},
                ]
            }
        )
        for n in range(rows)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
