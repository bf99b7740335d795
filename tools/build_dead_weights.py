"""Writes which weights an adapter is dead on, or breaks, from transformers' own models.

python tools/build_dead_weights.py                      the table, from what was measured and the modeling code, seconds
python tools/build_dead_weights.py --measure            measures what is missing: an hour; goes on where it was stopped
python tools/build_dead_weights.py --measure LABEL…     measures some again: causal-lm/mamba, auto/WavLMModel

A small model of every architecture and of every class of the Auto mappings for vision, sound and more gets LoRA on everything
that its map calls adaptable, and one backward pass (`tests/conformance/gradients.py`). Fused kernels are not installed here,
so that the modeling code tells which weights it hands to them: an optional kernel is a function that returns None without it.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools"), str(ROOT)]
TABLE = ROOT / "src" / "lorascope" / "data" / "dead_weights.json"
MEASURED = ROOT / "tests" / "conformance" / "gradients.json"
CACHE = ROOT / "build" / "gradients.jsonl"
_SECONDS = 90
_DEAD = ("read", "tied", "detached", "crashes")
_HUB = "use_kernel_func_from_hub_with_fallback"
# Tokens of a text that is compressed, sparsely attended or hashed, where a short one leaves modules without a gradient.
_LONG = 160


# --- measuring ----------------------------------------------------------------------------------------------------------


def labels() -> dict[str, Any]:
    """Every model that is measured, by its label."""
    import architectures

    from tests.helpers.auto_models import auto_entries

    known = {f"{entry.head}/{entry.label}": entry for entry in (*architectures.entries(), *architectures.layouts())}
    return known | {f"auto/{entry.architecture}": entry for entry in auto_entries()}


def measure_label(label: str, entry: Any) -> dict[str, Any]:
    """What one model showed: its type, and state to key to the number of weights; or the error."""
    from tests.conformance.gradients import by_key

    row: dict[str, Any] = {"label": label, "type": entry.model_type}
    try:
        measured = measure_auto(entry) if label.startswith("auto/") else _measure_known(entry)
    except (Exception, _TooLongError) as error:  # modeling code raises whatever it likes
        return row | {"error": f"{type(error).__name__}: {error}"[:300]}
    return row | {"states": by_key(measured), "errors": dict(measured.errors), "failures": dict(measured.failures)}


def _measure_known(entry: Any) -> Any:
    from lorascope.tracing.calls.inputs import model_calls
    from tests.conformance.gradients import NothingRanError, measure
    from tests.helpers.runnable_models import runnable

    def build() -> Any:
        model = runnable(entry)
        return model.train() if entry.model_type == "reformer" else model  # which has no gradients otherwise

    if entry.model_type == "reformer":
        return measure(build, lambda model: model_calls(model, length=64))
    measured = measure(build, model_calls)
    if "detached" in measured.states.values() and not measured.failures:
        with contextlib.suppress(NothingRanError):  # some take no more than what their configuration says
            longer = measure(build, lambda model: model_calls(model, length=_LONG))
            return longer if not longer.failures else measured
    return measured


def measure_auto(entry: Any) -> Any:
    """What a class of an Auto mapping showed, with the first configuration and inputs that it runs with."""
    import torch

    from tests.conformance.gradients import NothingRanError, measure
    from tests.helpers.auto_models import builds, calls_of

    reasons: list[str] = []
    for build in builds(entry):
        model = build()
        for calls in calls_of(model):
            try:
                with torch.no_grad():
                    given = calls[0].arguments.items() if calls[0].method == "forward" else ()
                    if given:
                        model(**{name: _copied(value) for name, value in given})
            except Exception as error:  # these inputs are not what it takes
                reasons.append(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
                continue
            return measure(build, functools.partial(_same, calls))
    raise NothingRanError("; ".join(dict.fromkeys(reasons[-3:])) or "its default configuration cannot be built")


def _same(calls: Any, _: Any) -> Any:
    return calls


def _copied(value: Any) -> Any:
    import torch

    return value.clone() if isinstance(value, torch.Tensor) else value


def measure_missing(wanted: list[str]) -> None:
    """Measure some models, or all that are not in the cache, and add each to it at once."""
    import gc
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    entries = labels()
    done = {row["label"] for row in _rows()}
    CACHE.parent.mkdir(exist_ok=True)
    todo = wanted or [label for label in entries if label not in done]
    for place, label in enumerate(todo):
        start = time.monotonic()
        with _TimeLimit():
            row = measure_label(label, entries[label])
        with CACHE.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        states = row.get("states", {})
        dead = " ".join(f"{state}: {', '.join(states[state])};" for state in _DEAD if state in states)
        print(
            f"{place + 1}/{len(todo)} {label} {time.monotonic() - start:.1f} s {dead}{row.get('error', '')}", flush=True
        )
        gc.collect()


class _TooLongError(BaseException):
    """A model takes too long; modeling code catches it nowhere."""


class _TimeLimit:
    """Raises `_TooLongError` within a model that takes too long."""

    def __enter__(self) -> None:
        def stop(*_: object) -> None:
            raise _TooLongError(f"more than {_SECONDS} s")

        signal.signal(signal.SIGALRM, stop)
        signal.alarm(_SECONDS)

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)


def _rows() -> list[dict[str, Any]]:
    if not CACHE.exists():
        return []
    rows = {}
    for line in CACHE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["label"]] = row
    return [rows[label] for label in sorted(rows)]


# --- what was measured, in short ------------------------------------------------------------------------------------------


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The measured models in short: numbers, dead keys, and where a dead key trains elsewhere."""
    dead = {key for row in rows for state in _DEAD for key in row.get("states", {}).get(state, ())} | set(scan_read())
    trained: dict[str, set[str]] = {}
    models: dict[str, Any] = {}
    for row in rows:
        states = row.get("states", {})
        for key in dead.intersection(states.get("trained", ())):
            trained.setdefault(key, set()).add(row["type"])
        found: dict[str, Any] = {"type": row["type"]}
        if "error" in row:
            found["error"] = row["error"]
        else:
            found["trained"] = sum(states.get("trained", {}).values())
            found |= {state: states[state] for state in (*_DEAD, "zero", "idle", "refused") if state in states}
            found |= {name: row[name] for name in ("errors", "failures") if row[name]}
        models[row["label"]] = found
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in ("transformers", "peft", "torch")}
    return {"versions": versions, "trained": {key: sorted(trained[key]) for key in sorted(trained)}, "models": models}


