"""Paths that nobody can look for, or that no file can have: an error of one line, and no request to the Hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lorascope as ls
from lorascope.sources.adapters import read_adapter
from lorascope.sources.files import hub
from lorascope.sources.source_kinds import is_hub_id
from lorascope.sources.transformers.config import configuration
from tests.helpers.samples import fails, sample

ENDINGS = (".json", ".yaml", ".yml", ".py", ".sh", ".safetensors", ".gguf", ".ipynb", ".JSON")
READERS: dict[str, Callable[[str], Any]] = {
    "inspect": ls.inspect,
    "inspect traced": lambda path: ls.inspect(path, trace=True),
    "inspect configuration": lambda path: ls.inspect(path, read="config"),
    "configuration": configuration,
    "adapter": read_adapter,
    "check": lambda path: ls.check(sample("mistral"), path),
}


@pytest.fixture(autouse=True)
def _no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "Connection", lambda *_: pytest.fail("the Hub is asked"))
    monkeypatch.setattr(hub, "open_repository", lambda *_, **__: pytest.fail("a repository is opened"))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_named_like_a_file_is_no_hub_id(reader: str, ending: str) -> None:
    with pytest.raises(ls.LorascopeError):
        READERS[reader](f"folder/file{ending}")


def test_hub_ids_are_still_hub_ids() -> None:
    names = ("org/model", "org/model-GGUF", "org/v0.3", "org/a.b.c", "org/json", "org/model.safetensors-fixed")
    assert [name for name in names if is_hub_id(name)] == list(names)


@pytest.mark.parametrize("reader", [*(name for name in READERS if name != "configuration"), "check as", "load_plan"])
@pytest.mark.parametrize("name", ["closed/adapter_config.json", "closed/model", "closed/deep/er/x.yaml"])
def test_a_folder_that_may_not_be_entered(reader: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat
    asked = []

    def stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if str(path).startswith("closed/"):
            asked.append(path)
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    model = sample("mistral")
    monkeypatch.setattr(os, "stat", stat)
    readers = READERS | {"check as": lambda path: ls.check(model, path, trainer="axolotl"), "load_plan": ls.load_plan}
    with fails(name, "Permission denied"):
        readers[reader](name)
    assert asked


@pytest.mark.parametrize("name", ["x" * 300, "x" * 100_000, "a/" + "x" * 300 + ".json", "a\0b", "/" * 5000 + "x"])
def test_a_plan_of_a_name_that_no_file_has(name: str) -> None:
    with pytest.raises(ls.LorascopeError):
        ls.load_plan(name)
    with pytest.raises(ls.LorascopeError):
        ls.load_plan(Path(name))
