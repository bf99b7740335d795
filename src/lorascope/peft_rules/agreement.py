"""Configurations that every supported release of PEFT reads alike."""

from __future__ import annotations

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from lorascope.peft_rules.parameter_count import may_train_base
from lorascope.peft_rules.releases import SUPPORTED_PEFT, release_of
from lorascope.peft_rules.types import AdapterConfig

_DEFAULTS = AdapterConfig()
# Settings that no release treats in a way of its own. All others must have their defaults.
_STABLE = (
    "target_modules",
    "target_parameters",
    "r",
    "lora_alpha",
    "lora_dropout",
    "bias",
    "use_rslora",
    "use_dora",
    "fan_in_fan_out",
    "rank_pattern",
    "alpha_pattern",
    "exclude_modules",
    "modules_to_save",
    "task_type",
)


def releases_agree(model: ModelMap, config: AdapterConfig) -> bool:
    """Whether no rule applies that differs between the supported releases.

    If so, and the newest release takes the configuration, all of them adapt, train and save the same. The rules that
    differ are those of layers, of `bias`, of missing targets, of one task type's wrapper, of NemotronH, and of regular
    expressions for fused experts.

    >>> from lorascope.sources.builtin import load_builtin
    >>> releases_agree(load_builtin("mistral"), AdapterConfig(target_modules=("q_proj",)))
    True
    >>> releases_agree(load_builtin("mistral"), AdapterConfig(target_modules=("q_proj",), layers_to_transform=(0,)))
    False
    """
    others = {name: getattr(_DEFAULTS, name) for name in _STABLE}
    return (
        config.target_modules is not None
        and config.task_type != "SEQ_2_SEQ_LM"
        and not (isinstance(config.target_modules, str) and model.moe_conversion)
        and model.model_type != "nemotron_h"
        and not may_train_base(model, config, release_of(SUPPORTED_PEFT[0]))
        and dataclasses.replace(config, **others) == _DEFAULTS
    )
