"""A check of the seven names that everybody pastes, on a map of DeepSeek-V3's size: beside PEFT itself and bare Python.

Needs the extra `torch`. Prints two Markdown tables: within one process medians of five, whole processes medians of five,
interleaved.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import peft
import torch
import transformers
from timing import LORASCOPE, median_of, print_processes

from lorascope import check, inspect, verify
from lorascope.sources.skeleton import build_for_head

MODEL = "deepseek_v3"
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    model = inspect(MODEL)
    count = len(check(model, *SEVEN).resolution.adapted)
    print(f"{MODEL}: {len(model.weights)} weights, {len(model.modules)} modules; {count} weights are adapted\n")
    by_peft = median_of(_wrap, lambda: build_for_head(transformers.AutoConfig.for_model(MODEL), None)[0])
    works: dict[str, Callable[[], object]] = {
        "verify: what is adapted": lambda: verify(model, {"target_modules": SEVEN, "task_type": "CAUSAL_LM"}),
        "check: and the findings": lambda: check(model, *SEVEN),
        "inspect and check": lambda: check(inspect(MODEL), *SEVEN),
    }
    print("| in one process | ms | get_peft_model on meta / it |\n|---|---|---|")
    print(f"| get_peft_model on the meta device | {by_peft:.0f} | 1 |")
    for name, work in works.items():
        taken = median_of(work)
        print(f"| {name} | {taken:.1f} | {by_peft / taken:.0f} |")
    print()
    print_processes(
        {
            f"lorascope check {MODEL} (seven names)": (*LORASCOPE, "check", MODEL, *SEVEN),
            f"lorascope inspect {MODEL}": (*LORASCOPE, "inspect", MODEL),
            "import torch, transformers, peft": (sys.executable, "-c", "import torch, transformers, peft"),
        }
    )


def _wrap(module: torch.nn.Module) -> None:
    with torch.device("meta"):
        peft.get_peft_model(module, peft.LoraConfig(target_modules=list(SEVEN), task_type="CAUSAL_LM"))


if __name__ == "__main__":
    main()
