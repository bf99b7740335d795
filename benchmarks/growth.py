"""Processor time against the number of weights, from a thousand to a hundred thousand: read a map, plan and verify.

Needs nothing. The maps are a llama's with more and more layers. Prints a Markdown table within one process.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from processes import parse_options

from lorascope import inspect, plan, save_map, verify

COUNTS = (1_000, 3_000, 10_000, 30_000, 100_000)
Result = TypeVar("Result")


def main() -> None:
    options = parse_options(__doc__)
    print("| weights | read map, ms | plan qv+ffn, ms | verify, ms | per weight, µs |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "llama.json")
        save_map(inspect("llama"), path)
        data = json.loads(path.read_text(encoding="utf-8"))
        layers = data["modules"]["model"]["children"]["layers"]["children"]
        layer = layers.pop("0-31")
        for count in (count for count in COUNTS if options.only in f"{count:,}"):
            layers.clear()
            layers[f"0-{count // 7 - 1}"] = layer
            path.write_text(json.dumps(data), encoding="utf-8")
            reading, model = timed(lambda: inspect(path), options.repeats)
            planning, planned = timed(lambda: plan(model, "qv+ffn"), options.repeats)  # noqa: B023
            verifying, _ = timed(lambda: verify(model, planned), options.repeats)  # noqa: B023
            whole = 1000 * (reading + planning + verifying) / len(model.weights)
            row = f"{len(model.weights)} | {reading:.0f} | {planning:.0f} | {verifying:.0f} | {whole:.1f}"
            print(f"| {row} |", flush=True)


def timed(work: Callable[[], Result], repeats: int) -> tuple[float, Result]:
    """Median milliseconds, and what the work gives."""
    times = []
    for _ in range(min(repeats, 3)):
        start = time.process_time()
        result = work()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times), result


if __name__ == "__main__":
    main()
