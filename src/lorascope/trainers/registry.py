"""Every trainer by its name, and which of them a file or command line is for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lorascope.errors import LorascopeError, did_you_mean
from lorascope.foreign_text import quoted
from lorascope.trainers.axolotl import Axolotl
from lorascope.trainers.llamafactory import LlamaFactory
from lorascope.trainers.mlx_lm import MlxLm
from lorascope.trainers.ms_swift import MsSwift
from lorascope.trainers.peft_files import PeftFile, PeftPython
from lorascope.trainers.protocol import Trainer
from lorascope.trainers.torchtune import Torchtune
from lorascope.trainers.trl import Trl
from lorascope.trainers.unsloth import Unsloth

TRAINERS: Mapping[str, Trainer] = {
    trainer.name: trainer
    for trainer in (
        PeftFile(),
        PeftPython(),
        Axolotl(),
        LlamaFactory(),
        Trl(),
        MsSwift(),
        Unsloth(),
        MlxLm(),
        Torchtune(),
    )
}


def trainer_called(name: str) -> Trainer:
    """The trainer of a name.

    Raises:
        LorascopeError: There is none.
    """
    if not isinstance(name, str) or name not in TRAINERS:
        hint = (did_you_mean(name, TRAINERS) if isinstance(name, str) else "") or f"They are {', '.join(TRAINERS)}."
        raise LorascopeError(f"{quoted(name)} is no trainer that is known here", hint=hint)
    return TRAINERS[name]


def trainers_marked(keys: Collection[str]) -> list[Trainer]:
    """The trainers that a configuration with these keys can be for: those that most of their own marks speak for."""
    counts = {trainer.name: len(trainer.marks & set(keys)) for trainer in TRAINERS.values()}
    most = max(counts.values())
    return [TRAINERS[name] for name, count in counts.items() if count == most > 0]
