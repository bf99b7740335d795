"""Saved adapters: their configuration and the headers of their tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted, shell_word
from lorascope.sources.checkpoint.safetensors import is_pointer, read_headers
from lorascope.sources.checkpoint.types import Files, Tensor
from lorascope.sources.files.folder import open_folder
from lorascope.sources.files.json_files import read_object
from lorascope.sources.files.json_text import parse_object
from lorascope.sources.files.plain import read_plain, require_reachable
from lorascope.sources.source_kinds import is_hub_id

# What PEFT calls them (`utils/constants.py`). It writes one file of tensors, and reads no index of several.
CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
_INDEX = "adapter_model.safetensors.index.json"
# Those of PEFT have some two kilobytes; with a pattern for every weight of a large model, some megabytes.
_MOST_BYTES = 16 * 2**20
_SOUND = f"PEFT's save_pretrained writes a sound {CONFIG}."
_HINT = f"Give an adapter's folder, its {CONFIG} or its Hub id."
_CONVERT = (
    "Its tensors are not checked. Where you trust it, load it once with peft.PeftModel.from_pretrained and save it anew with "
    f"save_pretrained, which writes {TENSORS}."
)
# Any of these is a whole model, or part of one.
_MODEL = re.compile(
    r"config\.json|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|pytorch_model.*\.bin"
)
_NUMBER = re.compile(r"[0-9]{1,18}$")
_MOST_LISTED = 4


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A saved adapter.

    Attributes:
        where: The file of its configuration, for messages.
        config: The whole content of that file.
        tensors: Its tensors by name, from the header of `adapter_model.safetensors`; None where there is no such file.
        notes: Notes on the files themselves.
        commit: The commit of a Hub repository; empty for files.
    """

    where: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor] | None = None
    notes: tuple[str, ...] = ()
    commit: str = ""


def read_adapter(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Adapter:
    """Read an adapter from a folder, a file or the Hub.

    Neither weights nor pickles are read.

    Args:
        source: A folder, its `adapter_config.json` (or another JSON file, which is then all that is read), or a Hub id.
        revision: Branch, tag or commit of a Hub id.
        progress: Called with the number of parts read and of all, while a Hub repository is read.

    Raises:
        LorascopeError: There is no adapter there, or one of its files is broken; with all faults of it.
    """
    text = os.fspath(source)
    require_reachable(Path(text))
    # Unlike those of Path, these take a name that no file can have for one that is not there.
    if os.path.isdir(text):  # noqa: PTH112
        return _of_files(open_folder(Path(text)), adapters_below(Path(text)))
    if os.path.isfile(text):  # noqa: PTH113
        return _of_file(Path(text))
    if not is_hub_id(text) or os.path.lexists(text):
        raise LorascopeError("neither a file, a folder nor a Hub id", where=quoted(text), hint=_HINT)
    from lorascope.sources.files.hub import open_repository

    repository = open_repository(text, revision, progress=progress)
    adapter = _of_files(repository, ())
    notes = (*repository.notes, *adapter.notes)
    if repository.notes and TENSORS not in repository.names:
        # Headers alone, as this reads them, are not kept there.
        notes += (f"{TENSORS} is not in the cache, and its tensors are not checked. To fetch it: hf download {text}",)
    return dataclasses.replace(adapter, notes=notes, commit=repository.commit)


def _of_file(path: Path) -> Adapter:
    if path.name == CONFIG:
        return _of_files(open_folder(path.parent), ())
    if path.suffix != ".json":
        hint = f"Give the folder that it lies in: {path.parent}" if path.name.startswith("adapter_model") else _HINT
        raise LorascopeError("is not an adapter's configuration", where=str(path), hint=hint)
    data = read_plain(path, _MOST_BYTES, hint="Check that you may read it.")
    return Adapter(str(path), parse_object(data, str(path), _SOUND))


def _of_files(files: Files, below: tuple[str, ...]) -> Adapter:
    if CONFIG not in files.names:
        raise _none_there(files, below)
    where = f"{files.where}/{CONFIG}"
    faults: list[str] = []
    hints: list[str] = []
    config: Mapping[str, Any] = {}
    tensors: Mapping[str, Tensor] | None = None
    pointer = False
    try:
        config = read_object(files, CONFIG, _MOST_BYTES, _SOUND, where=where)
    except LorascopeError as error:
        faults += (f"{CONFIG} {fault}" for fault in error.faults)
        hints.append(error.hint)
    try:
        pointer = TENSORS in files.names and is_pointer(files, TENSORS)
        tensors = read_headers(files, [TENSORS]) if TENSORS in files.names and not pointer else None
    except LorascopeError as error:
        faults += error.faults
        hints.append(error.hint)
    if faults:
        raise LorascopeError(*faults, where=files.where, hint=" ".join(dict.fromkeys(hints)))
    return Adapter(where, config, tensors, tuple(_notes(files.names, pointer)))


def _notes(names: frozenset[str], pointer: bool) -> Iterator[str]:
    if pointer:
        yield f"{TENSORS} is a pointer of Git LFS, not the file, and its tensors are not checked. To fetch it: git lfs pull"
    if TENSORS in names:
        return
    if _PICKLE in names:
        yield f"{_PICKLE} is a pickle, which can run code and is never opened. {_CONVERT}"
    if _INDEX in names:
        yield f"{_INDEX} is there, and no {TENSORS}: PEFT reads no index. Join its files into one of that name."
    if "adapters.safetensors" in names:
        yield (
            f"adapters.safetensors is what mlx-lm writes. PEFT looks for {TENSORS}, with other names in it, so that this "
            "adapter runs in mlx-lm alone until it is converted. Its tensors are not checked."
        )


def _none_there(files: Files, below: tuple[str, ...]) -> LorascopeError:
    """The error for a place without an adapter: what is there instead."""
    fault, hint = f"there is no {CONFIG}", _HINT
    if below:
        shown = ", ".join(map(quoted, below[-_MOST_LISTED:]))
        more = f"{len(below)} folders below, the last of them {shown}" if len(below) > _MOST_LISTED else shown
        fault += f"; adapters lie in {more}"
        hint = f"Give the one that is meant: {files.where}/{below[-1]}"
    elif {TENSORS, _PICKLE} & files.names:
        fault += ", which maps the tensors to weights and holds alpha"
        hint = f"Copy the {CONFIG} of the same training beside them."
    elif parts_of_model := sorted(name for name in files.names if _MODEL.fullmatch(name)):
        fault += f"; it is a model's, with {', '.join(map(quoted, parts_of_model[:_MOST_LISTED]))}"
        hint = f"To look at a model: lorascope inspect {shell_word(files.where)}"
    elif files.names:
        listed = sorted(files.names)
        more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
        fault += f"; it has {', '.join(map(quoted, listed[:_MOST_LISTED]))}{more}"
    else:
        fault += "; it has no files"
    return LorascopeError(fault, where=files.where, hint=hint)


def adapters_below(folder: Path) -> tuple[str, ...]:
    """Subfolders that hold an adapter, by number, such as `checkpoint-500`."""
    try:
        names = [entry.name for entry in folder.iterdir() if (entry / CONFIG).is_file()]
    except OSError:
        return ()
    return tuple(sorted(names, key=lambda name: (int("".join(_NUMBER.findall(name)) or 0), name)))
