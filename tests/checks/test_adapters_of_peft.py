"""Adapters that PEFT saves itself have no finding that matters: task types, families and options."""

from __future__ import annotations

import collections
import functools
import tempfile
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from transformers import AutoConfig

import lorascope as ls

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "num_labels": 3,
}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 4, "num_decoder_layers": 4, "num_heads": 4, "vocab_size": 64}
_BART = {
    "d_model": 32,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "moe_intermediate_size": 16, "num_experts_per_tok": 2}
# Configuration, two targets, and the name of the input embedding.
FAMILIES: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "llama": (SMALL, ["q_proj", "v_proj"], "embed_tokens"),
    "mistral": (SMALL, ["q_proj", "v_proj"], "embed_tokens"),
    "qwen2": (SMALL, ["q_proj", "v_proj"], "embed_tokens"),
    "qwen3": ({**SMALL, "head_dim": 8}, ["q_proj", "v_proj"], "embed_tokens"),
    "gemma2": ({**SMALL, "head_dim": 8}, ["q_proj", "v_proj"], "embed_tokens"),
    "phi3": (SMALL, ["qkv_proj", "o_proj"], "embed_tokens"),
    "gpt2": (
        {"n_embd": 32, "n_layer": 4, "n_head": 4, "vocab_size": 64, "n_positions": 64},
        ["c_attn", "c_proj"],
        "wte",
    ),
    "bert": (SMALL, ["query", "value"], "word_embeddings"),
    "roberta": (SMALL, ["query", "value"], "word_embeddings"),
    "t5": (_T5, ["q", "v"], "shared"),
    "bart": (_BART, ["q_proj", "v_proj"], "shared"),
    "mixtral": ({**SMALL, **_EXPERTS}, ["q_proj", "v_proj"], "embed_tokens"),
}
# 58 pairs of a family and a task type, and eleven options.
EXPECTED = {"saved": 608, "refused": 30, "bias": 33, "task-type": 22, "head": 1}
TASKS: dict[str, str] = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "FEATURE_EXTRACTION": "AutoModel",
}


def options(targets: list[str], embedding: str) -> dict[str, dict[str, Any]]:
    """Settings of one adapter each."""
    return {
        "plain": {},
        "rslora": {"use_rslora": True, "r": 16},
        "dora": {"use_dora": True},
        "rank_pattern": {"rank_pattern": {targets[0]: 4}, "alpha_pattern": {targets[0]: 8}},
        "lora_bias": {"lora_bias": True},
        "gaussian": {"init_lora_weights": "gaussian"},
        "exclude": {"exclude_modules": [targets[1]]},
        "expression": {"target_modules": rf".*\.({'|'.join(targets)})"},
        "tokens": {"trainable_token_indices": {embedding: [1, 5]}},
        "all-linear": {"target_modules": "all-linear"},
        "layers": {"layers_to_transform": [0, 2]},
    }


def built(family: str, task: str) -> Any:
    """A small model; None where transformers has no such class."""
    auto = getattr(transformers, TASKS[task])
    config = AutoConfig.for_model(family, **FAMILIES[family][0])
    if type(config) not in auto._model_mapping:
        return None
    torch.manual_seed(0)
    return auto.from_config(config)


@functools.cache
def mapped(family: str, task: str) -> ls.ModelMap:
    """The map of the folder that the model saves."""
    with tempfile.TemporaryDirectory() as folder:
        built(family, task).save_pretrained(folder)
        return ls.inspect(folder)


def saved(family: str, task: str, settings: dict[str, Any], folder: Path) -> int | None:
    """Saves an adapter, and says how many parameters it trains; None where PEFT refuses it."""
    given = {"target_modules": FAMILIES[family][1], "task_type": task, "r": 8, **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            adapted = peft.get_peft_model(built(family, task), peft.LoraConfig(**given))
        except (ValueError, TypeError):
            return None
        adapted.save_pretrained(folder)
    trainable: int = adapted.get_nb_trainable_parameters()[0]
    return trainable


# What is true of a saved adapter and matters, by task type and option; of every other none is said.
TRUE = {
    # Of layers without a bias of their own, which such an adapter cannot be merged into.
    ("", "lora_bias"): "bias",
    # T5 and BART call their heads otherwise, so PEFT does not train them.
    ("SEQ_CLS", ""): "task-type",
    # All linear layers of BART are those of its new head too.
    ("SEQ_CLS", "all-linear"): "head",
}


@pytest.mark.slow
def test_no_finding_that_matters(tmp_path: Path) -> None:
    counts: collections.Counter[str] = collections.Counter()
    for family, (_, targets, embedding) in FAMILIES.items():
        for task in TASKS:
            for name, settings in options(targets, embedding).items() if built(family, task) is not None else ():
                folder = tmp_path / family / task / name
                trainable = saved(family, task, settings, folder)
                if trainable is None:
                    counts["refused"] += 1
                    continue
                check = ls.check(mapped(family, task), folder)
                assert check.resolution.trainable == trainable, (family, task, name)
                counts["saved"] += 1
                for finding in check.findings:
                    if finding.severity != "note":
                        counts[finding.code] += 1
                        reasons = {TRUE.get(("", name)), TRUE.get((task, "")), TRUE.get((task, name))}
                        assert finding.code in reasons, (family, task, name, finding)
    assert counts == EXPECTED
