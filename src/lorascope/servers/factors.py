"""An adapter's file as servers see it: factors, their ranks, other tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.peft_rules.state_dict import PREFIX, SavedTensor
from lorascope.sources.checkpoint.types import Tensor

# The two factors, also with the name of an adapter, as a state dict has it that `save_pretrained` did not write.
_FACTOR = re.compile(r"\.lora_(?:(?P<one>[AB])(?:\.[^.]+)?\.weight|embedding_(?P<two>[AB])(?:\.[^.]+)?)$")


@dataclasses.dataclass(frozen=True, slots=True)
class FileFactors:
    """What an adapter's file holds, sorted by what servers do with it.

    Attributes:
        names: Those of all its tensors.
        at_hand: The file was read; if not, these are the tensors that PEFT would save.
        announced: Tensors that follow from the configuration: factors, biases, saved modules, trained rows.
        ranks: The rank of each pair of factors by its module.
        unlike: Those modules whose rank in the file is not that of the configuration.
        foreign: Those modules that the configuration does not adapt on this model.
        others: The names of tensors that are no factors and do not follow from the configuration: trained base weights.
    """

    names: tuple[str, ...]
    at_hand: bool
    announced: frozenset[str]
    ranks: Mapping[str, int]
    unlike: tuple[str, ...]
    foreign: tuple[str, ...]
    others: tuple[str, ...]


def file_factors(
    tensors: Mapping[str, Tensor | SavedTensor], wanted: Mapping[str, SavedTensor], *, at_hand: bool
) -> FileFactors:
    """The factors of a file, beside what PEFT would save.

    Args:
        tensors: Those of the file by name.
        wanted: Those that PEFT saves with the configuration, by name.
        at_hand: The file was read.
    """
    ranks: dict[str, int] = {}
    unlike: list[str] = []
    foreign: list[str] = []
    for name, tensor in tensors.items():
        match = _FACTOR.search(name)
        if match is None or (match["one"] or match["two"]) != "A" or not tensor.shape:
            continue
        module = name[: match.start()].removeprefix(PREFIX)
        rows = tensor.shape[0]
        place = wanted.get(_plain(name, match))
        if place is None:
            ranks[module] = rows
            foreign.append(module)
            continue
        # The first factor of a stack of experts has as many rows for each of them.
        ranks[module] = rows * place.rank // place.shape[0] if place.shape[0] else rows
        if rows != place.shape[0]:
            unlike.append(module)
    announced = frozenset(name for name, tensor in wanted.items() if tensor.part != "base")
    others = tuple(name for name in tensors if not _FACTOR.search(name) and name not in announced)
    return FileFactors(tuple(tensors), at_hand, announced, ranks, tuple(unlike), tuple(foreign), others)


def _plain(name: str, match: re.Match[str]) -> str:
    """The name that `save_pretrained` gives the factor."""
    stem = name[: match.start()]
    return f"{stem}.lora_{match['one']}.weight" if match["one"] else f"{stem}.lora_embedding_{match['two']}"
