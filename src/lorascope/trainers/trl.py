"""TRL: its YAML and its command lines, as its parser turns them into a configuration for PEFT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap
from lorascope.names import listed
from lorascope.peft_rules.addresses import peft_name
from lorascope.peft_rules.diagnostics import Reason
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.compiler import size_difference
from lorascope.plans.types import Plan
from lorascope.sources.files.yaml_text import parse_yaml
from lorascope.trainers.capabilities import Surface, fitted, surface_losses
from lorascope.trainers.command_lines import command_words, options_of
from lorascope.trainers.commented_yaml import commented_yaml
from lorascope.trainers.known_keys import known_keys, unknown_key_findings
from lorascope.trainers.number_limits import number_faults, whole_number
from lorascope.trainers.protocol import PLACEHOLDER, Asked, Form, Job, Outcome
from lorascope.trainers.provenance import named_by

_TITLE = "TRL"
_SURFACE = Surface(title=_TITLE, peft=NEWEST, layers=False, excludes=False, patterns=False, biases=("none",))
# The training scripts that hand a ModelConfig to get_peft_config; all but that of reward models refuse an adapted head.
_SCRIPTS = ("distillation", "dpo", "grpo", "kto", "reward", "rloo", "sft")
_HEADLESS = "reward"
_PROGRAMS = ("trl", *(f"{script}.py" for script in _SCRIPTS))
_ALL_LINEAR = "all-linear"
_HINT = "Names and types are those of trl.ModelConfig: trl sft --help"
_MOST_NAMED = 4

# TRL 1.16.0, trainer/model_config.py: what bears on the adapters, with its default.
_DEFAULTS: Mapping[str, Any] = {
    "use_peft": False,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_target_modules": None,
    "lora_target_parameters": None,
    "lora_modules_to_save": None,
    "lora_task_type": "CAUSAL_LM",
    "use_rslora": False,
    "use_dora": False,
}
_TRUTHS = ("use_peft", "use_rslora", "use_dora")
_LISTS = ("lora_target_modules", "lora_target_parameters", "lora_modules_to_save")
_WORDS_FOR_TRUE = ("yes", "true", "t", "y", "1")
_WORDS_FOR_FALSE = ("no", "false", "f", "n", "0")
# A line that begins so is YAML; a command never does.
_KEY = re.compile(r"\s*(-\s|[\"']?[A-Za-z_]\w*[\"']?\s*:(\s|$))")
_COMMAND = re.compile(rf"(^\s*--\w)|((^|[\s/])(trl\s+({'|'.join(_SCRIPTS)})|({'|'.join(_SCRIPTS)})\.py)(\s|$))")
# A configuration of what `--config` and the script's own keys stand beside.
_BESIDE = ("config", "model_name_or_path", "chat_template_path", "script")
_NO_ADAPTER = Reason(
    "no-adapter", "TRL makes no adapter and trains every weight, because use_peft is not true. Set use_peft: true"
)
_ADAPTED_HEAD = Reason(
    "unsupported",
    'TRL stops at an adapter of "{name}", because its loss reads that weight without it. Leave it out of '
    "lora_target_modules; lora_modules_to_save trains it in full.",
)


class Trl:
    """TRL's configuration file, and its command line.

    Run in the tests, with TRL 1.16.0 and PEFT 0.21.2: its parser and its `get_peft_config` on every form that is written, on
    command lines, on broken values and on unknown keys, and `trl sft --config` itself, which trains tiny models of four
    architectures from exported files. Only read: the other training scripts, which hand the same class to the same function
    and refuse an adapted head in the same words.
    """

    name = "trl"
    title = _TITLE
    release = "1.16.0"
    peft = NEWEST
    form: Form = "yaml"
    marks = frozenset(
        {"use_peft", "lora_target_modules", "lora_task_type", "dataset_train_split", "dataset_name", "use_dora"}
    )

    def losses(self, plan: Plan) -> tuple[str, ...]:
        """What TRL's keys cannot say of a plan, and what its trainer refuses."""
        lost = []
        if plan.model.head not in ("causal-lm", "image-text-to-text", "unknown"):
            lost.append(f"the kind of model ({plan.model.head}). TRL's sft trains language models")
        head = plan.model.output_embeddings
        if head and any(target.weight.name == head for target in plan.targets):
            lost.append(f"the adapter of {head}. TRL stops at one, because its loss reads that weight without it")
        lost += surface_losses(plan, _SURFACE)
        return tuple(lost)

    def write(self, plan: Plan, job: Job) -> str:
        """The YAML of a plan, for `trl sft --config`."""
        config = fitted(plan, _SURFACE) or plan.config
        modules, why = _said_modules(plan, config)
        heading = [
            f"TRL {self.release}: trl sft --config THIS_FILE",
            f"{plan.resolution.trainable:,} trainable parameters in {len(plan.targets)} weights.",
            named_by(plan.model),
        ]
        settings: dict[str, Any] = {"model_name_or_path": job.base or PLACEHOLDER}
        if job.data.endswith((".json", ".jsonl", ".csv", ".parquet")):
            builder = job.data.rpartition(".")[2].replace("jsonl", "json")
            settings["datasets"] = [{"path": builder, "data_files": job.data}]
        else:
            settings["dataset_name"] = job.data or "trl-lib/Capybara"
        alpha = config.lora_alpha
        settings |= {
            "output_dir": job.output,
            "use_peft": True,
            "lora_task_type": config.task_type,
            "lora_r": config.r,
            "lora_alpha": alpha,
            "lora_dropout": float(config.lora_dropout),
            "lora_target_modules": modules,
        }
        if config.target_parameters:
            settings["lora_target_parameters"] = config.target_parameters
        settings |= {key: True for key, on in (("use_rslora", config.use_rslora), ("use_dora", config.use_dora)) if on}
        settings |= {
            "learning_rate": 0.0002,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 8,
            "gradient_checkpointing": True,
        }
        remarks = {
            "model_name_or_path": "" if job.base else "Your model: a Hub id or a folder.",
            "dataset_name": "" if job.data else "Your data: a Hub id or a folder, in one of TRL's forms.",
            "lora_task_type": ""
            if config.task_type
            else "None, because PEFT's class for CAUSAL_LM does not fit this model's; TRL would take CAUSAL_LM.",
            "lora_alpha": ""
            if isinstance(alpha, int)
            else "Taken from a file as it is; on the command line TRL takes whole numbers only.",
            "lora_dropout": "PEFT has no dropout on fused experts; TRL would take 0.05."
            if config.target_parameters
            else "",
            "lora_target_modules": why,
        }
        return commented_yaml(heading, settings, {key: said for key, said in remarks.items() if said})

    def read(self, text: str, where: str) -> Asked:
        """A configuration file, or the first command that runs one of TRL's training scripts.

        Raises:
            LorascopeError: It is neither, or TRL or PEFT stops at its values.
        """
        if means_command(text):
            return _of_command(text, where)
        data = parse_yaml(text, where, "Mend the file; TRL reads it with PyYAML too.")
        faults: list[str] = []
        environment = data.pop("env", {})
        if not isinstance(environment, Mapping):
            faults.append(f"env is {quoted(environment)}, not keys with values")
        settings = _of_file(data, faults)
        faults += number_faults(settings)
        if faults:
            raise LorascopeError(*faults, where=where, hint=_HINT)
        consequence = (
            "trl stops at it where accelerate launch does not know it either, and python sft.py passes over it"
        )
        findings = list(unknown_key_findings("trl", data, where, consequence=consequence))
        return Asked(_text(data.get("model_name_or_path")), settings, (*findings, *_findings(settings, data, where)))

    def resolve(self, model: ModelMap, asked: Asked) -> Outcome:
        """What TRL's `get_peft_config` makes PEFT adapt, and what its trainers refuse of that."""
        settings = asked.settings
        if settings["use_peft"] is False:
            return Outcome(Resolution(refusal=_NO_ADAPTER.about()), None, asked.findings)
        modules = settings["lora_target_modules"]
        parameters = settings["lora_target_parameters"]
        saved = settings["lora_modules_to_save"]
        config = AdapterConfig(
            target_modules=tuple(modules) if isinstance(modules, list) else modules,
            target_parameters=tuple(parameters) if isinstance(parameters, list) else parameters,
            r=settings["lora_r"],
            lora_alpha=settings["lora_alpha"],
            lora_dropout=settings["lora_dropout"],
            bias="none",
            use_rslora=bool(settings["use_rslora"]),
            use_dora=bool(settings["use_dora"]),
            modules_to_save=tuple(saved) if saved else None,
            task_type=settings["lora_task_type"],
        )
        resolution = resolve(model, config, self.peft)
        if isinstance(modules, str):  # a list with that name alone is what TRL makes this text of
            resolution = _without_list_hint(resolution)
        findings = [*asked.findings, *_word_findings(settings, resolution)]
        head = model.output_embeddings
        if (
            head
            and settings["script"] != _HEADLESS
            and any(one.name in (head, f"{head}.weight") for one in resolution.adapted)
        ):
            return Outcome(Resolution(refusal=_ADAPTED_HEAD.about(head)), config, tuple(findings))
        return Outcome(resolution, config, tuple(findings))


