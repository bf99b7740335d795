"""Architectures that stand for their families, and the true role of each of their weights under its own name."""

from __future__ import annotations

import architectures
from architectures import Entry

from tests.helpers.expectations import TABLES, matches, prefixes, roles, rows_of, weights

FAMILIES: dict[str, tuple[str, ...]] = {
    "dense": ("causal-lm/llama", "causal-lm/qwen3", "causal-lm/gemma3_text", "causal-lm/olmo2"),
    "parallel": ("causal-lm/gptj", "causal-lm/gpt_neox", "causal-lm/falcon", "causal-lm/cohere"),
    "experts": (
        "causal-lm/mixtral",
        "causal-lm/qwen3_moe",
        "causal-lm/qwen2_moe",
        "causal-lm/gpt_oss",
        "causal-lm/granitemoe",
        "causal-lm/jetmoe",
    ),
    "low rank": ("causal-lm/deepseek_v3", "causal-lm/minicpm3"),
    "fused": (
        "causal-lm/phi3",
        "causal-lm/glm4",
        "causal-lm/bloom",
        "causal-lm/mpt",
        "causal-lm/dbrx",
        "causal-lm/gpt_bigcode",
    ),
    "conv1d": ("causal-lm/gpt2",),
    "encoder": ("masked-lm/bert", "masked-lm/roberta", "masked-lm/deberta-v2", "masked-lm/modernbert", "masked-lm/electra"),
    "encoder-decoder": ("seq2seq-lm/t5", "seq2seq-lm/bart", "seq2seq-lm/pegasus_x", "causal-lm/whisper"),
    "state space": ("causal-lm/mamba", "causal-lm/mamba2"),
    "hybrid": ("causal-lm/jamba", "causal-lm/nemotron_h", "causal-lm/zamba2", "causal-lm/bamba+attention"),
    "linear attention": ("causal-lm/qwen3_next", "causal-lm/minimax", "causal-lm/kimi_linear"),
    "vision": (
        "image-text-to-text/qwen2_vl",
        "image-text-to-text/llava",
        "image-text-to-text/gemma3",
        "image-text-to-text/idefics3",
        "image-text-to-text/internvl",
        "image-text-to-text/paligemma",
    ),
}  # fmt: skip

# The language model of an image model is that of a causal entry, which the tables describe once.
_LANGUAGE_MODELS = {
    "image-text-to-text/qwen2_vl": "qwen2",  # a class of its own with the same modules
    "image-text-to-text/llava": "llama",
    "image-text-to-text/gemma3": "gemma3_text",
    "image-text-to-text/idefics3": "llama",
    "image-text-to-text/internvl": "qwen2",
    "image-text-to-text/paligemma": "gemma",
}


def entry_of(label: str) -> Entry:
    """The entry of a label: its head, `/`, and its own label."""
    head, name = label.split("/")
    walked = architectures.layouts() if "+" in name else architectures.entries()
    return next(entry for entry in walked if (entry.head, entry.label) == (head, name))


def expected(label: str) -> dict[str, str]:
    """Weight name to role (with its component), for every weight of an entry in full depth.

    By name rather than by template: in some models one name means something else in another layer.
    """
    found: dict[str, str] = {}
    for table in TABLES:
        if label in roles(table):
            rows = roles(table)[label]
            found |= {weight.name: rows[row] for weight, row in matches(table, label) if row is not None}
    if label in _LANGUAGE_MODELS:
        found |= _language_model(label, roles("text_roles")[f"causal-lm/{_LANGUAGE_MODELS[label]}"])
    return found


def _language_model(label: str, rows: dict[str, str]) -> dict[str, str]:
    stem = next(prefix for prefix, part in prefixes()[label].items() if part == "text" and prefix != "lm_head")
    names = [weight.name for weight in weights(label) if weight.name.startswith((f"{stem}.", "lm_head"))]
    alone = ["model" + name.removeprefix(stem) if name.startswith(stem) else name for name in names]
    pairs = zip(names, rows_of(alone, rows), strict=True)
    return {name: rows[row] for name, row in pairs if row is not None}
