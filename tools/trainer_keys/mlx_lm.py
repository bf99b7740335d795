"""Prints the keys of `mlx_lm.lora --config`, one a line.

Run by a Python that has mlx-lm; what it prints is `src/lorascope/data/trainer_keys/mlx_lm.txt`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import sys
from pathlib import Path


def main() -> None:
    # This file has the name of the package that it asks.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    lora = importlib.import_module("mlx_lm.lora")
    utils = importlib.import_module("mlx_lm.tuner.utils")
    options = {action.dest for action in lora.build_parser()._actions} - {"help"}
    print(f"# mlx-lm {importlib.metadata.version('mlx-lm')}")
    print("\n".join(sorted(options | set(lora.CONFIG_DEFAULTS) | _parameters(utils.linear_to_lora_layers))))


def _parameters(function: object) -> set[str]:
    """The keys that a function reads of its argument `config`."""
    keys = set()
    for node in ast.walk(ast.parse(inspect.getsource(function))):  # type: ignore[arg-type]
        if isinstance(node, ast.Subscript) and _is_config(node.value) and isinstance(node.slice, ast.Constant):
            keys.add(f"lora_parameters.{node.slice.value}")
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Call) and isinstance(called, ast.Attribute) and _is_config(called.value):
            keys.add(f"lora_parameters.{ast.literal_eval(node.args[0])}")
    return keys


def _is_config(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "config"


if __name__ == "__main__":
    main()
