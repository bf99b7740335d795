"""`saved_tensors` against what the installed PEFT saves: every name and every shape."""

from __future__ import annotations

import collections
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.state_dict import PREFIX, SavedTensors, base_tensor_names, saved_tensors
from lorascope.peft_rules.types import AdapterConfig
from tests.helpers import peft_models
from tests.helpers.random_configs import configurations
from tests.helpers.saved_adapters import CONFIGS, buffers, state_shapes

# Of these pairs PEFT refuses the rest: there is no such module, or the option does not go with it.
SAVED = 332
PER_MODEL = 40
_FAST = ("llama-tied", "qwen3_moe", "plain", "bert-classifier")


def compare(name: str, model: nn.Module, config: AdapterConfig) -> str:
    """One pair by both: refused, saved, inexact where the rule says so of itself, stricter where `resolve` alone refuses."""
    mapped = peft_models.mapped(name)
    resolution = resolve(mapped, config)
    try:
        truth = state_shapes(model, config)
    except Exception:  # PEFT raises whatever it likes
        assert resolution.refusal is not None, config
        return "refused"
    if resolution.refusal is not None:
        assert "already carries an adapter" in str(resolution.refusal), config
        return "stricter"
    ours = saved_tensors(mapped, config, resolution)
    if not ours.exact:
        return "inexact"
    unknown = {f"{PREFIX}{buffer}" for buffer in buffers(model)}
    extra = {key: shape for key, shape in truth.items() if key not in ours.tensors and not _buffer(key, unknown, ours)}
    assert extra == {}, config
    assert {key: one.shape for key, one in ours.tensors.items()} == {key: truth.get(key) for key in ours.tensors}, (
        config
    )
    return "saved"


def _buffer(name: str, unknown: set[str], ours: SavedTensors) -> bool:
    """A buffer, which a map does not know and PEFT saves with the module that it copies."""
    return name in unknown and any(name.startswith(f"{copy}.") for copy in ours.copies)


def every_config(name: str) -> collections.Counter[str]:
    model = peft_models.build(name)
    return collections.Counter(compare(name, model, config) for config in CONFIGS.values())


def at_random(name: str, look: Callable[[str, nn.Module, AdapterConfig], str]) -> collections.Counter[str]:
    """What comes of random configurations, the same every time."""
    model = peft_models.build(name)
    found: collections.Counter[str] = collections.Counter()

    @settings(
        max_examples=PER_MODEL,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        found[look(name, model, data.draw(configurations(peft_models.mapped(name))))] += 1

    run()
    return found


@pytest.mark.parametrize("name", _FAST)
def test_names_and_shapes_of_some_models(name: str) -> None:
    found = every_config(name)
    assert found["saved"] >= 8, found
    assert found.total() == len(CONFIGS)


@pytest.mark.slow
def test_names_and_shapes_of_all_models() -> None:
    by_model = {name: every_config(name) for name in peft_models.NAMES}
    assert sum(one["saved"] >= 8 for one in by_model.values()) >= 20, by_model
    found = sum(by_model.values(), collections.Counter())
    assert found.total() == len(peft_models.NAMES) * len(CONFIGS)
    assert found["saved"] >= SAVED, found
    assert set(found) == {"saved", "refused"}


@pytest.mark.slow
def test_names_and_shapes_of_random_configurations() -> None:
    found: collections.Counter[str] = collections.Counter()
    for name in peft_models.NAMES:
        found += at_random(name, compare)
    assert found["saved"] >= len(peft_models.NAMES) * PER_MODEL // 3, found
    assert found["inexact"] <= 12, found
    # PEFT takes a module within a saved one that it adapted before, and saves a copy of the copy: `resolve` refuses it.
    assert found["stricter"] <= 2, found


def test_what_a_tensor_is() -> None:
    config = AdapterConfig(
        target_modules=("q_proj", "lm_head"), r=4, rank_pattern={"q_proj": 2}, modules_to_save=("norm",)
    )
    mapped = peft_models.mapped("llama")
    found = saved_tensors(mapped, config, resolve(mapped, config))
    down = found.tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]
    assert (down.part, down.owner, down.rank, down.rank_side) == ("down", "model.layers.0.self_attn.q_proj", 2, 0)
    assert found.tensors["base_model.model.lm_head.lora_B.weight"].rank_side == 1
    assert found.tensors["base_model.model.lm_head.base_layer.weight"].part == "base"
    assert set(found.vocabulary) == {
        "base_model.model.model.embed_tokens.weight",
        "base_model.model.lm_head.base_layer.weight",
    }
    assert "base_model.model.model.norm" in found.copies
    assert found.exact


def test_names_of_the_base_models_own() -> None:
    config = AdapterConfig(target_modules=("q_proj",), modules_to_save=("norm",))
    mapped = peft_models.mapped("llama")
    names = base_tensor_names(mapped, config, resolve(mapped, config))
    assert "base_model.model.lm_head.weight" in names
    assert "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight" in names
    assert "base_model.model.model.layers.0.self_attn.q_proj.weight" not in names
    assert "base_model.model.model.norm.weight" not in names


def test_nothing_is_saved_where_peft_refuses() -> None:
    mapped = peft_models.mapped("llama")
    config = AdapterConfig(target_modules=("nope",))
    assert saved_tensors(mapped, config, resolve(mapped, config)).tensors == {}


def test_copies_of_copies_are_not_exact() -> None:
    mapped = peft_models.mapped("bert-tokens")
    config = AdapterConfig(target_modules=("value",), modules_to_save=("output", "dense"), task_type="TOKEN_CLS")
    resolution = resolve(mapped, config)
    assert resolution.refusal is None
    assert not saved_tensors(mapped, config, resolution).exact
