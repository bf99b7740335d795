"""Processor time of whole processes, as ratios to bare Python.

Other programs share the machine, so the clock says little. Each run of a process follows one of bare Python, and its
figure is the median of the ratios of these pairs. `--instructions` counts instead of timing: the same to the digit on
every run, but it needs valgrind and fifty times as long.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 7
HEAVY_REPEATS = 3
_VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
_BARE = (sys.executable, "-c", "pass")
# No model here needs them, and a torchvision built for another torch stops transformers, accelerate and PEFT at import.
_HIDDEN = ("torchvision", "timm")


def hide_torchvision() -> None:
    """Make this process work where torchvision is absent or does not fit torch."""
    sys.modules.update(dict.fromkeys(_HIDDEN))  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Process:
    """One command line.

    Attributes:
        words: Program and arguments.
        aim: The most times bare Python that it should take; 0 for none.
        peer_of: The process that does the same work. A peer that fails is reported and does not stop the others.
        needs: Packages without which it is skipped.
        heavy: It takes seconds, so it is run three times at most.
        codes: Exit codes that are no failure.
    """

    words: tuple[str, ...]
    aim: float = 0
    peer_of: str = ""
    needs: tuple[str, ...] = ()
    heavy: bool = False
    codes: tuple[int, ...] = (0,)

    @property
    def missing(self) -> list[str]:
        """The packages that it needs and that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def python(code: str, *arguments: str) -> tuple[str, ...]:
    """The words of a Python that runs some code."""
    return (sys.executable, "-c", code, *arguments)


def with_transformers(code: str, *arguments: str) -> tuple[str, ...]:
    """As `python`, for code that imports transformers: torchvision and timm are hidden from it."""
    return python(f"import sys; sys.modules.update(dict.fromkeys({_HIDDEN!r}))\n{code}", *arguments)


def lorascope(*arguments: str) -> tuple[str, ...]:
    """The command line as its installed script starts it."""
    return python("import sys; from lorascope.__main__ import start; sys.exit(start())", *arguments)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Processor seconds (or instructions) of a process, and how many times bare Python that is."""

    amount: float
    ratio: float


class FailedError(Exception):
    """A process ended with an unexpected exit code."""


def environment() -> dict[str, str]:
    """This process's environment, with byte code kept as for any installed package, and no telemetry."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "HF_HUB_DISABLE_TELEMETRY": "1"}


def processor_seconds(process: Process, variables: Mapping[str, str]) -> float:
    """User and system time of one run.

    Raises:
        FailedError: It ends with another exit code than those expected.
    """
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(process.words, stdout=subprocess.DEVNULL, stderr=errors, env=variables)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in process.codes:
            errors.seek(0)
            raise FailedError(errors.read().decode(errors="replace"))
    return usage.ru_utime + usage.ru_stime


def instructions(process: Process, variables: Mapping[str, str]) -> float:
    """Instructions of one run, by valgrind.

    Raises:
        FailedError: It ends with another exit code than those expected.
    """
    words = (*_VALGRIND, *process.words)
    done = subprocess.run(words, env={**variables, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=False)
    total = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if done.returncode not in process.codes or total is None:
        raise FailedError(done.stderr)
    return float(total[1].replace(",", ""))


def measure(
    processes: Mapping[str, Process],
    options: argparse.Namespace,
    variables: Callable[[], Mapping[str, str]] = environment,
) -> dict[str, Cost | str]:
    """The cost of each process, or why there is none.

    Args:
        processes: What to run, by title.
        options: Those of the command line, see `parse_options`.
        variables: Makes the environment of each run.

    Raises:
        SystemExit: A process that is no peer fails.
    """
    run = instructions if options.instructions else processor_seconds
    turns = (
        range(1) if options.instructions else range(-1, options.repeats)
    )  # the first is for byte code and the page cache
    costs: dict[str, Cost | str] = {}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for turn in turns:
        for title, process in processes.items():
            if title in costs or (process.heavy and not 0 <= turn < HEAVY_REPEATS):
                continue
            if process.missing or (process.heavy and options.instructions):
                costs[title] = f"skipped: {', '.join(process.missing) or 'too slow to count'}"
                continue
            try:
                bare, amount = run(Process(_BARE), variables()), run(process, variables())
            except FailedError as error:
                if not process.peer_of:
                    raise SystemExit(f"{title} failed: {error}") from error
                costs[title] = f"failed: {str(error).strip().rpartition(chr(10))[2][:200]}"
                continue
            if turn >= 0:
                pairs.setdefault(title, []).append((amount, bare))
    for title, mine in pairs.items():
        costs[title] = Cost(
            statistics.median([amount for amount, _ in mine]),
            statistics.median([amount / bare for amount, bare in mine]),
        )
    return {title: costs[title] for title in processes}


def print_processes(
    processes: Mapping[str, Process],
    options: argparse.Namespace,
    variables: Callable[[], Mapping[str, str]] = environment,
) -> None:
    """Measure processes and print them as a Markdown table."""
    chosen = {title: process for title, process in processes.items() if options.only in title}
    costs = measure(chosen, options, variables)
    unit = "instructions, M" if options.instructions else "processor, ms"
    print(f"| process | {unit} | bare Python = 1 | aim | lorascope = 1 |\n|---|---|---|---|---|")
    for title, process in chosen.items():
        cost, own = costs[title], costs.get(process.peer_of)
        if isinstance(cost, str):
            print(f"| {title} | {cost} | | | |")
            continue
        amount = cost.amount / 1e6 if options.instructions else 1000 * cost.amount
        aim = f"{process.aim:g}, {'reached' if cost.ratio <= process.aim else 'missed'}" if process.aim else ""
        times = f"{cost.amount / own.amount:.2f}" if isinstance(own, Cost) else ""
        print(f"| {title} | {amount:.0f} | {cost.ratio:.1f} | {aim} | {times} |", flush=True)


def parse_options(description: str | None, arguments: Iterable[str] | None = None) -> argparse.Namespace:
    """The options that all scripts have."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"runs of each process (default: {REPEATS})")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with this text in their title")
    parser.add_argument("--instructions", action="store_true", help="count instructions with valgrind; light rows only")
    return parser.parse_args(None if arguments is None else list(arguments))
