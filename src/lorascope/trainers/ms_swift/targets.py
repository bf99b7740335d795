"""What ms-swift adapts: its own search, and its changes to PEFT."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.model.types import ModelMap
from lorascope.names import listed
from lorascope.peft_rules.diagnostics import Reason
from lorascope.peft_rules.name_patterns import BadPatternError, compiled
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.rules import own_components
from lorascope.trainers.ms_swift import search
from lorascope.trainers.ms_swift.models import ModelType, Towers, model_types, types_for
from lorascope.trainers.ms_swift.schema import FREEZES, LINEAR, PEFT, SCHEMA, TASKS, TITLE
from lorascope.trainers.protocol import Outcome, TrainerConfig, stopped, trainer_filter, without_lora
from lorascope.trainers.search_findings import MOST_NAMED, left_out_findings, unseen_findings, unseen_weights

_TOWERS = ("vision", "audio", "connector")
_EMBEDDING = "all-embedding"
_NORM = "all-norm"
# pipelines/train/tuner.py, _drop_mamba_incompatible_targets.
_MAMBA = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"})
_NOT_ON_MAMBA = frozenset({"out_proj", "conv1d"})
# tuners/peft.py, _create_and_replace_hook: the output of torch's MultiheadAttention, which it leaves as it is.
_LEFT_ALONE = "NonDynamicallyQuantizableLinear"
# Language models alone whose configurations have a text_config, by which ms-swift takes them for models of several parts.
_OF_PARTS = frozenset({"gemma4_assistant"})
_NO_MODEL_TYPE = Reason(
    "refused",
    "ms-swift stops: it has no model type for {architecture}, and does not load it without one. Give --model_type",
)
_ALL_FROZEN = Reason(
    "refused", "ms-swift stops: no part of the model may be adapted (freeze_llm, freeze_vit, freeze_aligner)"
)


def resolve_swift(model: ModelMap, given: TrainerConfig) -> Outcome:
    """What ms-swift adapts with some options.

    Raises:
        LorascopeError: The options are not covered here, or it takes a model type to know what they do.
    """
    tuner = given.settings.get("tuner_type", "lora")
    if tuner not in ("lora", "longlora"):
        return without_lora(TITLE, "--tuner_type", tuner, "lora")
    faults = list(_uncovered(given.settings))
    if faults:
        raise LorascopeError(*faults, where=TITLE, hint="Check what its trainer makes of it there.")
    settings = {**SCHEMA.defaults, **given.settings}
    findings: list[Finding] = []
    searched = not settings["target_regex"] and LINEAR in settings["target_modules"]
    kind = _model_type(model, settings["model_type"], findings, searched=searched)
    if kind is None:
        return stopped(_NO_MODEL_TYPE.about(architecture=model.architecture), findings)
    targets = _target_modules(model, settings, kind, findings, [key for key in FREEZES if key in given.settings])
    if targets is None:
        return stopped(_ALL_FROZEN.about(), findings)
    config = _handed_config(model, settings, kind, targets, findings)
    resolution = _without_attention_outputs(model, resolve(model, config, PEFT), findings)
    return Outcome(resolution, config, tuple(findings))


def _uncovered(settings: Mapping[str, Any]) -> Iterator[str]:
    if settings.get("tuner_backend") == "unsloth":
        yield "tuner_backend is unsloth: Unsloth makes the adapters, by rules of its own"
    if settings.get("use_swift_lora"):
        yield "use_swift_lora is true: ms-swift's own LoRA layers take the place of PEFT's"
    for key in ("adapters", "resume_from_checkpoint"):
        if settings.get(key):
            yield f"{key} is given: it trains that adapter on, not what the options say"


# Model types.


def needs_model_type(model: ModelMap) -> bool:
    """ms-swift needs a model type to load this model (`get_model_info_meta`)."""
    if model.head == "unknown":
        return False
    return model.head == "image-text-to-text" or model.model_type in _OF_PARTS or _has_towers(model)


def _has_towers(model: ModelMap) -> bool:
    own = own_components(model)
    return any(weight.role.component in _TOWERS and weight.role.component not in own for weight in model.weights)


def _model_type(model: ModelMap, name: str | None, findings: list[Finding], *, searched: bool) -> ModelType | None:
    """The model type whose rules hold; None if ms-swift stops without one.

    Raises:
        LorascopeError: Several are possible that differ in what is adapted.
    """
    if name:
        return model_types()[name]
    types = types_for(model.architecture)
    towers = _has_towers(model)
    if not types:
        return None if needs_model_type(model) else ModelType("", multimodal=towers)
    if len(types) > 1:
        shown = ", ".join(kind.name for kind in types[:MOST_NAMED])
        message = (
            f"ms-swift has {len(types)} model types for it ({shown} …) and stops unless it knows the model by its name"
        )
        fix = "Give --model_type if ms-swift does not know your model's name."
        findings.append(trainer_filter("note", model.architecture, message, fix))
    # Only types with towers fit a map with towers, and only types without fit one without.
    possible = [kind for kind in types if kind.multimodal == towers] or list(types)
    searches = {
        (kind.multimodal, kind.towers if kind.multimodal else search.head_word(kind.towers)) for kind in possible
    }
    if len(searches) > 1 and searched:
        names = ", ".join(kind.name for kind in possible)
        raise LorascopeError(
            f"ms-swift searches {model.architecture} in ways that differ by model type: {names}",
            where=TITLE,
            hint="Give --model_type.",
        )
    return possible[0]


# Search.


def _target_modules(
    model: ModelMap, settings: Mapping[str, Any], kind: ModelType, findings: list[Finding], switches: Sequence[str]
) -> str | tuple[str, ...] | None:
    """What it gives PEFT as target_modules (`get_target_modules`); None where it stops."""
    if settings["target_regex"]:
        return str(settings["target_regex"])
    names = list(settings["target_modules"])
    if LINEAR in names:
        if kind.multimodal:
            return _in_towers(model, settings, kind.towers or Towers(), names, findings)
        names.remove(LINEAR)
        modules = search.within(model)
        names += search.linear_endings(modules, kind.towers)
        left = [n for n, m in modules if search.called_linear(m) and not search.is_searched(n, m, kind.towers)]
        findings += _search_findings(model, left, "ms-swift takes them for heads", "Name them in target_modules.")
    elif kind.multimodal or _has_towers(model):
        findings += _unprotected(model, settings, names, switches)
    if _EMBEDDING in names:
        names.remove(_EMBEDDING)
        names += search.embedding_endings(search.within(model))
    dropped = sorted(_NOT_ON_MAMBA & set(names)) if model.model_type in _MAMBA else []
    if dropped:
        message = (
            f"ms-swift drops {' and '.join(dropped)} from the targets of {model.model_type}: PEFT 0.20 refuses them"
        )
        findings.append(trainer_filter("warning", ", ".join(dropped), message, "Leave them out."))
    return tuple(dict.fromkeys(name for name in names if name not in dropped))


def _in_towers(
    model: ModelMap, settings: Mapping[str, Any], towers: Towers, names: Sequence[str], findings: list[Finding]
) -> str | None:
    """The regular expression for a model with towers; None if ms-swift stops."""
    others = [name for name in names if name not in (LINEAR, _EMBEDDING)]
    if others:
        message = "on a model with towers ms-swift drops every other name next to all-linear"
        fix = "Write all of it as one --target_regex."
        findings.append(Finding("ignored-key", "warning", ", ".join(others), message, fix))
    expression = search.towers_expression(
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
    linear = [module.name for module in model.modules if search.called_linear(module)]
    left = [name for name in linear if not pattern.fullmatch(name)]
    frozen = ", ".join(key for key in FREEZES if settings[key]) or "none"
    reason = f"heads and frozen parts ({frozen})"
    findings += _search_findings(
        model, left, reason, "Set freeze_vit, freeze_aligner or freeze_llm to false to adapt them."
    )
    return expression


def _search_findings(model: ModelMap, left: Sequence[str], reason: str, fix: str) -> Iterator[Finding]:
    yield from left_out_findings(left, LINEAR, reason, fix)
    named = "Name modules in target_modules, and the parameters of experts in target_parameters."
    yield from unseen_findings(unseen_weights(model), LINEAR, named)


def _unprotected(
    model: ModelMap, settings: Mapping[str, Any], names: Sequence[str], switches: Sequence[str]
) -> Iterator[Finding]:
    """Names that reach into towers in spite of the switches."""
    endings = tuple(f".{name}" for name in names)
    in_towers = [
        w.name for w in model.weights if w.role.component in _TOWERS and (w.name.endswith(endings) or w.name in names)
    ]
    if in_towers and (settings["freeze_vit"] or settings["freeze_aligner"]):
        message = f"the names also adapt {len(in_towers)} weights of towers: freeze_vit and freeze_aligner affect all-linear only"
        fix = "Name what you mean with --target_regex."
        yield trainer_filter("warning", listed(in_towers, MOST_NAMED), message, fix)
    elif switches:
        message = "these affect LoRA only with all-linear among the target modules"
        yield Finding("ignored-key", "note", ", ".join(switches), message, "Leave them out.")


# PEFT.


def _handed_config(
    model: ModelMap,
    settings: Mapping[str, Any],
    kind: ModelType,
    targets: str | tuple[str, ...],
    findings: list[Finding],
) -> AdapterConfig:
    """What it hands to PEFT (`prepare_adapter`, `get_modules_to_save`)."""
    task = settings["task_type"] or kind.task or "causal_lm"
    if settings.get("method") == "rlhf" and settings["rlhf_type"] == "rm":
        task = "seq_cls"
    saved = list(settings["modules_to_save"] or ())
    if _EMBEDDING in saved:
        saved.remove(_EMBEDDING)
        saved += search.embedding_endings(search.within(model))
    if _NORM in saved:
        saved.remove(_NORM)
        saved += search.norm_endings(search.within(model))
        message = (
            "all-norm means torch's LayerNorm and classes called RMSNorm; the map knows classes by name only, so a subclass "
            "of LayerNorm under another name is not counted"
        )
        findings.append(trainer_filter("note", "modules_to_save", message, "Name the norms if it matters."))
    if task == "seq_cls":
        saved.append("v_head")
    return AdapterConfig(
        **{
            **SCHEMA.peft_arguments(settings),
            "target_modules": targets,
            "modules_to_save": tuple(saved) or None,
            "task_type": TASKS[task],
        }
    )


def _without_attention_outputs(model: ModelMap, resolution: Resolution, findings: list[Finding]) -> Resolution:
    """The resolution without outputs of torch's MultiheadAttention, which ms-swift skips."""
    outputs = {module.name for module in model.modules if module.class_name == _LEFT_ALONE}
    skipped = [adapted for adapted in resolution.adapted if adapted.name in outputs]
    if not skipped:
        return resolution
    message = f"ms-swift keeps PEFT from adapting {len(skipped)} outputs of torch's MultiheadAttention"
    where = listed((adapted.name for adapted in skipped), MOST_NAMED)
    findings.append(trainer_filter("note", where, message, "Nothing: their adapters would do nothing."))
    return dataclasses.replace(
        resolution,
        adapted=tuple(adapted for adapted in resolution.adapted if adapted.name not in outputs),
        trainable=resolution.trainable - sum(adapted.trainable for adapted in skipped),
        warnings=tuple(warning for warning in resolution.warnings if not _are_all(warning.names, outputs)),
    )


def _are_all(names: Sequence[str], among: Collection[str]) -> bool:
    return bool(names) and all(name in among for name in names)
