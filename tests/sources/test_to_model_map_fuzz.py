"""Any configuration, and any names and shapes, give a map or one clean error: no traceback, no long wait."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.sources.checkpoint.to_model_map import map_checkpoint
from lorascope.sources.checkpoint.types import Stored
from lorascope.sources.transformers.config import checked_config

SCALARS = st.none() | st.booleans() | st.integers(-5, 2_000) | st.floats(allow_nan=False) | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
CONFIGS: tuple[dict[str, Any], ...] = (
    {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "tie_word_embeddings": True},
    {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_hidden_layers": 2, "num_local_experts": 2},
    {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {"model_type": "qwen2", "num_hidden_layers": 1},
        "vision_config": {"model_type": "clip_vision_model"},
    },
    {"model_type": "zamba2", "architectures": ["Zamba2ForCausalLM"], "num_hidden_layers": 3},
    {"model_type": "nobodys", "auto_map": {"AutoModel": "m.N"}},
)
WORDS = st.sampled_from(
    "model layers language_model vision_tower encoder 0 1 2 99999999999 self_attn mlp experts block_sparse_moe q_proj w1 "  # noqa: SIM905
    "gate_proj gate up_proj down_proj gate_up_proj embed_tokens lm_head norm weight bias shared_transformer mamba".split()
)
NAMES = st.lists(WORDS, min_size=1, max_size=9).map(".".join)
SHAPES = st.lists(st.integers(0, 64), max_size=4).map(tuple)
tried = {"map": 0, "error": 0}


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [one for key, inner in items for one in ((*path, key), *paths(inner, (*path, key)))]


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(CONFIGS)))
    for _ in range(draw(st.integers(0, 2))):
        *owners, key = draw(st.sampled_from(paths(config)))
        part: Any = config
        for owner in owners:
            part = part[owner] if isinstance(part, dict | list) else {}
        if isinstance(part, dict) or (isinstance(part, list) and key < len(part)):
            part[key] = draw(JSON)
    return config


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(configs(), st.dictionaries(NAMES, SHAPES, max_size=12))
def check(config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    stored = {name: Stored(name, shape, "F32", "", (name,)) for name, shape in shapes.items()}
    try:
        model = map_checkpoint(stored, checked_config(config, "config.json", typed=False), model="fuzzed")
    except LorascopeError as error:
        assert error.faults
        tried["error"] += 1
    else:
        assert isinstance(model, ModelMap)
        assert len(model.notes) < 50
        tried["map"] += 1


def test_any_configuration_and_any_names() -> None:
    check()
    assert sum(tried.values()) >= 400
    assert tried["map"] > 150
