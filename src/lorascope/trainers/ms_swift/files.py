"""The options of `swift sft`: a command, shell script, YAML or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import did_you_mean
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap
from lorascope.plans.types import Plan
from lorascope.sources.files.json_text import parse_json
from lorascope.sources.files.yaml_text import parse_yaml
from lorascope.trainers.capabilities import LANGUAGE_HEADS, adapts_exactly, expressible_config, untrained_head
from lorascope.trainers.command_lines import command_words, options_of
from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.ms_swift.models import types_for
from lorascope.trainers.ms_swift.schema import CAPABILITIES, PEFT, RELEASE, SCHEMA, TITLE, swift_settings
from lorascope.trainers.ms_swift.targets import needs_model_type, resolve_swift
from lorascope.trainers.protocol import PLACEHOLDER, Job, TrainerConfig, Unsupported, require_no_faults
from lorascope.trainers.provenance import NO_DROPOUT, file_heading
from lorascope.trainers.search_findings import MOST_NAMED
from lorascope.trainers.shell_words import shell_command

_HINT = "Options are those of: swift sft --help"
# Programs and scripts whose options these are; the method is the word after `swift`.
PROGRAMS = ("swift", "megatron", "sft.py", "pt.py", "rlhf.py")
_METHODS = ("sft", "pt", "rlhf")
# A text in which a command stands, and not the YAML or JSON of `swift sft FILE`.
_COMMAND = re.compile(r"(?m)^[^#\n]*(?<![\w.-])(swift|megatron)[ \t]+[a-z]|^[ \t]*--\w|\b(sft|pt|rlhf)\.py\b")
# A target_regex that matches no name, and keeps ms-swift from searching for linear layers.
_NOTHING = "(?!)"


# Writing.


def unsupported_by_swift(plan: Plan) -> Iterator[Unsupported]:
    """What ms-swift's options cannot express."""
    model = plan.model
    parts = [*untrained_head(model, TITLE, (*LANGUAGE_HEADS, "sequence-classification"))]
    if not parts and needs_model_type(model) and not any(kind.multimodal for kind in types_for(model.architecture)):
        message = f"{TITLE} has no model type for {model.architecture}, and does not load it without one."
        parts.append(Unsupported("model", message))
    parts += CAPABILITIES.unsupported(_untasked(plan))
    if not parts and _adapter_settings(plan) is None:
        message = f"{TITLE} cannot adapt exactly these weights: it leaves some of them out, whatever is named."
        parts.append(Unsupported("names", message))
    yield from parts


def _untasked(plan: Plan) -> Plan:
    """The plan without a task, which ms-swift sets itself."""
    return dataclasses.replace(plan, config=dataclasses.replace(plan.config, task_type=None))


def write_swift(plan: Plan, job: Job) -> str:
    """The command of a plan."""
    options: dict[str, Any] = {
        "model": job.base or PLACEHOLDER,
        "use_hf": True,
        "tuner_type": "lora",
        **(_adapter_settings(plan) or {}),
        "dataset": [job.data or "vicgalle/alpaca-gpt4#500"],
        "max_length": 2048,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 16,
        "learning_rate": "1e-4",
        "logging_steps": 10,
        "output_dir": job.output,
    }
    lines = file_heading(plan, f"{TITLE} {RELEASE}", f"{TITLE} {RELEASE} runs with transformers up to 5.19.")
    return shell_command([*lines, *_remarks(plan, job, options)], ("swift", "sft"), options)


def _remarks(plan: Plan, job: Job, options: Mapping[str, Any]) -> Iterator[str]:
    types = [kind.name for kind in types_for(plan.model.architecture)]
    yield "use_hf: models and data come from Hugging Face, not from ModelScope."
    if not job.base:
        yield "model: your model, a Hub id or a folder."
    more = f" and --model_type, one of: {', '.join(types)}" if len(types) > 1 else ""
    yield f"If ms-swift does not know the model by its name, it may stop and ask for --template{more}"
    if options.get("target_regex") == _NOTHING and "target_parameters" in options:
        yield f"target_regex {_NOTHING} matches no module: without it, every linear layer would be adapted too."
    elif "target_regex" in options:
        yield "target_regex: no list of name endings matches exactly these weights."
    if "target_parameters" in options:
        yield f"lora_dropout 0: {NO_DROPOUT}"
    if not job.data:
        yield "dataset: demonstration data that ms-swift knows."


def _adapter_settings(plan: Plan) -> dict[str, Any] | None:
    """Options that give exactly the plan, or None."""
    config = expressible_config(_untasked(plan), CAPABILITIES)
    if config is None:
        return None
    settings: dict[str, Any] = {}
    if plan.model.head == "sequence-classification":
        settings = {"task_type": "seq_cls", "num_labels": _labels(plan.model)}
    modules = config.target_modules
    if isinstance(modules, str) or not modules:
        settings["target_regex"] = modules or _NOTHING
    else:
        settings["target_modules"] = sorted(modules)
    settings |= SCHEMA.settings_of(config)
    if not config.target_parameters:
        del settings["target_parameters"]
    resolution = resolve_swift(plan.model, TrainerConfig("", settings)).resolution
    return settings if adapts_exactly(plan, resolution, PEFT) else None


