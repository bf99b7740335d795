"""Refusals before the first module: settings, and the model's class."""

from __future__ import annotations

from lorascope.model.types import ModelMap
from lorascope.peft_rules import initializations, reasons, variants
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.releases import Release, parse_release
from lorascope.peft_rules.types import AdapterConfig

_TASK_TYPES = ("SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
_GENERATING = ("CAUSAL_LM", "SEQ_2_SEQ_LM")


def refused_settings(model: ModelMap, config: AdapterConfig, release: Release) -> Diagnostic | None:
    """Why PEFT refuses these settings on this model, or None."""
    if model.refusal:
        return reasons.UNWRAPPABLE.about(why=model.refusal)
    if config.task_type is not None and config.task_type not in _TASK_TYPES:
        return reasons.UNKNOWN_TASK_TYPE.about(task_type=config.task_type, known=_TASK_TYPES)
    return (
        _refused_targets(config, release)
        or variants.refused_option(config, release)
        or variants.refused_variants(config)
        or initializations.refused_initialization(config)
        or _refused_biases(config)
        or _refused_task(model, config, release)
    )


def _refused_targets(config: AdapterConfig, release: Release) -> Diagnostic | None:
    if isinstance(config.target_parameters, str):
        return reasons.PARAMETERS_AS_STRING.about()
    if isinstance(config.target_modules, str):
        for option in ("layers_to_transform", "layers_pattern"):
            if getattr(config, option) is not None:
                return reasons.LAYERS_WITH_STRING.about(option=option)
    layers = config.layers_to_transform
    # Up to 0.20 PEFT asks for truth and so refuses layer 0 alone and an empty list.
    absent = layers is None or (release < (0, 21) and not layers)
    return reasons.PATTERN_WITHOUT_LAYERS.about() if config.layers_pattern and absent else None


def _refused_biases(config: AdapterConfig) -> Diagnostic | None:
    if config.lora_bias and config.use_dora:
        return reasons.DORA_WITH_BIAS.about()
    if config.use_dora and config.megatron_config:
        return reasons.MEGATRON_DORA.about()
    if not (config.bias in ("none", "all") or config.bias.endswith("_only")):
        return reasons.UNKNOWN_BIAS.about(bias=config.bias)
    return None


def _refused_task(model: ModelMap, config: AdapterConfig, release: Release) -> Diagnostic | None:
    if config.task_type in _GENERATING and not model.prepares_generation:
        return reasons.NO_GENERATION.about(architecture=model.architecture, task_type=config.task_type)
    transformers = parse_release(model.versions.get("transformers", ""))
    # PEFT asks the model for a method that transformers dropped in 5.18; 0.21.2 no longer does.
    if config.task_type == "SEQ_2_SEQ_LM" and release < (0, 21, 2) and (transformers or ()) >= (5, 18):
        return reasons.WRAPPER_TOO_OLD.about()
    return None
