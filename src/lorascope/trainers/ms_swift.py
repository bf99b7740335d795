"""ms-swift: the options of `swift sft`, its own search for targets, and what it changes in PEFT."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError, did_you_mean
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap
from lorascope.names import listed
from lorascope.peft_rules.addresses import peft_name
from lorascope.peft_rules.diagnostics import Diagnostic, Reason
from lorascope.peft_rules.name_patterns import BadPatternError, compiled
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.compiler import size_difference
from lorascope.plans.rules import own_components
from lorascope.plans.types import Plan
from lorascope.sources.files.json_text import parse_json
from lorascope.sources.files.yaml_text import parse_yaml
from lorascope.trainers import ms_swift_search as searching
from lorascope.trainers.capabilities import Surface, fitted, surface_losses
from lorascope.trainers.command_lines import command_words, options_of
from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.ms_swift_models import ModelType, Towers, model_types, types_for
from lorascope.trainers.number_limits import number_faults, whole_number
from lorascope.trainers.protocol import PLACEHOLDER, Asked, Form, Job, Outcome
from lorascope.trainers.provenance import class_said, transformers_release
from lorascope.trainers.shell_words import shell_command

_TITLE = "ms-swift"
_PEFT = "0.20.0"
_SURFACE = Surface(title=_TITLE, peft=_PEFT, layers=False, excludes=False, patterns=False, biases=("none", "all"))
_HINT = "Options are those of: swift sft --help"
_MOST_NAMED = 4
_TOWERS = ("vision", "audio", "connector")

# Programs and scripts whose options these are; the method is the word after `swift`.
_PROGRAMS = ("swift", "megatron", "sft.py", "pt.py", "rlhf.py")
_METHODS = ("sft", "pt", "rlhf")
# A text in which a command stands, and not the YAML or JSON of `swift sft FILE`.
_COMMAND = re.compile(r"(?m)^[^#\n]*(?<![\w.-])(swift|megatron)[ \t]+[a-z]|^[ \t]*--\w|\b(sft|pt|rlhf)\.py\b")

# Options that bear on adapters, by what argparse makes of their words (arguments/tuner_args.py, base_args.py).
_KINDS: Mapping[str, str] = {
    "model": "text",
    "model_type": "text",
    "task_type": "text",
    "tuner_type": "text",
    "tuner_backend": "text",
    "rlhf_type": "text",
    "lora_bias": "text",
    "target_regex": "text",
    "resume_from_checkpoint": "text",
    "lora_rank": "whole",
    "lora_alpha": "number",
    "lora_dropout": "number",
    "use_rslora": "truth",
    "use_dora": "truth",
    "use_swift_lora": "truth",
    "freeze_llm": "truth",
    "freeze_vit": "truth",
    "freeze_aligner": "truth",
    "ignore_args_error": "truth",
    "target_modules": "texts",
    "target_parameters": "texts",
    "modules_to_save": "texts",
    "adapters": "texts",
}
_SAID: Mapping[str, str] = {
    "text": "one word",
    "whole": "a whole number",
    "number": "a number",
    "truth": "true or false",
    "texts": "one word or more",
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "lora_bias": ("none", "all"),
    "tuner_backend": ("peft", "unsloth"),
    "task_type": ("causal_lm", "seq_cls", "embedding", "reranker", "generative_reranker", "decision"),
}
_TRUTHS: Mapping[str, bool] = {
    **dict.fromkeys(("yes", "true", "t", "y", "1"), True),
    **dict.fromkeys(("no", "false", "f", "n", "0"), False),
}
_DEFAULTS: Mapping[str, Any] = {
    "target_modules": ("all-linear",),
    "lora_rank": 8,
    "lora_alpha": 32.0,
    "lora_dropout": 0.05,
    "lora_bias": "none",
    "freeze_llm": False,
    "freeze_vit": True,
    "freeze_aligner": True,
}
_LINEAR = "all-linear"
_EMBEDDING = "all-embedding"
_NORM = "all-norm"
# pipelines/train/tuner.py, prepare_adapter: PEFT's task for each of its own.
_TASKS: Mapping[str, str | None] = {
    "causal_lm": "CAUSAL_LM",
    "seq_cls": "SEQ_CLS",
    "embedding": None,
    "reranker": "SEQ_CLS",
    "generative_reranker": "CAUSAL_LM",
    "decision": "CAUSAL_LM",
}
# pipelines/train/tuner.py, _drop_mamba_incompatible_targets.
_MAMBA = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"})
_NOT_ON_MAMBA = frozenset({"out_proj", "conv1d"})
# tuners/peft.py, _create_and_replace_hook: the output of torch's MultiheadAttention, which it leaves as it is.
_LEFT_ALONE = "NonDynamicallyQuantizableLinear"
# Heads of models that it loads: AutoModelForCausalLM, a class of its own for models with towers, and for classification.
_HEADS = ("causal-lm", "image-text-to-text", "sequence-classification", "unknown")
# Language models alone whose configurations have a text_config, by which ms-swift takes them for models of several parts.
_OF_PARTS = frozenset({"gemma4_assistant"})
# Matches no name, and keeps it from searching for linear layers.
_NOTHING = "(?!)"
_ALL_FROZEN = Reason(
    "refused", "ms-swift stops: none of the model's parts may be adapted (freeze_llm, freeze_vit, freeze_aligner)"
)
_NO_MODEL_TYPE = Reason(
    "refused",
    "ms-swift stops: none of its model types is for {architecture}, which it does not load without one. Give --model_type",
)


class MsSwift:
    """The options of `swift sft`, in a command, a shell script, or the YAML or JSON that it takes in their place.

    Run in the tests, with ms-swift 4.6.0, PEFT 0.20.0 and transformers 5.19: its argument parser on every form that is
    written and on the words that are told from faults here, its `get_target_modules`, `get_modules_to_save` and
    `prepare_adapter` with what it changes in PEFT on models of many architectures, its tables of models, at which
    configurations it stops, and trainings of a few steps from commands that are written here. Only read: the YAML and JSON
    that it takes in place of options, what it does for `rlhf` and `pt`, and which model types go by the name of a model.
    """

    name = "ms-swift"
    title = _TITLE
    release = "4.6.0"
    peft = _PEFT
    form: Form = "command"
    marks = frozenset(
        {
            "tuner_type",
            "target_regex",
            "lora_rank",
            "lora_bias",
            "freeze_llm",
            "freeze_vit",
            "freeze_aligner",
            "init_weights",
            "split_dataset_ratio",
            "use_hf",
        }
    )

    def losses(self, plan: Plan) -> tuple[str, ...]:
        """What it has no option for: differing sizes, the adapted layers' biases alone, models that it does not load."""
        lost = list(_model_losses(plan.model))
        # Its task is its own, whatever the plan's is, and decides nothing about names.
        untasked = dataclasses.replace(plan, config=dataclasses.replace(plan.config, task_type=None))
        lost += surface_losses(untasked, _SURFACE)
        if not lost and _settings(plan) is None:
            lost.append(f"exactly these weights. {_TITLE} leaves some of them out, whatever is named")
        return tuple(lost)

    def write(self, plan: Plan, job: Job) -> str:
        """The command."""
        adapter = _settings(plan) or {}
        release = transformers_release(plan.model)
        names = f"Names of modules are those of {class_said(plan.model)}"
        names += f" in transformers {release}." if release else "."
        types = [kind.name for kind in types_for(plan.model.architecture)]
        options: dict[str, Any] = {
            "model": job.base or PLACEHOLDER,
            "use_hf": True,
            "tuner_type": "lora",
            **adapter,
            "dataset": [job.data or "vicgalle/alpaca-gpt4#500"],
            "max_length": 2048,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 16,
            "learning_rate": "1e-4",
            "logging_steps": 10,
            "output_dir": job.output,
        }
        remarks = [
            f"Made for ms-swift {self.release}.",
            f"{plan.resolution.trainable:,} trainable parameters in {len(plan.targets)} weights.",
            f"{names} ms-swift {self.release} runs with transformers up to 5.19.",
            "use_hf: models and data come from Hugging Face, not from ModelScope.",
        ]
        if not job.base:
            remarks.append("model: your model, a Hub id or a folder.")
        remarks.append(
            "Where ms-swift does not know the model by its name, it may stop and ask for --template"
            + (f" and --model_type, one of: {', '.join(types)}" if len(types) > 1 else "")
        )
        if "target_regex" in adapter and "target_parameters" in adapter and adapter["target_regex"] == _NOTHING:
            remarks.append(
                f"target_regex {_NOTHING} matches no module: without it, every linear layer would be adapted too."
            )
        elif "target_regex" in adapter:
            remarks.append("target_regex: no list of name endings says exactly these weights.")
        if "target_parameters" in adapter:
            remarks.append("lora_dropout 0: PEFT has no dropout on fused experts.")
        if not job.data:
            remarks.append("dataset: demonstration data that ms-swift knows.")
        return shell_command(remarks, ("swift", "sft"), options)

    def read(self, text: str, where: str) -> Asked:
        """Such options, with every fault of those that bear on adapters."""
        method, options, faults = _options(text, where)
        settings: dict[str, Any] = {"method": method}
        findings: list[Finding] = []
        unknown: list[str] = []
        known = known_keys("ms-swift-rlhf" if method == "rlhf" else self.name)
        for given, words in options.items():
            key = _spelt_out(given, known, faults)
            if key is None:
                unknown.append(given)
            elif key in _KINDS:
                settings[key] = _typed(key, words, faults)
            elif key.startswith("no_") and _KINDS.get(key[3:]) == "truth":
                if words:
                    faults.append(f"--{given} takes no value, and has {quoted(' '.join(words))}")
                if key[3:] in options:
                    faults.append(f"both --{given} and --{key[3:]} are given")
                settings[key[3:]] = False
            if key not in (None, given):
                findings.append(
                    Finding("abbreviated", "note", where, f"--{given} is taken for --{key}", f"Write --{key}.")
                )
        faults += [*_refused(settings), *number_faults(settings)]
        if faults:
            raise LorascopeError(*faults, where=where, hint=_HINT)
        passed_over = bool(settings.get("ignore_args_error"))
        for key in unknown:
            findings.append(
                Finding(
                    "unknown-key",
                    "warning" if passed_over else "error",
                    where,
                    f"--{key} is no option of it: ms-swift "
                    + ("passes over it, as ignore_args_error is true" if passed_over else "stops at it"),
                    did_you_mean(key, known) or "Leave it out, or look it up with: swift sft --help",
                )
            )
        if "target_regex" in settings and "target_modules" in settings:
            findings.append(
                Finding(
                    "ignored-key",
                    "warning",
                    where,
                    "target_modules is not used, because target_regex is given",
                    "Give one of them.",
                )
            )
        base = str(settings.pop("model", ""))
        return Asked("" if "$" in base else base, settings, tuple(findings))

    def resolve(self, model: ModelMap, asked: Asked) -> Outcome:
        """What it adapts: its own targets, then PEFT 0.20 with its changes."""
        faults = list(_uncovered(asked.settings))
        if faults:
            raise LorascopeError(*faults, where=_TITLE, hint="Check what its trainer makes of it there.")
        settings = {**_DEFAULTS, **asked.settings}
        findings: list[Finding] = []
        searched = not settings.get("target_regex") and _LINEAR in settings["target_modules"]
        kind, refusal = _kind(model, settings, findings, asking=searched)
        if refusal is not None:
            return Outcome(Resolution(refusal=refusal), None, tuple(findings))
        targets = _targets(model, settings, kind, findings, asked.settings)
        if targets is None:
            return Outcome(Resolution(refusal=_ALL_FROZEN.about()), None, tuple(findings))
        config = _lora_config(model, settings, kind, targets, findings)
        return Outcome(_adapted(model, config, findings), config, tuple(findings))


