"""PEFT's variants: the layers they fit, and what they add (`tuners/lora/variants.py`).

A configuration may ask for several, and PEFT composes none: more than one raises on every layer. Up to 0.19 each layer
decides in code of its own; only DoRA's rules are known for those releases.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from lorascope.model.storage import parse_storage
from lorascope.model.types import Module
from lorascope.peft_rules import initializations, reasons
from lorascope.peft_rules.diagnostics import Diagnostic
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
    """The variants that a configuration sets, by field name."""
    options = [name for name in _SETTINGS if getattr(config, name) is not None]
    if config.use_dora:
        options.append("use_dora")
    if config.alora_invocation_tokens:
        options.append("alora_invocation_tokens")
    if initializations.freezes_up(config, release):
        options.append("mica")
    return tuple(sorted(options))


def packing_of(module: Module) -> str:
    """The library of a quantized linear layer: `bnb`, `gptq` (AWQ too), or empty."""
    if not module.quantization:
        return "bnb" if module.class_name in _BNB else ""
    scheme = parse_storage(module.quantization).scheme
    if scheme == "bnb" or module.class_name in _BNB:
        return "bnb"
    return "gptq" if scheme in ("gptq", "awq") else ""


def ignored_variant(config: AdapterConfig, module: Module, release: Release) -> str:
    """The variant that PEFT silently ignores on this layer, or empty."""
    names = requested(config, release)
    return names[0] if len(names) == 1 and names[0] in _PASSED_OVER and packing_of(module) == "bnb" else ""


def packed_not_covered(config: AdapterConfig, module: Module, release: Release) -> Diagnostic | None:
    """Why the rules do not cover a packed layer, or None."""
    packing = packing_of(module)
    options = requested(config, release)
    rare = tuple(name for name in options if name not in ("use_dora", "alora_invocation_tokens"))
    if packing == "gptq" and (rare or config.use_qalora):
        return reasons.GPTQ_NOT_COVERED.about(module.name, options=rare or ("use_qalora",))
    if packing == "bnb" and len(options) > 1:
        return reasons.BNB_NOT_COVERED.about(module.name, options=options)
    return None


def refused_option(config: AdapterConfig, release: Release) -> Diagnostic | None:
    """The first option that is too new for a release, or None."""
    defaults = AdapterConfig()
    for name, rule in OPTIONS.items():
        if release < rule.since and getattr(config, name, None) != getattr(defaults, name, None):
            return reasons.OPTION_TOO_NEW.about(option=name, release=".".join(map(str, rule.since)))
    return None


def variants_not_covered(config: AdapterConfig, release: Release) -> Diagnostic | None:
    """The variants that the rules do not cover in a release, or None."""
    rare = tuple(name for name in requested(config, release) if name not in ("use_dora", "mica"))
    return reasons.VARIANTS_NOT_COVERED.about(options=rare) if rare and release < (0, 20) else None


def refused_variants(config: AdapterConfig) -> Diagnostic | None:
    """Why PEFT refuses the variants' own settings, or None."""
    return next(filter(None, _refused_settings(config)), None)


def _refused_settings(config: AdapterConfig) -> Iterable[Diagnostic | None]:
    yield _bdlora_overlap(config.use_bdlora)
    yield _not_positive("velora_config", config.velora_config, ("num_groups", "scale"))
    start = (config.velora_config or {}).get("init_type", "random")
    yield None if start in _VELORA_STARTS else reasons.VELORA_START.about(start=start, known=_VELORA_STARTS)
    for name in ("beta", "gamma"):
        value = (config.kasa_config or {}).get(name, 0)
        good = _number(value) and not value < 0
        yield None if good else reasons.NEGATIVE.about(option="kasa_config", setting=name)
    yield _not_positive("arrow_config", config.arrow_config, ("top_k", "router_temperature"))
    if config.monteclora_config is not None:
        odd = sorted(config.monteclora_config.keys() - _MONTECLORA_NAMES)
        yield reasons.MONTECLORA_SETTING.about(setting=odd[0]) if odd else None
        yield _not_positive("monteclora_config", config.monteclora_config, tuple(_MONTECLORA))
    rho, tau = ((config.eva_config or {}).get(name, 1.0) for name in ("rho", "tau"))
    yield None if _number(rho) and not rho < 1 else reasons.EVA_RHO.about()
    yield None if _number(tau) and not tau < 0 and not tau > 1 else reasons.EVA_TAU.about()


