"""Gaps of a map: parts of the model that it does not show."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from lorascope.findings import Finding
from lorascope.foreign_text import shell_word
from lorascope.model.types import ModelMap
from lorascope.names import fold
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.plans.notes import MISSING_MODULES, UNEXPLAINED

# The codes of gaps, the most consequential first.
GAP_CODES = (UNEXPLAINED.code, MISSING_MODULES.code)


def map_gaps(model: ModelMap) -> Iterator[Finding]:
    """What a map leaves out: to be said before anything that rests on it.

    PEFT adapts modules of the model itself. Where the map lacks some, no count or size that is read off it is exact.
    """
    where = model.model or "the map"
    if model.unexplained:
        about = UNEXPLAINED.about(*fold(model.unexplained), count=len(model.unexplained))
        yield Finding("unexplained", "error", where, str(about), _fix_unexplained(model), about)
    if missing := missing_modules(model):
        owner = model.architecture or "the model"
        about = MISSING_MODULES.about(*fold(missing), count=len(missing), owner=owner)
        fix = f"Is the checkpoint complete? To see what transformers builds: {_configured(model)}"
        yield Finding("missing-modules", "warning", where, str(about), fix, about)


def gap_notes(model: ModelMap) -> Iterator[Diagnostic]:
    """The same as notes on a plan."""
    return (gap.diagnostic for gap in map_gaps(model) if gap.diagnostic is not None)


class IncompleteMapWarning(UserWarning):
    """A configuration leaves lorascope that rests on a map with gaps."""


def warn_of_gaps(model: ModelMap) -> None:
    """Warn where the answer has no room for the gaps: a `LoraConfig`, a dictionary, a JSON file."""
    for gap in map_gaps(model):
        warnings.warn(f"{gap.message} {gap.fix}", IncompleteMapWarning, stacklevel=3)


def is_incomplete(model: ModelMap) -> bool:
    """The map has gaps; a command that answers from it exits with 1."""
    return bool(model.unexplained or missing_modules(model))


def missing_modules(model: ModelMap) -> tuple[str, ...]:
    """What the checkpoint lacks and PEFT may adapt: all but biases."""
    return tuple(name for name in model.missing if not name.endswith((".bias", "_bias")))


def _fix_unexplained(model: ModelMap) -> str:
    if model.source == "gguf":
        return "Map the model that the file was converted from: its folder or Hub id has the original names."
    trust = " --trust-remote-code, if you trust its code" if model.basis == "names" else ""
    absent = "If the modules are not there either, transformers would ignore these tensors: is `architectures` right?"
    return f"Map what transformers builds: {_configured(model)}{trust}. {'' if trust else absent}".rstrip()


def _configured(model: ModelMap) -> str:
    """The command that maps the model from its configuration."""
    return f"lorascope inspect {shell_word(model.model)} --source config (needs lorascope[torch])"
