"""Prints the arguments of Unsloth's `get_peft_model`, one a line.

Run by a Python that has Unsloth and PEFT; what it prints is `src/lorascope/data/trainer_keys/unsloth.txt`. Unsloth is not
imported, because it stops without a GPU: its source is read.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import sys
from pathlib import Path

import architectures

_CLASSES = {"llama.py": "FastLlamaModel", "vision.py": "FastBaseModel"}
# Taken out of what else is given, by functions of models/_utils.py.
_TAKEN = ("legacy_offload_layers", "prefetch_depth_arg")


def main() -> None:
    # This file has the name of the package that it asks.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    architectures.mend_torchvision()
    folder = Path(str(importlib.metadata.distribution("unsloth").locate_file("unsloth/models")))
    keys = set(inspect.signature(importlib.import_module("peft").LoraConfig).parameters)
    for file, class_name in _CLASSES.items():
        keys |= _arguments(_parsed(folder / file), class_name)
    for node in ast.walk(_parsed(folder / "_utils.py")):
        if isinstance(node, ast.FunctionDef) and node.name in _TAKEN:
            keys |= {_first(call) for call in ast.walk(node) if isinstance(call, ast.Call) and _pops(call)}
    print(f"# unsloth {importlib.metadata.version('unsloth')}")
    print("\n".join(sorted(keys)))


def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _arguments(tree: ast.Module, class_name: str) -> set[str]:
    """The arguments of `get_peft_model` of a class."""
    owner = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    function = next(node for node in owner.body if isinstance(node, ast.FunctionDef) and node.name == "get_peft_model")
    return {argument.arg for argument in function.args.args}


def _pops(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "pop"


def _first(call: ast.Call) -> str:
    return str(ast.literal_eval(call.args[0]))


if __name__ == "__main__":
    main()
