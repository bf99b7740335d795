"""Model types of transformers beyond the built-in models: traced, and planned as PEFT adapts them.

One small model per type of the Auto mappings: vision, speech, detection, segmentation, depth, video, codecs, series. What came
of each stands in `other_types.json`. `python -m tests.conformance.other_types` writes it anew (a quarter of an hour).
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from architectures import HEADS, Entry, entries, layouts, mend_torchvision

from lorascope.errors import LorascopeError
from lorascope.inspecting import inspect
from tests.conformance.verdicts import measure_pasted, measure_plans
from tests.helpers.auto_models import auto_entries, builds, calls_of

RECORDED = Path(__file__).with_name("other_types.json")
RULES = {"qv": ("qv",), "all": ("all",)}
# Seconds for one type.
_PATIENCE = 120
_MOST_TRIES = 4
_ORDER = ("whole", "partly", "not")


def other_types() -> Iterator[Entry]:
    """The first listed class of every model type that no built-in model has."""
    known = {entry.model_type for entry in [*entries(*HEADS), *layouts()]}
    seen = set()
    for entry in auto_entries():
        if entry.model_type not in known and entry.model_type not in seen:
            seen.add(entry.model_type)
            yield entry


def measure_type(entry: Entry) -> dict[str, Any]:
    """What came of a type, of the first configuration that is traced to its end.

    Returns:
        `unbuilt`, or else: `traced`, which is `whole`, `partly` or `not`; `unreached` weights of `all`, and whether the
        notes tell of them; the verdict of each of the `plans`, and whether our rules say of PEFT's `all-linear` what it does.
        `ends`: every call was traced to its end.
    """
    best: dict[str, Any] = {"unbuilt": True}
    for make in builds(entry):
        try:
            with torch.device("meta"):
                module = make()
        except Exception:  # a configuration that does not fit together
            continue
        row = _traced(module)
        if "unbuilt" in best or _ORDER.index(row["traced"]) < _ORDER.index(best["traced"]):
            best = {**row, **_planned(module)}
        if row["traced"] != "not" and row["ends"]:
            break
    return {"class": entry.architecture, **best}


def _planned(module: Any) -> dict[str, Any]:
    named = inspect(module)
    plans = {outcome.what: outcome.verdict for outcome in measure_plans(module, named, rules=RULES)}
    (pasted,) = measure_pasted(module, named, lists={"all-linear": "all-linear"})
    return {"plans": plans, "all-linear": pasted.agrees}


def _traced(module: Any) -> dict[str, Any]:
    try:
        model = inspect(module, trace=True)
    except LorascopeError:
        return {"traced": "not", "ends": False}
    unreached = sum(trace.status == "unexecuted" for trace in model.traces)
    told = any(note.startswith("No call reached these parts") for note in model.notes)
    ends = not any(note.startswith("A call was not traced to its end") for note in model.notes)
    return {
        "traced": "partly" if unreached else "whole",
        "unreached": unreached,
        "all": len(model.traces),
        "told": told or not unreached,
        "ends": ends or not unreached,
    }


def runs(entry: Entry) -> bool:
    """Torch runs the small model's forward with some of the inputs that tests make up."""
    module = next(builds(entry))()
    with torch.no_grad():
        for calls in itertools.islice(calls_of(module), _MOST_TRIES):
            for call in calls:
                if call.method == "forward":
                    try:
                        module(**call.arguments)
                    except Exception:  # these inputs are none of its own
                        break
                    return True
    return False


def measured_apart(entry: Entry, measure: Callable[[Entry], Any] = measure_type) -> Any:
    """What is measured of a type in a process of its own, which memory and time may end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(_PATIENCE)
        warnings.simplefilter("ignore")
        try:
            row = measure(entry)
        except BaseException as error:  # what it raises is what came of it
            row = {"class": entry.architecture, "raised": f"{type(error).__name__}: {str(error)[:100]}"}
        os.write(writing, json.dumps(row).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"class": entry.architecture, "raised": "no answer"}


def main() -> None:
    """Write what came of every type."""
    mend_torchvision()
    rows = {}
    for entry in other_types():
        row = rows[entry.model_type] = measured_apart(entry)
        if row.get("ends") is False:
            row["runs"] = measured_apart(entry, runs) is True
        print(entry.model_type, rows[entry.model_type], file=sys.stderr)
    RECORDED.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
