"""The form of `mistakes.toml`: what each row must have, so that the test that checks the mistakes can rely on it."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from typing import Any

import pytest
import yaml

from lorascope.peft_rules.releases import release_of
from lorascope.sources.builtin import builtin_models
from tests.helpers.paths import DATA

ROWS: list[dict[str, Any]] = tomllib.loads((DATA / "mistakes.toml").read_text(encoding="utf-8"))["mistake"]
_ALWAYS = {"id", "url", "title", "mistake", "model", "findings"}
_MAY = {"head", "config", "names", "trainer", "text", "tensors", "peft", "serve", "says"}
_TENSORS = {"model", "head", "config", "rename", "drop"}
_TRAINERS = {"axolotl", "llamafactory", "mlx-lm", "ms-swift", "torchtune", "trl", "unsloth"}
_SERVERS = {"vllm", "sglang"}
_CODES = set(
    re.findall(
        r"[a-z-]+",
        """
        refused dead-or-crashing tensor-missing tensor-unexpected tensor-shape tensor-rank other-base not-servable
        unknown-key no-adapter
        no-match regex-in-list string-not-list digit-name unsupported default-targets
        outside router head left-out moe-rewrite tied condensed
        pattern-unmatched pattern-shadowed pattern-prefix rank-invalid scale
        layers-absent layers-dropped layers-ignored layers-towers layers-with-string layers-pattern
        parameters-options exclude-unmatched saved-unmatched saved-loose saved-shadows saved-copy task-type dora bias
        version-dependent ignored-key trainer-filter
        """,
    )
)
_THREAD = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/(\d+)")


def _rows(key: str) -> list[Any]:
    return [pytest.param(row, id=row["id"]) for row in ROWS if key in row]


def test_there_are_enough_mistakes_of_enough_kinds() -> None:
    assert len(ROWS) >= 100
    assert len({row["url"] for row in ROWS}) >= 98
    assert len({row["url"].split("/")[3] for row in ROWS}) >= 20, "threads of many projects"
    assert len({row["model"] for row in ROWS}) >= 25
    assert len({code for row in ROWS for code in row["findings"]}) >= 35
    kinds = Counter(kind for row in ROWS for kind in ("config", "names", "trainer", "tensors", "serve") if kind in row)
    assert kinds["trainer"] >= 20 and kinds["names"] >= 3 and kinds["tensors"] >= 5 and kinds["serve"] >= 5, kinds
    assert {row["trainer"] for row in ROWS if "trainer" in row} == _TRAINERS


def test_ids_and_threads_are_told_apart() -> None:
    assert [name for name, times in Counter(row["id"] for row in ROWS).items() if times > 1] == []
    assert [url for url, times in Counter(row["url"] for row in ROWS).items() if times > 2] == []


@pytest.mark.parametrize("row", _rows("id"))
def test_a_row_is_whole(row: dict[str, Any]) -> None:
    assert row.keys() >= _ALWAYS, _ALWAYS - row.keys()
    assert row.keys() <= _ALWAYS | _MAY, row.keys() - _ALWAYS - _MAY
    thread = _THREAD.fullmatch(row["url"])
    assert thread, row["url"]
    assert re.fullmatch(rf"[a-z][a-z0-9-]*-{thread[1]}(?:-[a-z]+)?", row["id"])
    assert row["title"].strip() and row["mistake"].endswith(".")
    assert row["model"] in builtin_models()
    assert "head" not in row or row["head"] in builtin_models()[row["model"]]
    assert sum(key in row for key in ("config", "names", "trainer")) == 1
    assert ("trainer" in row) == ("text" in row)
    assert "tensors" not in row or "config" in row
    assert row["findings"] and set(row["findings"]) <= _CODES, set(row["findings"]) - _CODES
    assert all(isinstance(word, str) and word for word in row.get("says", []))
    assert "serve" not in row or row["serve"] in _SERVERS
    if "peft" in row:
        release_of(row["peft"])  # raises for one whose rules are not known


@pytest.mark.parametrize("row", _rows("config"))
def test_a_configuration_is_an_object(row: dict[str, Any]) -> None:
    assert isinstance(json.loads(row["config"]), dict)


@pytest.mark.parametrize("row", _rows("names"))
def test_names_are_words(row: dict[str, Any]) -> None:
    assert row["names"] and all(isinstance(name, str) and name and not name.startswith("-") for name in row["names"])


@pytest.mark.parametrize("row", _rows("tensors"))
def test_tensors_are_described(row: dict[str, Any]) -> None:
    described = json.loads(row["tensors"])
    assert described and described.keys() <= _TENSORS
    assert described.get("model", row["model"]) in builtin_models()
    assert isinstance(described.get("config", {}), dict)
    for pattern, replacement in described.get("rename", []):
        re.sub(pattern, replacement, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight")
    re.compile(described.get("drop", ""))


@pytest.mark.parametrize("row", _rows("trainer"))
def test_a_trainers_file_is_one(row: dict[str, Any]) -> None:
    trainer, text = row["trainer"], row["text"]
    if trainer == "unsloth":
        compile(text, row["id"], "exec", dont_inherit=True)
        assert "get_peft_model(" in text
    elif trainer == "ms-swift":
        assert text.startswith("swift sft --") and "\n" not in text
    else:
        assert isinstance(yaml.safe_load(text), dict)
