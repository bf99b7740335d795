"""`lorascope export`."""

from __future__ import annotations

import argparse
import warnings

from lorascope.cli.gaps import report_gaps
from lorascope.cli.options import add_force
from lorascope.cli.output import print_text, remark
from lorascope.errors import LorascopeError

# What `--to` takes: the names in trainers.registry, which takes time to load.
TOOLS = ("peft", "peft-python", "axolotl", "llamafactory", "trl", "ms-swift", "unsloth", "mlx-lm", "torchtune")

EXAMPLES = """examples:
  lorascope plan mistral qv+ffn -o my-plan
  lorascope export my-plan --to axolotl -o axolotl.yaml
  lorascope export my-plan --to trl --base mistralai/Mistral-7B-v0.3 --data trl-lib/Capybara
  lorascope export my-plan --to peft-python"""
SEVERAL = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("plan", help="a saved plan: a folder with a plan.json, or that file")
    parser.add_argument("--to", required=True, metavar="TOOL", help=f"one of {', '.join(TOOLS)}")
    parser.add_argument("--base", default="", help="the model to train: Hub id or folder (default: the plan's)")
    parser.add_argument("--data", default="", help="dataset, as the tool names it (default: a demo dataset)")
    parser.add_argument(
        "--output-dir", default="lora-output", metavar="DIR", help="folder the tool writes to (default: lora-output)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of stdout")
    add_force(parser, "replace FILE even if it has other content")


def run(options: argparse.Namespace) -> int:
    """Print or save a plan as a trainer's configuration."""
    from lorascope.plans.files import load_plan, save_text
    from lorascope.plans.map_gaps import IncompleteMapWarning
    from lorascope.trainers.exports import export

    if not options.output_dir.strip():
        raise LorascopeError("--output-dir is empty", hint="Leave it out for lora-output, or name a folder.")
    plan = load_plan(options.plan)
    code = report_gaps(plan.model, shown=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IncompleteMapWarning)  # it is said
        text = export(plan, options.to, base=options.base, data=options.data, output=options.output_dir)
    if options.output is not None:
        remark(f"wrote {save_text(text, options.output, force=options.force)}")
    else:
        print_text(text, end="")
    return code
