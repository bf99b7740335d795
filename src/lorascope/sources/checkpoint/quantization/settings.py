"""Quantization settings of a checkpoint, wherever it states them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.sources.checkpoint.types import Checkpoint
from lorascope.sources.files.json_files import read_object

_KEYS = ("quantization_config", "compression_config")
_MLX = "quantization"
_MODELOPT = "hf_quant_config.json"
_MOST_BYTES = 2**20
# Every weight is compared with each of them, so there is an end.
_MOST_NUMBERS = 16
_MOST_SCHEMES = 64
_HINT = "Compare it with the repository that the checkpoint comes from."


@dataclasses.dataclass(frozen=True, eq=False)
class Settings:
    """How a checkpoint is quantized, by its own account.

    Two are equal only if they are the same, so that what is worked out of one is remembered.

    Attributes:
        method: The name of the method as transformers knows it, in small letters; empty where nothing says so.
        values: Everything else that is said.
        where: Which file and key say it.
        maker: Whose word comes before the method's: AutoRound writes the layouts of others, and is loaded in its own way.
    """

    method: str = ""
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    where: str = ""
    maker: str = ""

    def numbers(self, *keys: str) -> tuple[int, ...]:
        """Values of the first present key, overrides for single modules included.

        `dynamic` is GPTQModel's key for overrides, `extra_config` AutoRound's.

        Raises:
            LorascopeError: One is no whole number, or there are more than `_MOST_NUMBERS` different ones.
        """
        return _numbers(self, keys)

    def schemes(self) -> tuple[Mapping[str, Any], ...]:
        """Weight schemes of each group of modules, as in compressed-tensors.

        Raises:
            LorascopeError: There are more than `_MOST_SCHEMES`.
        """
        return _schemes(self)


@functools.lru_cache(maxsize=64)
def _schemes(settings: Settings) -> tuple[Mapping[str, Any], ...]:
    groups = settings.values.get("config_groups")
    tables = (
        [group.get("weights") for group in groups.values() if isinstance(group, dict)]
        if isinstance(groups, dict)
        else []
    )
    if len(tables) > _MOST_SCHEMES:
        raise LorascopeError(f"config_groups has {len(tables)} groups", where=settings.where, hint=_HINT)
    return tuple(weights for weights in tables if isinstance(weights, dict))


@functools.lru_cache(maxsize=64)
def _numbers(settings: Settings, keys: tuple[str, ...]) -> tuple[int, ...]:
    values: list[int] = []
    overrides = [settings.values.get(key) for key in ("dynamic", "extra_config")]
    inner = [item for table in overrides if isinstance(table, dict) for item in table.values()]
    for place in (settings.values, *(item for item in inner if isinstance(item, dict))):
        given = [place[key] for key in keys if place.get(key) is not None]
        if given and type(given[0]) is not int:
            raise LorascopeError(
                f"{keys[0]} is {quoted(given[0])}, not a whole number", where=settings.where, hint=_HINT
            )
        values += given[:1]
    numbers = tuple(dict.fromkeys(values))
    if len(numbers) > _MOST_NUMBERS:
        raise LorascopeError(f"{keys[0]} has {len(numbers)} different values", where=settings.where, hint=_HINT)
    return numbers


def read_settings(checkpoint: Checkpoint) -> Settings:
    """Read the quantization of a checkpoint.

    In `config.json` the whole model's word counts before the text model's (`text_config`), and that before any other
    part's, as transformers has it.

    Raises:
        LorascopeError: What it says is no object, names no method, or is not JSON.
    """
    config = checkpoint.config
    parts = {"": config, "text_config.": config.get("text_config")}
    parts |= {f"{key}.": value for key, value in config.items() if key != "text_config"}
    for prefix, part in parts.items():
        for key in _KEYS:
            if isinstance(part, Mapping) and part.get(key):
                return _settings(part[key], key, f"config.json: {prefix}{key}")
    if _is_of_mlx(config.get(_MLX)):  # which older releases of mlx-lm wrote alone
        return Settings("mlx", config[_MLX], f"config.json: {_MLX}")
    if _MODELOPT in checkpoint.files.names:
        values = read_object(checkpoint.files, _MODELOPT, _MOST_BYTES, _HINT, where=_MODELOPT).get("quantization")
        if not isinstance(values, dict):
            raise LorascopeError(f"has {quoted(values)} for quantization, not an object", where=_MODELOPT, hint=_HINT)
        return Settings("modelopt", values, _MODELOPT) if values.get("quant_algo") else Settings()
    return Settings()


def _settings(values: object, key: str, where: str) -> Settings:
    if not isinstance(values, Mapping):
        raise LorascopeError(f"is {quoted(values)}, not an object", where=where, hint=_HINT)
    method = values.get("quant_method") or values.get("method")  # the latter is GPTQModel's
    if not method and key == "compression_config":
        method = "compressed-tensors"
    if values.get("load_in_4bit") or values.get("load_in_8bit"):
        method = "bitsandbytes"
    if not method and values.get("quant_algo"):
        method = "modelopt"
    if not method and _is_of_mlx(values):
        method = "mlx"
    if not isinstance(method, str) or not method:
        raise LorascopeError(f"has {quoted(method)} for quant_method, not a name", where=where, hint=_HINT)
    name = method.lower().removeprefix("intel/")
    if name == "auto-round":
        return Settings(_packing_of_auto_round(values), values, where, "auto-round ")
    return Settings(name, values, where)


def _is_of_mlx(values: object) -> bool:
    """MLX names no method: bits and group size, and a mode since 0.29."""
    return isinstance(values, Mapping) and all(type(values.get(key)) is int for key in ("bits", "group_size"))


def _packing_of_auto_round(values: Mapping[str, Any]) -> str:
    """AutoRound writes the layouts of others and says whose: `auto_round:auto_gptq`, `auto_round:awq`."""
    packing = str(values.get("packing_format") or values.get("backend") or "").lower()
    return next((name for name in ("gptq", "awq") if name in packing), "auto-round")
