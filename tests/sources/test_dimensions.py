"""Figures of a model: what its configuration states before the class's defaults, and both no further than its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lorascope.model.types import ModelMap
from lorascope.sources.builtin import builtin_models, load_builtin
from lorascope.sources.checkpoint.to_model_map import map_checkpoint
from lorascope.sources.checkpoint.types import Stored

PARTS = ("llm_config", "language_config", "text_config", "decoder")


def stored(model: ModelMap, prefix: str = "") -> dict[str, Stored]:
    """The tensors of a map, as a checkpoint of it has them."""
    shapes = {f"{module.name}.{name}": shape for module in model.modules for name, shape in module.parameters}
    shapes |= dict(model.root_parameters)
    return {prefix + name: Stored(prefix + name, shape, "BF16", "", (name,)) for name, shape in shapes.items()}


def figures(model: ModelMap) -> dict[str, int | None]:
    """A model's figures under usual names."""
    dimensions = model.dimensions
    return {
        "hidden_size": dimensions.hidden_size,
        "intermediate_size": dimensions.intermediate_size,
        "num_hidden_layers": dimensions.layers,
        "num_attention_heads": dimensions.attention_heads,
        "num_key_value_heads": dimensions.key_value_heads,
    }


@pytest.mark.parametrize("key", PARTS)
@pytest.mark.parametrize("depth", [1, 2])
def test_figures_of_a_language_model_within(key: str, depth: int) -> None:
    """`llm_config` and its like, of a model whose code is not known; beside a tower of another width."""
    model = load_builtin("qwen2")
    config: Mapping[str, Any] = {**figures(model), "model_type": "qwen2"}
    for _ in range(depth):
        config = {key: config}
    tower = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    config = {"model_type": "nobodys", "vision_config": tower, **config}
    found = map_checkpoint(stored(model, "llm."), config, model="")
    assert figures(found) == figures(model)
    assert not [note for note in found.notes if "the tensors" in note]


def test_a_part_that_the_tensors_contradict_is_not_the_language_model() -> None:
    model = load_builtin("qwen2")
    part = {"hidden_size": 1024, "num_hidden_layers": 7, "num_attention_heads": 16, "num_key_value_heads": 16}
    found = map_checkpoint(stored(model), {"model_type": "nobodys", "llm_config": part}, model="")
    assert (found.dimensions.hidden_size, found.dimensions.layers) == (None, None)


def test_a_default_of_the_class_that_the_tensors_contradict() -> None:
    """A layout of a known type whose figures are read nowhere: sizes by the tensors, and no heads of another model."""
    model = load_builtin("qwen2")
    config = {"model_type": "bloom", "architectures": ["BloomForCausalLM"], "n_embed": 128}
    small = {name: tensor for name, tensor in stored(load_builtin("bloom")).items() if ".h.1." not in name}
    wide = {name: one._replace(shape=tuple(2 * size for size in one.shape)) for name, one in small.items()}
    found = map_checkpoint(wide, config, model="")
    assert found.dimensions.hidden_size == 128
    assert found.dimensions.attention_heads is None
    assert model.dimensions.attention_heads == 32


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "NobodysForCausalLM"])
def test_a_generation_setting_is_no_number_of_experts(architecture: str) -> None:
    """Older configurations hold `top_k: 50`."""
    model = load_builtin("llama")
    config = {"model_type": "llama", "architectures": [architecture], "top_k": 50}
    found = map_checkpoint(stored(model), config, model="")
    assert (found.dimensions.experts, found.dimensions.active_experts) == (None, None)


def test_experts_are_counted_where_there_are_some() -> None:
    counted = {"with": 0, "without": 0}
    for model_type, heads in builtin_models().items():
        model = load_builtin(model_type, heads[0])
        has = any(weight.role.variant == "expert" for weight in model.weights)
        counted["with" if has else "without"] += 1
        assert bool(model.dimensions.experts) == (has and model_type != "dbrx")  # which states them in a part
        assert has or model.dimensions.active_experts is None
    assert counted == {"with": 86, "without": 253}


def test_key_and_value_heads_that_cannot_be_are_those_of_queries() -> None:
    """Falcon's class has 71 by default, as many as the heads of its 7B; with other heads as many as those."""
    model = load_builtin("falcon")
    config = {"model_type": "falcon", "architectures": ["FalconForCausalLM"], "num_attention_heads": 32}
    found = map_checkpoint(stored(model), config, model="")
    assert (found.dimensions.attention_heads, found.dimensions.key_value_heads) == (32, 32)
