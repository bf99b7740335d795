"""Makes `evidence.json` and `tasks.json` of their TOML files.

`python tools/build_advice.py` refuses files with faults. The tests run it, and fail where the JSON is stale.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from advice_form import evidence_faults, tasks_faults

from lorascope.errors import LorascopeError

DATA = Path(__file__).resolve().parent.parent / "src" / "lorascope" / "data"


def read_toml(text: str, where: str) -> dict[str, Any]:
    """Tables of a TOML text.

    Raises:
        LorascopeError: The text is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LorascopeError(f"not TOML: {error}", where=where) from None


def read_evidence(text: str) -> dict[str, Any]:
    """Tables of `evidence.toml`.

    Raises:
        LorascopeError: With every fault of it.
    """
    data = read_toml(text, "evidence")
    return _checked(data, evidence_faults(data), "evidence")


def read_tasks(text: str, claims: dict[str, str]) -> dict[str, Any]:
    """Tables of `tasks.toml`.

    Raises:
        LorascopeError: With every fault of it.
    """
    data = read_toml(text, "tasks")
    return _checked(data, tasks_faults(data, claims), "tasks")


def _checked(data: dict[str, Any], faults: Iterable[str], where: str) -> dict[str, Any]:
    listed = list(faults)
    if listed:
        raise LorascopeError(*listed, where=where, hint="The head of the file explains each key.")
    return data


def built_files() -> dict[Path, str]:
    """Text of each JSON file."""
    evidence = read_evidence((DATA / "evidence.toml").read_text(encoding="utf-8"))
    tasks = read_tasks((DATA / "tasks.toml").read_text(encoding="utf-8"), evidence["claims"])
    return {DATA / f"{name}.json": _json(data) for name, data in (("evidence", evidence), ("tasks", tasks))}


def _json(data: dict[str, Any]) -> str:
    """Compact JSON with a line for each table."""
    parts = []
    for name, value in data.items():
        if isinstance(value, list):
            rows = ",\n".join(map(_compact, value))
            parts.append(f"{_compact(name)}:[\n{rows}\n]")
        else:
            rows = ",\n".join(f"{_compact(key)}:{_compact(row)}" for key, row in value.items())
            parts.append(f"{_compact(name)}:{{\n{rows}\n}}")
    return "{" + ",\n".join(parts) + "}\n"


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def main() -> None:
    """Write both files."""
    for path, text in built_files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
