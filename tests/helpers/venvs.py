"""Virtual environments with a real trainer in them, made once and shared by the tests that need it.

An environment sees what the tests' own environment has (torch, above all), behind what is installed into it, so that a
trainer gets the releases that it asks for. It is kept in `.trainers/` beside the tests, under a name that changes with what
is installed. `python -m tests.helpers.venvs` makes all of them at once, a few at a time.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.helpers.paths import ROOT

_KEPT = ROOT / ".trainers"
_AT_ONCE = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Requirements:
    """What is installed into an environment.

    Attributes:
        packages: Installed with what they depend on, as far as the tests' environment does not have it.
        alone: Installed without their dependencies, after those.
    """

    packages: Sequence[str] = ()
    alone: Sequence[str] = ()


ENVIRONMENTS = {
    # What axolotl imports for its schema and its loader, at the releases that it asks for; it asks for more, much of it for
    # GPUs. bitsandbytes is in the tests' environment.
    "axolotl": Requirements(
        (
            *("accelerate==1.13.0", "datasets==4.8.4", "huggingface_hub==1.17.0", "kernels>=0.16,<0.17"),
            *("packaging==26.0", "peft==0.20.0", "pydantic==2.12.5", "tokenizers==0.23.1", "transformers==5.16.1"),
            *("trl==1.9.0", "posthog==6.7.11", "python-dotenv==1.0.1", "nvidia-ml-py==12.560.30", "typer==0.25.1"),
            *("addict", "art", "colorama", "einops", "fire"),
        ),
        ("axolotl==0.19.0", "axolotl-contribs-lgpl==0.0.7", "axolotl-contribs-mit==0.0.6"),
    ),
    "llamafactory": Requirements(
        (
            *("transformers==5.6.0", "peft==0.18.1", "accelerate==1.11.0", "datasets==4.0.0", "trl==0.24.0"),
            *("omegaconf", "torchdata==0.11.0"),
        ),
        ("llamafactory==0.9.5",),
    ),
    "mlx-lm": Requirements(("mlx[cpu]==0.32.4", "mlx-lm==0.32.2")),
    "ms-swift": Requirements(
        (
            *("transformers==5.19.*", "peft==0.20.0", "datasets>=4.0,<4.8.5", "trl>=0.15,<1.0", "modelscope>=1.23"),
            *("dacite", "json-repair", "addict", "simplejson", "einops", "charset-normalizer", "importlib-metadata"),
        ),
        ("ms-swift==4.6.0",),
    ),
    # timm and transformers are in the tests' environment.
    "others": Requirements(
        ("frozendict", "ftfy", "loguru", "sympy", "wcwidth", "einops==0.8.2", "einx==0.4.3"),
        (
            *("diffusers==0.42.1", "open_clip_torch==3.3.0", "torch-einops-utils==0.2.0", "vit-pytorch==1.26.14"),
            "x-transformers==2.31.10",
        ),
    ),
    "pre-commit": Requirements(("pre-commit>=4,<5",)),
    "torchtune": Requirements(
        (
            *("omegaconf", "tiktoken", "sentencepiece", "torchao==0.9.0", "torchdata==0.11.0", "datasets"),
            *("blobfile>=2", "kagglehub", "tqdm", "psutil", "Pillow"),
        ),
        ("torchtune==0.6.1",),
    ),
    "trl": Requirements(("trl==1.16.0",)),
    # Alone: they ask for GPU libraries and other releases of PEFT and transformers, whose names they are taken beside.
    "unsloth": Requirements((), ("unsloth==2026.10.9", "unsloth_zoo==2026.10.9")),
}


def environment(name: str) -> Path:
    """The Python of one of `ENVIRONMENTS`, which is made where it is not there yet."""
    required = ENVIRONMENTS[name]
    text = "\n".join([sys.version, sysconfig.get_path("purelib"), *required.packages, "", *required.alone])
    folder = _KEPT / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    _KEPT.mkdir(exist_ok=True)
    with (_KEPT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, required)
            (folder / "ready").touch()
    return folder / "bin" / "python"


def _make(folder: Path, required: Requirements) -> None:
    python = str(folder / "bin" / "python")
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    own = _run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    Path(own, "tests_environment.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    constraints = folder / "constraints.txt"
    constraints.write_text("torch==2.13.0\n", encoding="utf-8")
    # Few of the files that are installed are ever imported, so none is compiled before.
    install = [*PIP, "--python", python, "install", "--quiet", "--no-compile"]
    if required.packages:
        _run([*install, "-c", str(constraints), *required.packages])
    if required.alone:
        _run([*install, "--no-deps", *required.alone])


PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


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


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def main() -> None:
    """Make all environments."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for python in pool.map(environment, ENVIRONMENTS):
            print(python)


if __name__ == "__main__":
    main()
