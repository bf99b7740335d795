"""mlx-lm's options for adapters: lora.py, 0.32.2."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lorascope.foreign_text import quoted
from lorascope.trainers.options import Option, Schema, ValueType
from lorascope.trainers.values import yaml_values as value

TITLE = "mlx-lm"
RELEASE = "0.32.2"
# Numbers that YAML 1.1 reads as strings, and that mlx-lm's own loader reads as numbers.
_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+")
# Whole numbers from here on have no place in a configuration.
_TOO_LARGE = 2**63


def _whole(given: Any) -> int:
    if not value.is_whole(given) or abs(given) >= _TOO_LARGE:
        raise ValueError
    return int(given)


def _positive(given: Any) -> int:
    if _whole(given) <= 0:
        raise ValueError
    return int(given)


def _number(given: Any) -> float:
    if isinstance(given, float) and math.isfinite(given):
        return given
    return _whole(given)


def _fraction(given: Any) -> float:
    if not 0 <= _number(given) < 1:
        raise ValueError
    return float(given)


SCHEMA = Schema(
    Option("fine_tune_type", value.TEXT, default="lora", nullable=True, choices=("lora", "dora", "full")),
    Option("num_layers", ValueType("a whole number", _whole), default=16, nullable=True),
)
# Below `lora_parameters`; if a file has that key, none of its defaults hold.
PARAMETERS = Schema(
    Option("rank", ValueType("a whole number above 0", _positive), default=8),
    Option("dropout", ValueType("a number from 0 to below 1", _fraction), default=0.0),
    Option("scale", ValueType("a number", _number), default=20.0),
    Option("keys", value.TEXTS, nullable=True),
)


def mlx_settings(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """All keys as mlx-lm's loader reads them, and faults."""
    settings = {key: _loaded(given) for key, given in data.items()}
    _, faults = SCHEMA.read(settings)
    parameters = settings.get("lora_parameters")
    if isinstance(parameters, Mapping):
        settings["lora_parameters"] = {key: _loaded(given) for key, given in parameters.items()}
    if settings.get("fine_tune_type") != "full":
        faults += _parameter_faults(settings.get("lora_parameters"))
    return settings, faults


def _loaded(given: Any) -> Any:
    is_number = isinstance(given, str) and _EXPONENT.fullmatch(given)
    return float(given.replace("_", "")) if is_number else given


def _parameter_faults(parameters: Any) -> Iterator[str]:
    if parameters is None:
        return
    if not isinstance(parameters, Mapping):
        yield f"lora_parameters is {quoted(parameters)}, not keys with values"
        return
    missing = [key for key, default in PARAMETERS.defaults.items() if default is not None and key not in parameters]
    if missing:
        hint = "; its scale is alpha / rank" if "scale" in missing and "alpha" in parameters else ""
        yield f"lora_parameters has no {' and no '.join(missing)}, and mlx-lm has no default for it there{hint}"
    yield from PARAMETERS.read(parameters)[1]