def _model_losses(model: ModelMap) -> Iterator[str]:
    if model.head not in _HEADS:
        yield f"the model: {_TITLE} does not load {model.architecture} ({model.head})"
    elif _stops_at(model) and not any(kind.multimodal for kind in types_for(model.architecture)):
        yield f"the model: none of {_TITLE}'s model types is for {model.architecture}, which it does not load without one"


def _stops_at(model: ModelMap) -> bool:
    """It does not load a model of this kind without a model type for its class (`get_model_info_meta`)."""
    if model.head == "unknown":
        return False
    return model.head == "image-text-to-text" or model.model_type in _OF_PARTS or _has_towers(model)


def _has_towers(model: ModelMap) -> bool:
    own = own_components(model)
    return any(weight.role.component in _TOWERS and weight.role.component not in own for weight in model.weights)


def _settings(plan: Plan) -> dict[str, Any] | None:
    """Its options for a plan, or None if it does not do exactly the plan with any."""
    untasked = dataclasses.replace(plan, config=dataclasses.replace(plan.config, task_type=None))
    config = fitted(untasked, _SURFACE)
    if config is None:
        return None
    settings: dict[str, Any] = {}
    if plan.model.head == "sequence-classification":
        settings["task_type"] = "seq_cls"
        settings["num_labels"] = _labels(plan.model)
    targets = config.target_modules
    if isinstance(targets, str) or not targets:
        settings["target_regex"] = targets or _NOTHING
    else:
        settings["target_modules"] = sorted(targets)
    if config.target_parameters:
        settings["target_parameters"] = list(config.target_parameters)
    settings |= {
        "lora_rank": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "lora_bias": config.bias,
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
    }
    sizes = {peft_name(plan.model, t.weight): (t.rank, t.alpha) for t in plan.targets}
    outcome = MsSwift().resolve(plan.model, Asked("", settings))
    exact = outcome.resolution.refusal is None and not size_difference(outcome.resolution, sizes, _PEFT)
    return settings if exact else None


