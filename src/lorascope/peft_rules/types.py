"""An adapter configuration, and what PEFT does with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.peft_rules.diagnostics import Diagnostic


@dataclasses.dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Keyword arguments of `peft.LoraConfig` that decide targets and cost.

    Field names and defaults are PEFT's. `target_modules` as a string is one regular expression (or `all-linear`),
    as a tuple a list of names. Patterns keep their order, because PEFT takes the first key that matches.
    """

    target_modules: str | tuple[str, ...] | None = None
    target_parameters: tuple[str, ...] | None = None
    r: int = 8
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    bias: str = "none"
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    fan_in_fan_out: bool = False
    rank_pattern: Mapping[str, int] = dataclasses.field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = dataclasses.field(default_factory=dict)
    exclude_modules: str | tuple[str, ...] | None = None
    layers_to_transform: int | tuple[int, ...] | None = None
    layers_pattern: str | tuple[str, ...] | None = None
    modules_to_save: tuple[str, ...] | None = None
    task_type: str | None = None
    init_lora_weights: bool | str | None = True
    inference_mode: bool = False
    trainable_token_indices: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None
    ensure_weight_tying: bool = False
    alora_invocation_tokens: tuple[int, ...] | None = None
    use_qalora: bool = False
    qalora_group_size: int = 16
    use_bdlora: Mapping[str, Any] | None = None
    velora_config: Mapping[str, Any] | None = None
    kasa_config: Mapping[str, Any] | None = None
    arrow_config: Mapping[str, Any] | None = None
    monteclora_config: Mapping[str, Any] | None = None
    loftq_config: Mapping[str, Any] | None = None
    eva_config: Mapping[str, Any] | None = None
    corda_config: Mapping[str, Any] | None = None
    lora_ga_config: Mapping[str, Any] | None = None
    layer_replication: tuple[tuple[int, ...], ...] | None = None
    megatron_config: Mapping[str, Any] | None = None
    megatron_core: str | None = "megatron.core"


@dataclasses.dataclass(frozen=True, slots=True)
class Adapted:
    """One adapted weight, as PEFT would adapt it.

    Attributes:
        name: Module name, or `module.parameter` for a target parameter.
        rank: Its rank (per expert for a fused weight).
        alpha: Its alpha.
        scale: What the product BA is multiplied by: alpha / rank, or alpha / sqrt(rank) with rsLoRA.
        trainable: Parameters that train for it: none under `inference_mode`, and not what an option freezes.
    """

    name: str
    rank: int
    alpha: float
    scale: float
    trainable: int


@dataclasses.dataclass(frozen=True, slots=True)
class Resolution:
    """What PEFT does with a configuration on a model.

    Attributes:
        adapted: The adapted weights, sorted by name. Empty if PEFT refuses.
        trainable: All trainable parameters, with biases and saved modules.
        saved: Modules that are copied and trained in full (`modules_to_save`).
        refusal: Why PEFT raises, in its sense if not in its words; None if it does not.
        warnings: What PEFT warns about or does silently and the user should know.
    """

    adapted: tuple[Adapted, ...] = ()
    trainable: int = 0
    saved: tuple[str, ...] = ()
    refusal: Diagnostic | None = None
    warnings: tuple[Diagnostic, ...] = ()

    def refused_as(self, code: str) -> bool:
        """PEFT raises, for a reason of this code."""
        return self.refusal is not None and self.refusal.code == code

    def warnings_of(self, *codes: str) -> tuple[Diagnostic, ...]:
        """The warnings of some codes, in order."""
        return tuple(warning for warning in self.warnings if warning.code in codes)
