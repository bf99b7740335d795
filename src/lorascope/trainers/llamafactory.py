"""LLaMA-Factory: its YAML, its own search for targets, and what it keeps LoRA out of in models of several parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap
from lorascope.names import listed
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plans.compiler import size_difference
from lorascope.plans.name_forms import module_forms
from lorascope.plans.rules import own_components
from lorascope.plans.types import Plan
from lorascope.sources.files.yaml_text import parse_yaml
from lorascope.trainers.capabilities import Surface, surface_losses
from lorascope.trainers.commented_yaml import commented_yaml
from lorascope.trainers.known_keys import unknown_key_findings
from lorascope.trainers.llamafactory_towers import PARTS, Parts
from lorascope.trainers.number_limits import number_faults
from lorascope.trainers.protocol import PLACEHOLDER, Asked, Form, Job, Outcome
from lorascope.trainers.provenance import class_said, transformers_release

_TITLE = "LLaMA-Factory"
_PEFT = "0.18.1"
_SURFACE = Surface(
    title=_TITLE,
    peft=_PEFT,
    regex=False,
    layers=False,
    excludes=False,
    patterns=False,
    parameters=False,
    biases=("none",),
)
_HINT = "Keys and types are those of LLaMA-Factory's examples/train_lora."
_MOST_NAMED = 4
# A longer comma list is written as a YAML list, which its parser takes as well.
_WIDEST = 100
_ALL = "all"
_TASK = "CAUSAL_LM"
_OWN = "what is written in the file"

# Heads of models that it loads: those of AutoModelForImageTextToText, …Seq2SeqLM and …CausalLM (model/loader.py).
_HEADS = ("causal-lm", "image-text-to-text", "seq2seq-lm", "unknown")
# Of these it trains `model.thinker`, whose own map has other names and another model type.
_THINKERS = ("qwen2_5_omni", "qwen3_omni_moe")
# model_utils/misc.py, find_all_linear_modules.
_OUTPUTS: Mapping[str, str] = {"chatglm": "output_layer", "internlm2": "output"}

_TRUTH = "true or false"
_WHOLE = "a whole number"
_TEXTS = "a text with commas or a list of texts"
# Its keys that bear on adapters, with what each must be. Nothing converts a value of the file before PEFT gets it.
_KINDS: Mapping[str, str] = {
    "lora_target": _TEXTS,
    "additional_target": _TEXTS,
    "lora_rank": _WHOLE,
    "lora_alpha": "a number",
    "lora_dropout": "a number",
    "freeze_trainable_layers": _WHOLE,
    "use_rslora": _TRUTH,
    "use_dora": _TRUTH,
    "use_llama_pro": _TRUTH,
    "freeze_vision_tower": _TRUTH,
    "freeze_multi_modal_projector": _TRUTH,
    "freeze_language_model": _TRUTH,
    "resize_vocab": _TRUTH,
    "use_unsloth": _TRUTH,
    "use_kt": _TRUTH,
    "create_new_adapter": _TRUTH,
    "finetuning_type": "a text",
    "stage": "a text",
    "mixture_of_depths": "a text",
    "adapter_name_or_path": "a text",
    "model_name_or_path": "a text",
}
# Those that may be null, which stands for their default.
_MAY_BE_NULL = ("lora_alpha", "additional_target", "mixture_of_depths", "adapter_name_or_path")
_DEFAULTS: Mapping[str, Any] = {
    "finetuning_type": "lora",
    "stage": "sft",
    "lora_target": _ALL,
    "lora_rank": 8,
    "lora_dropout": 0.0,
    "freeze_trainable_layers": 2,
    "freeze_vision_tower": True,
    "freeze_multi_modal_projector": True,
}
# OmegaConf, which reads the file, takes what PyYAML takes for a text (`1e-1`) for a number.
_NUMBER = re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?([eE][-+]?\d+)|[-+]?\.\d[\d_]*(?:[eE][-+]?\d+)?")


class LlamaFactory:
    """LLaMA-Factory's YAML file.

    Run in the tests, with LLaMA-Factory 0.9.5, PEFT 0.18.1 and transformers 5.6.0: its parser on every form that is written
    and on unknown keys, its `find_all_linear_modules`, `find_expanded_modules`, `get_forbidden_modules` and
    `patch_target_modules` with PEFT behind them on models of many architectures, its table of model parts, and trainings of
    a few steps from files that are written here. Only read: which class it loads a model with, `resize_vocab`, and what is
    refused here (Unsloth, KTransformers, mixture of depths, an adapter that it goes on with).
    """

    name = "llamafactory"
    title = _TITLE
    release = "0.9.5"
    peft = _PEFT
    form: Form = "yaml"
    marks = frozenset(
        {
            "finetuning_type",
            "stage",
            "lora_rank",
            "lora_target",
            "additional_target",
            "freeze_vision_tower",
            "freeze_multi_modal_projector",
            "freeze_language_model",
            "template",
            "cutoff_len",
            "dataset_dir",
        }
    )

    def losses(self, plan: Plan) -> tuple[str, ...]:
        """What it has no key for: differing sizes, biases, bare parameters, heads that it does not load."""
        lost = list(_model_losses(plan.model))
        # Its task is its own, whatever the plan's is, and decides nothing about names.
        untasked = dataclasses.replace(plan, config=dataclasses.replace(plan.config, task_type=None))
        lost += surface_losses(untasked, _SURFACE)
        if not lost and _settings(plan) is None:
            lost.append(
                "exactly these weights. LLaMA-Factory takes whole words from names and drops what it calls the tower, "
                "the projector or a conflict"
            )
        return tuple(lost)

    def write(self, plan: Plan, job: Job) -> str:
        """The YAML file's text."""
        adapter = _settings(plan) or {}
        release = transformers_release(plan.model)
        heading = [
            f"Made for LLaMA-Factory {self.release}. Run it with: llamafactory-cli train THIS_FILE.yaml",
            f"{plan.resolution.trainable:,} trainable parameters in {len(plan.targets)} weights.",
            f"Names of modules are those of {class_said(plan.model)}"
            + (f" in transformers {release}." if release else ".")
            + " LLaMA-Factory runs with transformers up to 5.6.0.",
        ]
        settings = {
            "model_name_or_path": job.base or PLACEHOLDER,
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            **adapter,
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
        remarks = {
            "model_name_or_path": "A Hub id or a folder." if job.base else "Your model: a Hub id or a folder.",
            "lora_target": "Endings of module names. There is no way to give a regular expression here.",
            "lora_alpha": "Left out, it would be twice the rank.",
            "freeze_vision_tower": "These three decide where LoRA may go at all.",
            "dataset": (
                "A name from dataset_info.json in the folder data. "
                if job.data
                else "LLaMA-Factory's own demonstration data, in the folder data of its repository. "
            )
            + "Without a key template, the chat template is the tokenizer's own.",
        }
        return commented_yaml(heading, settings, remarks, references=True)

    def read(self, text: str, where: str) -> Asked:
        """Such a file, with every fault of its adapter settings."""
        data = parse_yaml(text, where, _HINT)
        settings = {key: _converted(key, data[key]) for key in _KINDS if key in data}
        faults = [*_faults(settings), *number_faults(settings)]
        if faults:
            raise LorascopeError(*faults, where=where, hint=_HINT)
        settings = {key: value for key, value in settings.items() if value is not None}
        findings = [
            *unknown_key_findings(
                self.name,
                [key for key in data if key not in _KINDS],
                where,
                consequence="LLaMA-Factory stops at it, unless ALLOW_EXTRA_ARGS=1 is set",
            ),
            *_ignored(settings, where),
        ]
        return Asked(str(settings.pop("model_name_or_path", "")), settings, tuple(findings))

    def resolve(self, model: ModelMap, asked: Asked) -> Outcome:
        """What it adapts: its own targets, then PEFT 0.18."""
        faults = [*_uncovered(asked.settings), *_model_faults(model)]
        if faults:
            raise LorascopeError(*faults, where=_TITLE, hint="Check what its trainer makes of it there.")
        config, findings = _lora_config(model, {**_DEFAULTS, **asked.settings})
        return Outcome(resolve(model, config, self.peft), config, tuple(findings))


def _model_losses(model: ModelMap) -> Iterator[str]:
    if model.head not in _HEADS:
        yield f"the head of {model.architecture}: {_TITLE} loads language models without one for {model.head}"
    if model.model_type in _THINKERS:
        yield f"the names of {model.architecture}: {_TITLE} trains its thinker alone, under names without thinker"


def _model_faults(model: ModelMap) -> Iterator[str]:
    if model.model_type in _THINKERS:
        yield f"it trains the thinker of {model.model_type} alone, whose names are not those of this map"


def _settings(plan: Plan) -> dict[str, Any] | None:
    """Its keys for a plan, or None if none of its ways of naming targets gives exactly the plan's."""
    if any(target.weight.kind == "parameter" for target in plan.targets):
        return None
    config, model = plan.config, plan.model
    modules = {target.weight.name for target in plan.targets}
    sizes = {target.weight.name: (target.rank, target.alpha) for target in plan.targets}
    common: dict[str, Any] = {
        "lora_rank": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
        **_freezes(model, modules),
    }
    for form in module_forms(model, modules, layers=False, excludes=False, regex=False):
        names = form["target_modules"]
        settings = {"lora_target": list(names), **common}
        found, _ = _lora_config(model, {**_DEFAULTS, **settings})
        resolution = resolve(model, found, _PEFT)
        if resolution.refusal is None and not size_difference(resolution, sizes, _PEFT):
            joined = ",".join(names)
            return {**settings, "lora_target": joined if len(joined) <= _WIDEST else list(names)}
    return None


def _freezes(model: ModelMap, modules: Collection[str]) -> dict[str, bool]:
    """Its three switches, each on where no target lies in that part."""
    parts = PARTS.get(model.model_type)
    if parts is None:
        return {}
    return {
        "freeze_vision_tower": not any(_holds(name, parts.vision) for name in modules),
        "freeze_multi_modal_projector": not any(_holds(name, parts.projector) for name in modules),
        "freeze_language_model": not any(_holds(name, parts.language) for name in modules),
    }


def _holds(name: str, words: Collection[str]) -> bool:
    """One of the words stands anywhere in the name."""
    return any(word in name for word in words)


# Reading.


def _converted(key: str, value: Any) -> Any:
    if _KINDS[key] == "a number" and isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value.replace("_", ""))
    return value


