"""Roles by dataflow beside building the model: every causal-LM architecture at full depth on the meta device.

Needs the extra `test`. Two processes work through the architectures, each of which is built once before the time counts, so
that importing its code is not counted. All times are processor time but the first line's. Memory is that of a process of
its own. Prints a summary and a table of all, slowest first.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from processes import ROOT, parse_options

FOLDERS = [str(ROOT / folder) for folder in ("src", "tools", ".", "benchmarks")]
sys.path[:0] = FOLDERS

from architectures import Entry, entries, mend_torchvision  # noqa: E402

from lorascope import ModelMap, inspect  # noqa: E402

PROCESSES = 2
# What a process of its own does for one architecture: the most bytes it ever had, before the trace and after it.
_ALONE = f"""
import sys
sys.path[:0] = {FOLDERS!r}
import traces
traces.prepare()
entry = next(entry for entry in traces.entries('causal-lm') if entry.label == sys.argv[1])
build, trace = traces.works(entry)
module = build()
named = traces.inspect(module)
before = traces.peak_memory()
trace(module, named)
print(before, traces.peak_memory())
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


def prepare() -> None:
    """Make transformers silent and run on one thread."""
    import torch
    import transformers

    mend_torchvision()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)


def peak_memory() -> int:
    """The most bytes that this process has had in memory; `ru_maxrss` would count those of the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def works(entry: Entry) -> tuple[Callable[[], Any], Callable[[Any, ModelMap], ModelMap]]:
    """What builds the model of an architecture, and what traces it."""
    from lorascope.tracing.traced_map import trace_roles
    from tests.conformance.traces import runnable

    return functools.partial(runnable, entry), trace_roles


def measured(entry: Entry) -> Row:
    """Build and trace one architecture."""
    build, trace = works(entry)
    build()
    start = time.process_time()
    module = build()
    built = time.process_time() - start
    named = inspect(module)
    start = time.process_time()
    trace(module, named)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Row(entry.label, parameters, len(named.weights), built, time.process_time() - start)


def main() -> None:
    options = parse_options(__doc__)
    prepare()
    start = time.perf_counter()
    chosen = [entry for entry in entries("causal-lm") if options.only in entry.label]
    with ProcessPoolExecutor(PROCESSES, initializer=prepare) as pool:
        rows = list(pool.map(measured, chosen))
    whole = time.perf_counter() - start
    print(f"{len(rows)} architectures on {PROCESSES} processes: {whole:.0f} seconds by the clock\n")
    print("| | median | p90 | max |\n|---|---|---|---|")
    for what in ("build", "trace", "ratio"):
        values = sorted(getattr(row, what) for row in rows)
        shown = (statistics.median(values), values[int(0.9 * len(values))], values[-1])
        title = "trace / build" if what == "ratio" else f"{what}, s"
        print(f"| {title} | {' | '.join(f'{value:.2f}' for value in shown)} |")
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
