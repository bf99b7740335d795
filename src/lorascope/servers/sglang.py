"""SGLang: its answers about an adapter, and the flags to set.

From SGLang's own code, which was read and never run: srt/lora/lora_config.py, lora.py, lora_manager.py, mem_pool.py and utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.model.types import ModelMap
from lorascope.names import listed
from lorascope.peft_rules.types import Adapted, AdapterConfig, Resolution
from lorascope.plans.rules import own_components
from lorascope.servers.factors import FileFactors
from lorascope.servers.facts import UNKNOWN_EXTRAS, Facts
from lorascope.servers.initializations import changes_base, describe_start
from lorascope.servers.types import Answer

_MOST_NAMED = 4
_LAYER = re.compile(r"layers\.(\d+)\.")
_VOCABULARY = frozenset({"embed_tokens", "lm_head"})
# Plain enough for a "yes" from reading alone: sizes that do not vary with the layer.
_PLAIN = frozenset({"qkv_proj", "o_proj", "gate_up_proj", "down_proj"})


def sglang_answers(
    facts: Facts,
    model: ModelMap,
    config: AdapterConfig,
    resolution: Resolution,
    extras: Mapping[str, Any] | None,
    file: FileFactors,
) -> tuple[tuple[Answer, ...], tuple[str, ...]]:
    """Every question with its answer, and the flags that the server needs.

    Args:
        facts: Of the release.
        model: The map of the model.
        config: The adapter's configuration.
        resolution: What PEFT adapts with it.
        extras: The other keys of `adapter_config.json`; None if they are unknown.
        file: What the adapter's file holds.
    """
    answers = [_model_answer(facts, model), _ranks(facts, config, resolution), *_options(facts, config, extras)]
    answers += _trained_in_full(facts, config, resolution)
    if file.at_hand:
        answers += _file_answers(facts, config, file)
    answers += _targets(facts, model, config, resolution)
    if not facts.rules["targets"]:  # before 0.4.9 an adapter could be given at the start alone, and needed no more
        return tuple(answers), ("--lora-paths",)
    leaves = {adapted.name.rpartition(".")[2] for adapted in resolution.adapted}
    targets = " ".join(sorted(leaves)) if leaves <= set(facts.rules["targets"]) else "all"
    flags = ("--enable-lora", f"--max-lora-rank {config.r}", f"--lora-target-modules {targets}")
    return tuple(answers), flags


def _source(facts: Facts, file: str) -> str:
    return f"{facts.title}, srt/lora/{file}, read, not run"


def _model_answer(facts: Facts, model: ModelMap) -> Answer:
    source = f"{facts.title}, srt/models, read, not run"
    if model.architecture in facts.models:
        return Answer("model", "yes", f"it has a class for {model.architecture}", source)
    reason = f"it has no class for {model.architecture or 'the model'} and may run transformers' code"
    return Answer("model", "depends", reason, source)


def _ranks(facts: Facts, config: AdapterConfig, resolution: Resolution) -> Answer:
    other = [adapted.name for adapted in resolution.adapted if adapted.rank != config.r]
    if other:
        reason = f"every weight must have rank r={config.r}, and {listed(other, _MOST_NAMED)} has another"
        return Answer("rank", "no", reason, _source(facts, "mem_pool.py"))
    scale = config.lora_alpha / config.r
    wrong = [adapted.name for adapted in resolution.adapted if abs(adapted.scale - scale) > 1e-6 * abs(scale)]
    if wrong:
        ignored = "use_rslora" if config.use_rslora else "alpha_pattern"
        reason = (
            f"it ignores {ignored} and scales every weight by lora_alpha / r = {scale:.4g}, which is wrong for "
            f"{listed(wrong, _MOST_NAMED)}"
        )
        return Answer("rank", "no", reason, _source(facts, "lora.py"))
    return Answer("rank", "yes", f"every weight has rank {config.r} and scale {scale:.4g}", _source(facts, "lora.py"))


def _options(facts: Facts, config: AdapterConfig, extras: Mapping[str, Any] | None) -> Iterator[Answer]:
    source = _source(facts, "lora_config.py")
    unsure = extras is None
    if extras is None:
        extras = {}
        yield Answer("options", "depends", UNKNOWN_EXTRAS, source)
    if config.use_dora:
        does = (
            "refuses use_dora" if facts.rules["refuses_dora"] else "ignores use_dora and serves without the magnitudes"
        )
        yield Answer("options", "no", f"it {does}; train without DoRA, or merge the adapter", source)
        unsure = True
    for key, on in (("bias", config.bias != "none"), ("lora_bias", config.lora_bias)):
        if on:
            yield Answer("options", "no", f"it has no place for the biases of an adapter ({key})", source)
            unsure = True
    start = extras.get("init_lora_weights", config.init_lora_weights)
    if changes_base(start):
        yield Answer("options", "no", f"it ignores {describe_start(start)}", source)
        unsure = True
    keys = ("layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora", "trainable_token_indices")
    ignored = [key for key in keys if extras.get(key)]
    if ignored:
        reason = f"it ignores {', '.join(ignored)} and loads the adapter without"
        yield Answer("options", "depends", reason, source)
    elif not unsure:
        yield Answer("options", "yes", "no option is set that it refuses or ignores", source)


def _trained_in_full(facts: Facts, config: AdapterConfig, resolution: Resolution) -> Iterator[Answer]:
    names = dict.fromkeys([*(config.modules_to_save or ()), *(n.rpartition(".")[2] for n in resolution.saved)])
    if names:
        reason = f"it ignores modules_to_save, so what was trained in {listed(names, _MOST_NAMED)} is not served"
        yield Answer("saved modules", "no", reason, _source(facts, "lora_config.py"))


def _file_answers(facts: Facts, config: AdapterConfig, file: FileFactors) -> Iterator[Answer]:
    """What the file has that its configuration does not say."""
    if file.unlike:
        first = file.unlike[0]
        reason = (
            f"it makes room for rank r={config.r} and raises at {listed(file.unlike, _MOST_NAMED)}, which has rank "
            f"{file.ranks[first]} in the file"
        )
        yield Answer("tensors", "no", reason, _source(facts, "mem_pool.py (load_lora_weight_tensor)"))
    if file.foreign:
        reason = f"it has no place for {listed(file.foreign, _MOST_NAMED)}, which is in the file"
        yield Answer("tensors", "no", reason, _source(facts, "mem_pool.py (load_lora_weight_to_buffer)"))
    if file.others:
        reason = f"it serves pairs of factors only, and the file also has {listed(file.others, _MOST_NAMED)}"
        yield Answer("tensors", "no", reason, _source(facts, "lora.py"))


def _targets(facts: Facts, model: ModelMap, config: AdapterConfig, resolution: Resolution) -> Iterator[Answer]:
    if not isinstance(config.target_modules, tuple) and config.target_modules != "all-linear":
        given = "a regular expression" if config.target_modules else "nothing"
        reason = f"target_modules must be a list of names, not {given}"
        yield Answer("targets", "no", reason, _source(facts, "utils.py"))
    elif not facts.rules["dotted"] and (dotted := [name for name in config.target_modules if "." in name]):
        reason = f"it takes last names only before 0.5.3, not {listed(dotted, _MOST_NAMED)}"
        yield Answer("targets", "no", reason, _source(facts, "utils.py (get_normalized_target_modules)"))
    own = own_components(model)
    plain: list[Adapted] = []
    fused: list[str] = []
    outside: list[str] = []
    for adapted in resolution.adapted:
        weight = model.weight_by_name.get(adapted.name)
        leaf = adapted.name.rpartition(".")[2]
        if weight is not None and weight.role.component not in own:
            outside.append(adapted.name)
        elif weight is not None and weight.kind == "parameter":
            fused.append(adapted.name)
        elif not _LAYER.search(adapted.name) and leaf not in _VOCABULARY:
            outside.append(adapted.name)
        else:
            plain.append(adapted)
    if fused:
        reason = f"it does not know the names that PEFT gives to adapters of experts: {listed(fused, _MOST_NAMED)}"
        yield Answer("experts", "no", reason, _source(facts, "mem_pool.py"))
    if outside:
        reason = f"it has adapters on the layers of the language model only, not on {listed(outside, _MOST_NAMED)}"
        yield Answer("targets", "no", reason, _source(facts, "lora.py"))
    yield from _layers(facts, model, plain)


def _layers(facts: Facts, model: ModelMap, adapted: list[Adapted]) -> Iterator[Answer]:
    stacked: Mapping[str, Any] = facts.rules["stacked"]
    parts: dict[str, set[str]] = {}
    wholes: dict[str, str] = {}
    for weight in adapted:
        parent, _, leaf = weight.name.rpartition(".")
        parts.setdefault(parent, set()).add(leaf)
        whole = stacked.get(leaf, leaf)
        wholes[weight.name] = whole if isinstance(whole, str) else str(_first(whole))
    broken = sorted(
        parent
        for parent, leaves in parts.items()
        if leaves & {"q_proj", "k_proj", "v_proj"} and not leaves >= {"q_proj", "v_proj"}
    )
    if broken:
        reason = f"it joins q_proj, k_proj and v_proj, and needs q_proj and v_proj: {listed(broken, _MOST_NAMED)}"
        yield Answer("targets", "no", reason, _source(facts, "lora.py (normalize_qkv_proj)"))
    row = facts.models.get(model.architecture)
    sizes = _sizes(facts, row or {})
    unknown = [name for name, whole in wholes.items() if whole not in sizes]
    if unknown:
        # A class of another file was not read, and one that it does not have may be run with transformers' code.
        sure = row is not None and "?" not in sizes
        reason = f"it does not know the size of {listed(unknown, _MOST_NAMED)}"
        reason += " and raises" if sure else ", unless the model's class has it"
        yield Answer("targets", "no" if sure else "depends", reason, _source(facts, "utils.py (get_hidden_dim)"))
    elif adapted and not broken:
        held = set((row or {}).get("layers", ())) & _PLAIN
        sure = set(wholes.values()) <= held and not model.dimensions.experts and model.basis == "code"
        reason = f"it knows the layers of {listed(wholes, _MOST_NAMED)}"
        if not sure:
            reason += ", but whether this model's class has them under these names was not read"
        yield Answer("targets", "yes" if sure else "depends", reason, _source(facts, "utils.py and srt/models"))


def _sizes(facts: Facts, row: Mapping[str, Any]) -> frozenset[str]:
    """The modules whose sizes the model's class or the default knows; with `?` where that was not read."""
    own, default = row.get("sized", []), facts.rules["sized"]
    names = {*own, *(default if not own or "*" in own else ())} - {"*"}
    declared = row.get("modules", [])
    if isinstance(declared, str):
        names.add("?")
    return frozenset(names)


def _first(value: Any) -> Any:
    """The first name of a row: `[[whole], [part]]` or `[whole, part]`."""
    while isinstance(value, list):
        value = value[0]
    return value
