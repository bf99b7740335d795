"""PEFT's variants of an adapter: which kinds of layers take which, and what they add to it (`tuners/lora/variants.py`).

A configuration may ask for several, and PEFT composes none: more than one raises on every layer. Up to 0.19 each layer
decides in code of its own; only DoRA's rules are told for those releases.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from lorascope.model.types import Module
from lorascope.peft_rules import initializations
from lorascope.peft_rules.matchers import Substrings
from lorascope.peft_rules.name_patterns import charge_for, made_once
from lorascope.peft_rules.options import OPTIONS
from lorascope.peft_rules.releases import Release
from lorascope.peft_rules.types import AdapterConfig

_SETTINGS = ("use_bdlora", "velora_config", "kasa_config", "arrow_config", "monteclora_config")
_LINEAR = frozenset(
    {
        "use_dora",
        "arrow_config",
        "use_bdlora",
        "alora_invocation_tokens",
        "velora_config",
        "monteclora_config",
        "mica",
        "kasa_config",
    }
)
# Kind of module -> the variants that its adapter knows.
_KNOWN: Mapping[str, frozenset[str]] = {
    "linear": _LINEAR,
    "conv1d": _LINEAR,
    "embedding": frozenset({"use_dora", "mica"}),
    "conv": frozenset({"use_dora"}),
    "multihead_attention": frozenset(),
}
_MONTECLORA: Mapping[str, Any] = {"num_samples": 8, "dirichlet_prior": 0.1, "buffer_size": 150}
_MONTECLORA_NAMES = frozenset({*_MONTECLORA, "use_entropy", "sample_scaler", "kl_loss_weight"})
# Classes of bitsandbytes, and the variants that PEFT's adapters for them do not know and do not refuse.
_BNB = ("Linear4bit", "Linear8bitLt")
_PASSED_OVER = ("kasa_config", "monteclora_config", "use_bdlora")
_VELORA_STARTS = ("batch_average_once", "batch_average", "random")


def requested(config: AdapterConfig, release: Release) -> tuple[str, ...]:
    """The variants that a configuration asks for, by the names of their fields."""
    found = [name for name in _SETTINGS if getattr(config, name) is not None]
    if config.use_dora:
        found.append("use_dora")
    if config.alora_invocation_tokens:
        found.append("alora_invocation_tokens")
    if initializations.freezes_up(config, release):
        found.append("mica")
    return tuple(sorted(found))


def packing_of(module: Module) -> str:
    """Whose layer PEFT finds in place of a linear one: `bnb`, `gptq` (AWQ too), or empty for PyTorch's own."""
    if module.quantization.startswith("bnb") or module.class_name in _BNB:
        return "bnb"
    return "gptq" if module.quantization.startswith(("gptq", "awq")) else ""


def ignored(config: AdapterConfig, module: Module, release: Release) -> str:
    """The variant that PEFT passes over without a word on this layer, or empty."""
    names = requested(config, release)
    return names[0] if len(names) == 1 and names[0] in _PASSED_OVER and packing_of(module) == "bnb" else ""


def packed_uncovered(config: AdapterConfig, module: Module, release: Release) -> str:
    """Why the rules do not cover what is asked of a packed layer, or empty."""
    packing = packing_of(module)
    rare = [name for name in requested(config, release) if name not in ("use_dora", "alora_invocation_tokens")]
    if packing == "gptq" and (rare or config.use_qalora):
        return f'{" and ".join(rare or ["use_qalora"])} on "{module.name}", a layer of GPTQModel.'
    if packing == "bnb" and len(requested(config, release)) > 1:
        return f'{" and ".join(requested(config, release))} on "{module.name}", a layer of bitsandbytes.'
    return ""


def release_fault(config: AdapterConfig, release: Release) -> str:
    """The fields that are set and that a release does not have, in a sentence; empty if there are none."""
    defaults = AdapterConfig()
    for name, rule in OPTIONS.items():
        if release < rule.since and getattr(config, name, None) != getattr(defaults, name, None):
            first = ".".join(map(str, rule.since))
            return f"PEFT before {first} has no {name}: as an argument it raises, from a file it is dropped."
    return ""


def uncovered(config: AdapterConfig, release: Release) -> str:
    """Why the rules do not cover the variants that a configuration asks for under a release, or empty."""
    rare = [name for name in requested(config, release) if name not in ("use_dora", "mica")]
    if rare and release < (0, 20):
        return f"{' and '.join(rare)} is covered by the rules of PEFT 0.20 and later only."
    return ""


def variant_settings_fault(config: AdapterConfig) -> str:
    """Why PEFT refuses the settings of variants and initializations by themselves, or empty."""
    return next(filter(None, _faults(config)), "")


def _faults(config: AdapterConfig) -> Iterable[str]:
    yield _bdlora_overlap(config.use_bdlora)
    yield _positive("velora_config", config.velora_config, ("num_groups", "scale"))
    start = (config.velora_config or {}).get("init_type", "random")
    yield (
        "" if start in _VELORA_STARTS else f"velora_config: init_type {start!r} is none of {', '.join(_VELORA_STARTS)}."
    )
    for name in ("beta", "gamma"):
        value = (config.kasa_config or {}).get(name, 0)
        yield "" if _number(value) and not value < 0 else f"kasa_config: {name} must not be negative."
    yield _positive("arrow_config", config.arrow_config, ("top_k", "router_temperature"))
    if config.monteclora_config is not None:
        odd = sorted(config.monteclora_config.keys() - _MONTECLORA_NAMES)
        yield f"monteclora_config has no setting {odd[0]!r}." if odd else ""
        yield _positive("monteclora_config", config.monteclora_config, tuple(_MONTECLORA))
    rho, tau = ((config.eva_config or {}).get(name, 1.0) for name in ("rho", "tau"))
    yield "" if _number(rho) and not rho < 1 else "eva_config: rho must be 1 or more."
    yield "" if _number(tau) and not tau < 0 and not tau > 1 else "eva_config: tau must be from 0 to 1."


