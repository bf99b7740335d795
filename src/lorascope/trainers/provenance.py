"""Comment lines of written configurations."""

from __future__ import annotations

from lorascope.foreign_text import is_class_name, is_release
from lorascope.model.types import ModelMap
from lorascope.plans.map_gaps import map_gaps
from lorascope.plans.types import Plan

YOUR_MODEL = "Your model: a Hub id or a folder."
NO_DROPOUT = "PEFT cannot apply dropout to fused experts."
ONE_EXPRESSION = "A string (not a list) is one regular expression, matched against full module names."


def file_heading(plan: Plan, purpose: str, remark: str = "", *, own_names: str = "") -> list[str]:
    """The comment lines.

    Args:
        plan: The plan that is written.
        purpose: The trainer's release, and how to run the file.
        remark: What to add on the modules' names; a whole sentence.
        own_names: The trainer, if it has module names of its own.
    """
    size = f"{plan.resolution.trainable:,} trainable parameters in {len(plan.targets)} weights."
    whose = f"{own_names}'s own, for" if own_names else "those of"
    return [*gap_comments(plan), purpose, size, f"Module names are {whose} {_origin(plan.model)}. {remark}".rstrip()]


def gap_comments(plan: Plan) -> list[str]:
    """A comment line for each gap of the plan's map, above all others."""
    return [f"{gap.severity.upper()}: {gap.message}" for gap in map_gaps(plan.model)]


def _origin(model: ModelMap) -> str:
    """Class and release of a map's names, checked."""
    owner = model.architecture if is_class_name(model.architecture) else "a class without a name"
    release = model.versions.get("transformers")
    return f"{owner} in {f'transformers {release}' if is_release(release) else 'its checkpoint'}"
