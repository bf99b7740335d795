"""The skeleton costs names and shapes, not weights; and a configuration comes from a Hub without anything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.hub_server import Repo, Server
from tests.helpers.paths import ROOT
from tests.helpers.peak_memory import PEAK_MEMORY

PATHS = os.pathsep.join(str(ROOT / folder) for folder in ("src", "tools"))
PREPARE = "import architectures; architectures.mend_torchvision(); from lorascope.cli.main import main; import sys; "

pytestmark = pytest.mark.slow


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PREPARE + code, *arguments],
        env={**os.environ, "PYTHONPATH": PATHS, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_deepseek_v3_inspects_within_two_gigabytes(tmp_path: Path) -> None:
    config = {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    code = (
        f"\n{PEAK_MEMORY}\ncode = main(['inspect', sys.argv[1]]); print(peak_memory(), file=sys.stderr); sys.exit(code)"
    )
    done = run(code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "parameters 671.03B" in done.stdout
    assert int(done.stderr.splitlines()[-1]) < 2 * 2**30


CONFIG = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 3}).encode()


def test_a_hub_id_without_weights_needs_its_configuration_only(tmp_path: Path) -> None:
    with Server({"someone/small": Repo({"config.json": CONFIG, "README.md": b"mine"})}) as hub:
        done = run(
            "sys.exit(main(sys.argv[1:]))", "inspect", "someone/small", HF_ENDPOINT=hub.endpoint, HF_HOME=str(tmp_path)
        )
    assert done.returncode == 0, done.stderr
    assert "model someone/small: LlamaForCausalLM (causal-lm; config" in done.stdout
    assert "layers 3" in done.stdout
    assert not [request.path for request in hub.requests if "README" in request.path or "safetensors" in request.path]


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with Server({}) as hub:
        done = run(
            "sys.exit(main(sys.argv[1:]))", "plan", "someone/else", HF_ENDPOINT=hub.endpoint, HF_HOME=str(tmp_path)
        )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "someone/else: there is no such repository" in done.stderr
    assert "Check the name" in done.stderr