def _faults(settings: Mapping[str, Any]) -> Iterator[str]:
    for key, value in settings.items():
        if value is None and key in _MAY_BE_NULL:
            continue
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and "${" in text for text in texts):
            yield f"{key} is {quoted(value)}, a reference that LLaMA-Factory does not follow: write the value out"
        elif not _IS[_KINDS[key]](value):
            note = ", which counts as true there" if _KINDS[key] == _TRUTH and isinstance(value, str) else ""
            yield f"{key} is {quoted(value)}, not {_KINDS[key]}{note}"
    if "model_name_or_path" not in settings:
        yield "model_name_or_path is missing, without which LLaMA-Factory stops"
    method = settings.get("finetuning_type", "lora")
    if isinstance(method, str) and method != "lora":
        known = method in ("oft", "freeze", "full")
        yield f"finetuning_type is {quoted(method)}, " + (
            "which trains no LoRA adapters" if known else "which it refuses"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_IS: Mapping[str, Callable[[Any], bool]] = {
    _TRUTH: lambda value: isinstance(value, bool),
    _WHOLE: lambda value: type(value) is int,
    "a number": _is_number,
    "a text": lambda value: isinstance(value, str),
    _TEXTS: lambda value: (
        isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))
    ),
}


def _names(value: Any) -> list[str]:
    """The entries of a comma list, as its `split_arg` takes them apart; a list stays as it is."""
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else list(value)