def _without_list_hint(resolution: Resolution) -> Resolution:
    """A resolution whose refusal does not advise a list of one name."""
    refusal = resolution.refusal
    if refusal is None or refusal.values.get("hint") != "regex":
        return resolution
    refusal = dataclasses.replace(refusal, values={**refusal.values, "hint": "regex-alone"})
    return dataclasses.replace(resolution, refusal=refusal)


# Writing.


def _said_modules(plan: Plan, config: AdapterConfig) -> tuple[str | tuple[str, ...] | None, str]:
    """`lora_target_modules` such that TRL hands PEFT the configuration's targets, and why it looks so.

    TRL makes a text of a list with one name, and PEFT takes a text for a regular expression.
    """
    modules = config.target_modules
    if isinstance(modules, str) or modules is None:
        return modules, "A text, not a list, is one regular expression for the whole name."
    if len(modules) != 1:
        return modules, "" if modules else "Empty, so that PEFT adds no default targets to the parameters."
    pattern = rf"(.*\.)?{re.escape(modules[0])}"
    sizes = {peft_name(plan.model, t.weight): (t.rank, t.alpha) for t in plan.targets}
    resolution = resolve(plan.model, dataclasses.replace(config, target_modules=pattern), NEWEST)
    if resolution.refusal is None and not size_difference(resolution, sizes):
        return (
            pattern,
            "TRL would make a text of a list with one name, which PEFT reads as a regular expression: so it is one.",
        )
    return modules * 2, "Twice, because TRL would make a text, a regular expression for PEFT, of a list with one name."


