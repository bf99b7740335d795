"""What LLaMA-Factory adapts: its own search, without frozen parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap
from lorascope.names import listed
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plans.rules import own_components
from lorascope.trainers.llamafactory.parts import PARTS, Parts, holds_word
from lorascope.trainers.llamafactory.schema import ALL, OTHER_METHODS, PEFT, SCHEMA, TITLE, names_in
from lorascope.trainers.protocol import Outcome, TrainerConfig, trainer_filter, without_lora
from lorascope.trainers.search_findings import MOST_NAMED, left_out_findings, unseen_findings, unseen_weights

# Of these it trains `model.thinker`, whose own map has other names and another model type.
THINKERS = ("qwen2_5_omni", "qwen3_omni_moe")
# model_utils/misc.py, find_all_linear_modules.
_OUTPUTS: Mapping[str, str] = {"chatglm": "output_layer", "internlm2": "output"}
_TASK = "CAUSAL_LM"


def resolve_llamafactory(model: ModelMap, given: TrainerConfig) -> Outcome:
    """What it adapts: its own targets, then PEFT 0.18.

    Raises:
        LorascopeError: The file or the model is of a kind that the rules do not cover.
    """
    method = given.settings.get("finetuning_type", "lora")
    if method in OTHER_METHODS:
        return without_lora(TITLE, "finetuning_type", method, "lora")
    faults = list(_uncovered(given.settings))
    if model.model_type in THINKERS:
        faults.append(f"it trains only the thinker of {model.model_type}, whose names are not those of this map")
    if faults:
        raise LorascopeError(*faults, where=TITLE, hint="Check what its trainer makes of it there.")
    config, findings = handed_config(model, given.settings)
    everything = names_in(given.settings.get("lora_target", SCHEMA.defaults["lora_target"])) == [ALL]
    return Outcome(resolve(model, config, PEFT), config, tuple(findings), expanded=everything)


def _uncovered(settings: Mapping[str, Any]) -> Iterator[str]:
    for key, owner in (("use_unsloth", "Unsloth"), ("use_kt", "KTransformers")):
        if settings.get(key):
            yield f"{key} is true: {owner} makes the adapters, by rules of its own"
    if settings.get("mixture_of_depths"):
        yield "mixture_of_depths changes the model's modules, which its map does not show"
    if settings.get("adapter_name_or_path") and not settings.get("create_new_adapter"):
        adapter = quoted(settings["adapter_name_or_path"])
        yield f"adapter_name_or_path is {adapter}: it trains that adapter on, not what is written in the file"


def handed_config(model: ModelMap, given: Mapping[str, Any]) -> tuple[AdapterConfig, list[Finding]]:
    """The configuration handed to PEFT (`_setup_lora_tuning`), and findings."""
    settings = {**SCHEMA.defaults, **given}
    findings: list[Finding] = []
    names = names_in(settings["lora_target"])
    everything = names == [ALL]
    if everything:
        names = _all_linear(model, settings["freeze_vision_tower"], findings)
    if settings["use_llama_pro"]:
        names = _expanded(model, names, settings["freeze_trainable_layers"])
    parts = PARTS.get(model.model_type)
    if parts is not None:
        names = _patched(model, names, parts, settings, findings, everything=everything)
    else:
        findings += _unprotected(model, settings, everything=everything)
    config = AdapterConfig(
        **{
            **SCHEMA.peft_arguments(settings),
            "init_lora_weights": _start(settings),
            "target_modules": tuple(dict.fromkeys(names)),
            "lora_alpha": settings["lora_alpha"] or settings["lora_rank"] * 2,
            "modules_to_save": _saved(model, settings, findings),
            "task_type": _TASK,
        }
    )
    return config, findings


def _start(settings: Mapping[str, Any]) -> bool | str:
    """How the factors begin (`init_adapter`)."""
    if not settings["pissa_init"]:
        return True
    return "pissa" if settings["pissa_iter"] == -1 else f"pissa_niter_{settings['pissa_iter']}"


def _saved(model: ModelMap, settings: Mapping[str, Any], findings: list[Finding]) -> tuple[str, ...] | None:
    saved = settings["additional_target"]
    if saved is not None:
        return tuple(names_in(saved))
    if not settings["resize_vocab"]:
        return None
    embeddings = [name for name in (model.input_embeddings, model.output_embeddings) if name]
    message = (
        "resize_vocab without additional_target trains the embeddings in full too; they are counted here with the "
        "vocabulary as it is"
    )
    fix = "Name what to train in additional_target."
    findings.append(trainer_filter("warning", ", ".join(embeddings), message, fix))
    return tuple(sorted({name.rpartition(".")[2] for name in embeddings}))


# Search.


def _all_linear(model: ModelMap, freeze_vision_tower: bool, findings: list[Finding]) -> list[str]:
    """Last name components of all linear modules (`find_all_linear_modules`)."""
    forbidden = {"lm_head"}
    if output := _OUTPUTS.get(model.model_type):
        forbidden.add(output)
    parts = PARTS.get(model.model_type)
    if parts is not None:
        forbidden.update(parts.projector)
        if freeze_vision_tower:
            forbidden.update(parts.vision)
    linear = [m.name for m in model.modules if "Linear" in m.class_name and "Embedding" not in m.class_name]
    dropped = [name for name in linear if holds_word(name, forbidden)]
    words = ", ".join(sorted(word for word in forbidden if any(word in name for name in dropped)))
    reason = f"their names contain {words}"
    findings += left_out_findings(dropped, "lora_target: all", reason, "Name them in lora_target if you want them.")
    fix = "Name modules in lora_target; LLaMA-Factory has no key for bare parameters."
    findings += unseen_findings(unseen_weights(model), "lora_target: all", fix)
    kept = [name for name in linear if not holds_word(name, forbidden)]
    findings += _numbers(model, kept, forbidden)
    return sorted({name.rpartition(".")[2] for name in kept})


def _numbers(model: ModelMap, linear: Sequence[str], forbidden: set[str]) -> Iterator[Finding]:
    """Layers of a list that have no name but their number, which `all` takes for one."""
    numbered = [name for name in linear if name.rpartition(".")[2].isdecimal()]
    if not numbered:
        return
    words = {name.rpartition(".")[2] for name in linear}
    numbers = sorted(filter(str.isdecimal, words), key=int)
    others = [
        module.name for module in model.modules if module.kind == "other" and not holds_word(module.name, forbidden)
    ]
    if model.model_type in PARTS:  # every name that holds a word is taken, norms too
        named = sorted(word for word in words if not any(holds_word(name, [word]) for name in others))
    else:
        named = sorted(words - {name.rpartition(".")[2] for name in others})
    named = [word for word in named if not word.isdecimal()]
    message = (
        f"all takes the last word of each linear layer's name, and {listed(numbered, MOST_NAMED)} end in numbers: "
        f"{', '.join(numbers)} then match every layer of that number, and PEFT raises at blocks and norms."
    )
    yield Finding("digit-name", "error", "lora_target", message, f"Set lora_target: {','.join(named)}")


def _expanded(model: ModelMap, names: Sequence[str], trainable: int) -> list[str]:
    """The modules of every n-th layer (`find_expanded_modules`, LLaMA-Pro)."""
    layers = model.dimensions.layers
    if not layers or model.model_type in PARTS or _towers(model):
        # It looks for num_hidden_layers at the top of the configuration, where models of several parts have none.
        raise LorascopeError(
            f"use_llama_pro needs a number of layers of the model itself, which {model.architecture} does not have",
            where=TITLE,
            hint="Leave it out, and choose layers by full names in lora_target.",
        )
    if trainable <= 0 or layers % trainable:
        raise LorascopeError(
            f"use_llama_pro: the {layers} layers cannot be divided by freeze_trainable_layers ({trainable})",
            where=TITLE,
            hint="Give a divisor of the number of layers.",
        )
    stride = layers // trainable
    places = [f".{index}." for index in range(stride - 1, layers + stride - 1, stride)]
    return [m.name for m in model.modules if holds_word(m.name, names) and holds_word(m.name, places)]


# Models of several parts.


def _patched(
    model: ModelMap,
    names: Sequence[str],
    parts: Parts,
    settings: Mapping[str, Any],
    findings: list[Finding],
    *,
    everything: bool,
) -> list[str]:
    """Full names of the targets in a multimodal model (`patch_target_modules`)."""
    frozen = {key: words for key, words in parts.by_switch.items() if settings[key]}
    forbidden = {word for words in frozen.values() for word in words} | set(parts.conflicts)
    # The model itself has the empty name, in which only an empty entry can stand.
    matched = [name for name in ["", *(module.name for module in model.modules)] if holds_word(name, names)]
    kept = [name for name in matched if not holds_word(name, forbidden)]
    weights = model.weight_by_name
    dropped = [name for name in matched if name in weights and holds_word(name, forbidden)]
    if dropped and not everything:
        switches = " and ".join(key for key, words in frozen.items() if any(holds_word(n, words) for n in dropped))
        words = ", ".join(sorted(word for word in forbidden if any(word in name for name in dropped)))
        message = (
            f"{len(dropped)} weights named in lora_target are left out: LLaMA-Factory does not adapt modules of "
            f"{model.model_type} with {words} in their names{f' ({switches}: true)' if switches else ''}"
        )
        fix = f"Set {switches} to false if you want them." if switches else "Leave them out."
        findings.append(trainer_filter("warning", listed(dropped, MOST_NAMED), message, fix))
    endings = tuple(f".{name}" for name in names)
    loose = [name for name in kept if name in weights and name not in names and not name.endswith(endings)]
    if loose:
        message = (
            f"{len(loose)} weights are adapted because an entry of lora_target stands somewhere in their names: for "
            f"{model.model_type} LLaMA-Factory does not look at endings alone"
        )
        fix = "Give longer names in lora_target."
        findings.append(trainer_filter("warning", listed(loose, MOST_NAMED), message, fix))
    return kept


def _towers(model: ModelMap) -> list[str]:
    """Linear layers outside the language model: towers and connectors."""
    own = own_components(model)
    return [w.name for w in model.weights if w.role.component not in own and w.kind == "linear"]


def _unprotected(model: ModelMap, settings: Mapping[str, Any], *, everything: bool) -> Iterator[Finding]:
    """Towers that LLaMA-Factory does not know, so its switches do nothing."""
    towers = _towers(model)
    switches = [key for key in Parts().by_switch if settings[key]]
    if towers and (switches or everything):
        reach = "all takes" if everything else "a name can take"
        message = (
            f"LLaMA-Factory does not know the parts of {model.model_type}: {', '.join(switches) or 'freezing'} has no "
            f"effect, and {reach} weights of the towers too"
        )
        fix = "Give names that only the language model has: lorascope plan, then lorascope export --to llamafactory."
        yield Finding("ignored-key", "warning", listed(towers, MOST_NAMED), message, fix)
