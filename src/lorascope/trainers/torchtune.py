"""torchtune: its YAML, in which one function builds a model with LoRA layers, and what they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorascope.errors import LorascopeError, did_you_mean
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap, Weight
from lorascope.names import listed
from lorascope.peft_rules.diagnostics import Diagnostic, Reason
from lorascope.peft_rules.types import Adapted, Resolution
from lorascope.plans.types import Plan
from lorascope.sources.files.yaml_text import parse_yaml
from lorascope.trainers.commented_yaml import Reference, commented_yaml
from lorascope.trainers.known_keys import known_keys, unknown_key_findings
from lorascope.trainers.number_limits import number_faults
from lorascope.trainers.protocol import PLACEHOLDER, Asked, Form, Job, Outcome
from lorascope.trainers.provenance import transformers_release
from lorascope.trainers.torchtune_builders import (
    ATTENTION_PARTS,
    BUILDERS,
    PLAIN,
    Builder,
    Sizes,
    builders_for,
    sizes_of,
    torchtune_part,
)

_TITLE = "torchtune"
_MODELS = "torchtune.models."
_HINT = "The keys below model are the arguments of the function that _component_ names; tune cp shows whole files."
_MOST_NAMED = 4
_MOST_EXPLAINED = 20
_CLOSE = 1e-12
_MLP = ("w1", "w2", "w3")
# What the functions of torchtune 0.6.1 take if a file does not say; those that take all sizes have no default for the rank
# and the alpha.
_DEFAULTS: Mapping[str, Any] = {
    "lora_rank": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "apply_lora_to_mlp": False,
    "apply_lora_to_output": False,
    "use_dora": False,
}
_TRUTHS = ("apply_lora_to_mlp", "apply_lora_to_output", "use_dora", "quantize_base", "tie_word_embeddings")
_COUNTS = ("vocab_size", "num_layers", "num_heads", "num_kv_heads", "embed_dim", "intermediate_dim", "head_dim")
# By the module that a function is in: what the checkpointer calls its models, and its tokenizer with the file it reads.
_SENTENCEPIECE = "tokenizer.model"
_FAMILIES: Mapping[str, tuple[str, str, str]] = {
    "llama2": ("LLAMA2", "llama2.llama2_tokenizer", _SENTENCEPIECE),
    "code_llama2": ("LLAMA2", "llama2.llama2_tokenizer", _SENTENCEPIECE),
    "llama3": ("LLAMA3", "llama3.llama3_tokenizer", "original/tokenizer.model"),
    "llama3_1": ("LLAMA3", "llama3.llama3_tokenizer", "original/tokenizer.model"),
    "llama3_2": ("LLAMA3_2", "llama3.llama3_tokenizer", "original/tokenizer.model"),
    "llama3_3": ("LLAMA3", "llama3.llama3_tokenizer", "original/tokenizer.model"),
    "mistral": ("MISTRAL", "mistral.mistral_tokenizer", _SENTENCEPIECE),
    "gemma": ("GEMMA", "gemma.gemma_tokenizer", _SENTENCEPIECE),
    "gemma2": ("GEMMA2", "gemma.gemma_tokenizer", _SENTENCEPIECE),
    "phi3": ("PHI3_MINI", "phi3.phi3_mini_tokenizer", _SENTENCEPIECE),
    "phi4": ("PHI4", "phi4.phi4_tokenizer", "vocab.json"),
    "qwen2": ("QWEN2", "qwen2.qwen2_tokenizer", "vocab.json"),
    "qwen2_5": ("QWEN2", "qwen2_5.qwen2_5_tokenizer", "vocab.json"),
}
_NO_ARGUMENT = Reason("unsupported", "{path} has no argument {arguments}: torchtune stops.")
_OTHER_TYPE = Reason("unsupported", "{path} builds a model of type {built}, and this is a {type}.")
_NO_DECODER = Reason("unsupported", "{path} builds a plain decoder, and this is none.")
_OTHER_SIZES = Reason("unsupported", "{path} builds {built}; this model has {sizes}.")
_NO_ATTENTION = Reason(
    "unsupported", "lora_attn_modules is empty: torchtune stops, even where only the MLP is to be adapted."
)
_NO_HEAD = Reason(
    "unsupported", "apply_lora_to_output is true, and the output layer is the embedding: torchtune stops."
)
_UNKNOWN_PARTS = Reason("no-match", "lora_attn_modules has {parts}, passed over.")
_NO_PART = Reason("no-match", "Nothing is adapted: none of lora_attn_modules is one of {parts}.")


class Torchtune:
    """torchtune's YAML file for its recipes `lora_finetune_single_device` and `lora_finetune_distributed`.

    torchtune has its own models and LoRA layers and does not use PEFT. One function of `torchtune.models` builds a model of
    one size with adapters on some of the attention's four layers, on all of the MLP or none of it, and on the output layer
    or not, in every layer, with one rank and one alpha.

    Run in the tests, with torchtune 0.6.1 on the meta device: its `config.validate` and `config.instantiate` on the files
    that are written here, and every function of `torchtune_builders` for its sizes, parameters, ranks, dropout and
    `get_adapter_params`. Only read: its recipes, and how it reads a checkpoint of transformers into its own names. Not
    covered: reward models, classifiers, and Llama 3.2 Vision.
    """

    name = "torchtune"
    title = _TITLE
    release = "0.6.1"
    peft = ""
    form: Form = "yaml"
    marks = frozenset({"checkpointer", "metric_logger", "tokenizer", "enable_activation_checkpointing", "lr_scheduler"})

    def losses(self, plan: Plan) -> tuple[str, ...]:
        """What torchtune's functions cannot say of a plan."""
        if plan.model.head not in ("causal-lm", "unknown"):
            return (f"the kind of model ({plan.model.head}). {_TITLE}'s functions here build language models",)
        builders = builders_for(plan.model)
        if not builders:
            return (f"all {len(plan.targets)} weights. {_no_builder(plan.model)}",)
        lost = [*_places_lost(plan, builders[0])]
        ranks = sorted({one.rank for one in plan.resolution.adapted})
        scales = sorted({one.scale for one in plan.resolution.adapted})
        if len(ranks) > 1:
            lost.append(f"ranks that differ: {', '.join(map(str, ranks))}. {_TITLE} has one for all")
        if scales[-1] - scales[0] > _CLOSE * scales[-1]:
            lost.append(f"scales that differ: {', '.join(f'{s:g}' for s in scales)}. {_TITLE} has one alpha for all")
        if plan.config.bias != "none":
            lost.append(f"the biases that are trained ({plan.config.bias}). {_TITLE} trains none")
        if plan.config.lora_dropout and builders[0].family == "mistral" and _adapts_output(plan):
            lost.append(f"dropout on the output layer. {builders[0].path} gives that adapter none")
        if plan.config.use_dora and not builders[0].dora:
            lost.append(f"DoRA. {builders[0].path} has no such setting")
        return tuple(lost)

    def write(self, plan: Plan, job: Job) -> str:
        """The YAML of a plan."""
        builders = builders_for(plan.model)
        if not builders:
            raise LorascopeError(_no_builder(plan.model), where=f"export to {self.name}")
        builder = builders[0]
        names = {name for target in plan.targets for name in torchtune_part(target.weight)}
        first = plan.resolution.adapted[0]
        rescaled = plan.config.use_rslora
        alpha = first.scale * first.rank if rescaled else first.alpha
        model: dict[str, Any] = {
            "_component_": f"{_MODELS}{builder.path}",
            "lora_attn_modules": [name for name in ATTENTION_PARTS if name in names],
            "apply_lora_to_mlp": "w1" in names,
            **({"apply_lora_to_output": True} if "output" in names else {}),
            "lora_rank": first.rank,
            "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
            "lora_dropout": float(plan.config.lora_dropout),
            **({"use_dora": True} if plan.config.use_dora else {}),
        }
        heading = [
            f"{_TITLE} {self.release}: tune run lora_finetune_single_device --config THIS_FILE",
            f"{plan.resolution.trainable:,} trainable parameters in {len(plan.targets)} weights.",
            f"It has module names of its own; the plan has those of transformers "
            f"{transformers_release(plan.model) or 'that its checkpoint has'}.",
        ]
        others = ", ".join(other.path for other in builders[1:])
        remarks = {
            "output_dir": "",
            "model": "Every layer."
            + (f" Of the same sizes are {others}: give the one that your model is." if others else "")
            + (" The alpha is the one whose alpha / rank is the scale of rsLoRA." if rescaled else ""),
            "tokenizer": "Files of the model's folder.",
            "checkpointer": ("" if job.base else "The folder of your model, as tune download makes it. ")
            + "List its files of weights.",
            "dataset": "" if job.data else "Your data, in one of torchtune.datasets.",
        }
        settings = {"output_dir": job.output, "model": model, **_surroundings(builder, job)}
        said = {key: remark for key, remark in remarks.items() if remark}
        return commented_yaml(heading, settings, said, references=True)

    def read(self, text: str, where: str) -> Asked:
        """A torchtune file.

        Raises:
            LorascopeError: It is no YAML, names no function that builds a LoRA model, or gives it what it cannot take.
        """
        data = parse_yaml(text, where, "Mend the file; torchtune reads it with OmegaConf, which is YAML too.")
        model = data.get("model")
        if not isinstance(model, Mapping) or not isinstance(model.get("_component_"), str):
            raise LorascopeError(
                "model has no _component_ with the name of a function", where=where, hint=_example_hint()
            )
        path = _path_of(model["_component_"])
        if path not in {one.path for one in BUILDERS} and path not in PLAIN:
            near = did_you_mean(path, [one.path for one in BUILDERS] + list(PLAIN))
            raise LorascopeError(
                f"{quoted(model['_component_'])} is no function of {_TITLE} {self.release} that is covered here",
                where=where,
                hint=near or _example_hint(),
            )
        settings = {key: value for key, value in model.items() if value is not None}
        faults = [*_faults(settings, path), *number_faults(settings)]
        if faults:
            raise LorascopeError(*faults, where=where, hint=_HINT)
        checkpointer = data.get("checkpointer")
        base = checkpointer.get("checkpoint_dir") if isinstance(checkpointer, Mapping) else ""
        return Asked(base if isinstance(base, str) else "", settings, tuple(_key_findings(data, model, path, where)))

    def resolve(self, model: ModelMap, asked: Asked) -> Outcome:
        """What the function adapts, under the names of the map.

        Raises:
            LorascopeError: It adapts a part of what the map has as one weight.
        """
        settings = {**_DEFAULTS, **asked.settings}
        path = _path_of(settings["_component_"])
        refusal = _mismatch(model, settings, path)
        attention = tuple(settings["lora_attn_modules"])
        if refusal is None and not attention:
            refusal = _NO_ATTENTION.about()
        if refusal is None and settings["apply_lora_to_output"] and not _has_head(model, settings, path):
            refusal = _NO_HEAD.about()
        if refusal is not None:
            return Outcome(Resolution(refusal=refusal), None, asked.findings)
        names = set(attention) & set(ATTENTION_PARTS)
        names |= {*(_MLP if settings["apply_lora_to_mlp"] else ())}
        names |= {"output"} if settings["apply_lora_to_output"] else set()
        return _outcome(model, settings, names, attention, asked.findings)


