"""TRL's YAML and command lines, written and read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.names import listed
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plans.types import Plan
from lorascope.sources.files.yaml_text import parse_yaml
from lorascope.trainers.capabilities import adapts_exactly, expressible_config, untrained_head
from lorascope.trainers.command_lines import command_words, options_of
from lorascope.trainers.commented_yaml import commented_yaml
from lorascope.trainers.known_keys import known_keys, unknown_key_findings
from lorascope.trainers.protocol import PLACEHOLDER, Job, TrainerConfig, Unsupported, require_no_faults, trainer_filter
from lorascope.trainers.provenance import NO_DROPOUT, ONE_EXPRESSION, YOUR_MODEL, file_heading
from lorascope.trainers.search_findings import MOST_NAMED
from lorascope.trainers.trl.schema import CAPABILITIES, PEFT, RELEASE, SCHEMA, SCRIPTS, TITLE

_HINT = "Names and types are those of trl.ModelConfig: trl sft --help"
PROGRAMS = ("trl", *(f"{script}.py" for script in SCRIPTS))
_OPTIONAL = ("lora_target_parameters", "use_rslora", "use_dora")
# A line that begins so is YAML; a command never does.
_KEY = re.compile(r"\s*(-\s|[\"']?[A-Za-z_]\w*[\"']?\s*:(\s|$))")
_COMMAND = re.compile(rf"(^\s*--\w)|((^|[\s/])(trl\s+({'|'.join(SCRIPTS)})|({'|'.join(SCRIPTS)})\.py)(\s|$))")
# Options read here that are not in the list of known keys.
_OTHER_OPTIONS = ("config", "model_name_or_path", "chat_template_path", "script")


# Writing.


def unsupported_by_trl(plan: Plan) -> Iterator[Unsupported]:
    """What TRL's options cannot express or its trainer refuses."""
    yield from untrained_head(plan.model, TITLE)
    head = plan.model.output_embeddings
    if head and any(target.weight.name == head for target in plan.targets):
        yield Unsupported(
            "weights", f"TRL stops at an adapter of {head}: its loss reads that weight without the adapter."
        )
    yield from CAPABILITIES.unsupported(plan)


def write_trl(plan: Plan, job: Job) -> str:
    """The YAML of a plan, for `trl sft --config`."""
    config = expressible_config(plan, CAPABILITIES) or plan.config
    modules, reason = _modules_written(plan, config)
    adapter = {
        **SCHEMA.settings_of(config),
        "lora_dropout": float(config.lora_dropout),
        "lora_target_modules": modules,
    }
    del adapter["lora_modules_to_save"]
    settings: dict[str, Any] = {
        "model_name_or_path": job.base or PLACEHOLDER,
        **_data(job),
        "output_dir": job.output,
        "use_peft": True,
        **{key: setting for key, setting in adapter.items() if setting or key not in _OPTIONAL},
        "learning_rate": 0.0002,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "gradient_checkpointing": True,
    }
    remarks = {
        "model_name_or_path": "" if job.base else YOUR_MODEL,
        "dataset_name": "" if job.data else "Your data: a Hub id or a folder, in one of TRL's dataset formats.",
        "lora_task_type": ""
        if config.task_type
        else "None, because PEFT's CAUSAL_LM class does not fit this model; TRL's default is CAUSAL_LM.",
        "lora_alpha": ""
        if isinstance(config.lora_alpha, int)
        else "Fractions work in a file; on the command line TRL takes whole numbers only.",
        "lora_dropout": f"{NO_DROPOUT} TRL's default is 0.05." if config.target_parameters else "",
        "lora_target_modules": reason,
    }
    return commented_yaml(file_heading(plan, f"TRL {RELEASE}: trl sft --config THIS_FILE"), settings, remarks)


def _data(job: Job) -> dict[str, Any]:
    if job.data_format:
        return {"datasets": [{"path": job.data_format, "data_files": job.data}]}
    return {"dataset_name": job.data or "trl-lib/Capybara"}


def _modules_written(plan: Plan, config: AdapterConfig) -> tuple[str | tuple[str, ...] | None, str]:
    """`lora_target_modules` that survive TRL's unwrapping, and the reason for the form.

    TRL unwraps a list of one name to a string, which PEFT reads as a regular expression.
    """
    modules = config.target_modules
    if isinstance(modules, str) or modules is None:
        return modules, ONE_EXPRESSION
    if len(modules) != 1:
        return modules, "" if modules else "Empty, so that PEFT adds no default modules."
    pattern = rf"(.*\.)?{re.escape(modules[0])}"
    if adapts_exactly(plan, resolve(plan.model, dataclasses.replace(config, target_modules=pattern), PEFT)):
        return pattern, "A regular expression: TRL unwraps a one-element list to a string, which PEFT reads as one."
    return modules * 2, "Listed twice: TRL unwraps a one-element list to a string, which PEFT reads as a regex."


