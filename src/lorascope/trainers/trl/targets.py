"""What TRL makes PEFT adapt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap
from lorascope.peft_rules.diagnostics import Reason
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.trainers.protocol import Outcome, TrainerConfig, stopped, trainer_filter, without_lora
from lorascope.trainers.trl.schema import PEFT, SCHEMA, TITLE

# The one script that takes an adapter of the head.
_HEADLESS = "reward"
_ALL_LINEAR = "all-linear"
_ADAPTED_HEAD = Reason(
    "unsupported",
    'TRL stops at an adapter of "{name}": its loss reads that weight without the adapter. Leave it out of '
    "lora_target_modules; lora_modules_to_save trains it in full.",
)


def resolve_trl(model: ModelMap, given: TrainerConfig) -> Outcome:
    """What PEFT adapts with TRL's configuration."""
    settings = given.settings
    if settings["use_peft"] is False:
        return without_lora(TITLE, "use_peft", False, "true")
    arguments = SCHEMA.peft_arguments(settings)
    config = AdapterConfig(
        **{
            **arguments,
            "use_rslora": bool(arguments.get("use_rslora")),
            "use_dora": bool(arguments.get("use_dora")),
            "modules_to_save": arguments.get("modules_to_save") or None,
        }
    )
    resolution = resolve(model, config, PEFT)
    modules = settings["lora_target_modules"]
    if isinstance(modules, str):
        resolution = _without_list_hint(resolution)
    findings = tuple(_single_name_findings(modules, resolution))
    head = model.output_embeddings
    adapted = {weight.name for weight in resolution.adapted}
    if head and settings["script"] != _HEADLESS and adapted & {head, f"{head}.weight"}:
        return stopped(_ADAPTED_HEAD.about(head), findings, config)
    return Outcome(resolution, config, findings)


def _without_list_hint(resolution: Resolution) -> Resolution:
    """The resolution without PEFT's advice to give a one-name list."""
    refusal = resolution.refusal
    if refusal is None or refusal.values.get("hint") != "regex":
        return resolution
    refusal = dataclasses.replace(refusal, values={**refusal.values, "hint": "regex-alone"})
    return dataclasses.replace(resolution, refusal=refusal)


def _single_name_findings(modules: Any, resolution: Resolution) -> Iterator[Finding]:
    """A single name, which TRL hands to PEFT as a regex."""
    if not isinstance(modules, str) or modules.lower() == _ALL_LINEAR:
        return
    where = "lora_target_modules"
    message = f"TRL hands the single name {quoted(modules)} to PEFT as a string: a regular expression for the full name"
    plain = re.fullmatch(r"[\w.]+", modules) is not None
    if resolution.refusal is not None:
        fix = (
            rf"Write .*\.{re.escape(modules)} for all modules of that name."
            if plain
            else "Give two names or more, or an expression that matches full names."
        )
        yield trainer_filter("error", where, message, fix)
    elif plain:
        yield trainer_filter("note", where, message, "Nothing, if you mean one module.")
