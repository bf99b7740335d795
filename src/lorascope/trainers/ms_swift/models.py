"""ms-swift's model types: checkpoint classes and parts.

`data/ms_swift_models.tsv` is the own table of ms-swift 4.6.0, under transformers 5.19, as printed by
`tools/trainer_keys/ms_swift.py models`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.packaged import load_text

# The model itself, which ms-swift writes as an empty path and never finds under it.
_ITSELF = "."


@dataclasses.dataclass(frozen=True, slots=True)
class Towers:
    """Paths of the parts of a model.

    Attributes:
        language: The language model.
        aligner: What joins it with towers.
        vision: The towers, audio's too.
        head: The language model's head; empty for `lm_head`.
    """

    language: tuple[str, ...] = ()
    aligner: tuple[str, ...] = ()
    vision: tuple[str, ...] = ()
    head: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelType:
    """One of ms-swift's model types.

    Attributes:
        name: As `--model_type` takes it.
        multimodal: It counts as a model with towers.
        towers: Where its parts lie; None if ms-swift does not list them.
        task: The task that it is loaded for where the command line names none.
        architectures: Classes of checkpoints that it is for.
    """

    name: str
    multimodal: bool = False
    towers: Towers | None = None
    task: str = ""
    architectures: tuple[str, ...] = ()


@functools.cache
def model_types() -> Mapping[str, ModelType]:
    """Every model type by its name."""
    text = load_text("ms_swift_models.tsv")
    rows = [[*line.split("\t"), *[""] * 6] for line in text.splitlines() if not line.startswith("#")]
    towers = {
        row[1]: Towers(_paths(row[2]), _paths(row[3]), _paths(row[4]), row[5]) for row in rows if row[0] == "towers"
    }
    return {
        row[1]: ModelType(row[1], row[2] == "multimodal", towers.get(row[3]), row[4], tuple(row[5].split()))
        for row in rows
        if row[0] == "model"
    }


def _paths(text: str) -> tuple[str, ...]:
    return tuple(path for path in text.split(" ") if path and path != _ITSELF)


def types_for(architecture: str) -> tuple[ModelType, ...]:
    """The possible model types of a checkpoint class."""
    return tuple(kind for kind in model_types().values() if architecture in kind.architectures)
