"""The number of labels comes from the saved head: by the adapters that PEFT saves, loaded on another number."""

from __future__ import annotations

import warnings
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

import lorascope as ls

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}
# Model type, class, task type, targets.
MODELS = {
    "bert": ("bert", AutoModelForSequenceClassification, "SEQ_CLS", ["query"]),
    "roberta": ("roberta", AutoModelForSequenceClassification, "SEQ_CLS", ["query"]),
    "llama": ("llama", AutoModelForSequenceClassification, "SEQ_CLS", ["q_proj"]),
    "qwen2": ("qwen2", AutoModelForSequenceClassification, "SEQ_CLS", ["q_proj"]),
    "bert tokens": ("bert", AutoModelForTokenClassification, "TOKEN_CLS", ["query"]),
}


@pytest.mark.parametrize("labels", [1, 8])
@pytest.mark.parametrize("name", MODELS)
def test_the_labels_of_the_saved_head(name: str, labels: int, tmp_path: Path) -> None:
    model_type, auto, task, targets = MODELS[name]
    values = {
        key: value for key, value in SMALL.items() if not (model_type in ("llama", "qwen2") and key == "pad_token_id")
    }
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = auto.from_config(AutoConfig.for_model(model_type, **values, num_labels=2))
        base.save_pretrained(tmp_path / "base")
        trained = auto.from_config(AutoConfig.for_model(model_type, **values, num_labels=labels))
        adapted = peft.get_peft_model(trained, peft.LoraConfig(task_type=task, target_modules=targets, r=4))
        trainable = adapted.get_nb_trainable_parameters()[0]
        adapted.save_pretrained(tmp_path / "adapter")
        with pytest.raises(RuntimeError, match="size mismatch"):
            peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    check = ls.check(ls.inspect(tmp_path / "base"), tmp_path / "adapter")
    found = {finding.code: finding for finding in check.findings}
    assert found["labels"].fix == f"Load the base model with num_labels={labels}."
    assert check.resolution.trainable == trainable
    assert not check.matters, check.findings


def test_the_same_number_is_no_finding(tmp_path: Path) -> None:
    config = AutoConfig.for_model("bert", **SMALL, num_labels=2)
    base = AutoModelForSequenceClassification.from_config(config)
    base.save_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))
    adapted.save_pretrained(tmp_path / "adapter")
    codes = {finding.code for finding in ls.check(ls.inspect(tmp_path / "base"), tmp_path / "adapter").findings}
    assert "labels" not in codes
