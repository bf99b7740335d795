"""What SGLang does with an adapter: one answer per question, and the flags to start it with.

Read in SGLang's own code and never run: srt/lora/lora_config.py, lora.py, lora_manager.py, mem_pool.py and utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.model.types import ModelMap
from lorascope.names import listed
from lorascope.peft_rules.types import Adapted, AdapterConfig, Resolution
from lorascope.plans.rules import own_components
from lorascope.servers.facts import UNKNOWN_EXTRAS, Facts
from lorascope.servers.types import Answer

_MOST_NAMED = 4
_LAYER = re.compile(r"layers\.(\d+)\.")
# Fused names that its memory pool knows the sizes of (srt/lora/utils.py, get_default_hidden_dim).
_SIZED = frozenset(
    {"qkv_proj", "o_proj", "gate_up_proj", "down_proj", "fused_qkv_a_proj_with_mqa", "q_b_proj", "kv_b_proj"}
)
_VOCABULARY = frozenset({"embed_tokens", "lm_head"})
# What is plain enough for a "yes" from reading alone: sizes that do not vary with the layer.
_PLAIN = frozenset({"qkv_proj", "o_proj", "gate_up_proj", "down_proj"})


def sglang_answers(
    facts: Facts, model: ModelMap, config: AdapterConfig, resolution: Resolution, extras: Mapping[str, Any] | None
) -> tuple[tuple[Answer, ...], tuple[str, ...]]:
    """Every question with its answer, and the flags that a server needs for the adapter.

    Args:
        facts: Of the release.
        model: The map of the model.
        config: The adapter's configuration.
        resolution: What PEFT adapts with it.
        extras: The other keys of `adapter_config.json`; None if nobody knows them.
    """
    answers = [_model_answer(facts, model), _ranks(facts, config, resolution), *_options(facts, config, extras)]
    answers += _trained_in_full(facts, config, resolution)
    answers += _targets(facts, model, config, resolution)
    if not facts.rules["targets"]:  # before 0.4.9 an adapter could be given at the start alone, and needed no more
        return tuple(answers), ("--lora-paths",)
    leaves = {one.name.rpartition(".")[2] for one in resolution.adapted}
    told = " ".join(sorted(leaves)) if leaves <= set(facts.rules["targets"]) else "all"
    flags = ("--enable-lora", f"--max-lora-rank {config.r}", f"--lora-target-modules {told}")
    return tuple(answers), flags


def _source(facts: Facts, file: str) -> str:
    return f"{facts.title}, srt/lora/{file}, read and not run"


def _model_answer(facts: Facts, model: ModelMap) -> Answer:
    source = f"{facts.title}, srt/models, read and not run"
    if model.architecture in facts.models:
        return Answer("model", "yes", f"it has a class for {model.architecture}", source)
    reason = f"it has no class of its own for {model.architecture or 'the model'}, and may run transformers' code"
    return Answer("model", "depends", reason, source)


def _ranks(facts: Facts, config: AdapterConfig, resolution: Resolution) -> Answer:
    other = [one.name for one in resolution.adapted if one.rank != config.r]
    if other:
        reason = f"every weight must have rank r={config.r}: {listed(other, _MOST_NAMED)} has another"
        return Answer("rank", "no", reason, _source(facts, "mem_pool.py"))
    scale = config.lora_alpha / config.r
    wrong = [one.name for one in resolution.adapted if abs(one.scale - scale) > 1e-6 * abs(scale)]
    if wrong:
        read = "use_rslora" if config.use_rslora else "alpha_pattern"
        reason = (
            f"it does not read {read} and scales every weight by lora_alpha / r = {scale:.4g}, which is wrong for "
            f"{listed(wrong, _MOST_NAMED)}"
        )
        return Answer("rank", "no", reason, _source(facts, "lora.py"))
    return Answer("rank", "yes", f"every weight has rank {config.r} and scale {scale:.4g}", _source(facts, "lora.py"))


def _options(facts: Facts, config: AdapterConfig, extras: Mapping[str, Any] | None) -> Iterator[Answer]:
    source = _source(facts, "lora_config.py")
    told = extras is None
    if extras is None:
        extras = {}
        yield Answer("options", "depends", UNKNOWN_EXTRAS, source)
    if config.use_dora:
        does = "refuses it" if facts.rules["refuses_dora"] else "does not read it, and serves without the magnitudes"
        yield Answer("options", "no", f"use_dora: it {does}; train without DoRA, or merge the adapter", source)
        told = True
    for key, on in (("bias", config.bias != "none"), ("lora_bias", config.lora_bias)):
        if on:
            yield Answer("options", "no", f"{key}: it has no place for the biases of an adapter", source)
            told = True
    start = extras.get("init_lora_weights")
    named = [f"init_lora_weights={start[:40]!r}"] if isinstance(start, str) and start.lower() != "gaussian" else []
    keys = ("layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora", "trainable_token_indices")
    unread = [*named, *(key for key in keys if extras.get(key))]
    if unread:
        reason = f"it does not read {', '.join(unread)}, and loads the adapter as if it were not there"
        yield Answer("options", "depends", reason, source)
    elif not told:
        yield Answer("options", "yes", "no option is set that it refuses or does not read", source)


def _trained_in_full(facts: Facts, config: AdapterConfig, resolution: Resolution) -> Iterator[Answer]:
    names = dict.fromkeys([*(config.modules_to_save or ()), *(n.rpartition(".")[2] for n in resolution.saved)])
    if names:
        reason = f"it does not read modules_to_save: what was trained in {listed(names, _MOST_NAMED)} is not served"
        yield Answer("saved modules", "no", reason, _source(facts, "lora_config.py"))


def _targets(facts: Facts, model: ModelMap, config: AdapterConfig, resolution: Resolution) -> Iterator[Answer]:
    if not isinstance(config.target_modules, tuple) and config.target_modules != "all-linear":
        given = "a regular expression" if config.target_modules else "nothing"
        reason = f"target_modules must be a list of names, and is {given}"
        yield Answer("targets", "no", reason, _source(facts, "utils.py"))
    own = own_components(model)
    plain: list[Adapted] = []
    fused: list[str] = []
    outside: list[str] = []
    for one in resolution.adapted:
        weight = model.weight_by_name.get(one.name)
        leaf = one.name.rpartition(".")[2]
        if weight is not None and weight.role.component not in own:
            outside.append(one.name)
        elif weight is not None and weight.kind == "parameter":
            fused.append(one.name)
        elif not _LAYER.search(one.name) and leaf not in _VOCABULARY:
            outside.append(one.name)
        else:
            plain.append(one)
    if fused:
        reason = f"it knows no adapters under the names that PEFT gives to experts: {listed(fused, _MOST_NAMED)}"
        yield Answer("experts", "no", reason, _source(facts, "mem_pool.py"))
    if outside:
        reason = f"it has no adapters outside of the language model's layers: {listed(outside, _MOST_NAMED)}"
        yield Answer("targets", "no", reason, _source(facts, "lora.py"))
    yield from _layers(facts, model, plain)


def _layers(facts: Facts, model: ModelMap, adapted: list[Adapted]) -> Iterator[Answer]:
    stacked: Mapping[str, Any] = facts.rules["stacked"]
    parts: dict[str, set[str]] = {}
    wholes: dict[str, str] = {}
    for one in adapted:
        parent, _, leaf = one.name.rpartition(".")
        parts.setdefault(parent, set()).add(leaf)
        whole = stacked.get(leaf, leaf)
        wholes[one.name] = whole if isinstance(whole, str) else str(_first(whole))
    broken = sorted(
        parent
        for parent, leaves in parts.items()
        if leaves & {"q_proj", "k_proj", "v_proj"} and not leaves >= {"q_proj", "v_proj"}
    )
    if broken:
        reason = f"it joins q_proj, k_proj and v_proj, and needs the first and the last: {listed(broken, _MOST_NAMED)}"
        yield Answer("targets", "no", reason, _source(facts, "lora.py (normalize_qkv_proj)"))
    row = facts.models.get(model.architecture, {})
    declared = row.get("modules", [])
    known = {*_SIZED, *(declared if isinstance(declared, list) else ())}
    if facts.rules["embeddings"]:
        known |= _VOCABULARY
    unknown = [name for name, whole in wholes.items() if whole not in known]
    if unknown and not declared:
        reason = f"it does not know the size of {listed(unknown, _MOST_NAMED)}, unless the model's class tells it"
        yield Answer("targets", "depends", reason, _source(facts, "utils.py (get_hidden_dim)"))
    elif unknown:
        reason = f"the model's class takes adapters on {', '.join(declared)} only: {listed(unknown, _MOST_NAMED)}"
        yield Answer("targets", "no", reason, _source(facts, "utils.py (get_hidden_dim)"))
    elif adapted and not broken:
        held = set(row.get("layers", ())) & _PLAIN
        sure = set(wholes.values()) <= held and not model.dimensions.experts and model.basis == "code"
        reason = f"it knows the layers of {listed(wholes, _MOST_NAMED)}"
        if not sure:
            reason += ", and whether this model's class has them under these names was not read"
        yield Answer("targets", "yes" if sure else "depends", reason, _source(facts, "utils.py and srt/models"))


def _first(value: Any) -> Any:
    """The name of the whole in older releases' tables: `[[whole], [part]]` or `[whole, part]`."""
    while isinstance(value, list):
        value = value[0]
    return value
