"""What PEFT really did: the oracle of the tests of `peft_rules` and of the conformance suite.

Works with every PEFT that the rules speak of, and on meta tensors as on real ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lorascope.peft_rules.types import AdapterConfig

if TYPE_CHECKING:
    from torch import nn

# Name as in `Adapted.name` -> (rank, alpha, scale).
Truth = dict[str, tuple[int, float, float]]

# The fields of a configuration that few people set.
_FIELDS = [field.name for field in dataclasses.fields(AdapterConfig)]
RARE = frozenset(_FIELDS[_FIELDS.index("init_lora_weights") :])


def peft_kwargs(config: AdapterConfig) -> dict[str, Any]:
    """The keyword arguments of `peft.LoraConfig` for a configuration: tuples become lists, mappings dicts."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in RARE and value == field.default:
            continue  # older releases do not know all of them
        if isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Mapping):
            value = dict(value)
        found[field.name] = value
    return found


def peft_truth(model: nn.Module, lora_config_kwargs: dict[str, Any]) -> tuple[Truth, int]:
    """Wraps a model with PEFT and reads off what is adapted. The model is changed.

    Args:
        model: A model that no adapter was ever put on.
        lora_config_kwargs: As `peft.LoraConfig` takes them.

    Returns:
        Name to rank, alpha and scale of every adapted weight, and the number of trainable parameters.

    Raises:
        Exception: Whatever PEFT raises.
    """
    import peft
    import torch

    # Adapters of a large model's experts take gigabytes where they are first made, which is not where the model is.
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**lora_config_kwargs))
    trainable = sum(parameter.numel() for parameter in wrapped.parameters() if parameter.requires_grad)
    return adapted_weights(wrapped), trainable


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[nn.Module]:
    """Lets PEFT change a model and puts it back afterwards, which is much quicker than building it again.

    PEFT replaces submodules, sets attributes and switches gradients on and off; it leaves the tensors alone.
    """
    modules = [(module, dict(module.__dict__), dict(module._modules)) for module in model.modules()]
    parameters = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield model
    finally:
        for module, attributes, children in modules:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            module._modules.clear()
            module._modules.update(children)
        for parameter, requires_grad in parameters:
            parameter.requires_grad_(requires_grad)


def adapted_weights(wrapped: nn.Module) -> Truth:
    """Every adapted weight of a wrapped model under its name in the base model.

    PEFT nests one wrapper per parameter around the module that owns them, and wraps the output projection within a
    MultiheadAttention by itself: the former get the parameter's name, the latter is part of its attention.
    """
    from peft.tuners.lora import LoraLayer

    found: Truth = {}
    attention: list[str] = []
    for path, module in wrapped.named_modules():
        if not isinstance(module, LoraLayer) or "default" not in module.scaling:
            continue
        kind = type(module).__name__
        if kind == "MultiheadAttention":
            attention.append(f"{path}.base_layer.out_proj")
        if path in attention:
            continue
        name = base_name(path)
        if kind == "ParamWrapper":
            name = f"{name}.{module.parameter_name}"
        if name in found:
            # A copy that modules_to_save made of a module with adapters in it.
            assert ".original_module." in path or ".modules_to_save." in path, f"{name} is adapted twice: {path}"
            continue
        found[name] = (module.r["default"], module.lora_alpha["default"], module.scaling["default"])
    return found


def base_name(path: str) -> str:
    """A module's name in the base model from its path in the wrapped one."""
    path = f".{path}".replace(".modules_to_save.default", "")
    parts = [part for part in path.split(".") if part not in ("base_layer", "original_module")]
    return ".".join(parts[1:]).removeprefix("base_model.model.")
