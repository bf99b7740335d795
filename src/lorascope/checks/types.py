"""The result of a check."""

from __future__ import annotations

from lorascope import light_dataclasses as dataclasses
from lorascope.findings import Finding
from lorascope.model.types import ModelMap
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.servers.types import Serving
from lorascope.texts import text_of


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """What a configuration does on a model, and what is wrong.

    Attributes:
        model: The map.
        subject: What was checked, as messages call it.
        config: What PEFT is given; None where a trainer does not use PEFT.
        resolution: The adapted weights, and what they cost.
        findings: The findings: gaps of the map first, then errors, warnings and notes.
        trainer: The trainer whose configuration it is, with its release; empty for PEFT itself.
        peft: The release of PEFT whose rules were applied; empty where a trainer does not use PEFT.
        serving: What a server does with it, if one was given.
    """

    model: ModelMap
    subject: str
    config: AdapterConfig | None
    resolution: Resolution
    findings: tuple[Finding, ...]
    trainer: str = ""
    peft: str = ""
    serving: Serving | None = None

    def __str__(self) -> str:
        return text_of(self)

    @property
    def matters(self) -> bool:
        """Some finding is an error or warning; `check` exits with 1."""
        return any(finding.severity != "note" for finding in self.findings)
