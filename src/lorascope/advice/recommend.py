"""Recommends a plan for a model and a task.

Each choice has a reason, evidence and alternatives.

The recommendations and their reasons are data (`data/tasks.toml`). Costs are those of real plans.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator

from lorascope.advice.alternatives import PlanCache, grounds_of, other_expert_ranks, other_ranks, other_targets
from lorascope.advice.evidence import STRENGTHS
from lorascope.advice.tasks import Advice, Task, Why, load_advice, task_of
from lorascope.advice.types import Alternative, Choice, RecipeEvidence, Recommendation
from lorascope.errors import LorascopeError, did_you_mean
from lorascope.foreign_text import shell_word
from lorascope.model.types import ModelMap
from lorascope.number_text import count_text, percent
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.plans.arguments import require_map
from lorascope.plans.plan_notes import DOMINANT_SHARE
from lorascope.plans.planner import plan_with
from lorascope.plans.recipes import RECIPES
from lorascope.plans.types import Options, Plan, Target
from lorascope.sources.builtin import builtin_models

_NO_DROPOUT = "PEFT cannot apply it to target_parameters"


def recommend(model: ModelMap, task: str, *, cache: PlanCache | None = None) -> Recommendation:
    """Recommend target modules, rank, learning rate and more for a task.

    Args:
        model: The map.
        task: `classification`, `instruction`, `knowledge`, `style`, `reasoning`, `rl` or `continued-pretraining`.
        cache: Plans of this model from recommendations for other tasks.

    Raises:
        LorascopeError: The task is unknown, the model's head cannot do it, or PEFT cannot adapt the model.
    """
    require_map(model, "recommend")
    wanted, advice = task_of(task), load_advice()
    _check_able(model, wanted)
    cache = cache or PlanCache(model)
    if cache.model is not model:
        raise LorascopeError(f"the cache has plans of {cache.model.model}, not of {model.model}")
    rank = _capped_rank(model, wanted)
    plan = plan_with(model, [wanted.recipe], Options(rank=rank, alpha=advice.alpha))
    cache.add((wanted.recipe,), plan)
    return Recommendation(
        model=model,
        task=wanted,
        rules=(wanted.recipe,),
        rank=rank,
        alpha=advice.alpha,
        plan=plan,
        command=_command(model, wanted, rank, advice.alpha),
        choices=tuple(_choices(plan, wanted, advice, cache)),
        warnings=(*_unreachable(plan), *_expert_warnings(plan, wanted, advice, cache)),
        notes=tuple(_notes(plan, wanted, advice)),
        unknown=tuple(_unknown(plan, wanted, advice)),
    )


def evidence_of_recipe(name: str) -> RecipeEvidence:
    """Claims for and against a recipe.

    Raises:
        LorascopeError: There is no such recipe.
    """
    if name not in RECIPES:
        hint = did_you_mean(name, RECIPES) or f"The recipes are {', '.join(RECIPES)}."
        raise LorascopeError(f"unknown recipe {name!r}", hint=hint)
    claims = load_advice().recipes[name]
    return RecipeEvidence(name, RECIPES[name].purpose, grounds_of(claims.pro), grounds_of(claims.contra))


def first_rate(model: ModelMap) -> float | None:
    """First learning rate to try, see `RateRule`.

    None where the formula was not fitted for such a model.
    """
    rule = load_advice().rate
    width = model.dimensions.hidden_size
    exponent = rule.exponents.get(model.model_type)
    if exponent is None or not width or model.head not in rule.heads:
        return None
    return rule.base * rule.multiple * math.pow(rule.width / width, exponent)


# Whether the model can do the task.


def _check_able(model: ModelMap, task: Task) -> None:
    if model.refusal:
        raise LorascopeError(
            f"PEFT cannot wrap {model.architecture}: {model.refusal}",
            where=model.model,
            hint="No task changes that: choose another model, or inspect only the part that you train.",
        )
    if model.head in task.heads:
        return
    other = _other_head(model, task)
    tasks = [name for name, known in load_advice().tasks.items() if model.head in known.heads]
    if other:
        step = f"Add --head {other}."
    elif "sequence-classification" in task.heads and model.head == "masked-lm":
        step = "Put a classification head on the model, and inspect that module: lorascope.inspect(model)."
    else:
        step = f"This head can do: {', '.join(tasks)} (--task {tasks[0]})."
    raise LorascopeError(
        f"{model.architecture} ({model.head}) cannot do {task.name}: {task.refused[model.head]}",
        where=model.model,
        hint=step,
    )


def _other_head(model: ModelMap, task: Task) -> str:
    """A released head of this model type that can do the task."""
    # Only the first of the others: transformers has decoder classes for encoders, and nobody trained their heads.
    heads = builtin_models().get(model.model_type, ())
    for head in ("sequence-classification", *heads[:1]):
        if head in heads and head in task.heads:
            return head
    return ""


def _capped_rank(model: ModelMap, task: Task) -> int:
    """The task's rank, halved until it suits the hidden size."""
    rank, width = task.rank, model.dimensions.hidden_size
    while task.share and width and rank > max(1, width // task.share):
        rank //= 2
    return rank


def _command(model: ModelMap, task: Task, rank: int, alpha: int) -> str:
    words = [task.recipe, "--rank", str(rank), "--alpha", str(alpha)]
    preferred = builtin_models().get(model.model, (model.head,))[0]
    if model.source == "built-in" and preferred != model.head:
        words += ["--head", model.head]
    return f"lorascope plan {shell_word(model.model)} {shlex.join(words)}"


# Choices.


def _choices(plan: Plan, task: Task, advice: Advice, cache: PlanCache) -> Iterator[Choice]:
    rules = "  ".join(str(rule) for rule in plan.rules)
    why = task.why
    all_mixers = all(target.weight.role.block == "mixer" for target in plan.targets)
    targets = why["mixers" if all_mixers else "targets"]
    yield _choice("targets", f"{task.recipe}: {rules}", targets, other_targets(plan, task, advice, cache))
    yield _choice("rank", str(plan.options.rank), why["rank"], other_ranks(plan, task, cache))
    if _routed(plan):
        yield _choice("experts", _experts_value(plan), why["experts"], other_expert_ranks(plan, task, cache))
    yield _choice("alpha", f"{advice.alpha} for all modules (scale = {advice.alpha} / r)", why["alpha"])
    rates = f"{advice.rate.multiple:g} times that of full fine-tuning, constant"
    yield _choice("learning_rate", rates, why["learning_rate"])
    rate = first_rate(plan.model)
    if rate is not None:
        yield _choice("first_rate", f"{rate:.1e}", why["first_rate"])
    yield _choice("batch", f"below {advice.batch} sequences per step", why["batch"])
    dropout = plan.options.dropout
    yield _choice("dropout", f"{dropout:g}", why["dropout"], note="" if dropout else _NO_DROPOUT)


def _choice(name: str, value: str, why: Why, alternatives: Iterable[Alternative] = (), note: str = "") -> Choice:
    grounds = grounds_of(why.claims)
    weakest = max((ground.strength for ground in grounds), key=STRENGTHS.index)
    return Choice(name, value, why.reason, weakest, grounds, tuple(alternatives), note)


def _routed(plan: Plan) -> list[Target]:
    return [target for target in plan.targets if target.weight.role.variant == "expert"]


def _experts_value(plan: Plan) -> str:
    ranks = ", ".join(map(str, sorted({target.rank for target in _routed(plan)})))
    active, rank = plan.model.dimensions.active_experts, plan.options.rank
    if active and active > 1:
        return f"rank {ranks} per routed expert: {rank} // {active} active experts; the router stays frozen"
    reason = "one is active" if active == 1 else "how many are active is unknown, so nothing is divided"
    return f"rank {ranks} per routed expert: {reason}"


# Warnings, notes and open questions.


def _unreachable(plan: Plan) -> Iterator[str]:
    names_of: dict[Diagnostic, list[str]] = {}
    for weight, reason in plan.unreachable:
        names_of.setdefault(reason, []).append(weight.name)
    for reason, names in names_of.items():
        yield f"Not adapted: {len(names)} weights, such as {names[0]}: {reason}"


def _expert_warnings(plan: Plan, task: Task, advice: Advice, cache: PlanCache) -> Iterator[str]:
    experts = sum(target.adapted.trainable for target in _routed(plan))
    total = plan.resolution.trainable
    if not experts or experts < DOMINANT_SHARE * total:
        return
    sentences = [
        f"Routed experts are {percent(experts, total)} of the trainable parameters ({experts:,} of {total:,})."
    ]
    fewer = [
        f"{other.trainable:,} ({other.note})"
        for other in other_expert_ranks(plan, task, cache)
        if other.trainable is not None and other.trainable < total
    ]
    if fewer:
        sentences.append(f"Cheaper, in all: {', '.join(fewer)}.")
    yield " ".join([*sentences, advice.hot.reason])


def _notes(plan: Plan, task: Task, advice: Advice) -> Iterator[str]:
    head_note = task.how.get(plan.model.head)
    if head_note:
        yield head_note
    yield from task.notes
    adapters = sum(item.trainable for item in plan.resolution.adapted)
    tokens = count_text(advice.bits * adapters)
    yield (
        f"Rule of thumb: this adapter ({count_text(adapters)} parameters) saturates at roughly {tokens} training tokens: "
        f"{advice.capacity.reason}."
    )
    weights = sum(target.weight.size for target in plan.targets)
    if adapters > weights:
        yield f"The adapters have more parameters than the {weights:,} that they adapt: full fine-tuning costs no more."
    yield advice.note.reason


def _unknown(plan: Plan, task: Task, advice: Advice) -> Iterator[str]:
    yield from task.unknown
    question = advice.heads.get(plan.model.head)
    if question:
        yield question
    if any(target.weight.role.block == "mixer" for target in plan.targets):
        yield "target modules in mixers (state spaces, recurrences, short convolutions): no study compares them"
    if first_rate(plan.model) is None:
        yield "learning rate: no formula was fitted for such a model; sweep three values"
    else:
        yield "learning rate: whether the formula holds for models that only share the type of Llama or Qwen"
