"""Parts of a configuration are read as the classes of transformers read them."""

from __future__ import annotations

from typing import Any

import pytest
from architectures import mend_torchvision
from layout_configs import default_parts

from lorascope.sources.checkpoint.layout_table import (
    config_facts,
    inner_config,
    setting,
    states_part,
    text_config,
    ties_embeddings,
)

# Types that files give to parts: the parent's own, the usual ones of other models, one of another kind.
TRIED = ("clip_vision_model", "siglip_vision_model", "dinov2", "llama", "qwen2", "mistral", "whisper", "bert")
FIXED = ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen2_5_vl", "glm4v", "idefics3", "smolvlm", "gemma4")


def composites() -> dict[str, Any]:
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    mend_torchvision()
    found = {}
    for model_type in CONFIG_MAPPING_NAMES:
        try:
            config = transformers.AutoConfig.for_model(model_type)
        except Exception:  # it has no default
            continue
        if getattr(config, "sub_configs", None):
            found[model_type] = config
    return found


def made(config: Any, values: dict[str, Any]) -> Any:
    try:
        return type(config).from_dict(values)
    except Exception:  # a class refuses what it cannot be
        return None


@pytest.mark.slow
def test_every_part_has_the_type_that_transformers_gives_it() -> None:
    cases, wrong = 0, []
    for model_type, config in composites().items():
        for key in default_parts(config):
            for stated in (model_type, *TRIED, ""):
                part = getattr(made(config, {key: {"model_type": stated} if stated else {}}), key, None)
                if part is None or not hasattr(part, "to_dict"):
                    continue
                cases += 1
                file = {"model_type": model_type, key: {"model_type": stated} if stated else {}}
                ours = inner_config(file, key, model_type)["model_type"]
                if ours != type(part).model_type:
                    wrong.append((model_type, key, stated, ours, type(part).model_type))
    assert wrong == []
    assert cases > 2000


@pytest.mark.slow
def test_embeddings_are_tied_where_transformers_ties_them() -> None:
    cases, wrong = 0, []
    for model_type, config in composites().items():
        parts = [key for key in default_parts(config) if key == config_facts(model_type).get("text")]
        for stated in ({}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}):
            for inner in ({}, *({key: dict(stated_inner)} for key in parts for stated_inner in TIES)):
                real = made(config, {**stated, **inner})
                if real is None:
                    continue
                cases += 1
                ours = ties_embeddings({"model_type": model_type, **stated, **inner}, model_type)
                if ours != bool(getattr(real, "tie_word_embeddings", False)):
                    wrong.append((model_type, stated, inner, ours))
    assert wrong == []
    assert cases > 500


TIES = ({"tie_word_embeddings": True}, {"tie_word_embeddings": False})


@pytest.mark.parametrize("model_type", FIXED)
def test_a_part_of_a_fixed_class_ignores_the_type_in_the_file(model_type: str) -> None:
    file = {"model_type": model_type, "vision_config": {"model_type": model_type, "depth": 3}}
    part = inner_config(file, "vision_config", model_type)
    assert part["model_type"] == config_facts(model_type)["parts"]["vision_config"] != model_type
    assert part["depth"] == 3


def test_a_part_that_the_file_chooses() -> None:
    file = {"model_type": "llava", "text_config": {"model_type": "qwen2"}}
    assert inner_config(file, "text_config", "llava")["model_type"] == "qwen2"
    assert inner_config(file, "vision_config", "llava")["model_type"] == "clip_vision_model"


def test_types_and_keys_that_a_class_takes_for_others() -> None:
    kimi = {"model_type": "kimi_k25", "text_config": {"model_type": "kimi_k2"}}
    assert inner_config(kimi, "text_config", "kimi_k25")["model_type"] == "deepseek_v3"
    nemotron = {"model_type": "nemotron_h_omni", "llm_config": {"num_hidden_layers": 7}}
    assert text_config(nemotron)["num_hidden_layers"] == 7


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl"])
def test_a_flat_file_describes_its_text_model(model_type: str) -> None:
    text = text_config({"model_type": model_type, "num_hidden_layers": 28, "hidden_size": 1536, "vision_config": {}})
    assert (setting(text, "num_hidden_layers"), setting(text, "hidden_size")) == (28, 1536)
    assert text["model_type"] == f"{model_type}_text"


def test_dbrx_counts_its_key_value_heads_within_a_part() -> None:
    """`DbrxConfig.__post_init__` takes them from there."""
    import transformers

    file = {"model_type": "dbrx", "n_heads": 8, "attn_config": {"kv_n_heads": 4}, "ffn_config": {}}
    config = transformers.DbrxConfig.from_dict(file)
    assert setting(file, "num_key_value_heads") == config.num_key_value_heads == 4


def test_parts_that_a_file_may_leave_out() -> None:
    assert states_part({"model_type": "gemma4"}, "audio_config", "gemma4") is False
    assert states_part({"model_type": "gemma4", "audio_config": None}, "audio_config", "gemma4") is False
    assert states_part({"model_type": "gemma4", "audio_config": {}}, "audio_config", "gemma4") is True
    assert states_part({"model_type": "llava"}, "vision_config", "llava") is None


@pytest.mark.parametrize("model_type", ["t5", "mt5", "umt5", "longt5", "pop2piano", "udop"])
def test_the_t5_family_ties_whatever_the_file_says(model_type: str) -> None:
    assert ties_embeddings({"model_type": model_type, "tie_word_embeddings": False}, model_type)
    assert not ties_embeddings({"model_type": "llama", "tie_word_embeddings": False}, "llama")
