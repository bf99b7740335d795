"""`docs/exporting.md`: what each trainer can be told, found out by exporting plans to it."""

from __future__ import annotations

from typing import Any

from lorascope.errors import LorascopeError
from lorascope.plan_door import plan
from lorascope.sources.builtin import load_builtin
from lorascope.trainers.exports import export
from lorascope.trainers.registry import TRAINERS

# What is told: (model type, rules, options of the plan).
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
# What of each room was tried with the trainer's own code; the tests of that name do it.
_PROVED = {
    "peft": "`PeftConfig.from_pretrained` reads every file; a tiny model is trained in the README",
    "peft-python": "the script is run on a tiny model",
    "axolotl": "its own schema, search and loader on 25 models (575 files)",
    "trl": "its own parser on 12 plans and 38 texts; four trainings by `trl sft` and its script",
    "llamafactory": "its own parser; `init_adapter` on 37 architectures (706 cases); three trainings by `run_exp`",
    "ms-swift": "its own parser; `prepare_adapter` on 43 architectures (926 cases); two trainings by `sft_main`",
    "mlx-lm": "its own `train_model`, before the first step, on 85 types (2,028 files); four trainings by `mlx_lm.lora`",
    "unsloth": "its own `get_peft_model`, taken out of it, on 32 models (1,298 scripts); loading and training are only read",
    "torchtune": "`config.validate` and `config.instantiate` on the meta device for all 37 functions; its recipes are only read",
}


def export_page() -> str:
    """The page's text."""
    titles = [name for name in TRAINERS if name != "peft-python"]
    lines = [
        "# Exporting: a plan as another trainer's configuration",
        "",
        "`lorascope export PLAN --to TOOL` writes a complete configuration in the tool's own keys, to stdout or `-o FILE`.",
        "`--base` names the model and `--data` the data as the tool names them. Before the text is given out, it is read back by",
        "the rules of that tool and of the PEFT release that it pins, and must give the plan's weights, ranks, scales and number of",
        "trainable parameters. What a tool cannot say is refused, with everything that would be lost and the nearest plan that",
        "it can run.",
        "",
        "| tool | release | PEFT | form | proved by its own code |",
        "|---|---|---|---|---|",
    ]
    for name, trainer in TRAINERS.items():
        proved = _PROVED.get(name, "see its tests in `tests/trainers`")
        lines.append(f"| `{name}` | {trainer.release} | {trainer.peft or 'none'} | {trainer.form} | {proved} |")
    lines += [
        "",
        "What each can be told, by exporting a plan on the default configuration of the model in brackets:",
        "",
        f"| plan | {' | '.join(titles)} |",
        f"|---|{'---|' * len(titles)}",
    ]
    for said, (model_type, rules, options) in _PROBES.items():
        made = plan(load_builtin(model_type), *rules, **options)
        lines.append(f"| {said} ({model_type}) | {' | '.join(_cell(made, name) for name in titles)} |")
    lines += ["", "This page is generated: `python tools/build_docs.py`.", ""]
    return "\n".join(lines)


def _cell(made: Any, name: str) -> str:
    try:
        export(made, name)
    except LorascopeError:
        return "–"
    return "yes"
