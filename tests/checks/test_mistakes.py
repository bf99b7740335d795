"""Every mistake of `mistakes.toml`, through the check as its user would run it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lorascope.checks.check import check
from lorascope.checks.context import CheckContext
from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.state_dict import saved_tensors
from lorascope.plans.verify import adapter_config
from lorascope.sources.builtin import load_builtin
from lorascope.sources.checkpoint.types import Span, Tensor
from lorascope.trainers.registry import TRAINERS
from tests.helpers.findings import base_findings, tensor_findings
from tests.helpers.paths import DATA

ROWS: list[dict[str, Any]] = tomllib.loads((DATA / "mistakes.toml").read_text(encoding="utf-8"))["mistake"]
SUFFIXES = {"json": ".json", "yaml": ".yaml", "command": ".sh", "python": ".py"}
# What the reading of a configuration refuses before there is anything to find.
AT_THE_DOOR = {"peft-3735": "target_parameters is", "mlx-lm-1670": "lora_parameters has no scale"}


def of_kind(kind: str) -> list[Any]:
    """The rows of one kind, each under its id."""
    return [pytest.param(row, id=row["id"]) for row in ROWS if kind_of(row) == kind]


def kind_of(row: dict[str, Any]) -> str:
    for kind in ("trainer", "tensors", "serve", "names"):
        if kind in row:
            return kind
    return "config"


def expect(row: dict[str, Any], findings: list[Finding]) -> None:
    """The codes of a row are there, and its words in what those say."""
    codes = {finding.code for finding in findings}
    assert set(row["findings"]) <= codes, (sorted(codes), row["mistake"])
    text = "\n".join(f"{f.where}: {f.message} {f.fix}" for f in findings if f.code in row["findings"])
    assert [word for word in row.get("says", ()) if word not in text] == [], text


def test_every_row_is_of_a_kind_that_is_run() -> None:
    counts = {kind: len(of_kind(kind)) for kind in ("config", "names", "trainer", "tensors", "serve")}
    assert sum(counts.values()) == len(ROWS) >= 103
    assert counts["config"] >= 65
    assert all(number >= 3 for number in counts.values()), counts
    assert set(AT_THE_DOOR) <= {row["id"] for row in ROWS}


@pytest.mark.parametrize("row", of_kind("config"))
def test_a_configuration(row: dict[str, Any]) -> None:
    model = load_builtin(row["model"], row.get("head", ""))
    config = json.loads(row["config"])
    if row["id"] in AT_THE_DOOR:
        with pytest.raises(LorascopeError, match=AT_THE_DOOR[row["id"]]):
            check(model, config)
        return
    expect(row, list(check(model, config, peft=row.get("peft", "")).findings))


@pytest.mark.parametrize("row", of_kind("names"))
def test_names(row: dict[str, Any]) -> None:
    model = load_builtin(row["model"], row.get("head", ""))
    expect(row, list(check(model, *row["names"]).findings))


@pytest.mark.parametrize("row", of_kind("trainer"))
def test_a_trainers_configuration(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / f"config{SUFFIXES[TRAINERS[row['trainer']].form]}"
    path.write_text(row["text"], encoding="utf-8")
    model = load_builtin(row["model"], row.get("head", ""))
    if row["id"] in AT_THE_DOOR:
        with pytest.raises(LorascopeError, match=AT_THE_DOOR[row["id"]]):
            check(model, path, trainer=row["trainer"])
        return
    expect(row, list(check(model, path, trainer=row["trainer"]).findings))


@pytest.mark.parametrize("row", of_kind("tensors"))
def test_tensors_beside_a_configuration(row: dict[str, Any]) -> None:
    """What PEFT saves for one configuration on one model, read beside another."""
    model, arguments = load_builtin(row["model"], row.get("head", "")), json.loads(row["config"])
    changes = json.loads(row["tensors"])
    source = load_builtin(changes["model"], changes.get("head", "")) if "model" in changes else model
    theirs = adapter_config({**arguments, **changes.get("config", {})})
    shapes = saved_tensors(source, theirs, resolve(source, theirs)).tensors
    tensors: dict[str, Tensor] = {}
    for name, saved in shapes.items():
        if "drop" in changes and re.search(changes["drop"], name):
            continue
        for pattern, replacement in changes.get("rename", ()):
            name = re.sub(pattern, replacement, name)
        tensors[name] = Tensor(name, "F32", saved.shape, Span("adapter_model.safetensors", 0, 0))
    config = adapter_config(arguments)
    context = CheckContext(model, config, resolve(model, config), given=arguments)
    expect(row, [*tensor_findings(context, tensors), *base_findings(context, tensors)])


@pytest.mark.parametrize("row", of_kind("serve"))
def test_what_a_server_takes(row: dict[str, Any]) -> None:
    model = load_builtin(row["model"], row.get("head", ""))
    expect(row, list(check(model, json.loads(row["config"]), serve=row["serve"]).findings))
