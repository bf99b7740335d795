"""An adapter configuration as PEFT takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.peft_rules.types import AdapterConfig

if TYPE_CHECKING:
    from peft import LoraConfig

_IN_ORDER = ("alora_invocation_tokens", "layer_replication")


def peft_arguments(config: AdapterConfig) -> dict[str, object]:
    """Keyword arguments of `peft.LoraConfig`, without defaults, lists sorted."""
    arguments: dict[str, object] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if value == default and field.name not in ("r", "lora_alpha", "lora_dropout", "bias"):
            continue
        if isinstance(value, tuple):
            # Names come in any order; token numbers in that of the text, and ranges in that of the layers.
            value = list(value) if field.name in _IN_ORDER else sorted(value)
        elif isinstance(value, Mapping):
            value = dict(value)
        arguments[field.name] = value
    return arguments


def saved_config(arguments: Mapping[str, object], base: str) -> dict[str, object]:
    """The object in `adapter_config.json`, for the arguments and the base model."""
    return {"peft_type": "LORA", "base_model_name_or_path": base or None, **arguments}


def to_peft(config: AdapterConfig) -> LoraConfig:
    """The configuration as a `peft.LoraConfig`.

    Raises:
        LorascopeError: peft is not installed, or stops at a value of the environment.
    """
    from lorascope.sandbox.hub_library import hub_part

    try:
        hub_part("constants")  # which peft loads
        import peft
    except ImportError as error:
        raise LorascopeError(
            f"peft cannot be imported: {error}", hint="Install it with: pip install 'lorascope[torch]'"
        ) from error
    return peft.LoraConfig(**peft_arguments(config))