# --- the table ------------------------------------------------------------------------------------------------------------


def table_of(
    measured: Mapping[str, Any], kernels: Mapping[str, tuple[str, str]], quantized: list[str], read: list[str]
) -> dict[str, Any]:
    """The packaged table.

    Args:
        measured: What `summary` gives.
        kernels: Key to the optional kernel that reads the weight, and its library.
        quantized: Keys that the modeling code calls only where the model is quantized.
        read: Keys that the modeling code reads and never calls.
    """
    found: dict[str, dict[str, set[str]]] = {state: {} for state in _DEAD}
    errors: dict[str, str] = {}
    for row in measured["models"].values():
        for state in _DEAD:
            for key in row.get(state, ()):
                found[state].setdefault(key, set()).add(row["type"])
        errors |= row.get("errors", {})
    trained = {key: set(types) for key, types in measured["trained"].items()}

    def types(state: str, key: str) -> list[str] | None:
        """The model types that a key is restricted to: none if it trains nowhere; None if it trains there too."""
        where, elsewhere = found[state][key], trained.get(key, set())
        if where & elsewhere:
            return None
        return sorted(where) if elsewhere else []

    tables = {
        state: {key: kept for key in sorted(found[state]) if (kept := types(state, key)) is not None} for state in _DEAD
    }
    tables["read"] = dict(sorted({**{key: [] for key in read if key not in trained}, **tables["read"]}.items()))
    chooses = {key: kept for key, kept in tables["detached"].items() if "Indexer" in key.partition(".")[0]}
    return {
        "read": tables["read"],
        "tied": tables["tied"],
        "chooses": chooses,
        "crashes": {key: [*_crash(errors[key]), kept] for key, kept in tables["crashes"].items() if key in errors},
        "kernels": {key: list(kernels[key]) for key in sorted(kernels) if key not in tables["read"]},
        "when_quantized": sorted(set(quantized) & tables["read"].keys()),
    }


def _crash(error: str) -> tuple[str, str]:
    """A word and its argument for the error of a crash."""
    if "forward() missing 1 required positional argument: 'x'" in error:
        return "keywords", ""
    if match := re.search(r"has no attribute [`'](\w+)[`']", error):
        return "attribute", match[1]
    return "error", error


def scan_kernels() -> dict[str, tuple[str, str]]:
    """Weights that modeling code hands to an optional fused kernel: key to the kernel and its library."""
    found: dict[str, tuple[str, str]] = {}
    for tree in _modeling_files(_HUB):
        optional = {
            node.name: library
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and (library := _optional_library(node))
        }
        for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)) if optional else ():
            linear = _attributes(owner, "nn.Linear")
            for call in (node for node in ast.walk(owner) if isinstance(node, ast.Call)):
                if isinstance(call.func, ast.Name) and call.func.id in optional:
                    for name in _weights_read(call) & linear:
                        found[f"{owner.name}.{name}"] = call.func.id, optional[call.func.id]
    return found


