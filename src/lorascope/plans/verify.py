"""Resolves any LoRA configuration by PEFT's rules, without PEFT."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError, alike
from lorascope.model.types import ModelMap
from lorascope.peft_rules.options import OPTIONS
from lorascope.peft_rules.reasons import NOT_COVERED
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.arguments import require_kinds, require_map
from lorascope.plans.map_gaps import gap_notes, is_incomplete
from lorascope.plans.types import Plan

if TYPE_CHECKING:
    from peft import LoraConfig

_FIELDS = {field.name for field in dataclasses.fields(AdapterConfig)}
# What people write for a field's own name; of other unknown names, those that come near to one are told.
_OTHER_NAMES = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}
# Whole numbers from here on have no place in a configuration, and further up none among floats.
_TOO_LARGE = 2**63
# Fields that hold settings, as an object of a class of PEFT's or as a dictionary.
_SETTINGS = (
    "use_bdlora",
    "velora_config",
    "kasa_config",
    "arrow_config",
    "monteclora_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "megatron_config",
)
_FLAGS = (
    "use_rslora",
    "use_dora",
    "lora_bias",
    "fan_in_fan_out",
    "inference_mode",
    "ensure_weight_tying",
    "use_qalora",
)
_MOST_ROWS = 10**7
# What PEFT writes into a file and nobody gives as an argument.
_OF_FILES = frozenset({"peft_type", "peft_version", "auto_mapping"})


def verify(
    model: ModelMap, config: Plan | AdapterConfig | Mapping[str, Any] | LoraConfig, *, peft: str = NEWEST
) -> Resolution:
    """Resolve a configuration: which weights PEFT adapts, at which rank and cost.

    Args:
        model: The map of the model.
        config: A plan, its configuration, the keyword arguments of `peft.LoraConfig` (or the content of an
            `adapter_config.json`), or such a configuration itself.
        peft: The version of PEFT whose rules to apply, 0.19 to 0.21.

    Returns:
        The adapted weights and their cost. Its first warnings are on the map: where that has gaps, PEFT may adapt other
        modules too.

    Raises:
        LorascopeError: It cannot be read as a configuration, or uses something that the rules do not cover.
    """
    require_map(model, "verify")
    require_kinds("verify", peft=(peft, (str,), "a text"))
    resolution = resolve_with_gaps(model, adapter_config(config), peft)
    if uncovered := resolution.warnings_of(NOT_COVERED):
        raise LorascopeError(
            *(f"not covered by the rules: {one}" for one in uncovered),
            where="adapter configuration",
            hint="Ask PEFT itself, with get_peft_model(…).print_trainable_parameters(), or leave the option out.",
        )
    return resolution


def resolve_with_gaps(model: ModelMap, config: AdapterConfig, peft: str = NEWEST) -> Resolution:
    """Resolve a configuration without what the rules do not cover, which its warnings name.

    Raises:
        LorascopeError: The version is unknown, or a pattern is too long or takes too long.
    """
    resolution = resolve(model, config, peft)
    if is_incomplete(model):
        resolution = dataclasses.replace(resolution, warnings=(*gap_notes(model), *resolution.warnings))
    return resolution


def adapter_config(config: Plan | AdapterConfig | Mapping[str, Any] | LoraConfig) -> AdapterConfig:
    """The fields of a configuration that decide what is adapted.

    Raises:
        LorascopeError: As `verify`.
    """
    if isinstance(config, AdapterConfig):
        return config
    if isinstance(config, Plan):
        return config.config
    if not isinstance(config, Mapping) and not hasattr(config, "to_dict"):
        raise LorascopeError(
            f"cannot read a {type(config).__name__} as an adapter configuration",
            hint="Give a plan, a peft.LoraConfig, or its keyword arguments as a dictionary.",
        )
    values = {str(key): value for key, value in (config if isinstance(config, Mapping) else config.to_dict()).items()}
    faults = _runtime_faults(values)
    faults += _misspelt(values)
    kind = _plain(values.get("peft_type"))
    if kind not in (None, "LORA"):
        faults.append(f"peft_type is {kind!r}, not LORA")
    fields: dict[str, Any] = {}
    for name in _FIELDS & values.keys():
        fields[name] = _field(name, _plain(values[name]))
    if isinstance(config, Mapping) and not _OF_FILES.isdisjoint(values):
        # PEFT writes true into every file that it saves, whatever it trained.
        fields.pop("inference_mode", None)
    faults += _type_faults(fields)
    if faults:
        raise LorascopeError(
            *faults, where="adapter configuration", hint="Names and types are those of peft.LoraConfig."
        )
    return AdapterConfig(**fields)


def _field(name: str, value: Any) -> Any:
    """A field's value in the form of `AdapterConfig`."""
    if value is None and name in ("rank_pattern", "alpha_pattern"):
        return {}
    if (value is None and name in _FLAGS) or (name == "init_lora_weights" and type(value) is int and not value):
        return False
    if name in ("megatron_config", "layer_replication") and not value:
        return None
    if name == "monteclora_config" and value is False:
        return None
    if name in _SETTINGS or name == "loftq_config":
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        # An empty dictionary switches a variant on; of LoftQ it is what PEFT has by default.
        return None if name == "loftq_config" and not value else value
    if name == "trainable_token_indices" and isinstance(value, Mapping):
        return {key: tuple(rows) if isinstance(rows, list | set) else rows for key, rows in value.items()}
    if name == "layer_replication" and isinstance(value, list | tuple):
        return tuple(tuple(pair) if isinstance(pair, list) else pair for pair in value)
    return tuple(value) if isinstance(value, list | set | frozenset) else value


