"""Files of a local folder; none leads out of it."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.sources.checkpoint.types import Span
from lorascope.sources.files.json_text import first_faults
from lorascope.sources.files.plain import READ_FLAGS, why_not_plain

# All headers of the largest models together are some twenty megabytes.
MOST_READ = 256 * 2**20
# What a checkpoint is read from. Anything else in the folder may be what it likes.
_READ = ("config.json", "model_index.json", ".safetensors", ".index.json", ".gguf")
_HINT = "Put the file itself into the folder, or give the folder that it lies in."
# No link is followed once the folder is listed.
_FLAGS = READ_FLAGS | getattr(os, "O_NOFOLLOW", 0)


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder's plain files; implements `checkpoint.types.Files`.

    Attributes:
        where: Its path, as the user gave it.
        commit: Empty: a folder has none.
        names: The plain files at its root, and the links that lead to plain files within it.
        paths: Where each of them really lies.
        refused: What else lies there, and why it is not read.
    """

    where: str
    commit: str
    names: frozenset[str]
    paths: Mapping[str, Path] = dataclasses.field(repr=False)
    refused: Mapping[str, str] = dataclasses.field(repr=False)

    def size(self, name: str) -> int:
        """A file's bytes.

        Raises:
            LorascopeError: It is not among `names`, or not a plain file.
        """
        with self._opened(name) as file:
            return os.fstat(file.fileno()).st_size

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span, fewer where the file ends.

        Raises:
            LorascopeError: A file is not among `names` or cannot be read, or the spans are more than headers can need.
        """
        wanted = sum(span.end - span.start for span in spans)
        if wanted > MOST_READ:
            raise LorascopeError(
                f"{wanted} bytes are requested, more than the {MOST_READ} that are read", where=self.where
            )
        indexes: dict[str, list[int]] = {}
        for index, span in enumerate(spans):
            indexes.setdefault(span.file, []).append(index)
        contents = [b""] * len(spans)
        for name, places in indexes.items():
            with self._opened(name) as file:
                for index in places:
                    file.seek(spans[index].start)
                    contents[index] = file.read(spans[index].end - spans[index].start)
        return contents

    def inner(self, name: str) -> Folder:
        """A folder within it, such as a part of a pipeline of diffusers.

        Raises:
            LorascopeError: There is none, it is a link, or it has what `open_folder` refuses.
        """
        path = Path(self.where, name)
        if path.is_symlink():
            fault = f"{quoted(name)} is a link, which is not followed"
            raise LorascopeError(fault, where=self.where, hint="Give the folder that it leads to.")
        return open_folder(path)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        if name not in self.names:
            fault = f"{quoted(name)} {self.refused.get(name, 'is not there')}"
            raise LorascopeError(fault, where=self.where, hint=_HINT)
        try:
            with os.fdopen(os.open(self.paths[name], _FLAGS), "rb") as file:
                # It may have been replaced since the folder was listed.
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise LorascopeError(f"{quoted(name)} is not a plain file any more", where=self.where, hint=_HINT)
                yield file
        except OSError as error:
            raise LorascopeError(
                f"{quoted(name)} cannot be read: {error.strerror or error}",
                where=self.where,
                hint="Check that it is there and that you may read it.",
            ) from error


def open_folder(path: Path, *, needed: tuple[str, ...] = _READ) -> Folder:
    """The plain files at a folder's root, none opened.

    A link counts where it leads to a plain file within the folder or, in a snapshot of the Hugging Face cache, within the
    same repository's `blobs`, where the cache keeps its files.

    Args:
        path: The folder.
        needed: Ends of the names of files that will be read: one that is there and is no such file is a fault.

    Raises:
        LorascopeError: It is not a folder, or a needed file is a link that leads elsewhere, a pipe, a device or the like.
    """
    where = str(path)
    try:
        root = Path(os.path.realpath(path, strict=True))
        entries = sorted(root.iterdir())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LorascopeError(f"no folder that can be read: {reason}", where=quoted(where)) from error
    kept = tuple(_kept(root))
    paths: dict[str, Path] = {}
    refused: dict[str, str] = {}
    for entry in entries:
        try:
            real = Path(os.path.realpath(entry, strict=True)) if entry.is_symlink() else entry
            kind = why_not_plain(real.lstat())
            if kind:
                refused[entry.name] = kind
            elif real.is_relative_to(root) or any(real.match(pattern) for pattern in kept):
                paths[entry.name] = real
            else:
                refused[entry.name] = f"is a link that leads out of the folder, to {quoted(str(real))}"
        except OSError as error:
            refused[entry.name] = f"leads nowhere: {error.strerror or error}"
    faults = [f"{quoted(name)} {reason}" for name, reason in refused.items() if name.endswith(needed)]
    if faults:
        raise LorascopeError(*first_faults(faults), where=where, hint=_HINT)
    return Folder(where, "", frozenset(paths), paths, refused)


def _kept(root: Path) -> Iterator[str]:
    """Patterns of where links of a Hugging Face snapshot may lead.

    That is from `models--owner--name/snapshots/commit` to the repository's `blobs`, and since huggingface_hub 2.4 on to
    the cache's own store of what several repositories share, `blobs/ab/<64 hexadecimal digits>`.
    """
    snapshot = root if root.parent.name == "snapshots" else root.parent  # or a part of a pipeline
    repository = snapshot.parent.parent
    if snapshot.parent.name != "snapshots" or not repository.name.startswith("models--"):
        return
    for blobs, below in (
        (repository / "blobs", "*"),
        (repository.parent / "blobs", f"{'[0-9a-f]' * 2}/{'[0-9a-f]' * 64}"),
    ):
        if not blobs.is_symlink():
            yield f"{glob.escape(str(blobs))}/{below}"
