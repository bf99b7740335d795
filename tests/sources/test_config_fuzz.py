"""Whatever number a configuration has in any place, building it ends: in time, in memory, and with one clean error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lorascope.inspecting import inspect
from lorascope.sandbox import build_limits
from tests.helpers.paths import HELPERS, ROOT
from tests.helpers.samples import fails

# Counts without a counted name, or below the bound of their own.
ENDLESS: list[dict[str, Any]] = [
    {
        "model_type": "canine",
        "architectures": ["CanineForSequenceClassification"],
        "num_hash_functions": 3_999_999,
        "hidden_size": 3_999_999,
    },
    {"model_type": "musicgen_decoder", "architectures": ["MusicgenForCausalLM"], "num_codebooks": 999_999},
    {
        "model_type": "wav2vec2",
        "architectures": ["Wav2Vec2ForCTC"],
        "num_adapter_layers": 1900,
        "add_adapter": True,
        "num_hidden_layers": 1999,
    },
]


# What arrives while Python collects garbage is shown there, and comes once more.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("config", ENDLESS, ids=lambda config: config["model_type"])
def test_building_ends(config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_limits, "MOST_SECONDS", 1)
    monkeypatch.setattr(build_limits, "_LOADED", 1)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with fails("is not built: it takes more than 1 seconds", "--source headers"):
        inspect(tmp_path, read="config")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
def test_any_number_anywhere(tmp_path: Path) -> None:
    report = tmp_path / "report"
    paths = os.pathsep.join(filter(None, (str(ROOT / "tools"), os.environ.get("PYTHONPATH"))))
    subprocess.run(
        [sys.executable, str(HELPERS / "fuzzed_configs.py"), str(report), "7", "24"],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
        capture_output=True,
        timeout=900,
    )
    rows = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    outcomes = Counter(row[3] for row in rows)
    assert set(outcomes) == {"built", "refused"}, [row for row in rows if row[3] not in ("built", "refused")]
    assert len(rows) == 24
    assert min(outcomes.values()) > 3
