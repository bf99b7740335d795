"""Maps of models under words that mean nothing, so that only shapes and the tree can tell what their weights do."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping

from lorascope.model.classify import classify
from lorascope.model.types import ModelMap, Module, Role, Weight

_KEPT = ("weight", "bias")
_VOWELS, _CONSONANTS = "aiou", "bdfgjlmnrtvz"


def renamed_modules(model: ModelMap, seed: int) -> tuple[list[Module], dict[str, Weight]]:
    """The modules of a map without class names and with one random word for each word of a name.

    Numbers stay, and so do the parameters of PyTorch's own layers.

    Returns:
        The modules, and new weight name to the weight under its own name.
    """
    words: dict[str, str] = {}
    draw = random.Random(seed)

    def rename(name: str) -> str:
        for word in name.split("."):
            if word not in words:
                words[word] = word if word.isdecimal() else "".join(_syllable(draw) for _ in range(4))
        return ".".join(words[word] for word in name.split("."))

    modules = []
    weights = {}
    for module in model.modules:
        own = {name: name if name in _KEPT or module.kind != "other" else rename(name) for name, _ in module.parameters}
        parameters = tuple((own[name], shape) for name, shape in module.parameters)
        modules.append(dataclasses.replace(module, name=rename(module.name), class_name="", parameters=parameters))
        weights.update({f"{module.name}.{name}": f"{rename(module.name)}.{new}" for name, new in own.items()})
    return modules, {weights.get(weight.name, "") or rename(weight.name): weight for weight in model.weights}


def _syllable(draw: random.Random) -> str:
    return draw.choice(_CONSONANTS) + draw.choice(_VOWELS)


def compared_roles(model: ModelMap, seed: int) -> Iterator[tuple[Weight, Role]]:
    """Every weight of a map beside the role that structure alone gives it.

    Bare parameters that hold no matrix by their name are weights under another.
    """
    modules, weights = renamed_modules(model, seed)
    for found in classify(modules):
        if found.name in weights:
            yield weights[found.name], found.role


def side_of(role: Role) -> str:
    """`text` or `tower`."""
    return "text" if role.component == "text" else "tower"


def end_of(role: Role) -> str:
    """`first` for what reads a feed-forward network's input, `last` for what writes its output; else `none`."""
    if role.block != "ffn" or not role.part:
        return "none"
    return "last" if role.part == "down" else "first"


def tally(pairs: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Counts under `true found`."""
    return {f"{true} {found}": count for (true, found), count in sorted(pairs.items())}
