"""`docs/exporting.md`: what each trainer supports, measured by exporting plans."""

from __future__ import annotations

from typing import Any

from lorascope.errors import LorascopeError
from lorascope.plan_api import plan
from lorascope.plans.types import Plan
from lorascope.sources.builtin import load_builtin
from lorascope.trainers.exports import export
from lorascope.trainers.registry import TRAINERS

# The plans, as (model type, rules, options).
_PROBES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "query and value at one rank": ("llama", ("attention.q,v=8",), {}),
    "all attention and FFN at one rank": ("llama", ("attention=8", "ffn=8"), {}),
    "ranks that differ": ("llama", ("attention.q,v=8", "ffn=4"), {}),
    "the last eight layers": ("llama", ("attention[-8:]=8",), {}),
    "single layers": ("llama", ("attention[0,5,9]=8",), {}),
    "the output layer": ("llama", ("attention=8", "head=8"), {}),
    "DoRA": ("llama", ("attention=8",), {"dora": True}),
    "rsLoRA": ("llama", ("attention=8",), {"rslora": True}),
    "trained biases": ("qwen2", ("attention=8",), {"bias": "all"}),
    "dropout": ("llama", ("attention=8",), {"dropout": 0.1}),
    "fused experts": ("mixtral", ("ffn.expert=4",), {}),
    "experts and attention": ("qwen3_moe", ("attention=8", "ffn.expert=8"), {}),
    "fused qkv": ("phi3", ("attention=8",), {}),
    "GPT-2's Conv1D": ("gpt2", ("attention=8",), {}),
    "a language model without its vision tower": ("llava", ("attention.q,v=8",), {}),
    "a vision tower": ("qwen2_vl", ("vision.attention=8",), {}),
    "an encoder": ("bert", ("attention.q,v=8",), {}),
    "an encoder-decoder": ("t5", ("attention.q,v=8",), {}),
}
# What the tests ran with each trainer's own code.
_PROVED = {
    "peft": "`PeftConfig.from_pretrained` reads every file; a tiny model is trained in the README",
    "peft-python": "the script is run on a tiny model",
    "axolotl": "its own schema, search and loader on 25 models (575 files)",
    "trl": "its own parser on 12 plans and 38 texts; four trainings by `trl sft` and its script",
    "llamafactory": "its own parser; `init_adapter` on 37 architectures (706 cases); three trainings by `run_exp`",
    "ms-swift": "its own parser; `prepare_adapter` on 43 architectures (926 cases); two trainings by `sft_main`",
    "mlx-lm": "its own `train_model`, before the first step, on 85 types (2,028 files); four trainings by `mlx_lm.lora`",
    "unsloth": "its own `get_peft_model`, taken out of it, on 32 models (1,298 scripts); loading and training are only read, not run",
    "torchtune": "`config.validate` and `config.instantiate` on the meta device for all 37 functions; its recipes are only read, not run",
}


_HEAD = """# Exporting: a plan as another trainer's configuration

```bash
lorascope plan mistral attention.q,v=8 -o my-plan
lorascope export my-plan --to axolotl --base org/model --data mine.jsonl -o lora.yaml
```

The file is complete and in the trainer's own keys. `--base` names the model and `--data` the data, as the trainer names
them. Before you get it, it is read back by the rules of that trainer and of the PEFT release that it pins: it must adapt
the plan's modules with the plan's ranks, scales and number of trainable parameters.

A plan that a trainer cannot express is refused, with each reason and the closest plan that it can run:

```text
{refusal}
```

| trainer | release | PEFT | form | checked with its own code |
|---|---|---|---|---|
{trainers}

What each supports, by exporting a plan on the default configuration of the model in brackets:

| plan | {titles} |
|---|{rule}
{plans}

This page is generated: `python tools/build_docs.py`.
"""


def export_page() -> str:
    """The page's text."""
    titles = [name for name in TRAINERS if name != "peft-python"]
    trainers = (
        f"| `{name}` | {trainer.release} | {trainer.peft or 'none'} | {trainer.form} | {_PROVED[name]} |"
        for name, trainer in TRAINERS.items()
    )
    plans = []
    for title, (model_type, rules, options) in _PROBES.items():
        probe = plan(load_builtin(model_type), *rules, **options)
        cells = ("–" if _refusal(probe, name) else "yes" for name in titles)
        plans.append(f"| {title} ({model_type}) | {' | '.join(cells)} |")
    return _HEAD.format(
        refusal=_refusal(plan(load_builtin("llama"), "attention.q,v=8", "ffn=4"), "trl"),
        trainers="\n".join(trainers),
        titles=" | ".join(titles),
        rule="---|" * len(titles),
        plans="\n".join(plans),
    )


def _refusal(probe: Plan, trainer: str) -> str:
    """Why a trainer cannot express a plan; empty if it can."""
    try:
        export(probe, trainer)
    except LorascopeError as error:
        return str(error)
    return ""