def _runtime_faults(values: Mapping[str, Any]) -> list[str]:
    """A fault where PEFT cannot read `runtime_config`."""
    if "runtime_config" not in values or not _OF_FILES.isdisjoint(values):
        return []
    value = values["runtime_config"]
    good = hasattr(value, "ephemeral_gpu_offload")
    return [] if good else [f"runtime_config is {_cut(repr(value))}, not a LoraRuntimeConfig"]


def _misspelt(values: Mapping[str, Any]) -> list[str]:
    """A fault for each near miss of an argument's name."""
    faults = []
    for name in sorted(values.keys() - OPTIONS.keys()):
        near = alike(name, _FIELDS, 1, 0.9)
        meant = _OTHER_NAMES.get(name) or next(iter(near), "")
        if meant:
            faults.append(f"{name} is not an argument of peft.LoraConfig; it is called {meant}")
    return faults


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _type_faults(values: Mapping[str, Any]) -> list[str]:
    """A fault for each field that has not PEFT's type."""
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
        "rank_pattern": ("an object of whole numbers", lambda v: _all_values(v, _is_whole)),
        "alpha_pattern": ("an object of numbers", lambda v: _all_values(v, _is_number)),
        "r": ("a whole number", _is_whole),
        "lora_alpha": ("a number", _is_number),
        "lora_dropout": ("a number", _is_number),
        "bias": ("a text", lambda v: isinstance(v, str)),
        "task_type": ("a text", lambda v: v is None or isinstance(v, str)),
        **{name: ("true or false", lambda v: isinstance(v, bool)) for name in _FLAGS},
        **{name: ("an object", lambda v: v is None or _all_names(v)) for name in (*_SETTINGS, "loftq_config")},
        "init_lora_weights": ("true, false or a text", lambda v: v is None or isinstance(v, bool | str)),
        "qalora_group_size": ("a whole number", _is_whole),
        "megatron_core": ("a text", lambda v: v is None or isinstance(v, str)),
        "layer_replication": (
            "a list of pairs of whole numbers",
            lambda v: v is None or (isinstance(v, tuple) and all(map(_all_rows, v))),
        ),
        "alora_invocation_tokens": ("a list of whole numbers", lambda v: v is None or _all_rows(v)),
        "trainable_token_indices": (
            "a list of whole numbers, or an object of such lists",
            lambda v: v is None or _all_rows(v) or (_all_names(v) and all(map(_all_rows, v.values()))),
        ),
    }
    return [
        f"{name} is {_cut(repr(values[name]))}, not {what}"
        for name, (what, good) in wanted.items()
        if name in values and not good(values[name])
    ]


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


def _all_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


def _all_names(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _all_rows(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= _MOST_ROWS and all(type(row) is int for row in value)


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < _TOO_LARGE


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _all_values(value: Any, good: Callable[[Any], bool]) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) and good(item) for key, item in value.items())
