"""The text of a map grows with its weights, and no faster."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

from lorascope.model.types import ModelMap
from lorascope.names import NUMBER
from lorascope.reports.model import BY, map_text
from lorascope.sources.builtin import load_builtin
from tests.helpers.paths import ROOT


def with_layers(model: ModelMap, count: int) -> ModelMap:
    """The same model with fewer layers."""

    def kept(name: str) -> bool:
        number = NUMBER.search(name)
        return number is None or int(number[0]) < count

    return dataclasses.replace(
        model,
        modules=tuple(module for module in model.modules if kept(module.name)),
        weights=tuple(weight for weight in model.weights if kept(weight.name)),
    )


def calls_of(model: ModelMap, by: str) -> int:
    """Calls of functions while the text is made."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        map_text(model, by=by)
    finally:
        sys.setprofile(None)
    return count


def counts() -> dict[str, list[int]]:
    """Calls at 8 and at 32 layers, by grouping."""
    model = load_builtin("llama", "causal-lm")
    found = {}
    for by in BY:
        map_text(with_layers(model, 1), by=by)  # what is loaded and cached once
        found[by] = [calls_of(with_layers(model, layers), by) for layers in (8, 32)]
    return found


# A Python of its own: after thousands of tests CPython 3.11 has been seen to loop under a profile function.
COUNT = "import json; from tests.reports.test_model import counts; print(json.dumps(counts()))"


def test_the_text_is_linear_in_the_layers() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], cwd=ROOT, capture_output=True, text=True, check=True)
    calls = json.loads(done.stdout)
    assert list(calls) == list(BY)
    for by, (few, many) in calls.items():
        assert few > 500, by
        assert many < 4.4 * few, by
