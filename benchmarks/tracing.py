"""Roles by dataflow beside building the model: every causal-LM architecture at full depth on the meta device.

Needs the extra `test`. Two processes work through the architectures, each of which is built once before the clock runs, so
that importing its code is not counted; the time of it all counts everything. Memory is that of a process of its own.
Prints a summary and a table of all, slowest first.
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = [str(ROOT / folder) for folder in ("src", "tools", "tests", "tests/conformance")]
sys.path[:0] = FOLDERS

from architectures import Entry, entries  # noqa: E402
from build_docs import prepare  # noqa: E402
from samples import PEAK_MEMORY  # noqa: E402

PROCESSES = 2
# What a process of its own does for one architecture: the most bytes it ever had, before the trace and after it.
_ALONE = f"""
import sys
sys.path[:0] = {FOLDERS!r}
{PEAK_MEMORY}
from build_docs import prepare
prepare()
from architectures import entries
from traces import runnable
from lorascope.sources.skeleton import map_module
from lorascope.tracing.tracer import trace_roles
entry = next(entry for entry in entries('causal-lm') if entry.label == sys.argv[1])
module = runnable(entry)
named = map_module(module, model=entry.label, head=entry.head)
before = peak_memory()
trace_roles(module, named)
print(before, peak_memory())
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """One architecture: its name, parameters, weights with a role, and seconds."""

    label: str
    parameters: int
    weights: int
    build: float
    trace: float

    @property
    def ratio(self) -> float:
        """The trace against building the model."""
        return self.trace / self.build


def measured(entry: Entry) -> Row:
    """Builds and traces one architecture."""
    from traces import runnable

    from lorascope.sources.skeleton import map_module
    from lorascope.tracing.tracer import trace_roles

    runnable(entry)
    start = time.perf_counter()
    module = runnable(entry)
    built = time.perf_counter() - start
    named = map_module(module, model=entry.label, head=entry.head)
    start = time.perf_counter()
    trace_roles(module, named)
    return Row(entry.label, named.figures.parameters, len(named.weights), built, time.perf_counter() - start)


def main() -> None:
    prepare()
    start = time.perf_counter()
    with ProcessPoolExecutor(PROCESSES, initializer=prepare) as pool:
        rows = list(pool.map(measured, entries("causal-lm")))
    whole = time.perf_counter() - start
    print(f"{len(rows)} architectures on {PROCESSES} processes: {whole:.0f} seconds\n")
    print("| | median | p90 | max |\n|---|---|---|---|")
    for what in ("build", "trace", "ratio"):
        values = sorted(getattr(row, what) for row in rows)
        figures = (statistics.median(values), values[int(0.9 * len(values))], values[-1])
        title = "trace / build" if what == "ratio" else f"{what}, s"
        print(f"| {title} | {' | '.join(f'{value:.2f}' for value in figures)} |")
    print("\n| alone in a process | parameters | peak before the trace, MB | with it, MB |\n|---|---|---|---|")
    largest = max(rows, key=lambda row: row.parameters)
    most = max(rows, key=lambda row: row.weights)
    slowest = max(rows, key=lambda row: row.trace)
    for row in dict.fromkeys((largest, most, slowest)):
        before, after = _alone(row.label)
        print(f"| {row.label} | {row.parameters / 1e9:.0f} billion | {before} | {after} |")
    print("\n| architecture | weights | build, s | trace, s | trace / build |\n|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: -row.trace):
        print(f"| {row.label} | {row.weights} | {row.build:.2f} | {row.trace:.2f} | {row.ratio:.1f} |")


def _alone(label: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", _ALONE, label], capture_output=True, text=True, check=True)
    return [int(number) // 1_000_000 for number in done.stdout.split()]


if __name__ == "__main__":
    main()
