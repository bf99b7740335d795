"""Arguments of Unsloth's get_peft_model for adapters, 2026.10.9."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.model.types import ModelMap
from lorascope.peft_rules.releases import NEWEST
from lorascope.trainers.capabilities import Capabilities
from lorascope.trainers.number_limits import number_faults
from lorascope.trainers.options import Option, Schema
from lorascope.trainers.values import yaml_values as value

TITLE = "Unsloth"
RELEASE = "2026.10.9"
PEFT = NEWEST
CAPABILITIES = Capabilities(title=TITLE, peft=PEFT)
CALL = "get_peft_model"
FAST = "FastLanguageModel"
CLASSES = (FAST, "FastModel", "FastVisionModel", "FastTextModel")
# Types with code of Unsloth's own, whose get_peft_model is FastLlamaModel's: models/loader.py.
OWN_TYPES = ("llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3")
# With these arguments of from_pretrained it does not use that code.
SLOW = ("load_in_8bit", "qat_scheme")

# By which a part of the model is left out, with FastBaseModel's defaults.
SCOPE: Mapping[str, bool] = {
    "finetune_vision_layers": True,
    "finetune_language_layers": True,
    "finetune_attention_modules": True,
    "finetune_mlp_modules": True,
    "finetune_audio_layers": False,
}
# They change what is adapted, and are covered neither here nor by PEFT's rules.
_UNCOVERED = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "trainable_token_indices",
    "use_bdlora",
)

SCHEMA = Schema(
    Option("r", value.POSITIVE, default=16, peft="r"),
    Option("lora_alpha", value.ANY, default=16, peft="lora_alpha"),
    Option("lora_dropout", value.ANY, default=0.0, peft="lora_dropout"),
    Option("bias", value.ANY, default="none", peft="bias"),
    Option("target_modules", value.TEXT_OR_TEXTS, peft="target_modules", nullable=True),
    Option("target_parameters", value.TEXTS, peft="target_parameters", nullable=True),
    Option("layers_to_transform", value.WHOLE_OR_WHOLES, peft="layers_to_transform", nullable=True),
    Option("layers_pattern", value.TEXT_OR_TEXTS, peft="layers_pattern", nullable=True),
    Option("finetune_last_n_layers", value.WHOLE, nullable=True),
    Option("use_rslora", value.TRUTH, default=False, peft="use_rslora"),
    Option("modules_to_save", value.TEXT_OR_TEXTS, peft="modules_to_save", nullable=True),
    Option("ensure_weight_tying", value.ANY, peft="ensure_weight_tying"),
)
# Handed on to LoraConfig as they are.
HANDED_ON = Schema(
    Option("exclude_modules", value.TEXT_OR_TEXTS, peft="exclude_modules", nullable=True),
    Option("fan_in_fan_out", value.TRUTH, peft="fan_in_fan_out"),
    Option("lora_bias", value.TRUTH, peft="lora_bias"),
    Option("rank_pattern", value.ANY, peft="rank_pattern"),
    Option("alpha_pattern", value.ANY, peft="alpha_pattern"),
    Option("use_dora", value.TRUTH, peft="use_dora"),
)
_SCOPE_SCHEMA = Schema(*(Option(name, value.TRUTH, default=default) for name, default in SCOPE.items()))
READ = frozenset({*SCHEMA.options, *HANDED_ON.options, *SCOPE, *_UNCOVERED, "task_type"})


def unsloth_faults(given: Mapping[str, Any]) -> Iterator[str]:
    """What Unsloth itself stops at; PEFT's rules check the rest."""
    for schema in (SCHEMA, HANDED_ON, _SCOPE_SCHEMA):
        yield from schema.read(given)[1]
    read = {*SCHEMA.options, *HANDED_ON.options, *SCOPE}
    yield from number_faults({key: setting for key, setting in given.items() if key not in read})
    yield from (f"{key} is set, which is not covered here" for key in _UNCOVERED if given.get(key))


def loading_faults(loading: Mapping[str, Any]) -> Iterator[str]:
    """Arguments of `from_pretrained` that change what `get_peft_model` does."""
    for key in ("full_finetuning", *SLOW):
        if loading.get(key) is ...:
            yield f"{key} of from_pretrained is not written out, and it changes what {CALL} does"
    if loading.get("full_finetuning") not in (None, False, ...):
        yield f"full_finetuning of from_pretrained makes {TITLE} train every weight and ignore {CALL}"


def has_own_code(owner: str, model: ModelMap, *, slow: bool = False) -> bool:
    """The call ends in FastLlamaModel's `get_peft_model`, not in FastBaseModel's."""
    return owner == FAST and model.model_type in OWN_TYPES and not slow


def unfiltered_class(model: ModelMap) -> str:
    """The class whose `get_peft_model` filters nothing on a model."""
    if model.model_type in OWN_TYPES:
        return FAST
    return "FastVisionModel" if model.head == "image-text-to-text" else "FastModel"
