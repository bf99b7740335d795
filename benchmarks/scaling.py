"""Time against the number of weights, from a thousand to a hundred thousand: read a map, plan, and verify a plan.

Pure Python, no extra. The maps are a llama's with more and more layers. Prints a Markdown table of medians of three.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

from lorascope import inspect, plan, verify
from lorascope.serializing import map_from_json, map_to_json

REPEATS = 3
Result = TypeVar("Result")


def main() -> None:
    print("| weights | read map, ms | plan qv+ffn, ms | verify, ms | per weight, µs |\n|---|---|---|---|---|")
    data = map_to_json(inspect("llama"))
    layers = data["modules"]["model"]["children"]["layers"]["children"]
    layer = layers.pop("0-31")
    for count in (1_000, 3_000, 10_000, 30_000, 100_000):
        layers.clear()
        layers[f"0-{count // 7 - 1}"] = layer
        text = json.dumps(data)
        reading, model = _timed(lambda: map_from_json(json.loads(text)))  # noqa: B023
        planning, made = _timed(lambda: plan(model, "qv+ffn"))  # noqa: B023
        verifying, _ = _timed(lambda: verify(model, made))  # noqa: B023
        whole = 1000 * (reading + planning + verifying) / len(model.weights)
        print(f"| {len(model.weights)} | {reading:.0f} | {planning:.0f} | {verifying:.0f} | {whole:.1f} |")


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = work()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken), result


if __name__ == "__main__":
    main()