def _ignored(settings: Mapping[str, Any], where: str) -> Iterator[Finding]:
    names = _names(settings.get("lora_target", _ALL))
    if _ALL in names and len(names) > 1:
        yield Finding(
            "ignored-key",
            "error",
            where,
            "lora_target has all beside other names: only alone does it stand for every linear layer, here it is a name",
            "Give all alone, or the names alone.",
        )
    if "" in names:
        yield Finding(
            "ignored-key",
            "error",
            where,
            "lora_target has an empty entry (a comma too many), which stands for every module in models of several parts",
            "Take the comma out.",
        )
    if settings.get("lora_alpha") == 0:
        yield Finding(
            "ignored-key",
            "warning",
            where,
            "lora_alpha is 0, which counts as not given: alpha becomes twice the rank",
            "Give the alpha that is meant.",
        )
    if "freeze_trainable_layers" in settings and not settings.get("use_llama_pro"):
        yield Finding(
            "ignored-key",
            "warning",
            where,
            "freeze_trainable_layers bears on LoRA only together with use_llama_pro: every layer is adapted",
            "Choose layers by full names: lorascope plan SOURCE 'RULE[LAYERS]', then lorascope export.",
        )
    if settings.get("stage") in ("rm", "ppo"):
        yield Finding(
            "trainer-filter",
            "note",
            where,
            f"stage {settings['stage']} trains a value head too, which is not counted here",
            "Nothing: it belongs to that stage.",
        )


