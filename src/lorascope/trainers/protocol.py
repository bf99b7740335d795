"""A trainer and its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap
from lorascope.peft_rules.diagnostics import Diagnostic, Reason
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.types import Plan

Form = Literal["json", "yaml", "command", "python"]
# Which part of a plan a trainer does not support: `model` where it trains no such model, whatever the plan, and `names` where
# it cannot tell the plan's weights from others.
Part = Literal["model", "weights", "names", "sizes", "biases", "variant", "dropout"]

# Stands in a written configuration where the user's own model must stand.
PLACEHOLDER = "YOUR/MODEL"

_DATA_FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What a complete configuration needs besides the plan.

    Attributes:
        base: The model, by Hub id or folder; empty if not given, and `PLACEHOLDER` is written.
        data: The data set, as the trainer names it; empty for the trainer's own demonstration data.
        output: The folder that the trainer writes to.
    """

    base: str = ""
    data: str = ""
    output: str = "lora-output"

    @property
    def data_format(self) -> str:
        """The `datasets` loader of a data file (`json`, `csv`, `parquet`), or empty."""
        return next((form for ending, form in _DATA_FORMATS.items() if self.data.endswith(ending)), "")


@dataclasses.dataclass(frozen=True, slots=True)
class Unsupported:
    """Part of a plan that a trainer's configuration cannot express.

    Attributes:
        part: Which part; `model` if the trainer cannot train the model at all.
        message: What it is, in a sentence or two.
    """

    part: Part
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class TrainerConfig:
    """A trainer's configuration, read.

    Attributes:
        base: The model that it names, or empty.
        settings: The options that bear on the adapters, under the trainer's own names.
        findings: Faults that do not stop the reading: unknown keys, ignored values.
    """

    base: str
    settings: Mapping[str, Any]
    findings: tuple[Finding, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What a trainer adapts on a model.

    Attributes:
        resolution: The weights, under the names of the map, and their cost.
        config: What the trainer hands to PEFT; None if it does not use PEFT.
        findings: What the trainer's own rules did that its user should know.
        expanded: The targets are the trainer's own expansion of a word such as `all`: no user wrote the names.
    """

    resolution: Resolution
    config: AdapterConfig | None
    findings: tuple[Finding, ...] = ()
    expanded: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Trainer:
    """One trainer: what it is, and its rules.

    Attributes:
        name: As `--to` names it: `llamafactory`.
        title: As it calls itself: `LLaMA-Factory`.
        release: The release whose code the rules restate.
        peft: The release of PEFT that it runs with; empty if it does not use PEFT.
        form: What its configuration is written in.
        marks: Keys that tell its configuration from other trainers'; any of them will do.
        limits: Gives everything in a plan that its configuration cannot express.
        write: Gives the complete configuration of a plan within the limits, with a comment at each forced value.
        read: Reads a configuration, given its text and what messages call it; raises LorascopeError with every fault.
        resolve: Applies its own search for targets, then PEFT's rules where it uses PEFT; raises LorascopeError if the
            configuration uses something that the rules do not cover.
        programs: What runs it with its options in a shell script; empty if they only stand in a file.
        keys: Arguments of `peft.LoraConfig`, with its own keys for them.
    """

    name: str
    title: str
    release: str
    peft: str
    form: Form
    marks: frozenset[str]
    limits: Callable[[Plan], Iterable[Unsupported]]
    write: Callable[[Plan, Job], str]
    read: Callable[[str, str], TrainerConfig]
    resolve: Callable[[ModelMap, TrainerConfig], Outcome]
    programs: tuple[str, ...] = ()
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def unsupported(self, plan: Plan) -> tuple[Unsupported, ...]:
        """Everything in a plan that the trainer cannot express."""
        return tuple(self.limits(plan))


# A configuration that trains something, and no LoRA.
NO_LORA = Reason("no-adapter", "{title} makes no LoRA adapter, because {key} is {given}.")


def without_lora(title: str, key: str, given: object, wanted: str) -> Outcome:
    """The outcome of a configuration for another kind of training.

    Args:
        title: The trainer's.
        key: The option that decides it.
        given: Its value; None where it is not given.
        wanted: The value that makes LoRA adapters.
    """
    text = "not set" if given is None else quoted(given)
    return stopped(NO_LORA.about(title=title, key=key, given=text, fix=f"Set {key}: {wanted}"))


def stopped(refusal: Diagnostic, findings: Iterable[Finding] = (), config: AdapterConfig | None = None) -> Outcome:
    """The outcome of a trainer that stops.

    Args:
        refusal: Why it stops.
        findings: What its rules did before.
        config: What it handed to PEFT.
    """
    return Outcome(Resolution(refusal=refusal), config, tuple(findings))


def trainer_filter(severity: Literal["error", "warning", "note"], where: str, message: str, fix: str) -> Finding:
    """A finding on a trainer's own filters."""
    return Finding("trainer-filter", severity, where, message, fix)


def require_no_faults(faults: Sequence[str], where: str, hint: str) -> None:
    """Raise all faults at once, if there are any.

    Raises:
        LorascopeError: There are faults.
    """
    if faults:
        raise LorascopeError(*faults, where=where, hint=hint)