# Reading.


def read_trl(text: str, where: str) -> TrainerConfig:
    """A configuration file, or the first command of a training script.

    Raises:
        LorascopeError: It is neither, or TRL or PEFT stops at its values.
    """
    return _read_command(text, where) if means_command(text) else _read_file(text, where)


def means_command(text: str) -> bool:
    """The text is a command or shell script, not YAML."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return any(_COMMAND.search(line) and not _KEY.match(line) for line in lines)


def _read_file(text: str, where: str) -> TrainerConfig:
    data = parse_yaml(text, where, "Correct the file; TRL reads it with PyYAML too.")
    environment = data.pop("env", {})
    wrong = [] if isinstance(environment, Mapping) else [f"env is {quoted(environment)}, not keys with values"]
    given, faults = SCHEMA.read(data)
    require_no_faults([*wrong, *faults], where, _HINT)
    consequence = "trl stops at it unless accelerate launch knows it, and python sft.py ignores it"
    findings = list(unknown_key_findings("trl", data, where, consequence=consequence))
    return _config(given, data, "", where, findings)


def _read_command(text: str, where: str) -> TrainerConfig:
    script, words = _script(command_words(text, where, PROGRAMS, SCRIPTS))
    options, faults = _spelled_out(options_of(words))
    given, wrong = SCHEMA.read_words(options)
    require_no_faults([*faults, *wrong], where, _HINT)
    unread = [key for key in options if key not in _OTHER_OPTIONS]
    consequence = "trl stops at it unless accelerate launch knows it, and python sft.py stops"
    findings = list(unknown_key_findings("trl", unread, where, consequence=consequence))
    single = {key: values[0] if len(values) == 1 else values for key, values in options.items()}
    if "config" in options:
        message = f"--config {quoted(single['config'])} sets what the command leaves out, and was not read"
        fix = "Check that file, with the command's own values written into it."
        findings.append(Finding("ignored-key", "warning", where, message, fix))
    return _config(given, single, script, where, findings)


def _spelled_out(options: Mapping[str, list[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """Options under their full names, which argparse lets users abbreviate."""
    known = known_keys("trl")
    spelled: dict[str, list[str]] = {}
    faults = []
    for key, values in options.items():
        exact = key in known or key in _OTHER_OPTIONS
        matches = [key] if exact else [name for name in known if name.startswith(key)]
        if len(matches) > 1 and set(matches) & SCHEMA.options.keys():
            faults.append(f"--{key} can be {' or '.join(f'--{name}' for name in sorted(matches)[:MOST_NAMED])}")
        spelled[matches[0] if len(matches) == 1 else key] = values
    return spelled, faults


def _script(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Which training script a command runs, and the words after it."""
    if words and words[0].startswith("--"):
        return "", words
    name = words[0].rpartition("/")[2]
    if name == "trl":
        return (words[1], words[2:]) if len(words) > 1 and words[1] in SCRIPTS else ("", words[1:])
    return name.removesuffix(".py"), words[1:]


def _config(
    given: Mapping[str, Any], data: Mapping[str, Any], script: str, where: str, findings: Sequence[Finding]
) -> TrainerConfig:
    settings = {**SCHEMA.defaults, **given, "script": script}
    modules = settings["lora_target_modules"]
    if isinstance(modules, list | tuple) and len(modules) == 1:  # ModelConfig's __post_init__ unwraps it
        settings["lora_target_modules"] = modules[0]
    base = data.get("model_name_or_path")
    findings = (*findings, *_findings(settings, data, where))
    return TrainerConfig(base if isinstance(base, str) else "", settings, findings)


def _findings(settings: Mapping[str, Any], data: Mapping[str, Any], where: str) -> Iterator[Finding]:
    use = settings["use_peft"]
    given = sorted(key for key in data if key in SCHEMA.options and key != "use_peft")
    if use is False and given:
        message = f"no effect without use_peft: {listed(given, MOST_NAMED)}"
        yield Finding("ignored-key", "error", where, message, "Set use_peft: true, or --use_peft.")
    if use is not False and not isinstance(use, bool):
        message = f"use_peft is {use!r}, which is not false itself: TRL makes an adapter"
        yield trainer_filter("warning", where, message, "Write true or false.")
    template = data.get("chat_template_path")
    if isinstance(template, str) and template and not template.endswith((".jinja", ".j2")):
        message = (
            f"chat_template_path {quoted(template)} is a model: TRL adds its tokenizer's extra tokens and trains them in "
            "embed_tokens and lm_head in full; neither is counted here"
        )
        yield trainer_filter("warning", where, message, "Give a .jinja file if you do not want the tokens.")