# Writing.


def _no_builder(model: ModelMap) -> str:
    mine = [one.path for one in BUILDERS if one.model_type == model.model_type]
    if not mine:
        types = ", ".join(sorted({one.model_type for one in BUILDERS}))
        return f"{_TITLE} has no model of type {model.model_type or model.architecture} (it has {types})"
    sizes = sizes_of(model)
    said = f" ({sizes})" if sizes else ""
    return f"{_TITLE} has no {model.model_type} of this size{said}, but those of {', '.join(mine)}"


def _places_lost(plan: Plan, builder: Builder) -> Iterator[str]:
    """Targets in places where torchtune has no LoRA, and places that it adapts only together."""
    chosen = {target.weight.name for target in plan.targets}
    away = [name for name in chosen if not torchtune_part(plan.model.weight_by_name[name])]
    if away:
        yield f"{len(away)} weights ({listed(sorted(away), _MOST_NAMED)}). {_TITLE} has no LoRA in their places"
    places = _places(plan.model)
    split = [w.name for w in plan.model.weights if w.name in chosen and len(torchtune_part(w)) > 1]
    if split:
        parts = " and ".join(torchtune_part(plan.model.weight_by_name[split[0]]))
        yield f"one adapter each for {len(split)} weights ({listed(split, _MOST_NAMED)}). {_TITLE} splits them into {parts}"
    for name, weights in places.items():
        hit = [w for w in weights if w.name in chosen]
        if hit and len(hit) < len(weights):
            yield f"{len(hit)} of {len(weights)} weights in the place of {name}. {_TITLE} adapts every layer or none"
    if not any(places.get(name) and places[name][0].name in chosen for name in ATTENTION_PARTS):
        yield f"adapters without one on the attention. {_TITLE} wants at least one of its four layers"
    mlp = [w for name in _MLP for w in places.get(name, ())]
    if 0 < len([w for w in mlp if w.name in chosen]) < len(mlp):
        yield f"a part of the MLP. {_TITLE} adapts gate, up and down together or none of them"
    if any(w.name in chosen for w in places.get("output", ())) and not (
        builder.head and _untied(plan.model, places["output"][0])
    ):
        yield f"the output layer. {_TITLE} has no LoRA for one that shares the embedding's weight"


