"""LLaMA-Factory's YAML, written and read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.findings import Finding
from lorascope.model.types import ModelMap
from lorascope.peft_rules.resolve import resolve
from lorascope.plans.name_forms import module_forms
from lorascope.plans.types import Plan
from lorascope.sources.files.yaml_text import parse_yaml
from lorascope.trainers.capabilities import LANGUAGE_HEADS, adapts_exactly, untrained_head
from lorascope.trainers.commented_yaml import commented_yaml
from lorascope.trainers.known_keys import unknown_key_findings
from lorascope.trainers.llamafactory.parts import PARTS, holds_word
from lorascope.trainers.llamafactory.schema import (
    ALL,
    CAPABILITIES,
    PEFT,
    RELEASE,
    SCHEMA,
    TITLE,
    llamafactory_settings,
    names_in,
)
from lorascope.trainers.llamafactory.targets import THINKERS, handed_config
from lorascope.trainers.protocol import (
    PLACEHOLDER,
    Job,
    TrainerConfig,
    Unsupported,
    require_no_faults,
    trainer_filter,
)
from lorascope.trainers.provenance import YOUR_MODEL, file_heading

_HINT = "Keys and types are those of LLaMA-Factory's examples/train_lora."
# A longer comma list is written as a YAML list, which its parser takes as well.
_WIDEST = 100


# Writing.


def unsupported_by_llamafactory(plan: Plan) -> Iterator[Unsupported]:
    """What LLaMA-Factory's keys cannot express."""
    model = plan.model
    parts = [*untrained_head(model, TITLE, (*LANGUAGE_HEADS, "seq2seq-lm"))]
    if model.model_type in THINKERS:
        message = f"{TITLE} trains only the thinker of {model.architecture}, under names without thinker."
        parts.append(Unsupported("model", message))
    # Its task is its own, whatever the plan's is, and decides nothing about names.
    untasked = dataclasses.replace(plan, config=dataclasses.replace(plan.config, task_type=None))
    parts += CAPABILITIES.unsupported(untasked)
    if not parts and _adapter_settings(plan) is None:
        message = (
            f"{TITLE} cannot name exactly these weights: it searches for whole words in names, and drops matches in what "
            "it calls the tower, the projector or a conflict."
        )
        parts.append(Unsupported("names", message))
    yield from parts


def write_llamafactory(plan: Plan, job: Job) -> str:
    """The YAML of a plan, for `llamafactory-cli train`."""
    settings = {
        "model_name_or_path": job.base or PLACEHOLDER,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        **(_adapter_settings(plan) or {}),
        "dataset": job.data or "alpaca_en_demo",
        "cutoff_len": 2048,
        "output_dir": job.output,
        "logging_steps": 10,
        "save_steps": 500,
        "report_to": "none",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "learning_rate": 0.0001,
        "num_train_epochs": 1.0,
        "lr_scheduler_type": "cosine",
        "bf16": True,
    }
    data = (
        "A name from dataset_info.json in the folder data."
        if job.data
        else "LLaMA-Factory's own demonstration data, in the folder data of its repository."
    )
    remarks = {
        "model_name_or_path": "A Hub id or a folder." if job.base else YOUR_MODEL,
        "lora_target": "Endings of module names; LLaMA-Factory takes no regular expression here.",
        "lora_alpha": "If left out, twice the rank.",
        "freeze_vision_tower": "These three decide where LoRA may go at all.",
        "dataset": f"{data} Without a key template, the chat template is the tokenizer's own.",
    }
    purpose = f"{TITLE} {RELEASE}: llamafactory-cli train THIS_FILE.yaml"
    lines = file_heading(plan, purpose, f"{TITLE} runs with transformers up to 5.6.0.")
    return commented_yaml(lines, settings, remarks, references=True)


def _adapter_settings(plan: Plan) -> dict[str, Any] | None:
    """Keys that give exactly the plan, or None."""
    if any(target.weight.kind == "parameter" for target in plan.targets):
        return None
    modules = {target.weight.name for target in plan.targets}
    common = {**SCHEMA.settings_of(plan.config), **_freezes(plan.model, modules)}
    del common["additional_target"]
    for form in module_forms(plan.model, modules, layers=False, excludes=False, regex=False):
        names = list(form["target_modules"])
        settings = {**common, "lora_target": names}
        config, _ = handed_config(plan.model, settings)
        if adapts_exactly(plan, resolve(plan.model, config, PEFT), PEFT):
            joined = ",".join(names)
            return {**settings, "lora_target": joined if len(joined) <= _WIDEST else names}
    return None


def _freezes(model: ModelMap, modules: Collection[str]) -> dict[str, bool]:
    """Its three switches, each on where no target lies in that part."""
    parts = PARTS.get(model.model_type)
    return (
        {key: not any(holds_word(n, words) for n in modules) for key, words in parts.by_switch.items()} if parts else {}
    )


# Reading.


def read_llamafactory(text: str, where: str) -> TrainerConfig:
    """Read a LLaMA-Factory file."""
    data = parse_yaml(text, where, _HINT)
    settings, faults = llamafactory_settings(data)
    require_no_faults(faults, where, _HINT)
    unread = [key for key in data if key not in SCHEMA.options]
    consequence = "LLaMA-Factory stops at it, unless ALLOW_EXTRA_ARGS=1 is set"
    findings = unknown_key_findings("llamafactory", unread, where, consequence=consequence)
    base = str(settings.pop("model_name_or_path", ""))
    return TrainerConfig(base, settings, (*findings, *_findings(settings, where)))


def _findings(settings: Mapping[str, Any], where: str) -> Iterator[Finding]:
    names = names_in(settings.get("lora_target", ALL))
    if ALL in names and len(names) > 1:
        message = "lora_target mixes all with other names: all means every linear layer only alone; here it is a name"
        yield Finding("ignored-key", "error", where, message, "Give all alone, or the names alone.")
    if "" in names:
        message = (
            "lora_target has an empty entry (a comma too many), which matches every module in models of several parts"
        )
        yield Finding("ignored-key", "error", where, message, "Take the comma out.")
    if settings.get("lora_alpha") == 0:
        message = "lora_alpha is 0, which counts as not given: alpha becomes twice the rank"
        yield Finding("ignored-key", "warning", where, message, "Give the alpha that you want.")
    if "freeze_trainable_layers" in settings and not settings.get("use_llama_pro"):
        message = "freeze_trainable_layers affects LoRA only with use_llama_pro: every layer is adapted"
        fix = "Choose layers by full names: lorascope plan SOURCE 'RULE[LAYERS]', then lorascope export."
        yield Finding("ignored-key", "warning", where, message, fix)
    if settings.get("stage") in ("rm", "ppo"):
        message = f"stage {settings['stage']} trains a value head too, which is not counted here"
        yield trainer_filter("note", where, message, "Nothing: it belongs to that stage.")
