"""Commands on built-in models, beside peers that answer the same questions.

Prints a Markdown table. lorascope needs nothing here; the peers need transformers and PEFT, or are skipped.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

from processes import Process, environment, lorascope, parse_options, print_processes, with_transformers

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RECIPES = ("qv", "qv+ffn", "attention", "ffn", "all")
# A model on the meta device with adapters on it: what tells the same as a plan or a check without lorascope.
_ADAPT = """
import sys, torch, transformers, peft
with torch.device("meta"):
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(sys.argv[1]))
    model = peft.get_peft_model(model, peft.LoraConfig(target_modules=sys.argv[2:], task_type="CAUSAL_LM"))
model.print_trainable_parameters()
"""


def main() -> None:
    options = parse_options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        plan = str(Path(folder, "plan"))
        planned = lorascope("plan", "mistral", "attention.q,v=8", "-o", plan)
        subprocess.run(planned, check=True, capture_output=True, env=environment())
        print_processes(processes(plan), options)


def processes(plan: str) -> dict[str, Process]:
    """Every row of the table; `plan` is the folder of a saved plan."""
    check = "check deepseek_v3, seven names"
    peer = functools.partial(Process, needs=("transformers", "peft"), heavy=True)
    adapted = ("q_proj", "v_proj", "gate_proj", "up_proj", "down_proj")  # those of qv+ffn
    return {
        "--version": Process(lorascope("--version")),
        "inspect mistral": Process(lorascope("inspect", "mistral"), aim=4),
        "plan mistral qv+ffn": Process(lorascope("plan", "mistral", "qv+ffn"), aim=5),
        "plan mistral qv+ffn --budget 20M": Process(lorascope("plan", "mistral", "qv+ffn", "--budget", "20M")),
        "recommend mistral --task instruction": Process(
            lorascope("recommend", "mistral", "--task", "instruction"), aim=10
        ),
        "compare mistral, five recipes": Process(lorascope("compare", "mistral", *RECIPES)),
        "compare deepseek_v3, five recipes": Process(lorascope("compare", "deepseek_v3", *RECIPES)),
        check: Process(lorascope("check", "deepseek_v3", *SEVEN), codes=(0, 1)),  # 1: there are findings
        "export a plan to axolotl": Process(lorascope("export", plan, "--to", "axolotl")),
        "get_peft_model of mistral on meta": peer(
            with_transformers(_ADAPT, "mistral", *adapted), peer_of="plan mistral qv+ffn"
        ),
        "get_peft_model of deepseek_v3 on meta": peer(with_transformers(_ADAPT, "deepseek_v3", *SEVEN), peer_of=check),
    }


if __name__ == "__main__":
    main()
