"""Output files: whole or not at all, and never over what lorascope did not write.

Files of one folder are written together under a lock on the folder. Each is first written whole beside its place. The
last of several is their seal: it is taken away before the first of the others changes and comes back after the last,
so that whatever ends the process, files of two writings never stand together as one. What a killed writing left
(`.NAME.new` and `.NAME.old`) is read through `sealed_file`, and goes with the next writing.
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
        LorascopeError: It is empty, no path at all, or `-`, which is no place.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):
        raise LorascopeError(f"a {type(path).__name__} is not a place to write to", hint="Give a path.")
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
            for path in _places(folder, texts):
                if os.path.lexists(path) and not (path.is_file() or path.is_symlink()):
                    raise IsADirectoryError(None, "there is something else than a file")
            faults = [] if force else list(objections())
            if faults:
                raise LorascopeError(*faults, where=str(folder if len(texts) > 1 else path), hint=_FORCE)
            _remove_parts(folder, texts)
            parts: dict[str, Path] = {}
            try:
                for name, text in texts.items():
                    path = folder / name
                    parts[name] = path.with_name(f".{name}.{secrets.token_hex(4)}.part")
                    with parts[name].open("x", encoding="utf-8") as file:
                        file.write(text + "\n")
                    if path.is_file() and not path.is_symlink():
                        parts[name].chmod(stat.S_IMODE(path.stat().st_mode))
                _put_in_place(folder, parts)
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
    return new if _is_plain(new) and not os.path.lexists(path) else path


def seals(folder: Path, seal: str) -> Iterator[Path]:
    """The seal of a folder's files, and those that a killed writing was about to put there or take away."""
    yield from filter(_is_plain, (folder / seal, _new(folder, seal), _old(folder, seal)))


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


def _new(folder: Path, name: str) -> Path:
    return folder / f".{name}.new"


def _old(folder: Path, name: str) -> Path:
    return folder / f".{name}.old"


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _places(folder: Path, texts: Iterable[str]) -> Iterator[Path]:
    """Every path that a writing may put something in the place of; those of the files themselves last."""
    *others, seal = texts
    if others:
        yield from (_new(folder, name) for name in texts)
        yield _old(folder, seal)
    yield from (folder / name for name in texts)


def _remove_parts(folder: Path, texts: Iterable[str]) -> None:
    """Removes what killed writings of these files left half-written.

    Called with the folder locked, so that no part that is found can be another process's.
    """
    for name in texts:
        for part in folder.glob(f".{glob.escape(name)}.????????.part"):
            part.unlink(missing_ok=True)


def _put_in_place(folder: Path, parts: Mapping[str, Path]) -> None:
    """Moves written files to their places: at every moment the seal, if it is there, belongs to the others."""
    *others, seal = parts
    if not others:
        parts[seal].replace(folder / seal)
        return
    for name, part in parts.items():
        part.replace(_new(folder, name))
    with contextlib.suppress(FileNotFoundError):  # the first of this name
        (folder / seal).replace(_old(folder, seal))
    for name in others:
        _new(folder, name).replace(folder / name)
    _new(folder, seal).replace(folder / seal)
    _old(folder, seal).unlink(missing_ok=True)


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
