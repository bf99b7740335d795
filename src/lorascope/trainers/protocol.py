"""What the room of every trainer offers, and the values that pass between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from lorascope import light_dataclasses as dataclasses
from lorascope.findings import Finding
from lorascope.model.types import ModelMap
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.types import Plan

Form = Literal["json", "yaml", "command", "python"]

# What stands in a written configuration where the user's own model must stand.
PLACEHOLDER = "YOUR/MODEL"


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What a complete configuration needs beside the plan.

    Attributes:
        base: The model, by Hub id or folder; empty if nobody said, so that `PLACEHOLDER` is written with a remark.
        data: The data, as the trainer names data sets; empty for the trainer's own demonstration data.
        output: The folder that the trainer writes to.
    """

    base: str = ""
    data: str = ""
    output: str = "lora-output"


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A trainer's configuration as it was read.

    Attributes:
        base: The model that it names, or empty.
        settings: What bears on the adapters, under the trainer's own keys.
        findings: What the reading noticed: keys that the trainer does not know, values that it ignores.
    """

    base: str
    settings: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What a trainer adapts on a model.

    Attributes:
        resolution: The weights, under the names of the map, and what they cost.
        config: What the trainer hands to PEFT; None where it does not use PEFT.
        findings: What the trainer's own rules did that its user should know.
    """

    resolution: Resolution
    config: AdapterConfig | None
    findings: tuple[Finding, ...] = ()


class Trainer(Protocol):
    """One trainer.

    Attributes:
        name: As `--to` names it: `llamafactory`.
        title: As it calls itself: `LLaMA-Factory`.
        release: The release whose code the rules restate.
        peft: The release of PEFT that it runs with, whose rules therefore hold; empty where it does not use PEFT.
        form: What its configuration is written in.
        marks: Keys that tell a configuration of it from one of another trainer: any of them will do.
    """

    name: str
    title: str
    release: str
    peft: str
    form: Form
    marks: frozenset[str]

    def losses(self, plan: Plan) -> tuple[str, ...]:
        """What the trainer's configuration cannot say of a plan, a sentence each; nothing if it can say it all."""
        ...

    def write(self, plan: Plan, job: Job) -> str:
        """The complete configuration of a plan that has no losses, ready to run, commented where a value was forced."""
        ...

    def read(self, text: str, where: str) -> Asked:
        """A configuration of the trainer.

        Raises:
            LorascopeError: It is none, with every fault of it.
        """
        ...

    def resolve(self, model: ModelMap, asked: Asked) -> Outcome:
        """What the trainer adapts on a model: its own discovery of targets, then PEFT's rules where it uses PEFT.

        Raises:
            LorascopeError: It asks for something that the rules do not cover.
        """
        ...
