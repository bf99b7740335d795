"""The data that ships with the package: one loader, strict JSON, nothing that is not loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import lorascope
from lorascope.packaged import load_json, load_text

SOURCE = Path(lorascope.__file__).parent
DATA = SOURCE / "data"
FILES = sorted(path.relative_to(DATA).as_posix() for path in DATA.rglob("*.json") if "builtin" not in path.parts)


def refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def test_files_are_found() -> None:
    assert {"evidence.json", "tasks.json", "training_facts.json", "conversions.json"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_json_is_strict(name: str) -> None:
    value = json.loads((DATA / name).read_bytes().decode("utf-8"), parse_constant=refuse)
    assert value
    assert load_json(name) == value
    assert load_text(name).endswith("\n")


def test_no_other_module_reads_the_folder() -> None:
    modules = [path for path in SOURCE.rglob("*.py") if path.name != "packaged.py"]
    assert len(modules) > 150
    folder = re.compile(r"""[/,(] *["']data["']""")
    users = [
        path for path in modules if "__file__" in (text := path.read_text(encoding="utf-8")) and folder.search(text)
    ]
    assert users == []
