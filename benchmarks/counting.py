"""What PEFT would adapt, by rule and by PEFT: the same seven names on three models, in one process.

Needs the extra `torch`. Prints a Markdown table of medians of five.
"""

from __future__ import annotations

import warnings

import peft
import torch
import transformers
from timing import median_of

from lorascope import AdapterConfig, inspect, verify
from lorascope.sources.skeleton import build_for_head

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    print("| model | weights adapted | by rule, ms | get_peft_model on meta, ms | ratio |\n|---|---|---|---|---|")
    for model_type in ("llama", "mixtral", "deepseek_v3"):
        model = inspect(model_type)
        config = AdapterConfig(target_modules=SEVEN, task_type="CAUSAL_LM")
        by_rule = median_of(lambda: verify(model, config))  # noqa: B023
        by_peft = median_of(_wrap, lambda: build_for_head(transformers.AutoConfig.for_model(model_type), None)[0])  # noqa: B023
        count = len(verify(model, config).adapted)
        print(f"| {model_type} | {count} | {by_rule:.2f} | {by_peft:.0f} | {by_peft / by_rule:.0f} |")


def _wrap(module: torch.nn.Module) -> None:
    with torch.device("meta"):
        peft.get_peft_model(module, peft.LoraConfig(target_modules=list(SEVEN), task_type="CAUSAL_LM"))


if __name__ == "__main__":
    main()
