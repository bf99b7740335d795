"""The rules of older releases of PEFT against those releases: `test_parity` and the traps, run where they are installed.

Each is installed into a folder of its own beside the installed torch and transformers 5.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow

# The oldest that the rules reach, the one that LLaMA-Factory 0.9.5 pins, and the last of each minor version since.
OLDER = ("0.18.0", "0.18.1", "0.19.1", "0.20.0")
# 22 models with random configurations, 22 with the usual ones, and two tests of the tests.
PARITY = 46
TRAPS = 127


def passed(release: str, folder: Path, file: str) -> int:
    """How many tests of a file pass with a release; fails where any does not."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(ROOT / "tests/peft_rules" / file)],
        env={**os.environ, "PYTHONPATH": path, "LORASCOPE_PARITY_PER_MODEL": "40"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    found = re.search(r"(\d+) passed", done.stdout)
    assert found is not None
    return int(found.group(1))


@pytest.fixture(scope="module", params=OLDER)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    release = str(request.param)
    folder = tmp_path_factory.mktemp(f"peft-{release}")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"]
    subprocess.run([*install, "--target", str(folder), f"peft=={release}"], check=True, capture_output=True)
    shown = subprocess.run(
        [sys.executable, "-c", "import importlib.metadata; print(importlib.metadata.version('peft'))"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == release
    return release, folder


def test_random_and_usual_configurations(installed: tuple[str, Path]) -> None:
    assert passed(*installed, "test_parity.py") == PARITY


def test_traps_of_older_releases(installed: tuple[str, Path]) -> None:
    assert passed(*installed, "test_traps.py") >= TRAPS
