"""Parts that the class decides and not the configuration, beside the same classes of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import build_constructed_parts
import pytest
import torch
import transformers
from architectures import mend_torchvision

from lorascope.inspecting import inspect
from lorascope.model.types import ModelMap
from lorascope.packaged import load_json
from lorascope.plans.map_gaps import is_incomplete
from tests.helpers.sparse_checkpoints import write_checkpoint

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "max_position_embeddings": 32,
    "pad_token_id": 1,
}
# A head, and whether it builds its encoder with a pooler.
CLASSES = (
    "BertForMaskedLM",
    "BertForTokenClassification",
    "BertForPreTraining",
    "BertForSequenceClassification",
    "RobertaForQuestionAnswering",
    "RobertaForMultipleChoice",
    "XLMRobertaForMaskedLM",
    "MPNetForMaskedLM",
    "ViTForImageClassification",
    "EsmForMaskedLM",
)


def built(name: str) -> Any:
    mend_torchvision()
    cls = getattr(transformers, name)
    with torch.device("meta"):
        return cls(cls.config_class(**SMALL))


def read(folder: Path, model: Any, *, pooler: bool) -> ModelMap:
    """The map of a model's tensors, with or without those of a pooler."""
    tensors = {name: ("F32", tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    tensors = {name: tensor for name, tensor in tensors.items() if ".pooler." not in f".{name}"}
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    if pooler:
        tensors |= {f"{prefix}pooler.dense.weight": ("F32", (64, 64)), f"{prefix}pooler.dense.bias": ("F32", (64,))}
    config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    return inspect(write_checkpoint(folder, tensors, config=config), read="headers")


@pytest.mark.parametrize("name", CLASSES)
def test_a_pooler_in_the_file_is_in_the_map_only_where_the_class_builds_one(name: str, tmp_path: Path) -> None:
    model = built(name)
    there = [name for name, _ in model.named_modules() if name.endswith("pooler.dense")]
    found = read(tmp_path, model, pooler=True)
    assert [weight.name for weight in found.weights if "pooler" in weight.name] == there
    assert not is_incomplete(found)
    said = [note for note in found.notes if "pooler.dense" in note and note.startswith("not part of the model")]
    assert len(said) == (0 if there else 1)


@pytest.mark.parametrize("name", ["BertModel", "RobertaModel", "ViTModel", "BertForSequenceClassification"])
def test_a_pooler_that_the_class_builds_and_the_file_lacks_is_missing(name: str, tmp_path: Path) -> None:
    model = built(name)
    (there,) = (name for name, _ in model.named_modules() if name.endswith("pooler"))
    assert read(tmp_path, model, pooler=False).missing == (f"{there}.*",)


@pytest.mark.parametrize(
    ("key", "tower"), [("vision_config", "model.vision_tower"), ("audio_config", "model.audio_tower")]
)
def test_a_part_that_the_configuration_states_is_missing_and_one_that_it_lacks_is_not(
    key: str, tower: str, tmp_path: Path
) -> None:
    config = {
        "model_type": "gemma4",
        "architectures": ["Gemma4ForConditionalGeneration"],
        "text_config": {"model_type": "gemma4_text", "num_hidden_layers": 1},
    }
    tensors = {"model.language_model.norm.weight": ("BF16", (2304,))}
    stated = inspect(write_checkpoint(tmp_path / "stated", tensors, config={**config, key: {}}), read="headers")
    assert f"{tower}.*" in stated.missing
    extra = {**tensors, f"{tower}.norm.weight": ("BF16", (64,))}
    lacking = inspect(write_checkpoint(tmp_path / "lacking", extra, config=config), read="headers")
    assert not any(name.startswith(tower) for name in lacking.missing)
    assert not any(module.name.startswith(tower) for module in lacking.modules)
    assert lacking.unexplained == (f"{tower}.norm.weight",)


@pytest.mark.slow
def test_the_table_is_what_transformers_builds() -> None:
    mend_torchvision()
    table = build_constructed_parts.build()
    assert len(table) > 250
    assert load_json("constructed_parts.json") == table
