"""What any LoRA configuration really does on a model, by PEFT's rules alone, in milliseconds."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lorascope.compiling import NEWEST, peft_arguments
from lorascope.errors import LorascopeError
from lorascope.peft_rules.resolving import resolve
from lorascope.records import AdapterConfig, ModelMap, Plan, Resolution

if TYPE_CHECKING:
    from peft import LoraConfig

_FIELDS = {field.name for field in dataclasses.fields(AdapterConfig)}
# Fields of LoraConfig that change which weights are adapted or how many parameters that takes, and that the rules do
# not know.
_UNKNOWN = (
    "layer_replication",
    "trainable_token_indices",
    "megatron_config",
    "use_bdlora",
    "arrow_config",
    "alora_invocation_tokens",
    "kasa_config",
    "ensure_weight_tying",
)


def verify(model: ModelMap, config: Plan | AdapterConfig | Mapping[str, Any] | LoraConfig, *, peft: str = NEWEST) -> Resolution:
    """Which weights PEFT adapts under a configuration, at which rank, alpha and scale, and what that costs.

    Args:
        model: The map of the model.
        config: A plan, its configuration, the keyword arguments of `peft.LoraConfig` (or the content of an
            `adapter_config.json`), or such a configuration itself.
        peft: The version of PEFT whose rules to apply, 0.19 to 0.21.

    Raises:
        LorascopeError: It is no such configuration, or uses something that the rules do not cover.
    """
    return resolve(model, adapter_config(config), peft)


def adapter_config(config: Plan | AdapterConfig | Mapping[str, Any] | LoraConfig) -> AdapterConfig:
    """The fields of a configuration that decide what is adapted.

    Raises:
        LorascopeError: As `verify`.
    """
    if isinstance(config, AdapterConfig):
        return config
    if isinstance(config, Plan):
        return config.config
    values = dict(config) if isinstance(config, Mapping) else config.to_dict()
    faults = [f"{name} is set, which the rules do not cover" for name in _UNKNOWN if values.get(name)]
    kind = _plain(values.get("peft_type"))
    if kind not in (None, "LORA"):
        faults.append(f"peft_type is {kind!r}, not LORA")
    found: dict[str, Any] = {}
    for name in _FIELDS & values.keys():
        value = _plain(values[name])
        if value is None and name in ("rank_pattern", "alpha_pattern"):
            value = {}
        found[name] = tuple(value) if isinstance(value, list | set | frozenset) else value
    faults += _type_faults(found)
    if faults:
        raise LorascopeError(*faults, where="adapter configuration")
    return AdapterConfig(**found)


def to_peft(config: AdapterConfig) -> LoraConfig:
    """The configuration as a `peft.LoraConfig`.

    Raises:
        LorascopeError: peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise LorascopeError("peft is not installed", hint="Install it with: pip install 'lorascope[torch]'") from error
    return peft.LoraConfig(**peft_arguments(config))  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _type_faults(values: Mapping[str, Any]) -> list[str]:
    """A fault for each field that is not of PEFT's type; a wrong one would be misread rather than refused."""
    texts = "a list of texts"
    wanted: dict[str, tuple[str, Any]] = {
        "target_modules": (f"a text or {texts}", lambda v: v is None or isinstance(v, str) or _all_texts(v)),
        "exclude_modules": (f"a text or {texts}", lambda v: v is None or isinstance(v, str) or _all_texts(v)),
        "layers_pattern": (f"a text or {texts}", lambda v: v is None or isinstance(v, str) or _all_texts(v)),
        "target_parameters": (texts, lambda v: v is None or _all_texts(v)),
        "modules_to_save": (texts, lambda v: v is None or _all_texts(v)),
        "layers_to_transform": (
            "a number or a list of numbers",
            lambda v: v is None or type(v) is int or (isinstance(v, tuple) and all(type(n) is int for n in v)),
        ),
        "rank_pattern": ("an object of numbers", _all_numbers),
        "alpha_pattern": ("an object of numbers", _all_numbers),
        "r": ("a whole number", lambda v: type(v) is int),
        "lora_alpha": ("a number", lambda v: isinstance(v, int | float)),
        "lora_dropout": ("a number", lambda v: isinstance(v, int | float)),
    }
    return [
        f"{name} is {values[name]!r}, not {what}" for name, (what, good) in wanted.items() if name in values and not good(values[name])
    ]


def _all_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


def _all_numbers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(number, int | float) for key, number in value.items()
    )
