"""PEFT with Unsloth's changes to it.

Restated from Unsloth 2026.10.9: import_fixes.py (`_patch_peft_moe_target_conversion`), and models/vision.py for the layers
that Gemma 4 wraps.
"""

from __future__ import annotations

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.matchers import ALL_LINEAR
from lorascope.peft_rules.modules_to_save import names_before_matching
from lorascope.peft_rules.moe_rewrite import converted_targets
from lorascope.peft_rules.name_patterns import compiled
from lorascope.peft_rules.releases import NEWEST, release_of
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import Adapted, AdapterConfig, Resolution

_CLIPPABLE = "Gemma4ClippableLinear"
# The names that PEFT's rewrite takes, of all its patterns.
_OLD_NAMES = frozenset(("gate", "w1", "w2", "w3", "gate_proj", "up_proj", "down_proj"))


def resolve_under_unsloth(model: ModelMap, config: AdapterConfig) -> Resolution:
    """Apply PEFT's rules with Unsloth's changes.

    Raises:
        BadPatternError: Targets are no regular expression.
    """
    if model.model_type == "qwen2_moe" and not model.moe_conversion:
        model = dataclasses.replace(model, moe_conversion="qwen2_moe")
    if model.moe_conversion:
        config, refusal = _converted(model, config)
        if refusal is not None:
            return Resolution(refusal=refusal)
        model = dataclasses.replace(model, moe_conversion="")
    wrapped = {module.name for module in model.modules if module.class_name == _CLIPPABLE}
    if not wrapped:
        return resolve(model, config, NEWEST)
    inner = model.module_by_name
    modules = tuple(
        dataclasses.replace(inner[f"{module.name}.linear"], name=module.name) if module.name in wrapped else module
        for module in model.modules
    )
    resolution = resolve(dataclasses.replace(model, modules=modules), config, NEWEST)
    unwrapped: dict[str, Adapted] = {}
    for adapted in resolution.adapted:
        name = f"{adapted.name}.linear" if adapted.name in wrapped else adapted.name
        unwrapped.setdefault(name, dataclasses.replace(adapted, name=name))
    twice = sum(a.trainable for a in resolution.adapted) - sum(a.trainable for a in unwrapped.values())
    weights = tuple(sorted(unwrapped.values(), key=lambda adapted: adapted.name))
    return dataclasses.replace(resolution, adapted=weights, trainable=resolution.trainable - twice)


def _converted(model: ModelMap, config: AdapterConfig) -> tuple[AdapterConfig, Diagnostic | None]:
    """PEFT's rewrite as Unsloth has it: import_fixes.py, `_patch_peft_moe_target_conversion`.

    It keeps PEFT from rewriting wherever parameters are given, and names with dots; and it puts linear layers back
    whose names were rewritten.
    """
    given = config.target_modules
    if config.target_parameters or (isinstance(given, str) and "." in given):
        return config, None
    dotted: tuple[str, ...] = ()
    rewritten = config
    if isinstance(given, tuple):
        dotted = tuple(name for name in given if "." in name)
        bare = tuple(name for name in given if "." not in name)
        if dotted and not bare:
            return config, None
        rewritten = dataclasses.replace(config, target_modules=bare)
    saved = names_before_matching(config.modules_to_save, config.task_type)
    targets = converted_targets(model, rewritten, saved, release_of(NEWEST))
    if targets.refusal is not None:
        return config, targets.refusal
    if isinstance(targets.modules, str):
        return config, None
    after = frozenset(targets.modules or ()) | frozenset(dotted)
    parameters = targets.parameters or frozenset()
    restored = _restored(model, given, after, parameters)
    return (
        dataclasses.replace(
            config,
            target_modules=tuple(sorted(after | restored)),
            target_parameters=tuple(sorted(parameters)),
            rank_pattern=targets.rank_pattern,
            alpha_pattern=targets.alpha_pattern,
        ),
        None,
    )


def _restored(
    model: ModelMap, given: str | tuple[str, ...] | None, after: frozenset[str], parameters: frozenset[str]
) -> set[str]:
    """Targets that the rewrite took and that name linear layers (`_moe_linear_targets_to_restore`)."""
    if given is None:
        return set()
    if isinstance(given, str):
        candidates = set()
        for module in model.modules:
            leaf = module.name.rpartition(".")[2]
            if leaf not in _OLD_NAMES or leaf in after or not _looks_linear(module.kind, module.class_name):
                continue
            if module.name == model.output_embeddings:
                continue
            if given.lower() == ALL_LINEAR:
                candidates.add(leaf)
            elif compiled(given).fullmatch(module.name):
                candidates.add(module.name)
    else:
        candidates = set(given) - after
    restored: set[str] = set()
    for target in candidates:
        matches = [m for m in model.modules if m.name == target or m.name.endswith(f".{target}")]
        linear = [
            m.name
            for m in matches
            if _looks_linear(m.kind, m.class_name)
            and not any(f".{m.name}.weight".endswith(f".{parameter}") for parameter in parameters)
        ]
        if linear:
            restored |= {target} if len(linear) == len(matches) else set(linear)
    return restored


def _looks_linear(kind: str, class_name: str) -> bool:
    return kind == "linear" or (kind not in ("embedding", "conv") and "Linear" in class_name)
