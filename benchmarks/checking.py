"""A check of the seven names that everybody pastes, on a map of DeepSeek-V3's size: beside PEFT itself and bare Python.

Needs the extra `torch`. Prints two Markdown tables: within one process medians of five, whole processes medians of five,
interleaved.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import peft
import torch
import transformers

from lorascope import check, inspect, verify
from lorascope.sources.skeleton import build_for_head

REPEATS = 5
MODEL = "deepseek_v3"
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    model = inspect(MODEL)
    count = len(check(model, *SEVEN).resolution.adapted)
    print(f"{MODEL}: {len(model.weights)} weights, {len(model.modules)} modules; {count} weights are adapted\n")
    by_peft = _median(_wrap, lambda: build_for_head(transformers.AutoConfig.for_model(MODEL), None)[0])
    works: dict[str, Callable[[], object]] = {
        "verify: what is adapted": lambda: verify(model, {"target_modules": SEVEN, "task_type": "CAUSAL_LM"}),
        "check: and the findings": lambda: check(model, *SEVEN),
        "inspect and check": lambda: check(inspect(MODEL), *SEVEN),
    }
    print("| in one process | ms | get_peft_model on meta / it |\n|---|---|---|")
    print(f"| get_peft_model on the meta device | {by_peft:.0f} | 1 |")
    for name, work in works.items():
        taken = _median(lambda _: work(), lambda: None)  # noqa: B023
        print(f"| {name} | {taken:.1f} | {by_peft / taken:.0f} |")
    print()
    _processes()


def _processes() -> None:
    command = [sys.executable, "-c", "import sys; from lorascope.cli import main; sys.exit(main(sys.argv[1:]))"]
    commands = {
        "bare Python": [sys.executable, "-c", "pass"],
        f"lorascope check {MODEL} (seven names)": [*command, "check", MODEL, *SEVEN],
        f"lorascope inspect {MODEL}": [*command, "inspect", MODEL],
        "import torch, transformers, peft": [sys.executable, "-c", "import torch, transformers, peft"],
    }
    # As installed: with its byte code.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(REPEATS + 1):
        for name, words in commands.items():
            start = time.perf_counter()
            done = subprocess.run(words, capture_output=True, env=environment, check=False)
            assert done.returncode in (0, 1), done.stderr
            if turn:  # the first fills caches
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print("| process | seconds | bare Python = 1 |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.3f} | {median / medians['bare Python']:.1f} |")


def _wrap(module: torch.nn.Module) -> None:
    with torch.device("meta"):
        peft.get_peft_model(module, peft.LoraConfig(target_modules=list(SEVEN), task_type="CAUSAL_LM"))


def _median(work: Callable[..., object], prepare: Callable[[], object]) -> float:
    """Milliseconds of `work`, given what `prepare` makes each time outside of the clock."""
    taken = []
    for _ in range(REPEATS + 1):
        ready = prepare()
        start = time.perf_counter()
        work(ready)
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken[1:])


if __name__ == "__main__":
    main()
