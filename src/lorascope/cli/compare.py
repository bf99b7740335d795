"""`lorascope compare`."""

from __future__ import annotations

import argparse

from lorascope.cli.gaps import report_gaps
from lorascope.cli.options import RANK, SOURCE, add_source, add_training, model_of, number_or_text, training_of
from lorascope.cli.output import print_json, print_text

EXAMPLES = """examples:
  lorascope compare mistral                      every recipe: parameters, file, memory, coverage
  lorascope compare mixtral qv all 'attention.q,v=8 ffn=4' --quantization nf4 --gradient-checkpointing"""
SEVERAL = "recipes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", help=SOURCE)
    parser.add_argument(
        "recipes",
        nargs="*",
        default=[],
        metavar="RECIPE|RULES",
        help="recipes, or several rules quoted as one argument (default: every recipe)",
    )
    parser.add_argument("--rank", type=number_or_text, default=8, help=RANK)
    parser.add_argument("--explain", action="store_true", help="print the evidence for and against each recipe")
    add_training(parser)
    add_source(parser)


def run(options: argparse.Namespace) -> int:
    """Print recipes and rules with what each adapts and costs."""
    from lorascope.costs.compare import compare
    from lorascope.reports.cost import comparison_json, comparison_text

    options.memory = True  # always shown
    comparison = compare(model_of(options), *options.recipes, training=training_of(options), rank=options.rank)
    code = report_gaps(comparison.model, shown=not options.json)
    if options.json:
        print_json(comparison_json(comparison))
    else:
        print_text(comparison_text(comparison))
        if options.explain:
            from lorascope.advice.recommend import evidence_of_recipe
            from lorascope.plans.recipes import RECIPES
            from lorascope.reports.advice import recipe_evidence_text

            named = [candidate.name for candidate in comparison.candidates if candidate.name in RECIPES]
            print_text("\n".join(["", *(recipe_evidence_text(evidence_of_recipe(name)) for name in named)]))
    return 1 if any(candidate.plan is None for candidate in comparison.candidates) else code