def _bdlora_overlap(settings: Mapping[str, Any] | None) -> Diagnostic | None:
    try:
        both = set(_patterns(settings, "a")) & set(_patterns(settings, "b"))
    except TypeError:
        return reasons.BDLORA_NO_TEXTS.about()
    return reasons.BDLORA_OVERLAP.about(text=sorted(map(str, both))[0]) if both else None


def _not_positive(option: str, settings: Mapping[str, Any] | None, names: Iterable[str]) -> Diagnostic | None:
    for name in names:
        value = (settings or {}).get(name, 1)
        if not _number(value) or value <= 0:
            return reasons.NOT_POSITIVE.about(option=option, setting=name)
    return None


def _number(value: object) -> bool:
    return isinstance(value, int | float)


def refused_variant(
    config: AdapterConfig, release: Release, module: Module, rank: int, features: tuple[int, int]
) -> Diagnostic | None:
    """Why a module does not take the variants, or None."""
    options = requested(config, release)
    if not options:
        return None
    name, option = module.name, options[0]
    if len(options) > 1:
        return reasons.VARIANTS_EXCLUSIVE.about(name, options=options)
    if option == "velora_config" and packing_of(module):
        return reasons.VELORA_QUANTIZED.about(name)
    if ignored_variant(config, module, release):
        return None
    if option not in _KNOWN.get(module.kind, frozenset()):
        return reasons.VARIANT_OF_OTHER_KINDS.about(name, option=option, class_name=module.class_name)
    if option == "arrow_config":
        return reasons.ARROW_ALONE.about(name)
    if option == "kasa_config":
        if module.kind == "conv1d":
            return reasons.KASA_CONV1D.about(name)
        if rank >= min(features):
            return reasons.KASA_RANK.about(name, side=min(features), rank=rank)
    if option == "monteclora_config":
        samples = (config.monteclora_config or {}).get("num_samples", 8)
        return None if type(samples) is int else reasons.MONTECLORA_SAMPLES.about(name)
    if option == "use_bdlora":
        return _refused_bdlora(config.use_bdlora or {}, module, rank, features)
    return None


def _refused_bdlora(
    settings: Mapping[str, Any], module: Module, rank: int, features: tuple[int, int]
) -> Diagnostic | None:
    try:
        factor = _block_factor(settings, module.name)
    except TypeError:
        return reasons.BDLORA_NO_TEXTS.about(module.name)
    if factor == "both":
        return reasons.BDLORA_BOTH.about(module.name)
    if not factor:
        return reasons.BDLORA_NEITHER.about(module.name) if settings.get("match_strict", True) else None
    if module.kind == "conv1d":
        return reasons.BDLORA_CONV1D.about(module.name)
    blocks = settings.get("nblocks", 1)
    length = features[0] if factor == "a" else features[1]
    if type(blocks) is not int or blocks < 1 or length % blocks or rank % blocks:
        return reasons.BDLORA_BLOCKS.about(module.name, rank=rank, length=length, blocks=blocks)
    return None


def _patterns(settings: Mapping[str, Any] | None, side: str) -> Iterable[Any]:
    return (settings or {}).get(f"target_modules_bd_{side}") or ()


def _looked_for(settings: Mapping[str, Any], side: str) -> Substrings:
    return made_once(settings, side, lambda: Substrings(_patterns(settings, side)))


def _block_factor(settings: Mapping[str, Any], name: str) -> str:
    """The factor that BD-LoRA makes block-diagonal: `a`, `b`, `both` or neither."""
    begun = time.perf_counter()
    down, up = (_looked_for(settings, side).within(name) for side in ("a", "b"))
    charge_for(name, "use_bdlora", begun)
    return "both" if down and up else "a" if down else "b" if up else ""


def blocks_of(config: AdapterConfig, module: Module) -> tuple[str, int]:
    """The block-diagonal factor, `a`, `b` or neither, and its blocks."""
    if config.use_bdlora is None or module.kind != "linear" or packing_of(module):
        return "", 1
    return _block_factor(config.use_bdlora, module.name), config.use_bdlora.get("nblocks", 1)


def extra_count(config: AdapterConfig, module: Module, rank: int) -> int:
    """Parameters that a variant adds to both factors, without DoRA's magnitude."""
    if packing_of(module):
        return 0
    if config.kasa_config is not None:
        return rank
    if config.monteclora_config is not None:
        return rank + int(config.monteclora_config.get("num_samples", 8))
    return 0


def refused_parameter_variant(config: AdapterConfig, release: Release, name: str) -> Diagnostic | None:
    """Why the variants do not go with a target parameter, or None."""
    options = requested(config, release)
    return reasons.VARIANT_OF_PARAMETER.about(name, option=options[0]) if options else None
