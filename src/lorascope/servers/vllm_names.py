"""Fate of an adapter's tensors in vLLM: taken, dropped or refused.

Restates vLLM 0.33.0, lora/lora_model.py (`check_unexpected_modules`), lora/utils.py (`parse_fine_tuned_lora_name`),
lora/model_manager.py (`_create_merged_loras_inplace`) and model_executor/models/utils.py (`WeightsMapper`). Every fate is
compared in the tests with what that code did with saved adapters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from lorascope import light_dataclasses as dataclasses

# taken: a module of the language model gets it; tower: one of a tower does if it is told to; fused: one of a fused expert
# weight whose experts are served as such; apart: the same where experts are served one by one; dropped: no module asks
# for it; refused: vLLM raises.
Fate = Literal["taken", "tower", "fused", "apart", "dropped", "refused"]

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_BASE_EMBEDDINGS = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
_FACTOR = re.compile(r"\.lora_(?:[AB]\.weight|embedding_[AB])$")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Fate of the two factors of one weight.

    Attributes:
        name: Its name in the adapter, without `base_model.model.`
        place: Its name in vLLM's model, numbers as `*`.
        fate: See `Fate`.
    """

    name: str
    place: str
    fate: Fate


def vllm_places(tensors: Iterable[str], row: Mapping[str, Any]) -> tuple[Place, ...]:
    """Fate of every pair of factors.

    Args:
        tensors: Names of a saved adapter's tensors; those that are no factors of LoRA are passed over.
        row: What is recorded of the architecture.
    """
    packed: Mapping[str, list[str]] = row.get("packed", {})
    expected = {part for module in row["supported"] for part in packed.get(module, [module])}
    if "experts" in row["supported"]:
        expected.add("experts")
    modules, towers = frozenset(row["modules"]), frozenset(row.get("towers", ()))
    places: dict[str, Place] = {}
    for tensor in tensors:
        if not _FACTOR.search(tensor):
            continue
        bare = tensor.removeprefix("base_model.model.")
        numbered = _FACTOR.sub("", _renamed(bare, row.get("mapper", {})))
        place = _NUMBER.sub("*", numbered)
        name = _FACTOR.sub("", bare)
        fate: Fate = "dropped"
        if _unexpected(tensor, numbered, expected):
            fate = "refused"
        elif place.removesuffix(".base_layer").endswith(".experts"):
            if place.removesuffix(".base_layer") in modules:
                fate = "fused" if row.get("three_d") else "apart"
        elif _held(place, modules, packed):
            fate = "taken"
        elif _held(place, towers, packed):
            fate = "tower"
        places[name] = Place(name, place, fate)
    return tuple(places.values())


def is_readable(tensor: str, rules: Mapping[str, Any]) -> bool:
    """The release can read or passes over a tensor of this name; at others it raises.

    Restates `parse_fine_tuned_lora_name` and `is_base_embedding_weights` (lora/utils.py).

    Args:
        tensor: Its name in the adapter's file.
        rules: Of the release.
    """
    if _FACTOR.search(tensor):
        return True
    if rules["skips_base_embeddings"] and tensor.endswith(_BASE_EMBEDDINGS):
        return True
    if rules["bias_flag"] and tensor.endswith(".bias"):
        return True
    parts = tensor.rsplit(".", 2)
    return len(parts) > 1 and parts[-2] in rules["saved"] and parts[-1] in ("weight", "bias")


def _unexpected(tensor: str, numbered: str, expected: set[str]) -> bool:
    if "base_layer" in tensor:
        return False
    start = numbered.find(".experts")
    if start >= 0:
        return _NUMBER.sub("*", numbered[start + 1 :]) not in expected
    return numbered.rpartition(".")[2] not in expected


def _held(place: str, modules: frozenset[str], packed: Mapping[str, list[str]]) -> bool:
    """A module has this name, or holds it packed."""
    if place in modules:
        return True
    for module, parts in packed.items():
        for part in parts:
            if place == part or place.endswith(f".{part}"):
                whole = place[: len(place) - len(part)] + module
                if whole in modules:
                    return True
    return False


def _renamed(name: str, mapper: Mapping[str, Mapping[str, str]]) -> str:
    """The name after the class's mapper, in vLLM's order."""
    for pattern, new in mapper.get("orig_to_new_regex", {}).items():
        # The same words, found without trying every way to cut a long name into pieces.
        name = re.sub(pattern.replace(r"(.+\.)*", r"(.+\.)?"), new, name)
    for part, new in mapper.get("orig_to_new_substr", {}).items():
        name = name.replace(part, new, 1)
    for prefix, new in mapper.get("orig_to_new_prefix", {}).items():
        if name.startswith(prefix):
            name = new + name[len(prefix) :]
    for suffix, new in mapper.get("orig_to_new_suffix", {}).items():
        if name.endswith(suffix):
            name = name[: len(name) - len(suffix)] + new
    return name
