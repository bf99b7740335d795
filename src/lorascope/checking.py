"""What an existing adapter configuration really does on a model, and what its owner should know before training."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lorascope.compiling import NEWEST, weight_of
from lorascope.errors import LorascopeError
from lorascope.folding import fold
from lorascope.peft_rules.reaching import obstacle
from lorascope.records import AdapterConfig, Check, Finding, ModelMap, Resolution, Weight
from lorascope.selecting import own_components
from lorascope.sources.configurations import read_json
from lorascope.verifying import adapter_config, verify

_PLANNED = ("attention", "ffn", "mixer")


def check(
    model: ModelMap, adapter: str | os.PathLike[str] | Mapping[str, Any] | AdapterConfig, *, peft: str = NEWEST
) -> Check:
    """What PEFT does with an adapter's configuration on a model, with findings.

    Args:
        model: The map of the model.
        adapter: A folder with an `adapter_config.json`, such a file, or its content.
        peft: The version of PEFT whose rules to apply.

    Raises:
        LorascopeError: There is no such configuration, or it uses something that the rules do not cover.
    """
    where = "adapter configuration"
    if isinstance(adapter, str | os.PathLike):
        path = Path(adapter)
        file = path / "adapter_config.json" if path.is_dir() else path
        if not file.is_file():
            raise LorascopeError(
                "there is no adapter_config.json", where=str(adapter), hint="Give an adapter's folder, or that file."
            )
        where, data = str(file), read_json(file)
        if not isinstance(data, dict):
            raise LorascopeError(f"holds a {type(data).__name__}, not an object", where=where)
        config = adapter_config(data)
    else:
        config = adapter_config(adapter)
    resolution = verify(model, config, peft=peft)
    return Check(model, where, config, resolution, tuple(_findings(model, resolution, where)), peft=peft)


def _findings(model: ModelMap, resolution: Resolution, where: str) -> Iterator[Finding]:
    if resolution.error:
        yield Finding("refused", "error", where, f"PEFT raises: {resolution.error}", "Start from: lorascope plan")
        return
    names = {weight.name for one in resolution.adapted if (weight := weight_of(model, one.name))}
    hit = [weight for weight in model.weights if weight.name in names]
    blocked = _grouped((weight for weight in hit if obstacle(model, weight)), lambda weight: obstacle(model, weight))
    for warning in resolution.warnings:
        if not any(reason[1:] in warning.message for reason in blocked):  # said below, once for all weights
            fix = "Write what is meant: lorascope plan gives the form."
            yield Finding("peft-behaviour", "warning", where, warning.message, fix)
    for reason, weights in blocked.items():
        places = ", ".join(fold(weight.name for weight in weights))
        yield Finding("dead-or-crashing", "error", places, reason, "Take them out of the targets.")
    own = own_components(model)
    yield from _outside(
        [weight for weight in hit if weight.role.component not in own or weight.role.block not in _PLANNED]
    )
    yield from _left_out(model, hit, own)


def _outside(weights: Iterable[Weight]) -> Iterator[Finding]:
    """Adapted weights that no one means by attention, FFN or mixers of the model itself."""
    for place, group in _grouped(weights, lambda weight: f"{weight.role.component} {weight.role.block}").items():
        yield Finding(
            "outside",
            "warning",
            ", ".join(fold(weight.name for weight in group)),
            f"{len(group)} weights of the {place} are adapted too",
            "Exclude them with exclude_modules if that is not meant.",
        )


def _left_out(model: ModelMap, hit: list[Weight], own: frozenset[str]) -> Iterator[Finding]:
    """Weights that do what adapted ones do, and are not adapted: experts beside a dense FFN, above all."""
    names = {weight.name for weight in hit}
    parts = {(weight.role.block, weight.role.part) for weight in hit if weight.role.component in own}
    pieces = {"gate_up"} if {("ffn", "gate"), ("ffn", "up")} & parts else set()
    missed = [
        weight
        for weight in model.weights
        if weight.name not in names
        and weight.role.component in own
        and weight.role.block in _PLANNED
        and ((weight.role.block, weight.role.part) in parts or weight.role.part in pieces)
    ]
    for block, group in _grouped(missed, lambda weight: weight.role.block).items():
        whole = sum(w.size for w in model.weights if w.role.component in own and w.role.block == block)
        share = sum(weight.size for weight in group) / whole
        yield Finding(
            "left-out",
            "warning",
            ", ".join(fold(weight.name for weight in group)),
            f"{len(group)} weights, {share:.1%} of the {block}, do what adapted ones do and are not adapted",
            f"Plan them: lorascope plan SOURCE {block}",
        )


def _grouped(weights: Iterable[Weight], key: Callable[[Weight], str]) -> dict[str, list[Weight]]:
    groups: dict[str, list[Weight]] = {}
    for weight in weights:
        groups.setdefault(key(weight), []).append(weight)
    return groups
