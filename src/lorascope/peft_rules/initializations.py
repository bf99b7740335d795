"""Initializations: their effect on counts, and the layers they fit (`update_layer`).

Initializations that decompose the base weight (PiSSA, OLoRA, LoftQ) give factors of no more rank than the weight has,
while the layer keeps the rank that was asked for in its scale. MiCA freezes B. Unknown values raise, except on
embeddings, where PEFT does not look at most of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from lorascope.model.types import Module
from lorascope.peft_rules import reasons
from lorascope.peft_rules.diagnostics import Diagnostic
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
    """The initialization that a value names, `default`, or empty if unknown."""
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
    """B does not train: only this spelling of MiCA freezes it."""
    return config.init_lora_weights == "mica" and release >= (0, 20)


def kept_rank(method: str, rank: int, sides: tuple[int, int]) -> int:
    """The rank of a linear layer's factors after initialization."""
    return min(rank, *sides) if method in ("pissa", "olora", "loftq") else rank


def swaps_sides(method: str, module: Module) -> bool:
    """PEFT decomposes a Conv1D's weight as stored, which swaps the factors' sides."""
    return module.kind == "conv1d" and method in ("olora", "loftq")


def refused_initialization(config: AdapterConfig) -> Diagnostic | None:
    """Why LoraConfig refuses the initialization, or None."""
    init = config.init_lora_weights
    if init == "loftq" and not config.loftq_config:
        return reasons.LOFTQ_WITHOUT_CONFIG.about()
    if config.lora_bias and init is not True and init is not False:
        return reasons.BIAS_WITH_INITIALIZATION.about(init=init)
    return None


def refused_module_initialization(
    config: AdapterConfig, release: Release, module: Module, rank: int, features: tuple[int, int]
) -> Diagnostic | None:
    """Why PEFT cannot initialize a module's adapter, or None.

    Args:
        config: The configuration.
        release: PEFT's release.
        module: The module.
        rank: Its rank.
        features: Its input and output features.
    """
    init, name = config.init_lora_weights, module.name
    method = method_of(init, release)
    if module.kind == "embedding":
        if method == "loftq":
            return reasons.LOFTQ_EMBEDDING.about(name)
        return _refused_rank(name, init, rank, features) if method == "mica" else None
    if module.kind == "conv":
        # A convolution knows PEFT's own ones, and LoRA-GA falls back on them.
        known = method in ("default", "lora_ga")
        return None if known else reasons.UNKNOWN_TO_CONVOLUTION.about(name, init=init)
    if not method:
        return reasons.UNKNOWN_INITIALIZATION.about(name, init=init)
    if module.kind == "multihead_attention":
        known = method in ("default", "eva")
        return None if known else reasons.INITIALIZATION_OF_ATTENTION.about(name, init=init)
    if config.use_dora and swaps_sides(method, module) and features[0] != features[1]:
        return reasons.INITIALIZATION_WITH_DORA.about(name, init=init)
    if method == "pissa":
        return _refused_pissa(name, init)
    if method in ("mica", "corda"):
        return _refused_rank(name, init, rank, features)
    if method == "orthogonal" and rank % 2:
        return reasons.ODD_RANK.about(name, rank=rank)
    return _refused_loftq(name, config.loftq_config or {}) if method == "loftq" else None


def refused_parameter_initialization(
    config: AdapterConfig, release: Release, name: str, owner: Module, weight: Shape | None, rank: int
) -> Diagnostic | None:
    """Why PEFT cannot initialize a parameter's adapter, or None.

    Args:
        config: The configuration.
        release: PEFT's release.
        name: The parameter's name.
        owner: The module that has the parameter.
        weight: The shape of that module's `weight`, which PEFT decomposes whatever the parameter is; None without one.
        rank: The parameter's rank.
    """
    init = config.init_lora_weights
    method = method_of(init, release)
    if not method or (method == "mica" and init != "mica"):
        return reasons.UNKNOWN_INITIALIZATION.about(name, init=init)
    if method in ("default", "eva"):
        return None
    if method in ("loftq", "mica", "corda"):
        return reasons.INITIALIZATION_OF_PARAMETER.about(name, init=init)
    if weight is None:
        return reasons.INITIALIZATION_WITHOUT_WEIGHT.about(name, init=init, class_name=owner.class_name)
    if method in ("pissa", "olora") and len(weight) < 2:
        return reasons.INITIALIZATION_OF_VECTOR.about(name, init=init)
    if method == "orthogonal" and rank % 2:
        return reasons.ODD_RANK.about(name, rank=rank)
    return _refused_pissa(name, init)


def refused_packed_initialization(name: str, init: Init, release: Release, packing: str) -> Diagnostic | None:
    """Why PEFT cannot initialize a quantized layer's adapter (`bnb`, `gptq`), or None."""
    method = method_of(init, release)
    if method in _OF_NUMBERS or (packing == "gptq" and method in ("olora", "lora_ga")):
        return reasons.INITIALIZATION_PACKED.about(name, init=init)
    return None


def _refused_loftq(name: str, settings: Mapping[str, object]) -> Diagnostic | None:
    if missing := tuple(setting for setting in ("loftq_bits", "loftq_iter") if setting not in settings):
        return reasons.LOFTQ_MISSING.about(name, settings=missing)
    if settings["loftq_bits"] not in (2, 4, 8):
        return reasons.LOFTQ_BITS.about(name, bits=settings["loftq_bits"])
    count = settings["loftq_iter"]
    if not isinstance(count, int) or count <= 0:
        return reasons.LOFTQ_ITERATIONS.about(name, count=count)
    return None


def _refused_rank(name: str, init: Init, rank: int, features: tuple[int, int]) -> Diagnostic | None:
    side = min(features)
    return reasons.INITIALIZATION_RANK.about(name, init=init, side=side, rank=rank) if rank > side else None


def _refused_pissa(name: str, init: Init) -> Diagnostic | None:
    """PiSSA is spelled plain, or with a number of iterations."""
    if not isinstance(init, str) or not init.startswith("pissa") or init == "pissa":
        return None
    parts = init.split(_NITER)
    try:
        count = int(parts[-1]) if len(parts) == 2 else None
    except ValueError:
        count = None
    return None if count is not None else reasons.UNKNOWN_INITIALIZATION.about(name, init=init)
