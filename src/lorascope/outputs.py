"""Output files: whole or not at all, and never over what lorascope did not write.

Files of one folder are written together under a lock on the folder. Each is first written whole beside its place. The
last of several is their seal: it is taken away before the first of the others changes and comes back after the last,
so that whatever ends the process, files of two writings never stand together as one. What a killed writing left is
finished by the next one, and read meanwhile through `sealed_file`.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted

# Seconds to wait for another process that writes into the same folder.
_PATIENCE = 10
_HINT = "Name a place that can be written to (-o)."
_FORCE = "Give another place with -o, or replace what is there with --force (in Python: force=True)."


def checked_place(path: str | os.PathLike[str]) -> Path:
    """The path that something is written to.

    Raises:
        LorascopeError: It is empty, or `-`, which is no place.
    """
    text = os.fspath(path)
    if not text.strip() or text == "-":
        raise LorascopeError(f"{text!r} is not a place to write to", where="-o", hint="Leave -o out to print alone.")
    return Path(path)


def write_files(
    folder: Path, texts: Mapping[str, str], objections: Callable[[], Iterable[str]], *, force: bool = False
) -> None:
    """Writes files into one folder, all of them or none.

    Args:
        folder: Where; it is made if it is not there.
        texts: File name to text, which gets a line break at its end. The last name is the seal.
        objections: Asked while the folder is locked: what stands in the way, a sentence each.
        force: Write whatever the objections are.

    Raises:
        LorascopeError: There are objections, or a file cannot be written; then every file is as it was.
    """
    path = folder / next(iter(texts))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _tidy(folder, texts)
            for name in texts:
                path = folder / name
                if os.path.lexists(path) and not (path.is_file() or path.is_symlink()):
                    raise IsADirectoryError(None, "there is something else than a file")
            faults = [] if force else list(objections())
            if faults:
                raise LorascopeError(*faults, where=str(folder if len(texts) > 1 else path), hint=_FORCE)
            parts: dict[str, Path] = {}
            try:
                for name, text in texts.items():
                    path = folder / name
                    parts[name] = path.with_name(f".{name}.{secrets.token_hex(4)}.part")
                    with parts[name].open("x", encoding="utf-8") as file:
                        file.write(text + "\n")
                    if path.is_file() and not path.is_symlink():
                        parts[name].chmod(stat.S_IMODE(path.stat().st_mode))
                if len(texts) == 1:
                    parts[name].replace(path)
                else:
                    for name, part in parts.items():
                        part.replace(_new(folder, name))
                    _put_in_place(folder, texts)
            finally:
                for part in parts.values():
                    with contextlib.suppress(OSError, ValueError):
                        part.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        if isinstance(error, LorascopeError):
            raise
        raise LorascopeError(
            f"cannot be written: {getattr(error, 'strerror', None) or error}", where=str(path), hint=_HINT
        ) from error


def sealed_file(folder: Path, seal: str) -> Path:
    """Where the seal of a folder's files lies, be it that a killed writing has not put it in its place yet."""
    path, new = folder / seal, _new(folder, seal)
    return new if new.is_file() and not path.exists() else path


def _new(folder: Path, name: str) -> Path:
    return folder / f".{name}.new"


def _tidy(folder: Path, texts: Iterable[str]) -> None:
    """Ends what a killed writing of these files began: to the end where its seal is written, else undone.

    Called with the folder locked, so that no part that is found can be another process's.
    """
    *others, seal = texts
    if others and _new(folder, seal).exists():
        _put_in_place(folder, texts)
    for name in texts:
        for part in folder.glob(f".{glob.escape(name)}.????????.part"):
            part.unlink(missing_ok=True)
        if others:
            _new(folder, name).unlink(missing_ok=True)


def _put_in_place(folder: Path, texts: Iterable[str]) -> None:
    *others, seal = texts
    (folder / seal).unlink(missing_ok=True)
    for name in others:
        with contextlib.suppress(FileNotFoundError):  # it is in its place already
            _new(folder, name).replace(folder / name)
    _new(folder, seal).replace(folder / seal)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder for one process alone, where the system can: a lock ends with its process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    fault = f"another process has been writing there for {_PATIENCE} seconds"
                    raise LorascopeError(fault, where=str(folder), hint="Wait for it, or end it.") from None
                time.sleep(0.01)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(number)


def file_objection(path: Path, mine: Callable[[Path], bool], what: str) -> Iterator[str]:
    """Why a file may not be replaced: it is a link, or is not what lorascope wrote there.

    Args:
        path: The file's place.
        mine: It is what lorascope wrote.
        what: What else: `and is not a map that lorascope saved`.
    """
    if path.is_symlink():
        yield f"{quoted(path.name)} is a link, which would be replaced by a file"
    elif os.path.lexists(path) and not mine(path):
        yield f"{quoted(path.name)} already exists {what}"
