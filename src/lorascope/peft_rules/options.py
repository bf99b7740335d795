"""Fields of `peft.LoraConfig` in PEFT's order, with coverage and first release.

The tests hold the table to the fields of the installed PEFT, so that a new one cannot go by unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.peft_rules.releases import Release

# exact: the rules follow it, and every figure is PEFT's. neutral: it changes no adapted weight, rank, scale or count.
# partly: exact where it changes nothing; where it does, the rules leave it out and say so.
Standing = Literal["exact", "neutral", "partly"]


@dataclasses.dataclass(frozen=True, slots=True)
class OptionRule:
    """What the rules make of one field.

    Attributes:
        standing: See `Standing`.
        why: What it does, and why it is not covered where it is not.
        since: The first release that has it; empty for what all known releases have.
    """

    standing: Standing
    why: str
    since: Release = ()


_FILE = "written by PEFT, and read back only to find files"
_VARIANT = "a variant of the adapter: which layers take it, and what it trains"
_START = "settings of an initialization, which change the values and no count; PEFT checks them"

OPTIONS: Mapping[str, OptionRule] = {
    "task_type": OptionRule("exact", "the wrapper, the heads that it saves, and what all-linear leaves out"),
    "peft_type": OptionRule("exact", "anything but LORA in a file is another method"),
    "auto_mapping": OptionRule("neutral", _FILE),
    "peft_version": OptionRule("neutral", _FILE),
    "base_model_name_or_path": OptionRule("neutral", _FILE),
    "revision": OptionRule("neutral", _FILE),
    "inference_mode": OptionRule("exact", "freezes the adapter and the saved modules; PEFT writes it into every file"),
    "r": OptionRule("exact", "the rank of what no pattern names"),
    "target_modules": OptionRule("exact", "names, a regular expression, or all-linear"),
    "exclude_modules": OptionRule("exact", "names or a regular expression"),
    "lora_alpha": OptionRule("exact", "the alpha of what no pattern names"),
    "lora_dropout": OptionRule("exact", "must be a probability, and 0 with target_parameters"),
    "fan_in_fan_out": OptionRule("exact", "PEFT corrects it by the class of each layer"),
    "bias": OptionRule("exact", "which biases of the base model train"),
    "use_rslora": OptionRule("exact", "the scale"),
    "modules_to_save": OptionRule("exact", "modules that are copied and trained in full"),
    "init_lora_weights": OptionRule("exact", "unknown values raise; some cap the rank, mica freezes B"),
    "layers_to_transform": OptionRule("exact", "layers by number"),
    "layers_pattern": OptionRule("exact", "where the layer's number stands in a name"),
    "rank_pattern": OptionRule("exact", "ranks by name"),
    "alpha_pattern": OptionRule("exact", "alphas by name"),
    "megatron_config": OptionRule("exact", "PEFT imports Megatron for it; layers of PyTorch get the same adapters"),
    "megatron_core": OptionRule("exact", "read only with megatron_config; must be a part of megatron"),
    "trainable_token_indices": OptionRule("exact", "rows of the embeddings that train"),
    "loftq_config": OptionRule("exact", _START),
    "eva_config": OptionRule("exact", _START),
    "corda_config": OptionRule("exact", _START),
    "lora_ga_config": OptionRule("exact", _START, (0, 19)),
    "use_dora": OptionRule("exact", _VARIANT),
    "velora_config": OptionRule("exact", _VARIANT, (0, 20)),
    "alora_invocation_tokens": OptionRule("exact", _VARIANT),
    "use_qalora": OptionRule("partly", "read only for layers of GPTQ, whose A it shrinks by the group size"),
    "qalora_group_size": OptionRule("partly", "read only with use_qalora"),
    "monteclora_config": OptionRule("exact", _VARIANT, (0, 20)),
    "layer_replication": OptionRule("exact", "it builds another model, with other layers, before anything matches"),
    "runtime_config": OptionRule("neutral", "where tensors lie while an adapter is made; PEFT does not save it"),
    "lora_bias": OptionRule("exact", "a bias on B, which goes with no other initialization"),
    "target_parameters": OptionRule("exact", "parameters by name"),
    "use_bdlora": OptionRule("exact", _VARIANT, (0, 19)),
    "arrow_config": OptionRule("exact", "raises in get_peft_model: create_arrow_model alone fills it in"),
    "kasa_config": OptionRule("exact", _VARIANT, (0, 21)),
    "ensure_weight_tying": OptionRule(
        "partly", "nothing where no tied embedding is targeted or saved; else PEFT moves and ties what it adapts"
    ),
}
