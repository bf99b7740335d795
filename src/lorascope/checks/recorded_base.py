"""The base model that an adapter or a trainer's configuration names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted, shell_word
from lorascope.sources.adapters import CONFIG, adapters_below, read_adapter
from lorascope.sources.files.plain import require_reachable
from lorascope.sources.source_kinds import is_hub_id


def is_adapter(word: str) -> bool:
    """It is a folder with an adapter, or its configuration, and no model."""
    path = Path(word)
    if len(path.parts) > 1:
        require_reachable(path)
    if os.path.isdir(word):  # noqa: PTH112  takes what no file can be called for what is not there
        return (path / CONFIG).is_file() and not (path / "config.json").exists()
    return path.name == CONFIG


def adapters_in(word: str) -> tuple[str, ...]:
    """The adapters that a folder without one of its own holds: each, or the last of a training's checkpoints."""
    path = Path(word)
    if not os.path.isdir(word) or (path / CONFIG).exists():  # noqa: PTH112
        return (word,)
    names = adapters_below(path)
    if all(name.startswith("checkpoint-") for name in names):
        names = names[-1:]
    return tuple(str(path / name) for name in names) or (word,)


def recorded_base(word: str, *, revision: str | None = None, progress: Callable[[int, int], None] | None = None) -> str:
    """The base model that an adapter or a trainer's configuration names.

    Args:
        word: An adapter's folder, file or Hub id, or a trainer's configuration.
        revision: Branch, tag or commit of a Hub id.
        progress: Called with the number of parts read and of all.

    Raises:
        LorascopeError: It is none of these, cannot be read, or names no base model.
    """
    path = Path(word)
    base: object = ""
    if os.path.isfile(word) and path.name != CONFIG:  # noqa: PTH113
        from lorascope.trainers.detect import read_file  # with every trainer's room

        content = read_file(path)
        base = content.get("base_model_name_or_path") if isinstance(content, Mapping) else content.config.base
    elif os.path.exists(word) or is_hub_id(word):  # noqa: PTH110
        base = read_adapter(word, revision=revision, progress=progress).config.get("base_model_name_or_path")
    else:
        raise LorascopeError(
            "nothing is given to check",
            where=quoted(word),
            hint=f"Name what to check after the model: lorascope check {shell_word(word)} q_proj v_proj",
        )
    if not isinstance(base, str) or not base.strip():
        hint = f"Give it: lorascope check MODEL {shell_word(word)}"
        raise LorascopeError("names no base model", where=quoted(word), hint=hint)
    return base
