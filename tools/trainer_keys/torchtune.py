"""Prints the arguments of torchtune's LoRA functions, one a line.

Run by a Python that has torchtune; what it prints is `src/lorascope/data/trainer_keys/torchtune.txt`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

import architectures


def main() -> None:
    # This file has the name of the package that it asks.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    architectures.mend_torchvision()
    print(f"# torchtune {importlib.metadata.version('torchtune')}")
    print("\n".join(sorted(_arguments())))


def _arguments() -> Iterator[str]:
    models = importlib.import_module("torchtune.models")
    for family in pkgutil.iter_modules(models.__path__):
        module = importlib.import_module(f"torchtune.models.{family.name}")
        for name in dir(module):
            if name.startswith("lora_"):
                for argument in inspect.signature(getattr(module, name)).parameters:
                    yield f"{family.name}.{name}.{argument}"


if __name__ == "__main__":
    main()
