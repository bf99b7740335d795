"""Reads one file that a user named, of bounded size."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from lorascope.errors import LorascopeError

if TYPE_CHECKING:
    from pathlib import Path

# A configuration is a few kilobytes; a saved map of the largest model some hundred.
MOST_BYTES = 64 * 2**20
# A named pipe that took the file's place between the look and the opening does not block.
READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_KINDS = {
    stat.S_IFREG: "",
    stat.S_IFDIR: "is a folder",
    stat.S_IFIFO: "is a named pipe, which is not opened",
    stat.S_IFSOCK: "is a socket, which is not opened",
    stat.S_IFCHR: "is a device, which is not opened",
    stat.S_IFBLK: "is a device, which is not opened",
}


def why_not_plain(status: os.stat_result) -> str:
    """Why it is not read as a file; empty for regular files."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "is not a plain file")


def require_reachable(path: str | Path) -> None:
    """Refuse a path whose folders may not be entered.

    Raises:
        LorascopeError: A folder on its way may not be entered.
    """
    try:
        os.stat(path)
    except PermissionError as error:
        raise LorascopeError(
            f"cannot be looked for: {error.strerror or error}",
            where=str(path),
            hint="Check that you may enter the folders on its way.",
        ) from error
    except (OSError, ValueError):  # not there; or longer than a name can be, or with a zero byte
        pass


def read_plain(path: Path, most: int, *, hint: str = "") -> bytes:
    """The bytes of a regular file; links to one are followed.

    Args:
        path: The file, as the user named it.
        most: The most bytes that it may have. No more than one beyond them is read, whatever size it claims.
        hint: What to do about a file that is refused.

    Raises:
        LorascopeError: It is not there, not a regular file, cannot be read, or has more bytes.
    """
    where = str(path)
    try:
        # Opening some devices does something (a tape rewinds), so that the kind is looked at first, and again afterwards.
        _require_regular(path.stat(), where, hint)
        with os.fdopen(os.open(path, READ_FLAGS), "rb") as file:
            _require_regular(os.fstat(file.fileno()), where, hint)
            data = file.read(most + 1) or b""  # None where a file of /proc would block
    except FileNotFoundError as error:
        raise LorascopeError("there is no such file", where=where, hint=hint) from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        if isinstance(error, LorascopeError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise LorascopeError(f"cannot be read: {reason}", where=where, hint=hint) from error
    if len(data) > most:
        raise LorascopeError(f"has more than the {most:,} bytes that are read", where=where, hint=hint)
    return data


def _require_regular(status: os.stat_result, where: str, hint: str) -> None:
    if kind := why_not_plain(status):
        raise LorascopeError(kind, where=where, hint=hint)
