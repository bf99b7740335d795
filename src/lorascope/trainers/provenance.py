"""Whose names a written configuration has, as far as the map's own words can be trusted to be names."""

from __future__ import annotations

from lorascope.foreign_text import is_class_name, is_release
from lorascope.model.types import ModelMap


def transformers_release(model: ModelMap) -> str:
    """The release of transformers whose module names the map has; empty where it has the checkpoint's, or none that is one."""
    release = model.versions.get("transformers")
    return str(release) if is_release(release) else ""


def class_said(model: ModelMap) -> str:
    """The model's class, or that it has no name of a class."""
    return model.architecture if is_class_name(model.architecture) else "a class without a name"


def named_by(model: ModelMap, remark: str = "") -> str:
    """Whose module names a written file has, for its heading."""
    release = transformers_release(model)
    said = (
        f"Module names are those of transformers {release}." if release else "Module names are those of the checkpoint."
    )
    return f"{said} {remark}".rstrip()
