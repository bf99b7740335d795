"""PEFT's own adapter_config.json, and the same as Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.foreign_text import json_text, quoted
from lorascope.model.types import ModelMap
from lorascope.peft_rules.lora_config import peft_arguments, saved_config
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.resolve import resolve
from lorascope.plans.types import Plan
from lorascope.plans.verify import adapter_config
from lorascope.sources.files.json_text import parse_json
from lorascope.trainers.number_limits import number_faults
from lorascope.trainers.protocol import PLACEHOLDER, Job, Outcome, TrainerConfig, require_no_faults
from lorascope.trainers.provenance import YOUR_MODEL, gap_comments
from lorascope.trainers.python_lines import Name, PythonLines, is_python_name
from lorascope.trainers.python_text import call_arguments, read_script

_NUMBERS = ("r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "layers_to_transform")


def write_peft(plan: Plan, job: Job) -> str:
    """The text of `adapter_config.json`."""
    return json_file(saved_config(peft_arguments(plan.config), job.base))


def json_file(content: Mapping[str, Any]) -> str:
    """The text of a file with an object."""
    return f"{json_text(content, indent=2)}\n"


def read_peft(text: str, where: str) -> TrainerConfig:
    """An `adapter_config.json`."""
    data = parse_json(text.encode(), where, "It is written by: lorascope export PLAN --to peft")
    settings = data if isinstance(data, Mapping) else {}
    _require_numbers(settings, where)
    return TrainerConfig(str(settings.get("base_model_name_or_path") or ""), settings)


def write_peft_python(plan: Plan, job: Job) -> str:
    """A script that makes a `peft.LoraConfig` and applies it."""
    architecture = plan.model.architecture
    if not is_python_name(architecture):
        known = quoted(architecture) if architecture else "not known"
        raise LorascopeError(
            f"the model's class is {known}, and no name that Python could load",
            where="export to peft-python",
            hint="Export to peft, and load the model in code of your own.",
        )
    script = PythonLines()
    for gap in gap_comments(plan):
        script.comment(gap)
    script.code("import peft\nimport transformers\n")
    if not job.base:
        script.comment(YOUR_MODEL)
    script.code(
        "model = transformers.$class.from_pretrained($base)",
        **{"class": Name(architecture), "base": job.base or PLACEHOLDER},
    )
    script.comment(f"{plan.resolution.trainable:,} trainable parameters in {len(plan.targets)} weights.")
    script.code("config = peft.LoraConfig(")
    for key, value in peft_arguments(plan.config).items():
        script.code("    $key=$value,", key=Name(key), value=value)
    script.code(")\nmodel = peft.get_peft_model(model, config)\nmodel.print_trainable_parameters()")
    return script.text()


def read_peft_python(text: str, where: str) -> TrainerConfig:
    """The call of `LoraConfig` in a script."""
    settings = call_arguments(read_script(text, where, "LoraConfig"), ("LoraConfig",))
    _require_numbers(settings, where)
    return TrainerConfig("", settings)


def _require_numbers(settings: Mapping[str, Any], where: str) -> None:
    """Refuse numbers that no configuration can hold."""
    require_no_faults([*number_faults(settings, _NUMBERS)], where, "Names and types are those of peft.LoraConfig.")


def resolve_peft(model: ModelMap, given: TrainerConfig) -> Outcome:
    """What PEFT adapts."""
    config = adapter_config(given.settings)
    return Outcome(resolve(model, config, NEWEST), config)
