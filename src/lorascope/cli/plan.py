"""`lorascope plan`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lorascope.cli.gaps import report_gaps
from lorascope.cli.options import (
    RANK,
    SERVE,
    SOURCE,
    add_force,
    add_source,
    add_training,
    model_of,
    number_or_text,
    training_of,
)
from lorascope.cli.output import print_json, print_text, remark
from lorascope.errors import LorascopeError

if TYPE_CHECKING:
    from lorascope.advice.types import Recommendation
    from lorascope.costs.budget import BudgetedPlan
    from lorascope.costs.training_run import Training
    from lorascope.model.types import ModelMap
    from lorascope.plans.types import Plan
    from lorascope.servers.types import Serving

EXAMPLES = """examples:
  lorascope plan mistral                         q and v at rank 8
  lorascope plan mistral qv+ffn                  and the FFN at rank 4
  lorascope plan mixtral attention.q,v=8 'ffn[-8:]=4/16' -o my-plan
  lorascope plan mistral attention --serve vllm  and check that vLLM supports it, with which flags
  lorascope plan mistral --task instruction      the recommended plan for a task; see lorascope recommend
  lorascope plan mistral qv+ffn --budget 20M     the highest ranks within a budget; also 0.5%, adapter=50MB
  lorascope plan mistral all --budget memory=24GB --quantization nf4 --batch 4 --seq-len 2048

