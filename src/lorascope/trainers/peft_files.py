"""PEFT itself: `adapter_config.json`, and the same as Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lorascope.compiling import NEWEST, peft_arguments
from lorascope.peft_rules.resolving import resolve
from lorascope.records import ModelMap, Plan
from lorascope.sources.json_text import parse_json
from lorascope.trainers.python_text import call_arguments, read_script
from lorascope.trainers.surface import PLACEHOLDER, Asked, Form, Job, Outcome
from lorascope.verifying import adapter_config


class PeftFile:
    """`adapter_config.json`, which `PeftConfig.from_pretrained` reads."""

    name = "peft"
    title = "PEFT"
    release = NEWEST
    peft = NEWEST
    form: Form = "json"
    marks = frozenset({"peft_type"})

    def losses(self, plan: Plan) -> tuple[str, ...]:
        """Nothing: plans are made for PEFT."""
        return ()

    def write(self, plan: Plan, job: Job) -> str:
        """The file's text."""
        return json.dumps(adapter_json(plan, job.base or None), indent=2) + "\n"

    def read(self, text: str, where: str) -> Asked:
        """Such a file."""
        data = parse_json(text.encode(), where, "It is written by: lorascope export PLAN --to peft")
        settings = data if isinstance(data, Mapping) else {}
        return Asked(str(settings.get("base_model_name_or_path") or ""), settings)

    def resolve(self, model: ModelMap, asked: Asked) -> Outcome:
        """What PEFT adapts."""
        config = adapter_config(asked.settings)
        return Outcome(resolve(model, config, self.peft), config)


class PeftPython(PeftFile):
    """A `peft.LoraConfig` in Python, with the few lines around it that apply it."""

    name = "peft-python"
    form: Form = "python"
    marks = frozenset({"LoraConfig"})

    def write(self, plan: Plan, job: Job) -> str:
        """The script's text."""
        lines = [f"    {key}={value!r}," for key, value in peft_arguments(plan.config).items()]
        return "\n".join(
            [
                "import peft",
                "import transformers",
                "",
                *([] if job.base else ["# Your model: a Hub id or a folder."]),
                f"model = transformers.{plan.model.architecture}.from_pretrained({job.base or PLACEHOLDER!r})",
                f"# {plan.resolution.trainable:,} trainable parameters in {len(plan.targets)} weights.",
                "config = peft.LoraConfig(",
                *lines,
                ")",
                "model = peft.get_peft_model(model, config)",
                "model.print_trainable_parameters()",
                "",
            ]
        )

    def read(self, text: str, where: str) -> Asked:
        """The call of `LoraConfig` in a script."""
        return Asked("", call_arguments(read_script(text, where, "LoraConfig"), ("LoraConfig",)))


def adapter_json(plan: Plan, base: str | None) -> dict[str, Any]:
    """The content of `adapter_config.json` for a plan."""
    return {"peft_type": "LORA", "base_model_name_or_path": base, **peft_arguments(plan.config)}