def scan_read() -> list[str]:
    """Layers whose weight their class reads and which it never calls, by the modeling code alone."""
    found = set()
    for tree in _modeling_files(".weight"):
        called = _called_elsewhere(tree)
        for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            layers = _attributes(owner, "nn.Linear", "nn.Embedding", "nn.Conv1d")
            methods = [
                node
                for node in owner.body
                if isinstance(node, ast.FunctionDef) and "init" not in node.name and "resize" not in node.name
            ]
            read = {name for method in methods for name in _weights_computed_with(method)} & layers
            found |= {f"{owner.name}.{name}" for name in read - called if not _is_used_whole(owner, name)}
    return sorted(found)


def _called_elsewhere(tree: ast.Module) -> set[str]:
    """Names of attributes that something other than `self` is asked for and that are called: `quantize.embedding(x)`."""
    return {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) != "self"
    }


def _weights_computed_with(tree: ast.AST) -> Iterator[str]:
    """Attributes of self whose weight is read for more than its dtype, device or shape."""
    for node in ast.walk(tree):
        facts = isinstance(node, ast.Attribute) and node.attr in ("dtype", "device", "shape", "data")
        if facts or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"):
            for inner in ast.walk(node):
                inner.asked = True  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "weight" and not hasattr(node, "asked"):
            yield from _weights_read(node)


def _is_used_whole(owner: ast.ClassDef, name: str) -> bool:
    """The class may call `self.name` or pass it on.

    It does more than assign it and read its attributes.
    """
    read_of = {id(node.value) for node in ast.walk(owner) if isinstance(node, ast.Attribute)}
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and node.attr == name
        and _is_self(node.value)
        and id(node) not in read_of
        for node in ast.walk(owner)
    )


def scan_quantized() -> list[str]:
    """Modules that modeling code calls only where the model is quantized."""
    found = set()
    for tree in _modeling_files("_is_quantized"):
        for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
            for branch in (node for node in ast.walk(owner) if isinstance(node, ast.If)):
                if "_is_quantized" in ast.unparse(branch.test):
                    reads = {name for part in branch.orelse for name in _weights_read(part)}
                    found |= {f"{owner.name}.{name}" for name in reads}
    return sorted(found)


def _modeling_files(word: str) -> Iterator[ast.Module]:
    """The modeling files with a word, parsed."""
    folder = Path(importlib.util.find_spec("transformers").origin).parent / "models"  # type: ignore[union-attr, arg-type]
    for path in sorted(folder.glob("*/modeling_*.py")):
        text = path.read_text(encoding="utf-8")
        if word in text:
            yield ast.parse(text)


def _optional_library(function: ast.FunctionDef) -> str:
    """The library of a kernel whose fallback gives None, or empty."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == _HUB:
            last = function.body[-1]
            gives = isinstance(last, ast.Return) and (last.value is None or ast.unparse(last.value) == "None")
            return str(ast.literal_eval(decorator.args[1])) if gives else ""
    return ""


def _attributes(owner: ast.ClassDef, *classes: str) -> set[str]:
    """Attributes that a class assigns a layer of some classes to."""
    return {
        target.attr
        for node in ast.walk(owner)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in classes
        for target in node.targets
        if isinstance(target, ast.Attribute)
    }


def _weights_read(tree: ast.AST) -> set[str]:
    """Attributes of self whose weight is read."""
    return {
        node.value.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr == "weight"
        and isinstance(node.value, ast.Attribute)
        and _is_self(node.value.value)
    }


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def build() -> dict[str, Any]:
    """The table of what was measured and of the installed modeling code."""
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    return table_of(measured, scan_kernels(), scan_quantized(), scan_read())


def main(arguments: list[str]) -> None:
    """Measure if asked to, and write the table."""
    import architectures

    architectures.mend_torchvision()
    if "--measure" in arguments:
        measure_missing([argument for argument in arguments if argument != "--measure"])
    if rows := _rows():
        MEASURED.write_text(_lines(summary(rows)), encoding="utf-8")
    TABLE.write_text(json.dumps(build(), indent=1) + "\n", encoding="utf-8")


def _lines(data: dict[str, Any]) -> str:
    """JSON with one model a line."""
    models = ",\n".join(f"  {json.dumps(label)}: {json.dumps(row)}" for label, row in data["models"].items())
    rest = {name: value for name, value in data.items() if name != "models"}
    return json.dumps(rest, indent=1)[:-2] + ',\n "models": {\n' + models + "\n }\n}\n"


if __name__ == "__main__":
    main(sys.argv[1:])
