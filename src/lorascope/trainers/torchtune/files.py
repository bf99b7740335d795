"""torchtune's YAML, written and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.errors import LorascopeError, did_you_mean
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap, Weight
from lorascope.names import listed
from lorascope.plans.types import Plan
from lorascope.sources.files.yaml_text import parse_yaml
from lorascope.trainers.capabilities import unequal_sizes, untrained_biases, untrained_head
from lorascope.trainers.commented_yaml import Reference, commented_yaml
from lorascope.trainers.known_keys import known_keys, unknown_key_findings
from lorascope.trainers.protocol import PLACEHOLDER, Job, TrainerConfig, Unsupported, require_no_faults
from lorascope.trainers.provenance import file_heading
from lorascope.trainers.search_findings import MOST_NAMED
from lorascope.trainers.torchtune.builders import (
    ATTENTION_PARTS,
    BUILDERS,
    MLP,
    PLAIN,
    Builder,
    builders_for,
    sizes_of,
    torchtune_part,
)
from lorascope.trainers.torchtune.schema import MODELS, RELEASE, TITLE, function_path, torchtune_settings, with_lora

_HINT = "The keys below model are the arguments of the function that _component_ names; tune cp shows whole files."
_EXAMPLE = f"Such as _component_: {MODELS}{BUILDERS[0].path}; covered are {len(BUILDERS) + len(PLAIN)} functions."
_MOST_EXPLAINED = 20
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


# Limits.


def unsupported_by_torchtune(plan: Plan) -> Iterator[Unsupported]:
    """What torchtune's functions cannot express."""
    if heads := [*untrained_head(plan.model, TITLE, ("causal-lm", "unknown"))]:
        yield from heads
        return
    builder = next(iter(builders_for(plan.model)), None)
    if builder is None:
        yield Unsupported("model", _no_builder(plan.model))
        return
    yield from (Unsupported("weights", message) for message in _unsupported_places(plan, builder))
    yield from unequal_sizes(plan, TITLE)
    yield from untrained_biases(plan, TITLE)
    adapts_output = any("output" in torchtune_part(target.weight) for target in plan.targets)
    if plan.config.lora_dropout and builder.family == "mistral" and adapts_output:
        yield Unsupported("dropout", f"{builder.path} has no dropout for the output layer.")
    if plan.config.use_dora and not builder.dora:
        yield Unsupported("variant", f"{builder.path} has no option for DoRA.")


def _no_builder(model: ModelMap) -> str:
    same_type = [builder.path for builder in BUILDERS if builder.model_type == model.model_type]
    if not same_type:
        types = ", ".join(sorted({builder.model_type for builder in BUILDERS}))
        return f"torchtune has no model of type {model.model_type or model.architecture}; it has {types}."
    sizes = sizes_of(model)
    shown = f" ({sizes})" if sizes else ""
    return f"torchtune has no {model.model_type} of this size{shown}; it has {', '.join(same_type)}."


def _unsupported_places(plan: Plan, builder: Builder) -> Iterator[str]:
    """Targets without LoRA in torchtune, and places that it adapts together."""
    chosen = {target.weight.name for target in plan.targets}
    places = _places(plan.model)
    outside = sorted(name for name in chosen if not torchtune_part(plan.model.weight_by_name[name]))
    if outside:
        yield f"torchtune has no LoRA for {len(outside)} weights ({listed(outside, MOST_NAMED)})."
    split = [weight for weight in plan.model.weights if weight.name in chosen and len(torchtune_part(weight)) > 1]
    if split:
        names = listed((weight.name for weight in split), MOST_NAMED)
        parts = " and ".join(torchtune_part(split[0]))
        yield f"torchtune splits {len(split)} weights ({names}) into {parts}, with an adapter for each."
    for name, weights in places.items():
        count = sum(weight.name in chosen for weight in weights)
        if 0 < count < len(weights):
            yield f"torchtune adapts {name} in every layer or in none; this plan has {count} of {len(weights)} weights."
    if not any(places.get(name) and places[name][0].name in chosen for name in ATTENTION_PARTS):
        yield "torchtune needs an adapter on at least one of q_proj, k_proj, v_proj and output_proj; this plan has none."
    mlp = [weight for name in MLP for weight in places.get(name, ())]
    if 0 < sum(weight.name in chosen for weight in mlp) < len(mlp):
        yield "torchtune adapts the MLP's gate, up and down together; this plan has some of them."
    outputs = places.get("output", [])
    if any(weight.name in chosen for weight in outputs):
        tied = any(f"{outputs[0].name}.weight" in group for group in plan.model.ties)
        if tied or not builder.head:
            yield "torchtune has no LoRA for an output layer that shares the embedding's weight."


def _places(model: ModelMap) -> dict[str, list[Weight]]:
    places: dict[str, list[Weight]] = {}
    for weight in model.weights:
        for name in torchtune_part(weight):
            places.setdefault(name, []).append(weight)
    return places


# Writing.


