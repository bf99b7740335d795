"""PEFT itself: `adapter_config.json`, and the same as Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.foreign_text import json_text, quoted
from lorascope.model.types import ModelMap
from lorascope.peft_rules.lora_config import peft_arguments
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.resolve import resolve
from lorascope.plans.types import Plan
from lorascope.plans.verify import adapter_config
from lorascope.sources.files.json_text import parse_json
from lorascope.trainers.number_limits import number_faults
from lorascope.trainers.protocol import PLACEHOLDER, Asked, Form, Job, Outcome
from lorascope.trainers.python_lines import Name, PythonLines, is_python_name
from lorascope.trainers.python_text import call_arguments, read_script

_NUMBERS = ("r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "layers_to_transform")


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
        return json_file(adapter_json(plan, job.base or None))

    def read(self, text: str, where: str) -> Asked:
        """Such a file."""
        data = parse_json(text.encode(), where, "It is written by: lorascope export PLAN --to peft")
        settings = _limited(data if isinstance(data, Mapping) else {}, where)
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
        if not is_python_name(plan.model.architecture):
            raise LorascopeError(
                f"the model's class is {quoted(plan.model.architecture) if plan.model.architecture else 'not known'}, and no "
                "name that Python could load",
                where=f"export to {self.name}",
                hint="Export to peft, and load the model in code of your own.",
            )
        script = PythonLines()
        script.code("import peft\nimport transformers\n")
        if not job.base:
            script.comment("Your model: a Hub id or a folder.")
        script.code(
            "model = transformers.$class.from_pretrained($base)",
            **{"class": Name(plan.model.architecture), "base": job.base or PLACEHOLDER},
        )
        script.comment(f"{plan.resolution.trainable:,} trainable parameters in {len(plan.targets)} weights.")
        script.code("config = peft.LoraConfig(")
        for key, value in peft_arguments(plan.config).items():
            script.code("    $key=$value,", key=Name(key), value=value)
        script.code(")\nmodel = peft.get_peft_model(model, config)\nmodel.print_trainable_parameters()")
        return script.text()

    def read(self, text: str, where: str) -> Asked:
        """The call of `LoraConfig` in a script."""
        return Asked("", _limited(call_arguments(read_script(text, where, "LoraConfig"), ("LoraConfig",)), where))


def _limited(settings: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    faults = [*number_faults(settings, _NUMBERS)]
    if faults:
        raise LorascopeError(*faults, where=where, hint="Names and types are those of peft.LoraConfig.")
    return settings


def json_file(content: Mapping[str, Any]) -> str:
    """The text of a file with an object."""
    return f"{json_text(content, indent=2)}\n"


def adapter_json(plan: Plan, base: str | None) -> dict[str, Any]:
    """The content of `adapter_config.json` for a plan."""
    return {"peft_type": "LORA", "base_model_name_or_path": base, **peft_arguments(plan.config)}