def _adapts_output(plan: Plan) -> bool:
    return any("output" in torchtune_part(target.weight) for target in plan.targets)


def _places(model: ModelMap) -> dict[str, list[Weight]]:
    places: dict[str, list[Weight]] = {}
    for weight in model.weights:
        for name in torchtune_part(weight):
            places.setdefault(name, []).append(weight)
    return places


def _untied(model: ModelMap, weight: Weight) -> bool:
    return not any(f"{weight.name}.weight" in group for group in model.ties)


def _surroundings(builder: Builder, job: Job) -> dict[str, Any]:
    kind, tokenizer, file = _FAMILIES[builder.family]
    base = job.base or PLACEHOLDER
    files: dict[str, Any] = {"path": f"{base}/{file}"}
    if file == "vocab.json":
        files["merges_file" if kind == "QWEN2" else "merges_path"] = f"{base}/merges.txt"
    if kind == "PHI4":
        files = {"vocab_path": files.pop("path"), **files}
    data: dict[str, Any] = {"_component_": "torchtune.datasets.alpaca_cleaned_dataset", "packed": False}
    if job.data:
        data["source"] = job.data
        if job.data.endswith((".json", ".jsonl")):
            data |= {"source": "json", "data_files": job.data, "split": "train"}
    return {
        "tokenizer": {"_component_": f"{_MODELS}{tokenizer}", **files, "max_seq_len": 2048},
        "checkpointer": {
            "_component_": "torchtune.training.FullModelHFCheckpointer",
            "checkpoint_dir": base,
            "checkpoint_files": ["model.safetensors"],
            "recipe_checkpoint": None,
            "output_dir": Reference("${output_dir}"),
            "model_type": kind,
        },
        "resume_from_checkpoint": False,
        "save_adapter_weights_only": False,
        "dataset": data,
        "seed": 0,
        "shuffle": True,
        "batch_size": 1,
        "optimizer": {"_component_": "torch.optim.AdamW", "weight_decay": 0.01, "lr": 0.0003},
        "lr_scheduler": {
            "_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
            "num_warmup_steps": 100,
        },
        "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
        "epochs": 1,
        "max_steps_per_epoch": None,
        "gradient_accumulation_steps": 8,
        "clip_grad_norm": None,
        "compile": False,
        "metric_logger": {
            "_component_": "torchtune.training.metric_logging.DiskLogger",
            "log_dir": Reference("${output_dir}/logs"),
        },
        "log_every_n_steps": 1,
        "log_peak_memory_stats": False,
        "device": "cuda",
        "dtype": "bf16",
        "enable_activation_checkpointing": True,
        "enable_activation_offloading": False,
    }