def write_torchtune(plan: Plan, job: Job) -> str:
    """The YAML of a plan, for `tune run lora_finetune_single_device --config`."""
    builders = builders_for(plan.model)
    if not builders:
        raise LorascopeError(_no_builder(plan.model), where=f"export to {TITLE}")
    others = ", ".join(other.path for other in builders[1:])
    remarks = {
        "model": "Every layer."
        + (f" Same sizes: {others}. Give the one that your model is." if others else "")
        + (" lora_alpha is chosen so that alpha / rank is the scale of rsLoRA." if plan.config.use_rslora else ""),
        "tokenizer": "Files of the model's folder.",
        "checkpointer": ("" if job.base else "The folder of your model, as tune download makes it. ")
        + "List its files of weights.",
        "dataset": "" if job.data else "Your data, in one of torchtune.datasets.",
    }
    settings = {
        "output_dir": job.output,
        "model": _model_settings(plan, builders[0]),
        **_files(builders[0], job),
        "dataset": _data(job),
        **_RUN,
    }
    purpose = f"{TITLE} {RELEASE}: tune run lora_finetune_single_device --config THIS_FILE"
    return commented_yaml(file_heading(plan, purpose, own_names=TITLE), settings, remarks, references=True)


def _model_settings(plan: Plan, builder: Builder) -> dict[str, Any]:
    names = {name for target in plan.targets for name in torchtune_part(target.weight)}
    first = plan.resolution.adapted[0]
    alpha = first.scale * first.rank if plan.config.use_rslora else first.alpha
    return {
        "_component_": f"{MODELS}{builder.path}",
        "lora_attn_modules": [name for name in ATTENTION_PARTS if name in names],
        "apply_lora_to_mlp": "w1" in names,
        **({"apply_lora_to_output": True} if "output" in names else {}),
        "lora_rank": first.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": float(plan.config.lora_dropout),
        **({"use_dora": True} if plan.config.use_dora else {}),
    }


def _files(builder: Builder, job: Job) -> dict[str, Any]:
    """The tokenizer and the checkpointer, with the model's files."""
    kind, tokenizer, file = _FAMILIES[builder.family]
    base = job.base or PLACEHOLDER
    paths: dict[str, Any] = {"vocab_path" if kind == "PHI4" else "path": f"{base}/{file}"}
    if file == "vocab.json":
        paths["merges_file" if kind == "QWEN2" else "merges_path"] = f"{base}/merges.txt"
    return {
        "tokenizer": {"_component_": f"{MODELS}{tokenizer}", **paths, "max_seq_len": 2048},
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
    }


def _data(job: Job) -> dict[str, Any]:
    data: dict[str, Any] = {"_component_": "torchtune.datasets.alpaca_cleaned_dataset", "packed": False}
    if job.data_format == "json":
        return data | {"source": "json", "data_files": job.data, "split": "train"}
    return data | ({"source": job.data} if job.data else {})


# What torchtune's recipe needs besides, whatever the plan.
_RUN: Mapping[str, Any] = {
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


def read_torchtune(text: str, where: str) -> TrainerConfig:
    """A torchtune file.

    Raises:
        LorascopeError: Not YAML, or without a function that builds a LoRA model, or with wrong arguments.
    """
    data = parse_yaml(text, where, "Correct the file; torchtune reads it with OmegaConf, which is YAML too.")
    model = data.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("_component_"), str):
        raise LorascopeError("model has no _component_ with the name of a function", where=where, hint=_EXAMPLE)
    path = function_path(model["_component_"])
    paths = [builder.path for builder in BUILDERS] + list(PLAIN)
    checkpointer = data.get("checkpointer")
    base = checkpointer.get("checkpoint_dir") if isinstance(checkpointer, Mapping) else ""
    if with_lora(path) in paths:
        return TrainerConfig(base if isinstance(base, str) else "", {"_component_": model["_component_"]})
    if path not in paths:
        raise LorascopeError(
            f"unknown function {quoted(model['_component_'])} for torchtune {RELEASE}",
            where=where,
            hint=did_you_mean(path, paths) or _EXAMPLE,
        )
    settings, faults = torchtune_settings(model, path)
    require_no_faults(faults, where, _HINT)
    findings = tuple(_findings(data, model, path, where))
    return TrainerConfig(base if isinstance(base, str) else "", settings, findings)


def _findings(data: Mapping[str, Any], model: Mapping[str, Any], path: str, where: str) -> Iterator[Finding]:
    keys = [f"{path}.{key}" for key in model if key != "_component_"]
    yield from unknown_key_findings("torchtune", keys, where, consequence="torchtune stops at it")
    for key in data:
        if f"{path}.{key}" in known_keys("torchtune"):
            message = f"{key} is at the top level, where torchtune does not look for it"
            yield Finding("ignored-key", "error", where, message, "Put it below model.")
    unknown = [name for name in model.get("lora_attn_modules") or () if name not in ATTENTION_PARTS]
    names = f"They are {', '.join(ATTENTION_PARTS)}."
    for name in unknown[:_MOST_EXPLAINED]:
        message = f"{quoted(name)} is not a layer of torchtune's attention; torchtune ignores it silently"
        yield Finding("no-match", "error", where, message, did_you_mean(str(name), ATTENTION_PARTS) or names)
    if (more := len(unknown) - _MOST_EXPLAINED) > 0:
        message = f"{more} more names are not layers of torchtune's attention; torchtune ignores them silently"
        yield Finding("no-match", "error", where, message, names)
