"""How PEFT reaches each weight of a map, or why it cannot."""

from __future__ import annotations

from typing import Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from lorascope.peft_rules.adaptability import why_not_adaptable
from lorascope.peft_rules.addresses import as_parameter


@dataclasses.dataclass(frozen=True, slots=True)
class Reach:
    """How the newest PEFT reaches one weight.

    Attributes:
        through: `module`, `parameter` (`target_parameters`), or empty where it cannot be adapted.
        reason: Why it cannot, with the next step; empty if it can.
    """

    through: Literal["module", "parameter", ""]
    reason: str = ""


def weight_reaches(model: ModelMap) -> dict[str, Reach]:
    """The reach of every weight, by its name."""
    if model.refusal:
        return {weight.name: Reach("", model.refusal) for weight in model.weights}
    reaches = {}
    for weight in model.weights:
        if reason := why_not_adaptable(model, weight):
            reaches[weight.name] = Reach("", str(reason))
        else:
            reaches[weight.name] = Reach("parameter" if as_parameter(model, weight) else "module")
    return reaches