def _labels(model: ModelMap) -> int:
    """Number of classes of the head; 2, transformers' default, if not visible."""
    heads = [weight for weight in model.weights if weight.role.block == "head"]
    return heads[-1].shape[0] if heads else 2


# Reading.


def read_swift(text: str, where: str) -> TrainerConfig:
    """Read options of `swift sft`.

    Raises:
        LorascopeError: There are none, or ms-swift stops at them.
    """
    method, options, faults = _options(text, where)
    known = known_keys("ms-swift-rlhf" if method == "rlhf" else "ms-swift")
    spelled = {given: _spelled_out(given, known, faults) for given in options}
    settings, wrong = swift_settings({key: options[given] for given, key in spelled.items() if key})
    require_no_faults([*faults, *wrong], where, _HINT)
    findings = [
        Finding("abbreviated", "note", where, f"--{given} is read as --{key}", f"Write --{key}.")
        for given, key in spelled.items()
        if key not in ("", given)
    ]
    findings += _unknown_findings([given for given, key in spelled.items() if not key], known, settings, where)
    if "target_regex" in settings and "target_modules" in settings:
        message = "target_modules is not used, because target_regex is given"
        findings.append(Finding("ignored-key", "warning", where, message, "Give one of them."))
    base = str(settings.pop("model", ""))
    return TrainerConfig("" if "$" in base else base, {"method": method, **settings}, tuple(findings))


def _unknown_findings(
    keys: Sequence[str], known: Collection[str], settings: Mapping[str, Any], where: str
) -> Iterator[Finding]:
    ignored = bool(settings.get("ignore_args_error"))
    consequence = "ignores it, as ignore_args_error is true" if ignored else "stops at it"
    for key in keys:
        fix = did_you_mean(key, known) or "Leave it out, or look it up with: swift sft --help"
        message = f"--{key} is an unknown option: ms-swift {consequence}"
        yield Finding("unknown-key", "warning" if ignored else "error", where, message, fix)


def _options(text: str, where: str) -> tuple[str, dict[str, list[str]], list[str]]:
    """The method, its options with their words, and faults."""
    if not _COMMAND.search(text):
        return "sft", *_options_of_file(text, where)
    words = command_words(text, where, PROGRAMS, _METHODS)
    program = PurePosixPath(words[0]).name
    faults: list[str] = []
    if program.startswith("--"):
        method, rest = "sft", words
    elif program.endswith(".py"):
        method, rest = program.removesuffix(".py"), words[1:]
    else:
        method, rest = words[1].replace("_", "-") if len(words) > 1 else "", words[2:]
    if program == "megatron":
        faults.append("megatron makes its adapters in Megatron's own modules, which have other names")
    elif method not in _METHODS:
        faults.append(f"{' '.join(words[:2])} does not train: use swift {', '.join(_METHODS)}")
    if rest and not rest[0].startswith("--"):
        if rest[0].endswith((".yaml", ".yml", ".json")):
            faults.append(f"its options are in {quoted(rest[0])}: give that file")
        else:
            faults.append(f"{quoted(rest[0])} belongs to no option, and ms-swift stops at it")
    return method, options_of(rest), faults


def _options_of_file(text: str, where: str) -> tuple[dict[str, list[str]], list[str]]:
    """The words that ms-swift makes of a YAML or JSON file."""
    if text.lstrip().startswith("{"):
        parsed = parse_json(text.encode("utf-8", "replace"), where, _HINT)
        data: Mapping[str, Any] = parsed if isinstance(parsed, dict) else {}
    else:
        data = parse_yaml(text, where, _HINT)
    options: dict[str, list[str]] = {}
    faults: list[str] = []
    for key, value in data.items():
        if key == "ENV":
            continue
        if value is None and key in SCHEMA.options:
            faults.append(f"{key} is null, which ms-swift turns into the word None: leave it out")
        values = value if isinstance(value, list) else [value]
        # Dates in a mapping, which ms-swift stops at, are texts here: no such option bears on adapters.
        options[key] = [json.dumps(_as_json(item)) if isinstance(item, dict) else str(item) for item in values]
    return options, faults


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_json(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _spelled_out(given: str, known: Collection[str], faults: list[str]) -> str:
    """The option that a word abbreviates for argparse; empty if none."""
    if given in known:
        return given
    near = sorted(key for key in known if key.startswith(given))
    # Each option has a spelling with dashes too, so that a start without any is the start of two.
    spellings = len(near) if "_" in given else sum(2 if "_" in key else 1 for key in near)
    if spellings == 1:
        return near[0]
    if any(key in SCHEMA.options for key in near):
        shown = " or ".join(f"--{key}" for key in near[:MOST_NAMED])
        faults.append(f"--{given} can be {shown}, and argparse stops at it")
    return ""