# Reading.


def _path_of(component: str) -> str:
    """A function's name below `torchtune.models`; the QLoRA ones build the same adapters on quantized weights."""
    path = component.removeprefix(_MODELS)
    module, _, function = path.rpartition(".")
    return f"{module.partition('.')[0]}.{function.removeprefix('q')}"


def _faults(settings: Mapping[str, Any], path: str) -> Iterator[str]:
    known = known_keys("torchtune")
    for key in settings:
        if key != "_component_" and f"{path}.{key}" in known:
            yield from _value_fault(key, settings[key])
    needed = ["lora_attn_modules", *(("lora_rank", "lora_alpha") if path in PLAIN else ())]
    yield from (f"{key} is not given, and {path} has no default for it" for key in needed if key not in settings)


def _value_fault(key: str, value: Any) -> Iterator[str]:
    whole = type(value) is int
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if key == "lora_attn_modules":
        if not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            yield f"lora_attn_modules is {quoted(value)}, not a list of texts"
    elif key == "lora_rank" or key in _COUNTS:
        if not (whole and value > 0):
            yield f"{key} is {quoted(value)}, not a whole number above 0"
    elif key == "lora_alpha":
        if not number:
            yield f"lora_alpha is {quoted(value)}, not a number"
    elif key == "lora_dropout":
        if not (number and 0 <= value <= 1):
            yield f"lora_dropout is {quoted(value)}, not a number from 0 to 1"
    elif key in _TRUTHS and not isinstance(value, bool):
        yield f"{key} is {quoted(value)}, not true or false"


