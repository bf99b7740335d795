"""`lorascope recommend`."""

from __future__ import annotations

import argparse

from lorascope.cli.gaps import report_gaps
from lorascope.cli.options import SOURCE, add_source, model_of
from lorascope.cli.output import print_json, print_text

EXAMPLES = """examples:
  lorascope recommend mistral --task classification
  lorascope recommend mixtral --task knowledge --explain      with the studies behind each choice

tasks are classification, instruction, knowledge, style, reasoning, rl, continued-pretraining"""
SEVERAL = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", help=SOURCE)
    parser.add_argument(
        "--task", required=True, help="what the model should learn: classification, instruction, knowledge, …"
    )
    parser.add_argument("--explain", action="store_true", help="print the studies that each choice rests on")
    add_source(parser)


def run(options: argparse.Namespace) -> int:
    """Print a recommendation for a task."""
    from lorascope.advice.recommend import recommend
    from lorascope.reports.advice import advice_json, advice_text

    advice = recommend(model_of(options), options.task)
    code = report_gaps(advice.model, shown=not options.json)
    if options.json:
        print_json(advice_json(advice))
    else:
        print_text(advice_text(advice, explain=options.explain))
    return code
