"""What PEFT refuses before it looks for the first module: the settings among themselves, and the class of the model."""

from __future__ import annotations

from lorascope.foreign_text import literal
from lorascope.model.types import ModelMap
from lorascope.peft_rules import initializations, variants
from lorascope.peft_rules.releases import Release, parsed_version
from lorascope.peft_rules.types import AdapterConfig, Behavior

_TASK_TYPES = ("SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
_GENERATING = ("CAUSAL_LM", "SEQ_2_SEQ_LM")


def fault_of(model: ModelMap, config: AdapterConfig, release: Release) -> Behavior | None:
    """Why PEFT refuses this configuration on any weights of this model; None if it does not."""
    if model.refusal:
        return Behavior("refused", model.refusal)
    if config.task_type is not None and config.task_type not in _TASK_TYPES:
        return Behavior(
            "task-type", f"{literal(config.task_type, 200)} is no task type of PEFT: {', '.join(_TASK_TYPES)}."
        )
    if isinstance(config.target_parameters, str):
        return Behavior("string-not-list", "target_parameters must be a list of names; a string is not supported.")
    if isinstance(config.target_modules, str):
        if config.layers_to_transform is not None:
            return Behavior(
                "layers-with-string", "layers_to_transform does not go with a string in target_modules. Give a list."
            )
        if config.layers_pattern is not None:
            return Behavior(
                "layers-with-string", "layers_pattern does not go with a string in target_modules. Give a list."
            )
    layers = config.layers_to_transform
    # Up to 0.20 PEFT asks for truth and so refuses layer 0 alone and an empty list.
    absent = layers is None or (release < (0, 21) and not layers)
    if config.layers_pattern and absent:
        return Behavior("layers-pattern", "layers_pattern needs layers_to_transform.")
    if fault := variants.release_fault(config, release):
        return Behavior("option-release", fault)
    if fault := variants.variant_settings_fault(config):
        return Behavior("variant", fault)
    if fault := initializations.initialization_settings_fault(config):
        return Behavior("initialization", fault)
    if config.lora_bias and config.use_dora:
        return Behavior("dora", "lora_bias=True and use_dora=True exclude each other.")
    if not (config.bias in ("none", "all") or config.bias.endswith("_only")):
        return Behavior("bias", f'bias={literal(config.bias, 200)} is none of "none", "all" and "lora_only".')
    if config.task_type in _GENERATING and not model.prepares_generation:
        return Behavior(
            "task-type",
            f"{model.architecture} has no prepare_inputs_for_generation, which PEFT needs for "
            f'task_type={literal(config.task_type, 200)}. Leave task_type out, or use "FEATURE_EXTRACTION".',
        )
    transformers = parsed_version(model.versions.get("transformers", ""))
    # PEFT asks the model for a method that transformers dropped in 5.18; 0.21.2 no longer does.
    if config.task_type == "SEQ_2_SEQ_LM" and release < (0, 21, 2) and (transformers or ()) >= (5, 18):
        return Behavior(
            "task-type",
            'PEFT before 0.21.2 cannot wrap a model of transformers 5.18 or later with task_type="SEQ_2_SEQ_LM". '
            "Update PEFT, or leave task_type out.",
        )
    return None