def _labels(model: ModelMap) -> int:
    """How many classes the head of a map tells apart; 2, as in every new configuration, where it cannot be seen."""
    heads = [weight for weight in model.weights if weight.role.block == "head"]
    return heads[-1].shape[0] if heads else 2


# Reading.


def _options(text: str, where: str) -> tuple[str, dict[str, list[str]], list[str]]:
    """The method, its options with their words, and what is wrong with them as a whole."""
    if not _COMMAND.search(text):
        return "sft", *_options_of_file(text, where)
    words = command_words(text, where, _PROGRAMS)
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
        faults.append(f"{' '.join(words[:2])} is no command that trains: those are swift {', '.join(_METHODS)}")
    if rest and not rest[0].startswith("--"):
        if rest[0].endswith((".yaml", ".yml", ".json")):
            faults.append(f"its options are in {quoted(rest[0])}: give that file")
        else:
            faults.append(f"{quoted(rest[0])} belongs to no option, and ms-swift stops at it")
    return method, options_of(rest), faults


def _options_of_file(text: str, where: str) -> tuple[dict[str, list[str]], list[str]]:
    """A YAML or JSON file as the words that ms-swift makes of it (cli/main.py, parse_yaml_args)."""
    if text.lstrip().startswith("{"):
        found = parse_json(text.encode("utf-8", "replace"), where, _HINT)
        data: Mapping[str, Any] = found if isinstance(found, dict) else {}
    else:
        data = parse_yaml(text, where, _HINT)
    options: dict[str, list[str]] = {}
    faults: list[str] = []
    for key, value in data.items():
        if key == "ENV":
            continue
        if value is None and key in _KINDS:
            faults.append(f"{key} is null, of which ms-swift makes the word None: leave it out")
        values = value if isinstance(value, list) else [value]
        # Dates in a mapping, which ms-swift stops at, are texts here: no such option bears on adapters.
        options[key] = [json.dumps(_as_json(one)) if isinstance(one, dict) else str(one) for one in values]
    return options, faults


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_json(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _spelt_out(given: str, known: Collection[str], faults: list[str]) -> str | None:
    """The option that argparse takes a word for, which may be the start of one; None if there is none."""
    if given in known:
        return given
    near = sorted(key for key in known if key.startswith(given))
    # Each option has a spelling with dashes too, so that a start without any is the start of two.
    spellings = len(near) if "_" in given else sum(2 if "_" in key else 1 for key in near)
    if spellings == 1:
        return near[0]
    if near and any(key in _KINDS for key in near):
        faults.append(
            f"--{given} can be {' or '.join(f'--{key}' for key in near[:_MOST_NAMED])}, and argparse stops at it"
        )
    return None


def _typed(key: str, words: Sequence[str], faults: list[str]) -> Any:
    """The value of an option's words, as argparse makes it."""
    kind = _KINDS[key]
    shown = quoted(" ".join(words))
    if key != "model" and any("$" in word or "`" in word for word in words) and key != "target_regex":
        faults.append(f"--{key} is {shown}, which the shell fills in: write the value out")
        return None
    if kind == "truth" and not words:
        return True
    if kind == "texts" and words:
        return tuple(words)
    value = _one(kind, words[0]) if len(words) == 1 else None
    if value is None:
        faults.append(f"--{key} has {shown}, not {_SAID[kind]}" if words else f"--{key} has no value")
    elif key in _CHOICES and value not in _CHOICES[key]:
        faults.append(f"--{key} is {shown}, not one of {', '.join(_CHOICES[key])}")
    return value


def _one(kind: str, word: str) -> Any:
    try:
        if kind == "whole":
            return whole_number(word)
        if kind == "number":
            number = float(word)
            return number if math.isfinite(number) else None
    except ValueError:
        return None
    return _TRUTHS.get(word.lower()) if kind == "truth" else word


def _refused(settings: Mapping[str, Any]) -> Iterator[str]:
    tuner = settings.get("tuner_type", "lora")
    if isinstance(tuner, str) and tuner not in ("lora", "longlora"):
        yield f"--tuner_type is {quoted(tuner)}, which makes no LoRA adapters by PEFT's rules"
    name = settings.get("model_type")
    if isinstance(name, str) and name not in model_types():
        yield f"--model_type is {quoted(name)}, which ms-swift does not know. {did_you_mean(name, model_types())}".rstrip()


def _uncovered(settings: Mapping[str, Any]) -> Iterator[str]:
    if settings.get("tuner_backend") == "unsloth":
        yield "tuner_backend is unsloth: Unsloth makes the adapters, by rules that are not ms-swift's"
    if settings.get("use_swift_lora"):
        yield "use_swift_lora is true: ms-swift's own LoRA layers take the place of PEFT's"
    for key in ("adapters", "resume_from_checkpoint"):
        if settings.get(key):
            yield f"{key} is given: it trains that adapter on, not what the options say"


# Which of its model types a model is.


def _kind(
    model: ModelMap, settings: Mapping[str, Any], findings: list[Finding], *, asking: bool
) -> tuple[ModelType, Diagnostic | None]:
    """The model type whose rules hold, or why ms-swift stops.

    Raises:
        LorascopeError: Several come into question that differ in what is adapted.
    """
    if name := settings.get("model_type"):
        return model_types()[name], None
    kinds = types_for(model.architecture)
    towers = _has_towers(model)
    if not kinds:
        if _stops_at(model):
            return ModelType(""), _NO_MODEL_TYPE.about(architecture=model.architecture)
        return ModelType("", multimodal=towers), None
    if len(kinds) > 1:
        findings.append(
            Finding(
                "trainer-filter",
                "note",
                model.architecture,
                f"ms-swift has {len(kinds)} model types for it ({', '.join(k.name for k in kinds[:_MOST_NAMED])} …) and stops "
                "unless it knows the model by its name",
                "Give --model_type where the model's name is not one that ms-swift knows.",
            )
        )
    # The map shows whether there are towers, and with that which of the types are meant.
    fitting = [kind for kind in kinds if kind.multimodal == towers] or list(kinds)
    differing = {
        (kind.multimodal, kind.towers if kind.multimodal else searching.head_word(kind.towers)) for kind in fitting
    }
    if len(differing) > 1 and asking:
        raise LorascopeError(
            f"ms-swift searches {model.architecture} in ways that differ by model type: {', '.join(k.name for k in fitting)}",
            where=_TITLE,
            hint="Give --model_type.",
        )
    return fitting[0], None


# Discovery.


def _targets(
    model: ModelMap,
    settings: Mapping[str, Any],
    kind: ModelType,
    findings: list[Finding],
    given: Mapping[str, Any],
) -> str | tuple[str, ...] | None:
    """What it gives PEFT as target_modules (`get_target_modules`); None where it stops."""
    if settings.get("target_regex"):
        return str(settings["target_regex"])
    names = list(settings["target_modules"])
    if _LINEAR in names:
        if kind.multimodal:
            findings += _dropped_names(names)
            return _in_towers(model, settings, kind.towers or Towers(), names, findings)
        names.remove(_LINEAR)
        found = searching.within(model)
        names += searching.linear_endings(found, kind.towers)
        findings += _left_out(model, found, kind.towers)
    elif kind.multimodal or _has_towers(model):
        findings += _unprotected(model, settings, names, given)
    if _EMBEDDING in names:
        names.remove(_EMBEDDING)
        names += searching.embedding_endings(searching.within(model))
    dropped = sorted(_NOT_ON_MAMBA & set(names)) if model.model_type in _MAMBA else []
    if dropped:
        findings.append(
            Finding(
                "trainer-filter",
                "warning",
                ", ".join(dropped),
                f"ms-swift takes {' and '.join(dropped)} out of the targets on {model.model_type}, as PEFT 0.20 refuses them",
                "Leave them out.",
            )
        )
        names = [name for name in names if name not in _NOT_ON_MAMBA]
    return tuple(dict.fromkeys(names))


def _dropped_names(names: Sequence[str]) -> Iterator[Finding]:
    others = [name for name in names if name not in (_LINEAR, _EMBEDDING)]
    if others:
        yield Finding(
            "ignored-key",
            "warning",
            ", ".join(others),
            "on a model with towers ms-swift drops every other name beside all-linear",
            "Say all of it with --target_regex.",
        )


def _in_towers(
    model: ModelMap, settings: Mapping[str, Any], towers: Towers, names: Sequence[str], findings: list[Finding]
) -> str | None:
    frozen = [key for key in ("freeze_llm", "freeze_vit", "freeze_aligner") if settings[key]]
    expression = searching.towers_expression(
        model,
        towers,
        llm=not settings["freeze_llm"],
        vision=not settings["freeze_vit"],
        aligner=not settings["freeze_aligner"],
        embeddings=_EMBEDDING in names,
    )
    if expression is None:
        return None
    try:
        pattern = compiled(expression, "target_modules")
    except BadPatternError:  # a name that is no expression; PEFT stops at it
        return expression
    linear = [module.name for module in model.modules if searching.called_linear(module)]
    left = [name for name in linear if not pattern.fullmatch(name)]
    if left:
        findings.append(
            Finding(
                "trainer-filter",
                "note",
                listed(left, _MOST_NAMED),
                f"all-linear leaves out {len(left)} of {len(linear)} linear modules: heads, and parts that are frozen "
                f"({', '.join(frozen) or 'none'})",
                "Set freeze_vit, freeze_aligner or freeze_llm to false where they are meant.",
            )
        )
    findings += _unseen(model)
    return expression


def _left_out(model: ModelMap, modules: Sequence[searching.Named], towers: Towers | None) -> Iterator[Finding]:
    left = [name for name, m in modules if searching.called_linear(m) and not searching.is_searched(name, m, towers)]
    if left:
        yield Finding(
            "trainer-filter",
            "note",
            listed(left, _MOST_NAMED),
            f"all-linear leaves out {len(left)} linear modules that ms-swift takes for heads",
            "Name them in target_modules where they are meant.",
        )
    yield from _unseen(model)


def _unseen(model: ModelMap) -> Iterator[Finding]:
    unseen = [weight.name for weight in model.weights if weight.kind in ("conv1d", "parameter")]
    if unseen:
        yield Finding(
            "trainer-filter",
            "warning",
            listed(unseen, _MOST_NAMED),
            f"all-linear goes by the word linear in a module's class and does not see these {len(unseen)} weights",
            "Name modules in target_modules, and the parameters of experts in target_parameters.",
        )


def _unprotected(
    model: ModelMap, settings: Mapping[str, Any], names: Sequence[str], given: Mapping[str, Any]
) -> Iterator[Finding]:
    endings = tuple(f".{name}" for name in names)
    hit = [
        w.name for w in model.weights if w.role.component in _TOWERS and (w.name.endswith(endings) or w.name in names)
    ]
    set_here = [key for key in ("freeze_llm", "freeze_vit", "freeze_aligner") if key in given]
    if hit and (settings["freeze_vit"] or settings["freeze_aligner"]):
        yield Finding(
            "trainer-filter",
            "warning",
            listed(hit, _MOST_NAMED),
            f"freeze_vit and freeze_aligner bear on all-linear alone: the names given also adapt {len(hit)} weights of towers",
            "Say what is meant with --target_regex.",
        )
    elif set_here:
        yield Finding(
            "ignored-key",
            "note",
            ", ".join(set_here),
            "these bear on LoRA only with all-linear among the target modules",
            "Leave them out.",
        )


def _lora_config(
    model: ModelMap,
    settings: Mapping[str, Any],
    kind: ModelType,
    targets: str | tuple[str, ...],
    findings: list[Finding],
) -> AdapterConfig:
    """What it hands to PEFT (`prepare_adapter`, `get_modules_to_save`)."""
    task = settings.get("task_type") or kind.task or "causal_lm"
    if settings.get("method") == "rlhf" and settings.get("rlhf_type") == "rm":
        task = "seq_cls"
    saved = list(settings.get("modules_to_save") or ())
    found = searching.within(model)
    if _EMBEDDING in saved:
        saved.remove(_EMBEDDING)
        saved += searching.embedding_endings(found)
    if _NORM in saved:
        saved.remove(_NORM)
        saved += searching.norm_endings(found)
        findings.append(
            Finding(
                "trainer-filter",
                "note",
                "modules_to_save",
                "all-norm stands for torch's LayerNorm and for classes called RMSNorm; a map knows classes by their names "
                "alone, so that a subclass of LayerNorm under another name is not counted",
                "Name the norms where it matters.",
            )
        )
    if task == "seq_cls":
        saved.append("v_head")
    return AdapterConfig(
        target_modules=targets,
        target_parameters=tuple(settings["target_parameters"]) if settings.get("target_parameters") else None,
        r=settings["lora_rank"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings["lora_dropout"],
        bias=settings["lora_bias"],
        use_rslora=bool(settings.get("use_rslora")),
        use_dora=bool(settings.get("use_dora")),
        modules_to_save=tuple(saved) or None,
        task_type=_TASKS[task],
    )


def _adapted(model: ModelMap, config: AdapterConfig, findings: list[Finding]) -> Resolution:
    """What PEFT does, less what ms-swift keeps it from."""
    resolution = resolve(model, config, _PEFT)
    alone = {module.name for module in model.modules if module.class_name == _LEFT_ALONE}
    kept = tuple(one for one in resolution.adapted if one.name not in alone)
    skipped = [one for one in resolution.adapted if one.name in alone]
    if not skipped:
        return resolution
    findings.append(
        Finding(
            "trainer-filter",
            "note",
            listed((one.name for one in skipped), _MOST_NAMED),
            f"ms-swift keeps PEFT from adapting {len(skipped)} outputs of torch's MultiheadAttention",
            "Nothing: their adapters would do nothing.",
        )
    )
    return dataclasses.replace(
        resolution,
        adapted=kept,
        trainable=resolution.trainable - sum(one.trainable for one in skipped),
        warnings=tuple(one for one in resolution.warnings if not _only_about(one, alone)),
    )


def _only_about(warning: Diagnostic, names: Collection[str]) -> bool:
    return bool(warning.names) and all(name in names for name in warning.names)
