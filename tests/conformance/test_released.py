"""Released configurations and weight names: the headers give the map of the model that transformers builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lorascope.names import unfold_all
from tests.conformance.released import (
    REASONS,
    config_of,
    measure_config,
    measure_names,
    released_configs,
    released_names,
)

CONFIGS, NAMES = released_configs(), released_names()
RESULTS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("released.json").read_text(encoding="utf-8"))
STALE = "stale: run python tools/build_docs.py --measure-released"


def test_what_is_compared_and_where_it_is_from() -> None:
    assert len(CONFIGS) == 215
    assert len({row["config"]["model_type"] for row in CONFIGS.values()}) == 112
    assert len(NAMES) == 44
    for row in (*CONFIGS.values(), *NAMES.values()):
        assert row["source"].startswith(("https://huggingface.co/", "https://github.com/"))
    assert RESULTS["configurations"].keys() == CONFIGS.keys()
    assert RESULTS["names"].keys() == NAMES.keys()


def test_the_layouts_that_only_released_files_have() -> None:
    configs = [row["config"] for row in CONFIGS.values()]
    parents = [one for one in configs if one.get("vision_config", {}).get("model_type") == one["model_type"]]
    assert len(parents) == 15
    assert sum("vision_config" in one and "hidden_size" in one for one in configs) == 9  # flat
    assert sum("architectures" not in one for one in configs) == 8
    assert sum("auto_map" in one for one in configs) == 22
    assert sum("quantization_config" in one for one in configs) == 25
    assert sum(one.get("tie_word_embeddings") is False and "d_ff" in one for one in configs) == 10


@pytest.mark.parametrize("name", NAMES)
def test_folded_names_are_as_many_as_released(name: str) -> None:
    names = list(unfold_all(NAMES[name]["names"]))
    assert len(names) == len(set(names)) == NAMES[name]["count"]


def test_counts_of_what_was_compared() -> None:
    configurations, lists = RESULTS["configurations"].values(), RESULTS["names"].values()
    assert sum(not row["differ"] for row in configurations) == 214
    coded = [row for row in lists if "by_names" not in row]
    assert (len(coded), len(lists)) == (29, 44)
    assert sum(not row["differ"] for row in coded) == 29


def test_what_differs_has_a_reason() -> None:
    rows = {**RESULTS["configurations"], **RESULTS["names"]}
    assert {name for name, row in rows.items() if row.get("differ")} == REASONS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_headers_give_the_map_of_a_released_configuration(name: str) -> None:
    found = json.loads(json.dumps(measure_config(CONFIGS[name]["config"])))
    assert found == RESULTS["configurations"][name], STALE


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_headers_explain_released_names(name: str) -> None:
    found = measure_names(NAMES[name]["names"], config_of(NAMES[name], CONFIGS))
    assert json.loads(json.dumps(found)) == RESULTS["names"][name], STALE
