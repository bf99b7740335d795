"""All trainers, by name and by keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lorascope.errors import LorascopeError, did_you_mean
from lorascope.foreign_text import quoted
from lorascope.trainers.axolotl.trainer import AXOLOTL
from lorascope.trainers.llamafactory.trainer import LLAMAFACTORY
from lorascope.trainers.mlx_lm.trainer import MLX_LM
from lorascope.trainers.ms_swift.trainer import MS_SWIFT
from lorascope.trainers.peft.trainer import PEFT, PEFT_PYTHON
from lorascope.trainers.protocol import Trainer
from lorascope.trainers.torchtune.trainer import TORCHTUNE
from lorascope.trainers.trl.trainer import TRL
from lorascope.trainers.unsloth.trainer import UNSLOTH

TRAINERS: Mapping[str, Trainer] = {
    trainer.name: trainer
    for trainer in (PEFT, PEFT_PYTHON, AXOLOTL, LLAMAFACTORY, TRL, MS_SWIFT, UNSLOTH, MLX_LM, TORCHTUNE)
}


def trainer_called(name: str) -> Trainer:
    """The trainer of a name.

    Raises:
        LorascopeError: Unknown name.
    """
    if not isinstance(name, str) or name not in TRAINERS:
        hint = (did_you_mean(name, TRAINERS) if isinstance(name, str) else "") or f"They are {', '.join(TRAINERS)}."
        raise LorascopeError(f"unknown trainer {quoted(name)}", hint=hint)
    return TRAINERS[name]


def trainers_marked(keys: Collection[str]) -> list[Trainer]:
    """The trainers with the most marks among some keys."""
    counts = {name: len(trainer.marks & set(keys)) for name, trainer in TRAINERS.items()}
    most = max(counts.values())
    return [TRAINERS[name] for name, count in counts.items() if count == most > 0]
