"""TRL's options for adapters: trainer/model_config.py, 1.16.0."""

from __future__ import annotations

from lorascope import light_dataclasses as dataclasses
from lorascope.peft_rules.releases import NEWEST
from lorascope.trainers.capabilities import Capabilities
from lorascope.trainers.options import Option, Schema
from lorascope.trainers.values import word_values as word
from lorascope.trainers.values import yaml_values as value

TITLE = "TRL"
RELEASE = "1.16.0"
PEFT = NEWEST
CAPABILITIES = Capabilities(title=TITLE, peft=PEFT, layers=False, excludes=False, patterns=False, biases=("none",))
# The training scripts that hand a ModelConfig to get_peft_config.
SCRIPTS = ("distillation", "dpo", "grpo", "kto", "reward", "rloo", "sft")

_TRUTH = word.as_default(word.TRUTH, value.TRUTH_OR_NUMBER)
_TEXT_OR_TEXTS = dataclasses.replace(value.TEXT_OR_TEXTS, name="a list of strings", many=True)

_ALPHA = dataclasses.replace(
    word.as_default(word.WHOLE, value.NUMBER), name="a number (a whole one where it is a string)"
)

# In the order in which they are written.
SCHEMA = Schema(
    Option("use_peft", _TRUTH, default=False, nullable=True),
    Option("lora_task_type", value.TEXT, default="CAUSAL_LM", peft="task_type", nullable=True),
    Option("lora_r", word.as_default(word.WHOLE, value.WHOLE), default=16, peft="r"),
    Option("lora_alpha", _ALPHA, default=32, peft="lora_alpha"),
    Option("lora_dropout", word.as_default(word.NUMBER, value.NUMBER), default=0.05, peft="lora_dropout"),
    Option("lora_target_modules", _TEXT_OR_TEXTS, peft="target_modules", nullable=True),
    Option("lora_target_parameters", _TEXT_OR_TEXTS, peft="target_parameters", nullable=True),
    Option("use_rslora", _TRUTH, default=False, peft="use_rslora", nullable=True),
    Option("use_dora", _TRUTH, default=False, peft="use_dora", nullable=True),
    Option("lora_modules_to_save", dataclasses.replace(value.TEXTS, many=True), peft="modules_to_save", nullable=True),
)