def _key_findings(data: Mapping[str, Any], model: Mapping[str, Any], path: str, where: str) -> Iterator[Finding]:
    keys = [f"{path}.{key}" for key in model if key != "_component_"]
    yield from unknown_key_findings("torchtune", keys, where, consequence="torchtune stops at it")
    for key in data:
        if f"{path}.{key}" in known_keys("torchtune"):
            said = f"{key} stands beside model, where torchtune does not look for it"
            yield Finding("ignored-key", "error", where, said, "Put it below model.")
    strange = [name for name in model.get("lora_attn_modules") or () if name not in ATTENTION_PARTS]
    for name in strange[:_MOST_EXPLAINED]:
        fix = did_you_mean(str(name), ATTENTION_PARTS) or f"They are {', '.join(ATTENTION_PARTS)}."
        said = f"{quoted(name)} is no layer of torchtune's attention, and torchtune passes over it silently"
        yield Finding("no-match", "error", where, said, fix)
    if (more := len(strange) - _MOST_EXPLAINED) > 0:
        said = f"{more} more names are no layers of torchtune's attention, and torchtune passes over them silently"
        yield Finding("no-match", "error", where, said, f"They are {', '.join(ATTENTION_PARTS)}.")


# Resolving.


def _mismatch(model: ModelMap, settings: Mapping[str, Any], path: str) -> Diagnostic | None:
    """Why a function does not build this model; None if it does."""
    unknown = [key for key in settings if key not in _DEFAULTS and f"{path}.{key}" not in known_keys("torchtune")]
    unknown += [key for key in _departures(settings) if f"{path}.{key}" not in known_keys("torchtune")]
    unknown = [key for key in unknown if key != "_component_"]
    if unknown:
        return _NO_ARGUMENT.about(*unknown, path=path, arguments=", ".join(unknown))
    builder = next((one for one in BUILDERS if one.path == path), None)
    wanted = builder.model_type if builder else PLAIN[path]
    if wanted != model.model_type:
        return _OTHER_TYPE.about(path=path, built=wanted, type=model.model_type or model.architecture)
    found = sizes_of(model)
    built = builder.sizes if builder else _sizes_given(settings)
    if found is None:
        return _NO_DECODER.about(path=path)
    if built is not None and built != found:
        return _OTHER_SIZES.about(path=path, built=str(built), sizes=str(found))
    return None


