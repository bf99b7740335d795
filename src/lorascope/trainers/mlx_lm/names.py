"""mlx-lm's names for the weights of a map.

The table was made by `tools/build_mlx_names.py`, which follows numbers through mlx-lm's own loading, not names.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap, Weight
from lorascope.packaged import load_json

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


@dataclasses.dataclass(frozen=True, slots=True)
class MlxModel:
    """A map as mlx-lm has it.

    Attributes:
        blocks: Name of the list of blocks that `num_layers` counts and that keys are relative to.
        layers: How many blocks there are.
        modules: For each weight that mlx-lm can adapt, the names of its modules that hold it: several where it splits it.
        absent: Weights that no module of mlx-lm that it could adapt holds alone, with the reason.
        sharing: Modules that mlx-lm can adapt all the same, each with the absent weight that it holds.
        others: Patterns of modules that mlx-lm can adapt and the map has no weight for, in some block at least, `#` for a number.
    """

    blocks: str
    layers: int
    modules: Mapping[str, tuple[str, ...]]
    absent: Mapping[str, str]
    sharing: Mapping[str, str]
    others: tuple[str, ...]

    def relative(self, name: str) -> str:
        """A module's name within its block; empty outside of blocks."""
        match = re.match(rf"{re.escape(self.blocks)}\.\d+\.", name)
        return name[match.end() :] if match else ""

    def layer(self, name: str) -> int | None:
        """The block of a module."""
        match = re.match(rf"{re.escape(self.blocks)}\.(\d+)\.", name)
        return int(match.group(1)) if match else None


def mlx_types() -> tuple[str, ...]:
    """The model types whose names are known."""
    return tuple(_table()["types"])


def as_mlx(model: ModelMap) -> MlxModel | None:
    """The map in mlx-lm's names, if known."""
    table = _table()["types"].get(model.model_type)
    if table is None:
        return None
    modules = {weight.name: _filled(table["names"].get(_pattern(weight.name)), weight) for weight in model.weights}
    holders = Counter(name for names in modules.values() for name in names or ())
    absent = dict(_absences(model, modules, holders))
    tied = _tied_heads(model)
    sharing = {module: name for name in absent if name not in tied for module in modules[name] or ()}
    numbers = re.compile(rf"{re.escape(table['blocks'])}\.(\d+)\.")
    layers = {int(match.group(1)) for name in holders if (match := numbers.match(name))}
    return MlxModel(
        blocks=table["blocks"],
        layers=max(layers, default=-1) + 1,
        modules={name: names for name, names in modules.items() if names and name not in absent},
        absent=absent,
        sharing=sharing,
        others=tuple(table["others"]),
    )


def _absences(
    model: ModelMap, modules: Mapping[str, tuple[str, ...] | None], holders: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Weights that mlx-lm cannot adapt, each with the reason."""
    tied = {name.rpartition(".")[0] for group in model.ties for name in group}
    own_head = any(modules[weight.name] for weight in model.weights if weight.role.block == "head")
    tied_heads = _tied_heads(model)
    for name, names in modules.items():
        weight = model.weight_by_name[name]
        is_embedding = weight.kind == "embedding" and weight.role.block == "embedding"
        if name in tied_heads:
            yield name, "shares its weight with the embedding, and mlx-lm has no module of its own for it"
        elif names is None:
            yield name, "is in no module of mlx-lm's model"
        elif not names:
            yield name, "is in modules that mlx-lm has no adapter for, or joined with others"
        elif any(holders[module] > 1 for module in names):
            yield name, f"is joined with others in mlx-lm's {names[0]}"
        elif is_embedding and (name in tied or not own_head):
            yield name, "is mlx-lm's output layer too, so that its adapter would act there as well"


def _tied_heads(model: ModelMap) -> set[str]:
    """Output layers that are the embedding, of which mlx-lm makes no module."""
    tied = {name.rpartition(".")[0] for group in model.ties for name in group}
    return {weight.name for weight in model.weights if weight.role.block == "head" and weight.name in tied}


def _pattern(name: str) -> str:
    return _NUMBER.sub("#", name)


def _filled(patterns: list[str] | None, weight: Weight) -> tuple[str, ...] | None:
    """Patterns with a weight's numbers in place of each `#`."""
    if patterns is None:
        return None
    return tuple(functools.reduce(_put, _NUMBER.findall(weight.name), pattern) for pattern in patterns)


def _put(pattern: str, number: str) -> str:
    return pattern.replace("#", number, 1)


@functools.cache
def _table() -> Any:
    return load_json("mlx_names.json")
