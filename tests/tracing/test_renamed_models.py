"""A renamed model computes what it computed before, and nothing that lorascope reads of it says what it is."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorascope.model import lexicon
from lorascope.sources.transformers.meta_model import map_module
from tests.helpers.families import FAMILIES, entry_of, expected
from tests.helpers.renamed_models import renamed
from tests.helpers.small_configs import small_model

LABELS = [label for labels in FAMILIES.values() for label in labels]
# Whose tower is run too: pictures of the size that its small configuration asks for.
WITH_PICTURES = ("image-text-to-text/llava", "image-text-to-text/paligemma", "image-text-to-text/internvl")
# Those whose default configuration, or its small form, fits no forward pass.
CANNOT_RUN = {
    "causal-lm/dbrx": "no clip_qkv",
    "causal-lm/deepseek_v3": "the small head is narrower than its rotary part",
    "causal-lm/zamba2": "the small heads do not fit twice the width",
    "image-text-to-text/qwen2_vl": "the small head does not fit the sections of its rotation",
}


def outputs(model: Any, label: str) -> list[torch.Tensor]:
    arguments = {"input_ids": torch.arange(3, 14)[None], "use_cache": False}
    if label.startswith("seq2seq-lm"):
        arguments["decoder_input_ids"] = torch.arange(5, 12)[None]
    if label == "causal-lm/whisper":
        arguments["encoder_outputs"] = (torch.ones(1, 5, model.config.d_model),)
    torch.manual_seed(0)
    with torch.no_grad():
        found = list(tensors(model(**arguments)))
        if label in WITH_PICTURES:
            found += tensors(
                model.model.get_image_features(pixel_values=picture(model.config.vision_config.image_size))
            )
    return found


def picture(size: int | list[int]) -> torch.Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return torch.linspace(-1, 1, 3 * height * width).view(1, 3, height, width)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for element in value:
            yield from tensors(element)


@pytest.mark.parametrize("label", [label for label in LABELS if label not in CANNOT_RUN])
def test_a_renamed_model_computes_the_same(label: str) -> None:
    model = small_model(entry_of(label)).float().eval()
    before = outputs(model, label)
    model, _ = renamed(model, 7)
    after = outputs(model, label)
    assert len(before) == len(after) > 0
    for one, two in zip(before, after, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, two)
    for kind in (nn.Linear, nn.Embedding, Conv1D):
        assert all(hasattr(module, "weight") for module in model.modules() if isinstance(module, kind))


@pytest.mark.parametrize("label", LABELS)
def test_nothing_that_is_read_of_it_says_what_it_is(label: str) -> None:
    model = entry_of(label).build()
    named = map_module(model)
    model, names = renamed(model, 11)
    found = map_module(model)
    assert [names[weight.name] for weight in found.weights] == [weight.name for weight in named.weights]
    for weight, old in zip(found.weights, named.weights, strict=True):
        assert weight.kind == old.kind
        # Which way round an expert is stored is known of a class by its name.
        assert sorted(weight.shape) == sorted(old.shape)
    assert (found.model_type, found.head, found.moe_conversion) == ("", "unknown", "")
    assert found.dimensions.hidden_size is None
    own = {"weight", "bias", "in_proj_weight", "in_proj_bias", "out_proj"}  # of PyTorch's layers
    new = {word for name in names for word in name.split(".") if not word.isdecimal()} - own
    old = {word for name in names.values() for word in name.split(".")}
    assert new.isdisjoint(old)
    known = {
        word
        for table in (lexicon.BLOCKS, lexicon.LEAVES, lexicon.BARE_LEAVES, *lexicon.PARTS.values())
        for word in table
    }
    assert new.isdisjoint(known)
    truth = expected(label)
    assert truth.keys() == {weight.name for weight in named.weights}


def test_the_words_belong_to_classes_and_change_with_the_seed() -> None:
    entry = entry_of("causal-lm/mixtral")
    _, names = renamed(entry.build(), 1)
    _, again = renamed(entry.build(), 1)
    _, others = renamed(entry.build(), 2)
    assert names == again
    assert list(names.values()) == list(others.values())
    assert set(names).isdisjoint(others)
    old = {name: new for new, name in names.items()}
    first, last = old["model.layers.0.self_attn.q_proj"], old["model.layers.31.self_attn.q_proj"]
    assert first.replace(".0.", ".31.") == last
    # The same attribute of another class is another word.
    experts, dense = old["model.layers.0.mlp"], old["model.layers.0.self_attn"]
    assert experts.rpartition(".")[0] == dense.rpartition(".")[0]
    assert experts != dense


def test_a_copy_of_it_is_as_good() -> None:
    model = small_model(entry_of("causal-lm/qwen3_next")).float().eval()
    before = outputs(model, "")
    model = copy.deepcopy(renamed(model, 1)[0])
    assert all(torch.equal(one, two) for one, two in zip(before, outputs(model, ""), strict=True))
    assert map_module(model).model_type == ""
    assert model.config.model_type == "qwen3_next"  # as its own code sees it


@pytest.mark.slow
def test_those_are_many_families() -> None:
    assert (len(FAMILIES), len(LABELS), len(CANNOT_RUN)) == (12, 47, 4)
    assert sum(len(expected(label)) for label in LABELS) == 10_322
    right: Counter[bool] = Counter()
    sure: Counter[str] = Counter()
    for label in LABELS:
        truth = expected(label)
        model, names = renamed(entry_of(label).build(), 3)
        for weight in map_module(model).weights:
            if str(weight.role) == truth[names[weight.name]]:
                right[weight.role.block == "other"] += 1
                if not weight.guess:
                    sure[weight.role.block] += 1
    # Shapes alone tell a third, all as guesses; the trace has to tell the rest. `other` is said of what nobody knows.
    assert right == {False: 3_388, True: 304}
    assert sure == {}
