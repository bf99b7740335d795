"""Arguments of torchtune's model functions for adapters, 0.6.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.number_limits import number_faults
from lorascope.trainers.options import Option, Schema, ValueType
from lorascope.trainers.torchtune.builders import PLAIN
from lorascope.trainers.values import yaml_values as value

TITLE = "torchtune"
RELEASE = "0.6.1"
MODELS = "torchtune.models."


def _fraction(given: Any) -> float:
    if not value.is_number(given) or not 0 <= given <= 1:
        raise ValueError
    return float(given)


_SIZES = ("vocab_size", "num_layers", "num_heads", "num_kv_heads", "embed_dim", "intermediate_dim", "head_dim")

# Functions for all sizes have no default for the rank and the alpha.
SCHEMA = Schema(
    Option("lora_attn_modules", value.TEXTS),
    Option("lora_rank", value.POSITIVE, default=8),
    Option("lora_alpha", value.NUMBER, default=16),
    Option("lora_dropout", ValueType("a number from 0 to 1", _fraction), default=0.0),
    Option("apply_lora_to_mlp", value.TRUTH, default=False),
    Option("apply_lora_to_output", value.TRUTH, default=False),
    Option("use_dora", value.TRUTH, default=False),
    Option("quantize_base", value.TRUTH),
    Option("tie_word_embeddings", value.TRUTH),
    *(Option(name, value.POSITIVE) for name in _SIZES),
)
DEFAULTS: Mapping[str, Any] = {name: given for name, given in SCHEMA.defaults.items() if given is not None}


def function_path(component: str) -> str:
    """A function's path below `torchtune.models`, QLoRA as LoRA."""
    path = component.removeprefix(MODELS)
    module, _, function = path.rpartition(".")
    return f"{module.partition('.')[0]}.{function.removeprefix('q')}"


def with_lora(path: str) -> str:
    """The function that builds the same model with adapters, if there is one."""
    module, _, function = path.rpartition(".")
    return f"{module}.lora_{function}"


def torchtune_settings(model: Mapping[str, Any], path: str) -> tuple[dict[str, Any], list[str]]:
    """The arguments of a function, and faults."""
    settings = {key: given for key, given in model.items() if given is not None}
    known = known_keys("torchtune")
    checked = {key: given for key, given in settings.items() if f"{path}.{key}" in known and key in SCHEMA.options}
    _, faults = SCHEMA.read(checked)
    faults += number_faults({key: given for key, given in settings.items() if key not in checked})
    required = ("lora_attn_modules", *(("lora_rank", "lora_alpha") if path in PLAIN else ()))
    missing = [f"{key} is not given, and {path} has no default for it" for key in required if key not in settings]
    return settings, [*faults, *missing]
