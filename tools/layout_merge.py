"""Puts the rows of some model types, made anew, into the table of layouts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Row = dict[str, Any]


def merged(text: str, made: str, model_types: frozenset[str]) -> str:
    """The table with the rows of another that holds some model types only.

    Models of these types are replaced. The other classes of that table are used where they are those of the first; else they get keys of
    their own, so that no row of a model type that was not made anew changes.

    Args:
        text: The table.
        made: One of some model types. Its facts of configurations and its lists of heads are those of all types.
        model_types: Those types. Models of others, which stand in theirs, were seen in few ways there.
    """
    rows, new = _classes(text), _classes(made)
    keys: dict[str, str] = {}

    def own(key: str) -> str:
        """The key in the table of a class of the other one."""
        if key not in new:  # a container
            return key
        if key not in keys:
            row = new[key]
            if "model" in row:
                keys[key] = next(_same_model(key, row, rows), "") or (
                    key if key not in rows else _fresh(key, rows, keys)
                )
            inner = list(_keys(row))
            kept = [own(one) for one in inner]  # before its own, so that all are known
            if "model" not in row:
                unchanged = rows.get(key) == row and inner == kept
                keys[key] = key if unchanged or key not in rows else _fresh(key, rows, keys)
        return keys[key]

    for key in new:
        own(key)
    for key, row in new.items():
        if keys[key] in rows and "model" in row and row["model"].get("model_type") not in model_types:
            continue
        slots = row.get("slots", {})
        renamed = {
            slot: own(inner) if isinstance(inner, str) else [own(one) for one in inner] for slot, inner in slots.items()
        }
        rows[keys[key]] = {**row, **({"slots": renamed} if slots else {})}
    head = made[: made.index("\nclasses\t")]
    return "\n".join([head, *_lines(rows)]) + "\n"


def _classes(text: str) -> dict[str, Row]:
    """Rows of classes by key, those built alike each with its own."""
    parts = (line.split("\t") for line in text.splitlines() if line.startswith("classes\t"))
    found = {key: json.loads(row) for _, key, row in parts}
    return {key: found[row] if isinstance(row, str) else row for key, row in found.items()}


def _keys(row: Row) -> Iterator[str]:
    for inner in row.get("slots", {}).values():
        yield from [inner] if isinstance(inner, str) else inner


def _same_model(key: str, row: Row, rows: Mapping[str, Row]) -> Iterator[str]:
    """The key of a model class of the same name and model type."""
    name = key.partition("~")[0]
    for other, theirs in rows.items():
        if other.partition("~")[0] == name and theirs.get("model", {}).get("model_type") == row["model"].get(
            "model_type"
        ):
            yield other


def _fresh(key: str, rows: Mapping[str, Row], keys: Mapping[str, str]) -> str:
    name = key.partition("~")[0]
    number = 2
    while f"{name}~{number}" in rows or f"{name}~{number}" in keys.values():
        number += 1
    return f"{name}~{number}"


def _lines(rows: Mapping[str, Row]) -> Iterator[str]:
    first: dict[str, str] = {}
    for key, row in sorted(rows.items()):
        text = json.dumps(row, separators=(",", ":"))
        shared = "model" not in row and text in first
        yield f"classes\t{key}\t" + (json.dumps(first[text]) if shared else text)
        first.setdefault(text, key)
