"""axolotl's options for adapters: utils/schemas/peft.py, 0.19.0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.foreign_text import quoted
from lorascope.peft_rules.name_patterns import BadPatternError, compiled
from lorascope.trainers.capabilities import Capabilities
from lorascope.trainers.options import Option, Schema
from lorascope.trainers.values import pydantic_values as value
from lorascope.trainers.values import yaml_values

TITLE = "axolotl"
RELEASE = "0.19.0"
PEFT = "0.20.0"
CAPABILITIES = Capabilities(title=TITLE, peft=PEFT, excludes=False, biases=("none",))
# Adapters that PEFT's LoRA makes.
LORA = ("lora", "qlora")

# In the order in which they are written.
SCHEMA = Schema(
    Option("adapter", yaml_values.TEXT),
    Option("lora_r", value.WHOLE, peft="r"),
    Option("lora_alpha", value.WHOLE, peft="lora_alpha"),
    Option("lora_dropout", value.NUMBER, default=0.0, peft="lora_dropout"),
    Option("lora_target_modules", value.TEXT_OR_TEXTS, peft="target_modules"),
    Option("lora_target_parameters", value.TEXT_OR_TEXTS, peft="target_parameters"),
    Option("peft_layers_to_transform", value.WHOLES, peft="layers_to_transform"),
    Option("peft_layers_pattern", value.TEXTS, peft="layers_pattern"),
    Option("lora_rank_pattern", value.SIZES, peft="rank_pattern"),
    Option("lora_alpha_pattern", value.SIZES, peft="alpha_pattern"),
    Option("peft_use_rslora", value.TRUTH, peft="use_rslora"),
    Option("peft_use_dora", value.TRUTH, peft="use_dora"),
    Option("lora_fan_in_fan_out", value.TRUTH, peft="fan_in_fan_out"),
    Option("lora_modules_to_save", value.TEXTS, peft="modules_to_save"),
    # Handed on to PEFT, whose rules here cover none of them.
    Option("peft_layer_replication", yaml_values.ANY, peft="layer_replication"),
    Option("peft_trainable_token_indices", yaml_values.ANY, peft="trainable_token_indices"),
    Option("peft_ensure_weight_tying", yaml_values.ANY, peft="ensure_weight_tying"),
    # Handed on where it is neither false nor empty.
    Option("peft_init_lora_weights", value.TRUTH_OR_TEXT),
    # For axolotl's own search and loading.
    Option("lora_target_linear", value.TRUTH),
    Option("quantize_moe_experts", value.TRUTH),
    Option("freeze_mm_modules", value.TRUTH),
    Option("reward_model", value.TRUTH),
    Option("rl", yaml_values.TEXT),
    Option("lora_model_dir", yaml_values.TEXT),
    Option("unfrozen_parameters", yaml_values.ANY),
    Option("plugins", yaml_values.ANY),
)


def axolotl_settings(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings as axolotl's schema reads them, and faults."""
    settings, faults = SCHEMA.read({key: value for key, value in data.items() if value is not None})
    settings.setdefault("lora_dropout", 0.0)
    if settings.get("adapter") in LORA:
        missing = [key for key in ("lora_r", "lora_alpha") if data.get(key) is None]
        faults += [f"{key} is missing: axolotl has no default for it" for key in missing]
    return settings, [*faults, *_conflicts(data, settings)]


def _conflicts(data: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """What axolotl's validators refuse (utils/schemas/peft.py, config.py and validation.py)."""
    adapter = settings.get("adapter")
    quantized = bool(data.get("load_in_4bit") or data.get("load_in_8bit"))
    if not adapter and not data.get("inference") and quantized:
        yield "load_in_8bit or load_in_4bit is set without an adapter"
    if adapter == "qlora" and not data.get("merge_lora"):
        if not data.get("load_in_4bit"):
            yield "adapter: qlora needs load_in_4bit: true"
        yield from (f"adapter: qlora does not go with {key}" for key in ("load_in_8bit", "gptq") if data.get(key))
    if settings.get("lora_target_parameters") and settings.get("lora_dropout"):
        yield (
            f"lora_dropout is {settings['lora_dropout']:g}; with lora_target_parameters axolotl takes 0 only, because PEFT "
            "cannot apply dropout to fused experts"
        )
    if settings.get("peft_layers_pattern") and not settings.get("peft_layers_to_transform"):
        yield "peft_layers_pattern is given without peft_layers_to_transform"
    if adapter and settings.get("peft_layers_to_transform") and settings.get("unfrozen_parameters"):
        yield "unfrozen_parameters does not go with peft_layers_to_transform"
    yield from _pattern_faults(settings.get("lora_target_modules"))
    if settings.get("quantize_moe_experts"):
        if adapter not in LORA:
            yield "quantize_moe_experts is set without adapter: lora or qlora"
        if settings.get("lora_target_linear"):
            yield "quantize_moe_experts does not go with lora_target_linear"
        if not quantized:
            yield "quantize_moe_experts is set without load_in_4bit or load_in_8bit"


def _pattern_faults(modules: Any) -> Iterator[str]:
    """List entries that are not regular expressions."""
    for entry in modules if isinstance(modules, list) else ():
        try:
            compiled(entry, "lora_target_modules")
        except BadPatternError as error:
            yield f"lora_target_modules has {quoted(entry)}, not a regular expression ({error.diagnostic.values['why']})"
