"""What `init_lora_weights` does to a count, and which layers PEFT stops at for it (`update_layer`, per class of layer).

Initializations that decompose the base weight (PiSSA, OLoRA, LoftQ) give factors of no more rank than the weight has,
while the layer keeps the rank that was asked for in its scale. MiCA freezes B. Unknown values raise, except on
embeddings, where PEFT does not look at most of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from lorascope.foreign_text import literal
from lorascope.model.types import Module
from lorascope.peft_rules.releases import Release
from lorascope.peft_rules.types import AdapterConfig

Shape = tuple[int, ...]
Init = bool | str | None

_NITER = "_niter_"
_OF_NUMBERS = ("pissa", "corda", "mica", "orthogonal")
# What must run before get_peft_model, which does not change a count.
NEEDED = {
    "corda": "peft.tuners.lora.corda.preprocess_corda must run first, or get_peft_model raises",
    "lora_ga": "peft.tuners.lora.loraga.preprocess_loraga must run first, or the usual values are taken",
    "loftq": "it needs a GPU and bitsandbytes, or get_peft_model raises",
    "eva": "peft.initialize_lora_eva_weights redistributes the ranks by the data afterwards: these are those before it",
}
# What changes the weights of the base model, so that an adapter fits only a base that was changed alike.
CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")


def method_of(init: Init, release: Release) -> str:
    """The initialization that a value names, `default` for PEFT's own ones, or empty where PEFT knows none."""
    if not init or init is True:
        return "default"
    if init.startswith("pissa"):
        return "pissa"
    if init.startswith("corda"):
        return "corda"
    lower = init.lower()
    if lower == "olora" or (lower == "mica" and release >= (0, 20)):
        return lower
    if init in ("loftq", "eva", "orthogonal") or (init == "lora_ga" and release >= (0, 19)):
        return init
    return "default" if lower == "gaussian" else ""


def freezes_up(config: AdapterConfig, release: Release) -> bool:
    """B does not train. Only this spelling makes PEFT freeze it; others take MiCA's values alone."""
    return config.init_lora_weights == "mica" and release >= (0, 20)


def kept_rank(method: str, rank: int, sides: tuple[int, int]) -> int:
    """The rank that the factors of a linear layer have after its initialization."""
    return min(rank, *sides) if method in ("pissa", "olora", "loftq") else rank


def swaps_sides(method: str, module: Module) -> bool:
    """PEFT decomposes the weight as it is stored, so that the factors of a Conv1D have each other's side."""
    return module.kind == "conv1d" and method in ("olora", "loftq")


def initialization_settings_fault(config: AdapterConfig) -> str:
    """Why LoraConfig refuses the initialization and its settings, or empty."""
    init = config.init_lora_weights
    if init == "loftq" and not config.loftq_config:
        return 'init_lora_weights="loftq" needs a loftq_config, such as LoftQConfig(loftq_bits=4).'
    if config.lora_bias and init is not True and init is not False:
        return f"lora_bias=True goes with init_lora_weights true or false only, not with {init!r}."
    return ""


def initialization_fault(
    config: AdapterConfig, release: Release, module: Module, rank: int, sides: tuple[int, int]
) -> str:
    """Why PEFT cannot initialize the adapter of a module, or empty.

    Args:
        config: The configuration.
        release: PEFT's release.
        module: The module.
        rank: Its rank.
        sides: Its input and output features.
    """
    init = config.init_lora_weights
    method = method_of(init, release)
    if module.kind == "embedding":
        return _embedding_fault(method, init, rank, sides)
    if module.kind == "conv":
        # A convolution knows PEFT's own ones, and LoRA-GA falls back on them.
        return "" if method in ("default", "lora_ga") else _no_method(init, "a convolution")
    if not method:
        return _unknown(init)
    if module.kind == "multihead_attention":
        if method not in ("default", "eva"):
            return f"init_lora_weights={literal(str(init), 200)} needs a weight, which a MultiheadAttention has under other names."
        return ""
    if config.use_dora and swaps_sides(method, module) and sides[0] != sides[1]:
        return f"use_dora does not go with init_lora_weights={literal(str(init), 200)} on a Conv1D, whose factors PEFT makes the other way."
    return _linear_fault(config, method, rank, sides)


