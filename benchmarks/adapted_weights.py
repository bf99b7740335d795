"""Which weights seven target modules adapt: by lorascope's rules and by `get_peft_model` on the meta device.

Needs the extra `torch`. Prints a Markdown table of processor time within one process.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

from processes import hide_torchvision, parse_options

hide_torchvision()

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from lorascope import check, inspect, verify  # noqa: E402

MODELS = ("llama", "mixtral", "deepseek_v3")
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
AIM = 100


def main() -> None:
    options = parse_options(__doc__)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    print("| model | adapted | verify, ms | check, ms | get_peft_model, ms | verify = 1 | check = 1 |")
    print("|---|---|---|---|---|---|---|")
    for model_type in (name for name in MODELS if options.only in name):
        model = inspect(model_type)
        config = {"target_modules": list(SEVEN), "task_type": "CAUSAL_LM"}
        works: tuple[Callable[[], object], ...] = (
            lambda: verify(model, config),  # noqa: B023
            lambda: check(model, *SEVEN),  # noqa: B023
        )
        verified, checked = (milliseconds(work, options.repeats) for work in works)
        adapted = milliseconds(adapt, options.repeats, lambda: build(model_type))  # noqa: B023
        count = len(verify(model, config).adapted)
        ratios = f"{adapted / verified:.0f} | {adapted / checked:.0f}"
        print(f"| {model_type} | {count} | {verified:.2f} | {checked:.1f} | {adapted:.0f} | {ratios} |", flush=True)
    print(f"\naim: verify takes a {AIM}th of get_peft_model")


def build(model_type: str) -> Any:
    """The model on the meta device."""
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(model_type))


def adapt(module: torch.nn.Module) -> None:
    """Put PEFT's adapters on a model."""
    with torch.device("meta"):
        peft.get_peft_model(module, peft.LoraConfig(target_modules=list(SEVEN), task_type="CAUSAL_LM"))


def milliseconds(work: Callable[..., object], repeats: int, prepare: Callable[[], object] | None = None) -> float:
    """Median processor time of `work` on what `prepare` makes; the first run is not counted."""
    times = []
    for _ in range(repeats + 1):
        arguments = (prepare(),) if prepare is not None else ()
        start = time.process_time()
        work(*arguments)
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
