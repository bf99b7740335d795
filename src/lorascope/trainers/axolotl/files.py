"""axolotl's YAML, written and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.findings import Finding
from lorascope.names import listed
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plans.types import Plan
from lorascope.sources.files.yaml_text import parse_yaml
from lorascope.trainers.axolotl.schema import CAPABILITIES, LORA, RELEASE, SCHEMA, TITLE, axolotl_settings
from lorascope.trainers.axolotl.targets import axolotl_task
from lorascope.trainers.capabilities import expressible_config, untrained_head
from lorascope.trainers.commented_yaml import commented_yaml
from lorascope.trainers.known_keys import unknown_key_findings
from lorascope.trainers.protocol import (
    PLACEHOLDER,
    Job,
    TrainerConfig,
    Unsupported,
    require_no_faults,
    trainer_filter,
)
from lorascope.trainers.provenance import NO_DROPOUT, ONE_EXPRESSION, YOUR_MODEL, file_heading
from lorascope.trainers.search_findings import MOST_NAMED

_HINT = "Names and types are those of https://docs.axolotl.ai/docs/config-reference.html"
_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
_ALWAYS = ("lora_r", "lora_alpha", "lora_dropout")


# Writing.


def unsupported_by_axolotl(plan: Plan) -> Iterator[Unsupported]:
    """What axolotl's options cannot express."""
    model = plan.model
    parts = [*untrained_head(model, TITLE)]
    fractions = sorted({target.alpha for target in plan.targets if target.alpha != int(target.alpha)})
    if fractions:
        parts.append(Unsupported("sizes", f"axolotl takes whole numbers for alpha; this plan has {fractions[0]:g}."))
    if not parts and not model.prepares_generation:
        message = (
            f"axolotl hands PEFT the task type CAUSAL_LM, which needs prepare_inputs_for_generation; {model.architecture} "
            "has none."
        )
        parts.append(Unsupported("model", message))
    yield from parts
    # That PEFT does not do the plan with another task type matters only where axolotl trains the model.
    yield from (limit for limit in CAPABILITIES.unsupported(_as_handed(plan)) if not (parts and limit.part == "names"))


def write_axolotl(plan: Plan, job: Job) -> str:
    """The YAML of a plan, for `axolotl train`."""
    config = expressible_config(_as_handed(plan), CAPABILITIES) or plan.config
    data = {"path": job.data or "mhenrichsen/alpaca_2k_test", "type": "alpaca"}
    if job.data_format:
        data["ds_type"] = job.data_format
    settings = {
        "base_model": job.base or PLACEHOLDER,
        "adapter": "lora",
        **_adapter_settings(config),
        **dict.fromkeys(_KERNELS, False),
        "datasets": [data],
        "output_dir": job.output,
        "sequence_len": 2048,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "num_epochs": 1,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "learning_rate": 0.0002,
        "bf16": "auto",
        "gradient_checkpointing": True,
    }
    remarks = {
        "base_model": "" if job.base else YOUR_MODEL,
        "lora_dropout": f"{NO_DROPOUT} axolotl refuses any with lora_target_parameters."
        if config.target_parameters
        else "",
        "lora_target_modules": ONE_EXPRESSION if isinstance(config.target_modules, str) else "",
        "lora_mlp_kernel": "Off: axolotl turns these kernels on by default, and they fail on architectures that they do not "
        "know. Faster where q, k, v or gate, up, down are all adapted.",
        "datasets": "" if job.data else "Your data, in one of axolotl's formats.",
    }
    lines = file_heading(
        plan, f"axolotl {RELEASE}: axolotl train THIS_FILE", f"axolotl {RELEASE} runs transformers 5.16.1."
    )
    return commented_yaml(lines, settings, remarks)


def _as_handed(plan: Plan) -> Plan:
    """The plan with axolotl's task type."""
    config = dataclasses.replace(plan.config, task_type=axolotl_task(plan.model))
    return dataclasses.replace(plan, config=config)


def _adapter_settings(config: AdapterConfig) -> dict[str, Any]:
    """Options of axolotl for a configuration, without defaults."""
    settings = SCHEMA.settings_of(config) | {
        "lora_alpha": int(config.lora_alpha),
        "lora_dropout": float(config.lora_dropout),
        "lora_alpha_pattern": {key: int(alpha) for key, alpha in config.alpha_pattern.items()},
    }
    settings.pop("lora_modules_to_save")
    return {key: value for key, value in settings.items() if key in _ALWAYS or value}


# Reading.


def read_axolotl(text: str, where: str) -> TrainerConfig:
    """An axolotl file, as its schema reads it.

    Raises:
        LorascopeError: Not YAML, or refused by axolotl's schema.
    """
    data = parse_yaml(text, where, "Correct the file; axolotl reads it with PyYAML too.")
    settings, faults = axolotl_settings(data)
    require_no_faults(faults, where, _HINT)
    base = data.get("base_model")
    return TrainerConfig(base if isinstance(base, str) else "", settings, tuple(_findings(data, settings, where)))


def _findings(data: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> Iterator[Finding]:
    keys = [key for key in data if key != "lora_exclude_modules"]
    plugins = settings.get("plugins")
    unless = "a plugin knows it" if plugins else "it is an old key that axolotl checks for"
    consequence = f"axolotl ignores it silently, unless {unless}"
    yield from unknown_key_findings(
        "axolotl", keys, where, consequence=consequence, severity="note" if plugins else "error"
    )
    if "lora_exclude_modules" in data:
        message = "lora_exclude_modules is not in axolotl's schema and is dropped before its loader reads it: nothing is excluded"
        fix = "Write lora_target_modules as one regular expression that leaves those modules out."
        yield Finding("ignored-key", "error", where, message, fix)
    keys = [key for key in data if key.startswith(("lora_", "peft_"))]
    if keys and settings.get("adapter") not in LORA:
        message = f"no effect without adapter: lora: {listed(keys, MOST_NAMED)}"
        yield Finding("ignored-key", "error", where, message, "Set adapter: lora")
    if settings.get("lora_model_dir"):
        message = (
            "lora_model_dir is set: axolotl trains that adapter on, and its adapter_config.json replaces this file"
        )
        yield Finding("ignored-key", "warning", where, message, "Check that folder: lorascope check SOURCE FOLDER")
    if settings.get("unfrozen_parameters"):
        message = "unfrozen_parameters freezes every other parameter after the adapters are made, theirs too; not counted here"
        yield trainer_filter("warning", where, message, "Leave it out when you train an adapter.")
    if plugins:
        names = listed(map(str, plugins if isinstance(plugins, list) else [plugins]), MOST_NAMED)
        message = f"plugins may change the model or the adapters; {names} are not read"
        yield trainer_filter("note", where, message, "Compare with the adapter that comes out.")