def initialization_parameter_fault(
    config: AdapterConfig, release: Release, owner: Module, weight: Shape | None, rank: int
) -> str:
    """Why PEFT cannot initialize the adapter of a parameter, or empty.

    Args:
        config: The configuration.
        release: PEFT's release.
        owner: The module that has the parameter.
        weight: The shape of that module's `weight`, which PEFT decomposes whatever the parameter is; None without one.
        rank: The parameter's rank.
    """
    init = config.init_lora_weights
    method = method_of(init, release)
    if not method or (method == "mica" and init != "mica"):
        return _unknown(init)
    if method in ("default", "eva"):
        return ""
    if method in ("loftq", "mica", "corda"):
        return f"init_lora_weights={literal(str(init), 200)} does not go with target_parameters."
    if weight is None:
        return (
            f"init_lora_weights={literal(str(init), 200)} reads the weight of the module around a parameter, and a "
            f"{owner.class_name} has none."
        )
    if method in ("pissa", "olora") and len(weight) < 2:
        return f"init_lora_weights={literal(str(init), 200)} decomposes the weight of the module around a parameter, which is a vector."
    if method == "orthogonal" and rank % 2:
        return _odd(rank)
    return _pissa_fault(init)


def packed_fault(init: Init, release: Release, packing: str) -> str:
    """Why PEFT cannot initialize the adapter of a quantized layer (`bnb` or `gptq`), or empty."""
    method = method_of(init, release)
    if method in _OF_NUMBERS or (packing == "gptq" and method in ("olora", "lora_ga")):
        return f"init_lora_weights={literal(str(init), 200)} needs the weight as numbers, and it is packed."
    return ""


def _linear_fault(config: AdapterConfig, method: str, rank: int, sides: tuple[int, int]) -> str:
    init = config.init_lora_weights
    if method == "pissa":
        return _pissa_fault(init)
    if method in ("mica", "corda") and rank > min(sides):
        return _too_high(init, rank, sides)
    if method == "orthogonal" and rank % 2:
        return _odd(rank)
    if method == "loftq":
        return _loftq_fault(config.loftq_config or {})
    return ""


def _loftq_fault(settings: Mapping[str, object]) -> str:
    if missing := [name for name in ("loftq_bits", "loftq_iter") if name not in settings]:
        return f"loftq_config lacks {' and '.join(missing)}, which PEFT reads."
    if settings["loftq_bits"] not in (2, 4, 8):
        return f"loftq_bits={settings['loftq_bits']!r} is neither 4 nor 8."
    count = settings["loftq_iter"]
    if not isinstance(count, int) or count <= 0:
        return f"loftq_iter={count!r} is no positive number."
    return ""


def _embedding_fault(method: str, init: Init, rank: int, sides: tuple[int, int]) -> str:
    if method == "loftq":
        return 'init_lora_weights="loftq" raises for embeddings.'
    return _too_high(init, rank, sides) if method == "mica" and rank > min(sides) else ""


def _too_high(init: Init, rank: int, sides: tuple[int, int]) -> str:
    return f"init_lora_weights={literal(str(init), 200)} takes ranks up to the smaller side, {min(sides)}, not {rank}."


def _odd(rank: int) -> str:
    return f'init_lora_weights="orthogonal" takes even ranks only, not {rank}.'


def _pissa_fault(init: Init) -> str:
    """Of PiSSA's spellings, one is plain and one has a number of iterations."""
    if not isinstance(init, str) or not init.startswith("pissa") or init == "pissa":
        return ""
    parts = init.split(_NITER)
    try:
        count = int(parts[-1]) if len(parts) == 2 else None
    except ValueError:
        count = None
    return "" if count is not None else _unknown(init)


def _unknown(init: Init) -> str:
    return f"init_lora_weights={init!r} is no initialization that PEFT knows."


def _no_method(init: Init, what: str) -> str:
    return f"init_lora_weights={init!r} is no initialization that PEFT knows for {what}."
