"""How the tests look at findings: by the rules, with the installed PEFT beside, and after the fix that they give."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lorascope.checks.config_findings import configuration_findings
from lorascope.checks.context import CheckContext
from lorascope.checks.registry import apply_rules
from lorascope.checks.rules import base_model, tensors
from lorascope.findings import Finding
from lorascope.model.types import ModelMap
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig
from lorascope.sources.checkpoint.types import Tensor
from tests.helpers import peft_models
from tests.helpers.peft_comparison import compare
from tests.helpers.samples import sample


@dataclasses.dataclass(frozen=True)
class Example:
    """A mistake on a tiny real model.

    Attributes:
        model: One of `tests.helpers.peft_models`.
        config: PEFT's keyword arguments.
        code: The finding that it makes.
        severity: Its severity.
        says: Words of its message.
        fix: Words of its fix.
        repaired: What of the arguments is other after the fix, with which nothing of that code is left.
    """

    model: str
    config: dict[str, Any]
    code: str
    severity: str
    says: tuple[str, ...] = ()
    fix: tuple[str, ...] = ()
    repaired: dict[str, Any] | None = None


def configured(arguments: dict[str, Any]) -> AdapterConfig:
    """The configuration of PEFT's keyword arguments."""
    return AdapterConfig(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    )


def looked(model: ModelMap, arguments: dict[str, Any], peft: str = NEWEST) -> list[Finding]:
    """The findings on a configuration."""
    return list(configuration_findings(context_on(model, arguments, peft)))


def context_on(model: ModelMap, arguments: dict[str, Any], peft: str = NEWEST) -> CheckContext:
    """A configuration on a model."""
    config = configured(arguments)
    return CheckContext(model, config, resolve(model, config, peft), peft=peft)


def base_findings(context: CheckContext, file: Mapping[str, Tensor] | None = None) -> list[Finding]:
    """The findings on the base of an adapter with these tensors."""
    return list(apply_rules((base_model,), dataclasses.replace(context, tensors=file)))


def tensor_findings(context: CheckContext, file: Mapping[str, Tensor]) -> list[Finding]:
    """The findings on an adapter's tensors."""
    return list(apply_rules((tensors,), dataclasses.replace(context, tensors=file)))


def on_tiny(name: str, **arguments: Any) -> list[Finding]:
    """The findings on a tiny model."""
    return looked(peft_models.mapped(name), arguments)


def on_builtin(name: str, head: str = "", **arguments: Any) -> list[Finding]:
    """The findings on a built-in model."""
    return looked(sample(name, head), arguments)


def codes(findings: list[Finding], *severities: str) -> list[str]:
    """Their codes, in order, each once."""
    return list(dict.fromkeys(f.code for f in findings if not severities or f.severity in severities))


def told(findings: list[Finding], code: str) -> list[Finding]:
    """Those of a code."""
    return [finding for finding in findings if finding.code == code]


def check_example(example: Example) -> None:
    """The finding is there and says what it should, PEFT does what the rules say, and the fix helps with real PEFT."""
    findings = on_tiny(example.model, **example.config)
    assert all(finding.message and finding.fix and finding.where for finding in findings)
    mine = told(findings, example.code)
    assert mine, codes(findings)
    assert example.severity in {finding.severity for finding in mine}
    message = "\n".join(f"{finding.where}: {finding.message}" for finding in mine)
    fix = "\n".join(finding.fix for finding in mine)
    assert [word for word in example.says if word not in message] == [], message
    assert [word for word in example.fix if word not in fix] == [], fix
    outcome = compare(example.model, configured(example.config))
    assert (outcome == "refused") == ("refused" in codes(findings))
    if example.repaired is not None:
        better = {**example.config, **example.repaired}
        left = told(on_tiny(example.model, **better), example.code)
        assert {finding.severity for finding in left} <= {"note"}, left
        assert compare(example.model, configured(better)) != "refused"