rules are SELECTOR[LAYERS]=RANK/ALPHA; the last rule that selects a module wins
recipes are qv, qv+ffn, vo, vo+down, attention, ffn, all"""
SEVERAL = "rules"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", help=SOURCE)
    parser.add_argument("rules", nargs="*", default=[], metavar="RECIPE|RULE", help="what to adapt (default: qv)")
    parser.add_argument("--task", default="", help="plan for a task by the evidence, instead of recipes and rules")
    parser.add_argument("--budget", default="", help="fit ranks to a budget: 20M, 0.5%%, adapter=50MB, memory=24GB")
    parser.add_argument("--memory", action="store_true", help="estimate training memory, part by part")
    parser.add_argument("--rank", type=number_or_text, help=RANK)
    parser.add_argument("--alpha", type=number_or_text, help="one alpha for all modules (default: 16)")
    parser.add_argument("--scale", type=number_or_text, help="one scale for all modules instead: alpha = scale * rank")
    parser.add_argument(
        "--dropout", type=number_or_text, help="LoRA dropout (default: 0.05, or 0 if PEFT cannot apply it)"
    )
    parser.add_argument("--bias", default="none", help="biases to train: none, all or lora_only (default: none)")
    parser.add_argument("--rslora", action="store_true", help="rsLoRA: scale by alpha / sqrt(rank)")
    parser.add_argument("--dora", action="store_true", help="DoRA: also train a magnitude per output")
    parser.add_argument("--layers", default="", help="layers of rules without layers: 0:4, -8:, 1,3,5")
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="SELECTOR", help="exclude a selector (repeatable)"
    )
    parser.add_argument("--serve", default="", metavar="SERVER", help=SERVE)
    parser.add_argument("--prove", action="store_true", help="run the installed PEFT on the meta device and compare")
    parser.add_argument("-o", "--output", metavar="DIR", help="write adapter_config.json and plan.json into DIR")
    add_force(parser, "write into DIR even if it holds a model, a trained adapter or changed files")
    add_training(parser)
    add_source(parser)


def run(options: argparse.Namespace) -> int:
    """Make a plan; print or save it."""
    plan, budgeted, advice = _plan(options)
    training = budgeted.training if budgeted and budgeted.budget.kind == "memory" else training_of(options)
    serving = None
    if options.serve:
        from lorascope.servers.check import serve

        serving = serve(plan.model, plan.config, plan.resolution, options.serve)
    code = report_gaps(plan.model, shown=not options.json)
    if serving is not None and serving.answer == "no":
        code = 1
    if options.prove and not _proved(plan, options):
        code = 1
    if options.output is not None:
        from lorascope.plans.files import save_plan

        for path in save_plan(plan, options.output, force=options.force):
            remark(f"wrote {path}")
    if options.json:
        from lorascope.reports.json import plan_json, serving_json

        body = {**plan_json(plan), "serving": serving_json(serving) if serving else None}
        print_json({**body, **_costs_json(plan, budgeted, training), **_advice_json(advice)})
    else:
        print_text("\n\n".join(_texts(plan, budgeted, advice, training, serving)))
    return code


def _texts(
    plan: Plan,
    budgeted: BudgetedPlan | None,
    advice: Recommendation | None,
    training: Training | None,
    serving: Serving | None,
) -> Iterator[str]:
    """The parts of the answer, each loading what it needs."""
    from lorascope.reports.plan import plan_text

    yield plan_text(plan)
    if advice:
        from lorascope.reports.advice import choices_text

        yield choices_text(advice)
    if budgeted:
        from lorascope.reports.cost import budget_text

        yield budget_text(budgeted)
    if training:
        from lorascope.costs.memory import training_memory
        from lorascope.reports.cost import memory_text

        yield memory_text(training_memory(plan, training), training)
    if serving is not None:
        from lorascope.reports.check import serving_text

        yield serving_text(serving)


def _proved(plan: Plan, options: argparse.Namespace) -> bool:
    """Whether the installed PEFT adapts exactly the plan; tells where it does not."""
    from lorascope.plans.prove import prove, rebuild

    proof = prove(plan, rebuild(plan.model, options.source, trust_remote_code=options.trust_remote_code))
    for difference in proof.differences:
        remark(f"proof: {difference}")
    verdict = _agreement(plan.model) if proof.exact else f"{len(proof.differences)} differences"
    remark(f"proof: PEFT {proof.peft} adapts {proof.weights} modules, {proof.trainable:,} trainable: {verdict}")
    return proof.exact


def _agreement(model: ModelMap) -> str:
    """What a proof without differences shows: of a map with gaps, only that the class agrees."""
    from lorascope.plans.map_gaps import is_incomplete

    if is_incomplete(model):
        library = "diffusers" if "diffusers" in model.versions else "transformers"
        return f"as the plan says, on the {model.architecture} that {library} builds"
    return "exactly the plan"


def _plan(options: argparse.Namespace) -> tuple[Plan, BudgetedPlan | None, Recommendation | None]:
    """The plan for the given rules, task and budget."""
    _refuse_contradictions(options)
    model = model_of(options)
    names = ("alpha", "scale", "dropout", "bias", "rslora", "dora", "layers", "exclude")
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    rules, rank, advice = tuple(options.rules), options.rank, None
    if options.task:
        from lorascope.advice.recommend import recommend

        advice = recommend(model, options.task)
        rules = advice.rules
        # The user's own options win over those of the task.
        rank = advice.rank if rank is None else rank
        if options.alpha is None and options.scale is None:
            settings["alpha"] = advice.alpha
    from lorascope.plan_api import plan

    if options.budget:
        cap = advice.rank if advice else None
        budgeted = plan(model, *rules, budget=options.budget, training=training_of(options), rank_cap=cap, **settings)
        return budgeted.plan, budgeted, advice
    return plan(model, *rules, rank=rank, **settings), None, advice


def _refuse_contradictions(options: argparse.Namespace) -> None:
    faults, hints = [], []
    if options.task and options.rules:
        faults.append("--task decides the rules, and rules are given: leave one out")
        hints.append("To start from a task's rules, see: lorascope recommend SOURCE --task TASK")
    if options.budget and options.rank is not None:
        faults.append("--budget decides the ranks, and --rank is given: leave one out")
        hints.append("Without --rank, the budget gives the highest ranks that fit.")
    if faults:
        raise LorascopeError(*faults, hint=" ".join(hints))


def _costs_json(plan: Plan, budgeted: BudgetedPlan | None, training: Training | None) -> dict[str, object]:
    if budgeted is None and training is None:  # loads nothing
        return {"budget": None, "training": None, "memory": None}
    from lorascope.costs.memory import training_memory
    from lorascope.reports.cost import budget_json, memory_json, training_json

    return {
        "budget": budget_json(budgeted) if budgeted else None,
        "training": training_json(training) if training else None,
        "memory": memory_json(training_memory(plan, training)) if training else None,
    }


def _advice_json(advice: Recommendation | None) -> dict[str, object]:
    if advice is None:
        return {"advice": None}
    from lorascope.reports.advice import choices_json

    return {"advice": choices_json(advice)}