def _departures(settings: Mapping[str, Any]) -> list[str]:
    """The settings that are not what the functions take anyway."""
    return [key for key, value in _DEFAULTS.items() if settings[key] != value]


def _sizes_given(settings: Mapping[str, Any]) -> Sizes | None:
    """The sizes that the arguments of a function for all sizes give; None where one is left to it."""
    given: dict[str, Any] = {key: settings.get(key) for key in _COUNTS}
    if any(given[key] is None for key in _COUNTS if key != "head_dim"):
        return None
    head = given["head_dim"] or given["embed_dim"] // given["num_heads"]
    queries, keys = head * given["num_heads"], head * given["num_kv_heads"]
    return Sizes(given["num_layers"], given["vocab_size"], given["embed_dim"], queries, keys, given["intermediate_dim"])


def _has_head(model: ModelMap, settings: Mapping[str, Any], path: str) -> bool:
    builder = next((one for one in BUILDERS if one.path == path), None)
    if builder is not None:
        return builder.head
    return not settings.get("tie_word_embeddings", path == "llama3_2.lora_llama3_2")


def _outcome(
    model: ModelMap,
    settings: Mapping[str, Any],
    names: set[str],
    attention: Sequence[str],
    findings: Sequence[Finding],
) -> Outcome:
    rank, alpha, dora = settings["lora_rank"], float(settings["lora_alpha"]), settings["use_dora"]
    adapted, split = [], []
    for weight in model.weights:
        parts = torchtune_part(weight)
        hit = [part for part in parts if part in names]
        if not hit:
            continue
        if len(hit) < len(parts):
            raise LorascopeError(
                f"{' and '.join(hit)} are a part of {weight.name}, of which torchtune makes {', '.join(parts)}",
                where=model.model,
                hint="Adapt all of them, or none: a part is no weight of this model.",
            )
        if len(parts) > 1:
            split.append(weight.name)
        outer, inner = weight.shape
        count = rank * (len(parts) * inner + outer) + (outer if dora else 0)
        adapted.append(Adapted(weight.name, rank, alpha, alpha / rank, count))
    told = list(findings)
    if split:
        said = (
            f"torchtune splits {len(split)} weights ({listed(split, _MOST_NAMED)}) and gives each piece its own adapter"
        )
        told.append(Finding("trainer-filter", "note", "model", said, "Nothing to do; PEFT has one for all pieces."))
    unknown = tuple(name for name in attention if name not in ATTENTION_PARTS)
    warnings = (_UNKNOWN_PARTS.about(*unknown, parts=", ".join(unknown)),) if unknown else ()
    adapted.sort(key=lambda one: one.name)
    if not adapted:
        refusal = _NO_PART.about(parts=", ".join(ATTENTION_PARTS))
        return Outcome(Resolution(refusal=refusal), None, tuple(told))
    trainable = sum(one.trainable for one in adapted)
    return Outcome(Resolution(tuple(adapted), trainable, warnings=warnings), None, tuple(told))


def _example_hint() -> str:
    return f"Such as _component_: {_MODELS}{BUILDERS[0].path}; covered are {len(BUILDERS) + len(PLAIN)} functions."
