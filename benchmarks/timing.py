"""How long calls and whole processes take, for the benchmarks beside it: medians of five, the first of six left out."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

REPEATS = 5
BARE = "bare Python"
# The command line as its script calls it, before its words.
LORASCOPE = (sys.executable, "-c", "import sys; from lorascope.cli import main; sys.exit(main(sys.argv[1:]))")


def median_of(work: Callable[..., object], prepare: Callable[[], object] = lambda: None) -> float:
    """Milliseconds of `work`, given what `prepare` makes each time outside of the clock, if that is anything."""
    taken = []
    for _ in range(REPEATS + 1):
        ready = prepare()
        start = time.perf_counter()
        work(ready) if ready is not None else work()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken[1:])


def print_processes(commands: Mapping[str, Sequence[str]]) -> None:
    """Runs bare Python and whole processes in turn, and prints their times as a table."""
    every = {BARE: (sys.executable, "-c", "pass"), **commands}
    # As installed: with its byte code.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    seconds: dict[str, list[float]] = {name: [] for name in every}
    for turn in range(REPEATS + 1):
        for name, words in every.items():
            start = time.perf_counter()
            done = subprocess.run(words, capture_output=True, env=environment, check=False)
            assert done.returncode in (0, 1), done.stderr
            if turn:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print("| process | seconds | bare Python = 1 |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.3f} | {median / medians[BARE]:.1f} |")
