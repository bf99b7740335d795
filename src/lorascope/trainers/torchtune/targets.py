"""What torchtune's functions adapt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.model.types import ModelMap
from lorascope.names import listed
from lorascope.peft_rules.diagnostics import Diagnostic, Reason
from lorascope.peft_rules.types import Adapted, Resolution
from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.protocol import Outcome, TrainerConfig, stopped, trainer_filter, without_lora
from lorascope.trainers.search_findings import MOST_NAMED
from lorascope.trainers.torchtune.builders import (
    ATTENTION_PARTS,
    BUILDERS,
    MLP,
    PLAIN,
    Builder,
    Sizes,
    sizes_of,
    torchtune_part,
)
from lorascope.trainers.torchtune.schema import DEFAULTS, MODELS, TITLE, function_path, with_lora

_SIZES = ("vocab_size", "num_layers", "num_heads", "num_kv_heads", "embed_dim", "intermediate_dim")
# The one function for all sizes that ties the output layer to the embedding by default.
_TIED = "llama3_2.lora_llama3_2"
_UNKNOWN_ARGUMENTS = Reason("unsupported", "{path} has no argument {names:listed}: torchtune stops.")
_OTHER_TYPE = Reason("unsupported", "{path} builds a model of type {type}, and this is a {kind}.")
_NO_DECODER = Reason("unsupported", "{path} builds a plain decoder, and this is none.")
_OTHER_SIZES = Reason("unsupported", "{path} builds {built}; this model has {sizes}.")
_NO_ATTENTION = Reason(
    "unsupported", "lora_attn_modules is empty: torchtune stops, even if only the MLP is to be adapted."
)
_TIED_OUTPUT = Reason(
    "unsupported", "apply_lora_to_output is true, and the output layer is the embedding: torchtune stops."
)
_NO_MODULES = Reason("no-match", f"Nothing is adapted: lora_attn_modules has none of {', '.join(ATTENTION_PARTS)}.")
_IGNORED_MODULES = Reason("no-match", "torchtune ignores {names:listed} in lora_attn_modules.")


def resolve_torchtune(model: ModelMap, given: TrainerConfig) -> Outcome:
    """What a torchtune file adapts.

    Raises:
        LorascopeError: It adapts a part of what the map has as one weight.
    """
    settings = {**DEFAULTS, **given.settings}
    path = function_path(settings["_component_"])
    if path not in PLAIN and all(builder.path != path for builder in BUILDERS):
        return without_lora(TITLE, "_component_", settings["_component_"], f"{MODELS}{with_lora(path)}")
    refusal = _refusal(model, settings)
    if refusal is not None:
        return stopped(refusal)
    modules = tuple(settings["lora_attn_modules"])
    parts = set(modules) & set(ATTENTION_PARTS)
    parts |= {*MLP} if settings["apply_lora_to_mlp"] else set()
    parts |= {"output"} if settings["apply_lora_to_output"] else set()
    adapted, split = _adapted(model, settings, parts)
    findings: list[Finding] = []
    if split:
        message = (
            f"torchtune splits {len(split)} weights ({listed(split, MOST_NAMED)}) and gives each piece its own adapter"
        )
        findings.append(trainer_filter("note", "model", message, "Nothing to do; PEFT has one for all pieces."))
    if not adapted:
        return stopped(_NO_MODULES.about(*modules), findings)
    unknown = tuple(name for name in modules if name not in ATTENTION_PARTS)
    warnings = (_IGNORED_MODULES.about(*unknown),) if unknown else ()
    trainable = sum(weight.trainable for weight in adapted)
    return Outcome(Resolution(adapted, trainable, warnings=warnings), None, tuple(findings))


def _adapted(model: ModelMap, settings: Mapping[str, Any], parts: set[str]) -> tuple[tuple[Adapted, ...], list[str]]:
    """Adapters on some parts of every layer, and split weights."""
    rank, alpha, dora = settings["lora_rank"], float(settings["lora_alpha"]), settings["use_dora"]
    adapted: list[Adapted] = []
    split: list[str] = []
    for weight in model.weights:
        pieces = torchtune_part(weight)
        chosen = [piece for piece in pieces if piece in parts]
        if not chosen:
            continue
        if len(chosen) < len(pieces):
            raise LorascopeError(
                f"{' and '.join(chosen)} are a part of {weight.name}, of which torchtune makes {', '.join(pieces)}",
                where=model.model,
                hint="Adapt all of them, or none: this model has one weight for them.",
            )
        if len(pieces) > 1:
            split.append(weight.name)
        outer, inner = weight.shape
        count = rank * (len(pieces) * inner + outer) + (outer if dora else 0)
        adapted.append(Adapted(weight.name, rank, alpha, alpha / rank, count))
    return tuple(sorted(adapted, key=lambda weight: weight.name)), split


def _refusal(model: ModelMap, settings: Mapping[str, Any]) -> Diagnostic | None:
    """Why a function does not build this, or None."""
    path = function_path(settings["_component_"])
    builder = next((builder for builder in BUILDERS if builder.path == path), None)
    if unknown := _unknown_arguments(settings, path):
        return _UNKNOWN_ARGUMENTS.about(*unknown, path=path)
    built_type = builder.model_type if builder else PLAIN[path]
    if built_type != model.model_type:
        return _OTHER_TYPE.about(path=path, type=built_type, kind=model.model_type or model.architecture)
    sizes = sizes_of(model)
    if sizes is None:
        return _NO_DECODER.about(path=path)
    built = builder.sizes if builder else _sizes_given(settings)
    if built is not None and built != sizes:
        return _OTHER_SIZES.about(path=path, built=str(built), sizes=str(sizes))
    if not settings["lora_attn_modules"]:
        return _NO_ATTENTION.about()
    if settings["apply_lora_to_output"] and not _has_head(builder, settings, path):
        return _TIED_OUTPUT.about()
    return None


def _unknown_arguments(settings: Mapping[str, Any], path: str) -> list[str]:
    """Arguments that a function does not have; defaults do not count."""
    keys = [key for key in settings if key not in DEFAULTS]
    keys += [key for key, default in DEFAULTS.items() if settings[key] != default]
    known = known_keys("torchtune")
    return [key for key in keys if key != "_component_" and f"{path}.{key}" not in known]


def _sizes_given(settings: Mapping[str, Any]) -> Sizes | None:
    """The sizes that the arguments give; None if one is missing."""
    given: dict[str, Any] = {key: settings.get(key) for key in _SIZES}
    if None in given.values():
        return None
    head = settings.get("head_dim") or given["embed_dim"] // given["num_heads"]
    queries, keys = head * given["num_heads"], head * given["num_kv_heads"]
    return Sizes(given["num_layers"], given["vocab_size"], given["embed_dim"], queries, keys, given["intermediate_dim"])


def _has_head(builder: Builder | None, settings: Mapping[str, Any], path: str) -> bool:
    """The output layer is not the embedding."""
    return builder.head if builder else not settings.get("tie_word_embeddings", path == _TIED)