# Reading.


def means_command(text: str) -> bool:
    """The text is a command line or shell script and no YAML: a line of it runs one of the scripts or is options alone."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return any(_COMMAND.search(line) and not _KEY.match(line) for line in lines)


def _of_file(data: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """The settings of a file: argparse converts a text that is a default, and leaves every other value as it is."""
    settings: dict[str, Any] = {**_DEFAULTS, "script": ""}
    for key in (one for one in _DEFAULTS if one in data):
        value = data[key]
        if isinstance(value, str) and key not in _LISTS:
            settings[key] = _converted(key, value, faults)
            continue
        if not _fits(key, value):
            faults.append(f"{key} is {quoted(value)}, not {_wanted(key)}")
            continue
        settings[key] = value
    settings["lora_target_modules"] = _unwrapped(settings["lora_target_modules"])
    return settings


def _fits(key: str, value: Any) -> bool:
    """A value of a file gets through TRL and PEFT. A text of `lora_target_parameters` is refused by PEFT, see `resolve`."""
    if key in _TRUTHS:
        return value is None or isinstance(value, bool | int | float)
    if key == "lora_r":
        return type(value) is int
    if key in ("lora_alpha", "lora_dropout"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if key == "lora_task_type":
        return value is None
    # PEFT takes a text apart into letters where it saves modules.
    texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return value is None or texts or (isinstance(value, str) and key != "lora_modules_to_save")


def _wanted(key: str) -> str:
    if key in _TRUTHS:
        return "true or false"
    if key in _LISTS:
        return "a list of texts"
    return {"lora_r": "a whole number", "lora_task_type": "a text"}.get(key, "a number")


def _converted(key: str, word: str, faults: list[str]) -> Any:
    """A word as argparse converts it for a key that takes one."""
    try:
        if key in _TRUTHS:
            if word.lower() in _WORDS_FOR_TRUE or word.lower() in _WORDS_FOR_FALSE:
                return word.lower() in _WORDS_FOR_TRUE
            raise ValueError
        if key in ("lora_r", "lora_alpha"):
            return whole_number(word)
        return float(word) if key == "lora_dropout" else word
    except ValueError:
        wanted = "a whole number" if key == "lora_alpha" else _wanted(key)
        faults.append(f"{key} is {quoted(word)}, not {wanted}")
        return _DEFAULTS[key]


def _unwrapped(modules: Any) -> Any:
    """ModelConfig's `__post_init__`: what has one element is that element. A text of one letter stays one."""
    return modules[0] if isinstance(modules, list) and len(modules) == 1 else modules


