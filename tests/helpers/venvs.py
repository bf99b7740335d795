"""Virtual environments with a real trainer in them, made once and shared by the tests that need it.

An environment sees what the tests' own environment has (torch, above all), behind what is installed into it, so that a
trainer gets the releases that it asks for. It is kept in `.trainers/` beside the tests, under a name that changes with what
is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.paths import ROOT

_KEPT = ROOT / ".trainers"


def environment(name: str, requirements: list[str], without_dependencies: list[str] | None = None) -> Path:
    """The Python of the environment of a trainer.

    Args:
        name: What to call it.
        requirements: Installed with what they depend on, as far as the tests' environment does not have it.
        without_dependencies: Installed alone, after those.
    """
    alone = without_dependencies or []
    told = "\n".join([sys.version, sysconfig.get_path("purelib"), *requirements, "", *alone])
    folder = _KEPT / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    _KEPT.mkdir(exist_ok=True)
    with (_KEPT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)])
            own = _said([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
            Path(own, "tests_environment.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
            constraints = folder / "constraints.txt"
            constraints.write_text("torch==2.13.0\n", encoding="utf-8")
            if requirements:
                _run([str(python), "-m", "pip", "install", "-q", "-c", str(constraints), *requirements])
            if alone:
                _run([str(python), "-m", "pip", "install", "-q", "--no-deps", *alone])
            (folder / "ready").touch()
    return python


def run_in(
    python: Path, arguments: list[str], folder: Path, variables: Mapping[str, str] | None = None, timeout: int = 600
) -> str:
    """Runs a Python of an environment in a folder, offline; what it printed."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [str(python), *arguments],
        cwd=folder,
        env={**os.environ, **offline, "HF_HOME": str(folder / "hf"), **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    return done.stdout


def _said(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
