"""Finds the model that is meant in a pipeline of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeVar

from lorascope.errors import LorascopeError
from lorascope.foreign_text import is_class_name, quoted
from lorascope.names import listed
from lorascope.sources.checkpoint.types import Files
from lorascope.sources.files.json_files import read_object
from lorascope.sources.source_kinds import PIPELINE_PARTS

PIPELINE = "model_index.json"
# The part that is meant by the whole: the one that denoises. The first that is there.
_DENOISERS = ("transformer", "unet", "prior", "decoder")
_MOST_BYTES = 2**20
_MOST_PARTS = 100
_MOST_SAID = 8


class Root(Files, Protocol):
    """Files of a folder that can have folders: a local one, or a repository."""

    def inner(self, name: str, /) -> Self:
        """A folder within it."""
        ...


_Root = TypeVar("_Root", bound=Root)


def is_pipeline(files: Files) -> bool:
    """The folder holds a pipeline, whose models are in folders of their own."""
    return PIPELINE in files.names and "config.json" not in files.names


def denoiser(files: _Root, source: str) -> tuple[_Root, tuple[str, ...]]:
    """The folder of a pipeline's denoising model, and notes on what was chosen.

    Args:
        files: The pipeline's folder.
        source: What the user called it.

    Raises:
        LorascopeError: Its `model_index.json` is broken, or names no such model.
    """
    hint = "Is it the folder of a pipeline of diffusers?"
    index = read_object(files, PIPELINE, _MOST_BYTES, hint)
    parts = _parts(index)
    chosen = next((name for name in _DENOISERS if name in parts), "")
    others = {name: class_name for name, class_name in parts.items() if name != chosen}
    names = listed([f"{name} ({class_name})" for name, class_name in others.items()], _MOST_SAID)
    if not chosen:
        raise LorascopeError(
            f"{PIPELINE} names no {', '.join(_DENOISERS[:-1])} or {_DENOISERS[-1]}; it has {names or 'no models'}",
            where=files.where,
            hint=f"Give the folder of one of its models: {source}/NAME",
        )
    name = index.get("_class_name")
    pipeline = name if is_class_name(name) else "pipeline"
    note = f"A {pipeline} of diffusers: this is its {chosen} ({parts[chosen]})."
    if others:
        note += f" Its other models are {names}; give {source}/{next(iter(others))} for that one."
    return files.inner(chosen), (note,)


def _parts(index: Mapping[str, Any]) -> dict[str, str]:
    """The models of a pipeline: name to class, those that are there."""
    parts = {}
    for name, value in list(index.items())[:_MOST_PARTS]:
        if name not in PIPELINE_PARTS or not isinstance(value, list) or len(value) != 2 or value[1] is None:
            continue
        parts[name] = value[1] if is_class_name(value[1]) else quoted(value[1])
    return parts
