"""JSON files: bounded in size, read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.sources.checkpoint.types import Files, Span
from lorascope.sources.files.json_text import MOST_VALUES, parse_json, parse_object
from lorascope.sources.files.plain import MOST_BYTES, read_plain


def read_json(path: Path) -> object:
    """The value of a JSON file that a user named.

    Raises:
        LorascopeError: It is not a plain file, too large, cannot be read, or is not JSON; with all faults of the latter.
    """
    hint = "Give a config.json, or a file that lorascope saved."
    return parse_json(read_plain(path, MOST_BYTES, hint=hint), str(path), hint)


def read_bounded(files: Files, name: str, most: int, hint: str, *, where: str = "") -> bytes:
    """All bytes of a file of a folder or repository.

    Raises:
        LorascopeError: It is too large.
    """
    size = files.size(name)
    if size > most:
        raise LorascopeError(
            f"has {size:,} bytes, more than the {most:,} that are read",
            where=where or f"{files.where}: {name}",
            hint=hint,
        )
    return files.read([Span(name, 0, size)])[0]


def read_object(
    files: Files, name: str, most: int, hint: str, *, where: str = "", most_values: int = MOST_VALUES
) -> dict[str, Any]:
    """The object in a JSON file of a folder or repository.

    Args:
        files: The folder or repository.
        name: The file.
        most: The most bytes that it may have.
        hint: The next step for a broken one.
        where: Its name in messages; `files.where` and its own if empty.
        most_values: The most values that it may hold.

    Raises:
        LorascopeError: It is too large, not JSON, or no object; with all faults of the JSON.
    """
    data = read_bounded(files, name, most, hint, where=where)
    return parse_object(data, where or f"{files.where}: {name}", hint, most_values=most_values)