def _bdlora_overlap(settings: Mapping[str, Any] | None) -> str:
    try:
        both = set(_patterns(settings, "a")) & set(_patterns(settings, "b"))
    except TypeError:
        return "use_bdlora: target_modules_bd_a and target_modules_bd_b must be lists of texts."
    return f"use_bdlora names {sorted(map(str, both))[0]!r} for both A and B." if both else ""


def _positive(field: str, settings: Mapping[str, Any] | None, names: Iterable[str]) -> str:
    for name in names:
        value = (settings or {}).get(name, 1)
        if not _number(value) or value <= 0:
            return f"{field}: {name} must be more than 0."
    return ""


def _number(value: object) -> bool:
    return isinstance(value, int | float)


def variant_fault(config: AdapterConfig, release: Release, module: Module, rank: int, sides: tuple[int, int]) -> str:
    """Why a module does not take the variants that are asked for, or empty."""
    names = requested(config, release)
    if not names:
        return ""
    if len(names) > 1:
        return f"{' and '.join(names)} exclude each other."
    name = names[0]
    if name == "velora_config" and packing_of(module):
        return "velora_config does not go with a quantized layer."
    if ignored(config, module, release):
        return ""
    if name not in _KNOWN.get(module.kind, frozenset()):
        return f"{name} does not go with a {module.class_name}."
    if name == "arrow_config":
        return "arrow_config raises in get_peft_model: peft.create_arrow_model alone makes such adapters."
    if name == "kasa_config":
        if module.kind == "conv1d":
            return "kasa_config does not go with a Conv1D."
        if rank >= min(sides):
            return f"kasa_config takes ranks below the smaller side, {min(sides)}, not {rank}."
    if name == "monteclora_config":
        samples = (config.monteclora_config or {}).get("num_samples", 8)
        return "" if type(samples) is int else "monteclora_config: num_samples must be a whole number."
    if name == "use_bdlora":
        return _bdlora_fault(config.use_bdlora or {}, module, rank, sides)
    return ""


def _bdlora_fault(settings: Mapping[str, Any], module: Module, rank: int, sides: tuple[int, int]) -> str:
    try:
        side = _block_side(settings, module.name)
    except TypeError:
        return "use_bdlora: target_modules_bd_a and target_modules_bd_b must be lists of texts."
    if side == "both":
        return f'use_bdlora: "{module.name}" matches both A and B.'
    if not side:
        strict = settings.get("match_strict", True)
        return (
            f'use_bdlora: "{module.name}" matches neither A nor B, which match_strict=False allows.' if strict else ""
        )
    if module.kind == "conv1d":
        return "use_bdlora does not go with a Conv1D."
    blocks = settings.get("nblocks", 1)
    length = sides[0] if side == "a" else sides[1]
    if type(blocks) is not int or blocks < 1 or length % blocks or rank % blocks:
        return f"use_bdlora: the rank {rank} and the side {length} must be multiples of nblocks={blocks!r}."
    return ""


def _patterns(settings: Mapping[str, Any] | None, side: str) -> Iterable[Any]:
    return (settings or {}).get(f"target_modules_bd_{side}") or ()


def _looked_for(settings: Mapping[str, Any], side: str) -> Substrings:
    return made_once(settings, side, lambda: Substrings(_patterns(settings, side)))


def _block_side(settings: Mapping[str, Any], name: str) -> str:
    """Which factor of a module BD-LoRA makes block-diagonal: `a`, `b`, `both` or neither. Patterns are parts of the name."""
    begun = time.perf_counter()
    down, up = (_looked_for(settings, side).within(name) for side in ("a", "b"))
    charge_for(name, "use_bdlora", begun)
    return "both" if down and up else "a" if down else "b" if up else ""


def blocks_of(config: AdapterConfig, module: Module) -> tuple[str, int]:
    """The factor of a module that is block-diagonal, `a`, `b` or neither, and its number of blocks."""
    if config.use_bdlora is None or module.kind != "linear" or packing_of(module):
        return "", 1
    return _block_side(config.use_bdlora, module.name), config.use_bdlora.get("nblocks", 1)


def extra_count(config: AdapterConfig, module: Module, rank: int) -> int:
    """What a variant trains of a linear layer beside both factors; DoRA's magnitude is counted where the sides are."""
    if packing_of(module):
        return 0
    if config.kasa_config is not None:
        return rank
    if config.monteclora_config is not None:
        return rank + int(config.monteclora_config.get("num_samples", 8))
    return 0


def variant_parameter_fault(config: AdapterConfig, release: Release) -> str:
    """Why the variants that are asked for do not go with target parameters, or empty."""
    names = requested(config, release)
    return f"{names[0]} does not go with target_parameters." if names else ""