def _of_command(text: str, where: str) -> Asked:
    script, words = _script(command_words(text, where, _PROGRAMS))
    options = options_of(words)
    faults: list[str] = []
    known = known_keys("trl")
    given: dict[str, list[str]] = {}
    for key, values in options.items():
        # argparse takes the beginning of an option for it where no other begins so.
        meant = [key] if key in known or key in _BESIDE else [name for name in known if name.startswith(key)]
        if len(meant) > 1 and set(meant) & _DEFAULTS.keys():
            faults.append(f"--{key} can be {' or '.join(f'--{name}' for name in sorted(meant)[:_MOST_NAMED])}")
        given[meant[0] if len(meant) == 1 else key] = values
    settings: dict[str, Any] = {**_DEFAULTS, "script": script}
    for key in (one for one in _DEFAULTS if one in given):
        values = given[key]
        if key in _LISTS:
            if not values:
                faults.append(f"--{key} has no value")
            settings[key] = values
        elif key in _TRUTHS and not values:
            settings[key] = True
        elif len(values) == 1:
            settings[key] = _converted(key, values[0], faults)
        else:
            faults.append(
                f"--{key} has {len(values)} values ({' '.join(values)}), not one" if values else f"--{key} has no value"
            )
    settings["lora_target_modules"] = _unwrapped(settings["lora_target_modules"])
    faults += number_faults(settings)
    if faults:
        raise LorascopeError(*faults, where=where, hint=_HINT)
    consequence = "trl stops at it where accelerate launch does not know it either, and python sft.py stops"
    findings = list(
        unknown_key_findings("trl", [key for key in given if key not in _BESIDE], where, consequence=consequence)
    )
    single = {key: values[0] if len(values) == 1 else values for key, values in given.items()}
    if "config" in given:
        said = f"--config {quoted(single['config'])} gives values to what the command leaves out, and is not read here"
        findings.append(
            Finding(
                "ignored-key", "warning", where, said, "Check that file, with the command's own values written into it."
            )
        )
    base = _text(single.get("model_name_or_path"))
    return Asked(base, settings, (*findings, *_findings(settings, single, where)))


def _script(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Which training script a command runs, and the words after it."""
    if words and words[0].startswith("--"):
        return "", words
    name = words[0].rpartition("/")[2]
    if name == "trl":
        return (words[1], words[2:]) if len(words) > 1 and words[1] in _SCRIPTS else ("", words[1:])
    return name.removesuffix(".py"), words[1:]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _findings(settings: Mapping[str, Any], data: Mapping[str, Any], where: str) -> Iterator[Finding]:
    given = sorted(key for key in data if key in _DEFAULTS and key != "use_peft")
    if settings["use_peft"] is False and given:
        said = f"without use_peft there is no effect of {listed(given, _MOST_NAMED)}"
        yield Finding("ignored-key", "error", where, said, "Set use_peft: true, or --use_peft.")
    if settings["use_peft"] is not False and not isinstance(settings["use_peft"], bool):
        said = f"use_peft is {settings['use_peft']!r}, which is not false itself: TRL makes an adapter"
        yield Finding("trainer-filter", "warning", where, said, "Write true or false.")
    template = _text(data.get("chat_template_path"))
    if template and not template.endswith((".jinja", ".j2")):
        said = (
            f"chat_template_path {quoted(template)} is a model: TRL adds the tokens that its tokenizer has more, trains them in "
            "embed_tokens and lm_head in full; neither is counted here"
        )
        yield Finding("trainer-filter", "warning", where, said, "Give a .jinja file, if the tokens are not wanted.")


def _word_findings(settings: Mapping[str, Any], resolution: Resolution) -> Iterator[Finding]:
    """What comes of a text in `lora_target_modules`, which is what TRL makes of a single name."""
    modules = settings["lora_target_modules"]
    if not isinstance(modules, str) or modules.lower() == _ALL_LINEAR:
        return
    said = f"TRL hands the single name {quoted(modules)} to PEFT as a text, which is a regular expression for the whole name"
    if resolution.refusal is not None:
        fix = (
            rf"Write .*\.{re.escape(modules)} for all modules of that name."
            if re.fullmatch(r"[\w.]+", modules)
            else "Give two names or more, or an expression that matches whole names."
        )
        yield Finding("trainer-filter", "error", "lora_target_modules", said, fix)
    elif re.fullmatch(r"[\w.]+", modules):
        yield Finding("trainer-filter", "note", "lora_target_modules", said, "Nothing, if one module is meant.")
