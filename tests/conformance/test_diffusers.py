"""Models of diffusers: headers and class give one map, PEFT adapts what plans say, and a call reaches every weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.venvs import environment, run_in

ITSELF = ROOT / "tests/conformance/diffusers_models.py"
# Released configurations of each family: which plans are exact, over how many weights.
EXPECTED: dict[str, dict[str, Any]] = json.loads((ITSELF.parent / "diffusers.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_models_of_diffusers(tmp_path: Path) -> None:
    assert len(EXPECTED) == 15
    printed = run_in(environment("others"), ["-P", str(ITSELF), *EXPECTED], tmp_path, timeout=1200)
    rows = json.loads(printed)
    for name, row in rows.items():
        assert (row["differ"], row["config"], row["unexplained"], row["unexecuted"]) == ([], [], 0, 0), name
        assert {verdict for verdict, _ in row["plans"].values()} == {"exact"}, name
        assert row["pasted"][0] == "exact", name
        assert row["pasted"][1] == EXPECTED[name]["pasted"], name
        assert row["weights"] == EXPECTED[name]["weights"], name
        assert row["plans"] == EXPECTED[name]["plans"], name
    assert rows.keys() == EXPECTED.keys()