# Discovery.


def _uncovered(settings: Mapping[str, Any]) -> Iterator[str]:
    for key, who in (("use_unsloth", "Unsloth"), ("use_kt", "KTransformers")):
        if settings.get(key):
            yield f"{key} is true: {who} makes the adapters, by rules that are not LLaMA-Factory's"
    if settings.get("mixture_of_depths"):
        yield "mixture_of_depths changes the model's modules, which its map does not show"
    if settings.get("adapter_name_or_path") and not settings.get("create_new_adapter"):
        yield f"adapter_name_or_path is {quoted(settings['adapter_name_or_path'])}: it trains that adapter on, not {_OWN}"


def _lora_config(model: ModelMap, settings: Mapping[str, Any]) -> tuple[AdapterConfig, list[Finding]]:
    """What it hands to PEFT (model/adapter.py, `_setup_lora_tuning`), and what its user should know of that."""
    findings: list[Finding] = []
    names = _names(settings["lora_target"])
    everything = names == [_ALL]
    if everything:
        names = _all_linear(model, bool(settings["freeze_vision_tower"]), findings)
    if settings.get("use_llama_pro"):
        names = _expanded(model, names, settings["freeze_trainable_layers"])
    parts = PARTS.get(model.model_type)
    if parts is not None:
        names = _patched(model, names, parts, settings, findings, everything=everything)
    else:
        findings += _unprotected(model, settings, everything=everything)
    saved = settings.get("additional_target")
    if settings.get("resize_vocab") and saved is None:
        embeddings = [name for name in (model.input_embeddings, model.output_embeddings) if name]
        saved = sorted({name.rpartition(".")[2] for name in embeddings})
        findings.append(
            Finding(
                "trainer-filter",
                "warning",
                ", ".join(embeddings),
                "resize_vocab without additional_target trains the embeddings in full too; the counts here are those of "
                "the vocabulary as it is",
                "Name what to train in additional_target.",
            )
        )
    rank = settings["lora_rank"]
    config = AdapterConfig(
        target_modules=tuple(dict.fromkeys(names)),
        r=rank,
        lora_alpha=settings.get("lora_alpha") or rank * 2,
        lora_dropout=settings["lora_dropout"],
        use_rslora=settings.get("use_rslora", False),
        use_dora=settings.get("use_dora", False),
        modules_to_save=tuple(_names(saved)) if saved is not None else None,
        task_type=_TASK,
    )
    return config, findings


def _all_linear(model: ModelMap, freeze_vision_tower: bool, findings: list[Finding]) -> list[str]:
    """The last words of the names of every module whose class is called linear (`find_all_linear_modules`)."""
    forbidden = {"lm_head"}
    if output := _OUTPUTS.get(model.model_type):
        forbidden.add(output)
    parts = PARTS.get(model.model_type)
    if parts is not None:
        forbidden.update(parts.projector)
        if freeze_vision_tower:
            forbidden.update(parts.vision)
    linear = [module.name for module in model.modules if _called_linear(module.class_name)]
    found = [name for name in linear if not _holds(name, forbidden)]
    dropped = [name for name in linear if _holds(name, forbidden)]
    if dropped:
        findings.append(
            Finding(
                "trainer-filter",
                "note",
                listed(dropped, _MOST_NAMED),
                f"lora_target: all leaves out {len(dropped)} linear modules with one of these in their names: "
                + ", ".join(sorted(word for word in forbidden if any(word in name for name in dropped))),
                "Name them in lora_target where they are meant.",
            )
        )
    unseen = [weight for weight in model.weights if weight.kind in ("conv1d", "parameter")]
    if unseen:
        kinds = sorted({"Conv1D modules" if weight.kind == "conv1d" else "bare parameters" for weight in unseen})
        findings.append(
            Finding(
                "trainer-filter",
                "warning",
                listed([weight.name for weight in unseen], _MOST_NAMED),
                f"lora_target: all goes by the word Linear in a module's class and does not see these {len(unseen)} weights, "
                f"which are {' and '.join(kinds)}",
                "Name modules in lora_target; LLaMA-Factory has no key for bare parameters.",
            )
        )
    return sorted({name.rpartition(".")[2] for name in found})


