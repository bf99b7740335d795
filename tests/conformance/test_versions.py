"""The stated range of versions is true: a sample of architectures with older PEFT and an older transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).with_name("sample.py")
# (what to install beside the installed torch, with its dependencies or not, architectures that this release has)
OLDER = {
    "peft 0.19.1": (["peft==0.19.1"], False, 50),
    "peft 0.20.0": (["peft==0.20.0"], False, 50),
    "transformers 5.0.0": (["transformers==5.0.0"], True, 46),  # it cannot build four of its own defaults
}


@pytest.mark.parametrize("name", OLDER)
def test_sample_is_exact(name: str, tmp_path: Path) -> None:
    requirements, with_dependencies, count = OLDER[name]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(tmp_path)]
    install += requirements
    subprocess.run(install if with_dependencies else [*install, "--no-deps"], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, str(SAMPLE)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    library, version = name.split()
    assert result[library] == version
    assert len(result["verdicts"]) == count
    wrong = {
        f"{entry} {rule}": reason
        for entry, rules in result["verdicts"].items()
        for rule, (verdict, reason) in rules.items()
        if verdict == "different"
    }
    assert not wrong
