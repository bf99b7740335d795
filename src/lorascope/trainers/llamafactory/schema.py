"""LLaMA-Factory's options for adapters: hparams/, 0.9.5."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.foreign_text import quoted
from lorascope.trainers.capabilities import Capabilities
from lorascope.trainers.options import Option, Schema, ValueType
from lorascope.trainers.values import yaml_values as value

TITLE = "LLaMA-Factory"
RELEASE = "0.9.5"
PEFT = "0.18.1"
CAPABILITIES = Capabilities(
    title=TITLE,
    peft=PEFT,
    regex=False,
    layers=False,
    excludes=False,
    patterns=False,
    parameters=False,
    biases=("none",),
)
ALL = "all"
# OmegaConf, which reads the file, takes what PyYAML takes for a string (`1e-1`) for a number.
_OMEGACONF_NUMBER = re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?([eE][-+]?\d+)|[-+]?\.\d[\d_]*(?:[eE][-+]?\d+)?")


def _number(given: Any) -> Any:
    if isinstance(given, str) and _OMEGACONF_NUMBER.fullmatch(given):
        return float(given.replace("_", ""))
    return value.NUMBER.convert(given)


_NUMBER = ValueType("a number", _number)
_NAMES = ValueType("a string with commas or a list of strings", value.TEXT_OR_TEXTS.convert)

# In the order in which they are written. Nothing else converts a value before PEFT gets it.
# Ways to train without LoRA.
OTHER_METHODS = ("oft", "freeze", "full")
SCHEMA = Schema(
    Option("model_name_or_path", value.TEXT),
    Option("stage", value.TEXT, default="sft"),
    Option("finetuning_type", value.TEXT, default="lora"),
    Option("lora_target", _NAMES, default=ALL, peft="target_modules"),
    Option("lora_rank", value.WHOLE, default=8, peft="r"),
    Option("lora_alpha", _NUMBER, peft="lora_alpha", nullable=True),
    Option("lora_dropout", _NUMBER, default=0.0, peft="lora_dropout"),
    Option("use_rslora", value.TRUTH, default=False, peft="use_rslora"),
    Option("use_dora", value.TRUTH, default=False, peft="use_dora"),
    Option("additional_target", _NAMES, peft="modules_to_save", nullable=True),
    Option("pissa_init", value.TRUTH),
    Option("pissa_iter", value.WHOLE, default=16),
    # For LLaMA-Factory's own search and loading.
    Option("freeze_trainable_layers", value.WHOLE, default=2),
    Option("use_llama_pro", value.TRUTH),
    Option("freeze_vision_tower", value.TRUTH, default=True),
    Option("freeze_multi_modal_projector", value.TRUTH, default=True),
    Option("freeze_language_model", value.TRUTH),
    Option("resize_vocab", value.TRUTH),
    Option("use_unsloth", value.TRUTH),
    Option("use_kt", value.TRUTH),
    Option("create_new_adapter", value.TRUTH),
    Option("mixture_of_depths", value.TEXT, nullable=True),
    Option("adapter_name_or_path", value.TEXT, nullable=True),
)


def llamafactory_settings(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options given in a file, and all faults of it."""
    references = [key for key in data if key in SCHEMA.options and _has_reference(data[key])]
    settings, faults = SCHEMA.read({key: given for key, given in data.items() if key not in references})
    faults += [
        f"{key} is {quoted(data[key])}, a reference that LLaMA-Factory does not follow: write the value out"
        for key in references
    ]
    return {key: given for key, given in settings.items() if given is not None}, [*faults, *_conflicts(data)]


def _has_reference(given: Any) -> bool:
    texts = given if isinstance(given, list) else [given]
    return any(isinstance(text, str) and "${" in text for text in texts)


def _conflicts(data: Mapping[str, Any]) -> Iterator[str]:
    if "model_name_or_path" not in data:
        yield "model_name_or_path is missing, and LLaMA-Factory stops without it"
    method = data.get("finetuning_type", "lora")
    if isinstance(method, str) and method not in ("lora", *OTHER_METHODS):
        yield f"finetuning_type is {quoted(method)}, which it refuses"


def names_in(given: Any) -> list[str]:
    """The entries of a comma list (`split_arg`); a list stays."""
    return [item.strip() for item in given.split(",")] if isinstance(given, str) else list(given)