def _called_linear(class_name: str) -> bool:
    return "Linear" in class_name and "Embedding" not in class_name


def _expanded(model: ModelMap, names: Sequence[str], trainable: int) -> list[str]:
    """The modules of every n-th layer (`find_expanded_modules`, LLaMA-Pro)."""
    layers = model.dimensions.layers
    if not layers or model.model_type in PARTS or _towers(model):
        # It looks for num_hidden_layers at the top of the configuration, where models of several parts have none.
        raise LorascopeError(
            f"use_llama_pro needs a number of layers of the model itself, which {model.architecture} does not have",
            where=_TITLE,
            hint="Leave it out, and choose layers by full names in lora_target.",
        )
    if trainable <= 0 or layers % trainable:
        raise LorascopeError(
            f"use_llama_pro: the {layers} layers cannot be divided by freeze_trainable_layers ({trainable})",
            where=_TITLE,
            hint="Give a divisor of the number of layers.",
        )
    stride = layers // trainable
    places = [f".{index}." for index in range(stride - 1, layers + stride - 1, stride)]
    return [module.name for module in model.modules if _holds(module.name, names) and _holds(module.name, places)]


def _patched(
    model: ModelMap,
    names: Sequence[str],
    parts: Parts,
    settings: Mapping[str, Any],
    findings: list[Finding],
    *,
    everything: bool,
) -> list[str]:
    """Full names of what it lets LoRA into in a model of several parts (`patch_target_modules`)."""
    frozen = {
        "freeze_vision_tower": parts.vision,
        "freeze_multi_modal_projector": parts.projector,
        "freeze_language_model": parts.language,
    }
    forbidden = {word for key, words in frozen.items() if settings.get(key) for word in words} | set(parts.conflicts)
    # The model itself has the empty name, in which only an empty entry can stand.
    matched = [name for name in ["", *(module.name for module in model.modules)] if _holds(name, names)]
    kept = [name for name in matched if not _holds(name, forbidden)]
    weights = model.weight_by_name
    dropped = [name for name in matched if name in weights and _holds(name, forbidden)]
    if dropped and not everything:
        switches = [key for key in frozen if settings.get(key) and any(_holds(name, frozen[key]) for name in dropped)]
        findings.append(
            Finding(
                "trainer-filter",
                "warning",
                listed(dropped, _MOST_NAMED),
                f"{len(dropped)} weights that lora_target names are left out: LLaMA-Factory lets LoRA into nothing of "
                f"{model.model_type} with {', '.join(sorted(w for w in forbidden if any(w in n for n in dropped)))} in its "
                f"name" + (f" ({' and '.join(switches)}: true)" if switches else ""),
                f"Set {' and '.join(switches)} to false where they are meant." if switches else "Leave them out.",
            )
        )
    endings = tuple(f".{name}" for name in names)
    loose = [name for name in kept if name in weights and name not in names and not name.endswith(endings)]
    if loose:
        findings.append(
            Finding(
                "trainer-filter",
                "warning",
                listed(loose, _MOST_NAMED),
                f"{len(loose)} weights are adapted because an entry of lora_target stands somewhere in their names: in "
                f"{model.model_type} LLaMA-Factory does not look at endings alone",
                "Give longer names in lora_target.",
            )
        )
    return kept


def _towers(model: ModelMap) -> list[str]:
    """Linear layers of towers and of what joins them with the language model."""
    own = own_components(model)
    parts = [weight for weight in model.weights if weight.role.component not in own and weight.kind == "linear"]
    return [weight.name for weight in parts]


def _unprotected(model: ModelMap, settings: Mapping[str, Any], *, everything: bool) -> Iterator[Finding]:
    """A model with towers that its table does not have, and for which its switches therefore do nothing."""
    towers = _towers(model)
    asked = [key for key in ("freeze_vision_tower", "freeze_multi_modal_projector") if settings.get(key)]
    if settings.get("freeze_language_model"):
        asked.append("freeze_language_model")
    if towers and (asked or everything):
        yield Finding(
            "ignored-key",
            "warning",
            listed(towers, _MOST_NAMED),
            f"{model.model_type} is none of the models whose parts LLaMA-Factory knows: {', '.join(asked) or 'freezing'} "
            f"does nothing, and {'all takes' if everything else 'a name can take'} weights of the towers too",
            "Give names that only the language model has: lorascope plan, then lorascope export --to llamafactory.",
        )
