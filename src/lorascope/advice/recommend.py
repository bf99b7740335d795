"""A recommendation for a model and a task: the plan, and for each choice the reason, the records and the price of others.

What is recommended, and why, is data (`data/tasks.toml`); here it meets a model. Prices are those of real plans.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.advice.evidence import STRENGTHS, Claim, Record, Strength, for_and_against, load_evidence, strength_of
from lorascope.advice.tasks import Advice, Task, Why, load_advice, task_of
from lorascope.errors import LorascopeError, did_you_mean
from lorascope.foreign_text import shell_word
from lorascope.model.types import ModelMap
from lorascope.peft_rules.addresses import peft_name
from lorascope.plans.arguments import require_map
from lorascope.plans.plan_notes import EXPERTS_DOMINATE
from lorascope.plans.planner import plan_with
from lorascope.plans.recipes import RECIPES
from lorascope.plans.rules import parse_rule
from lorascope.plans.types import Options, Plan, Target
from lorascope.sources.builtin import builtin_models
from lorascope.texts import text_of

# The tutorial's balance and what it is measured against: the same parameters where the shapes allow it.
_BALANCE = ("qv+ffn", 8)
_CONTROL = ("all", 4)


@dataclasses.dataclass(frozen=True, slots=True)
class Ground:
    """A claim that a choice rests on, how strong it is, and the records on either side."""

    claim: Claim
    strength: Strength
    supporting: tuple[Record, ...]
    contradicting: tuple[Record, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Alternative:
    """What could be planned instead, and its price for this model.

    Attributes:
        rules: The recipe and rules.
        rank: The plan's rank with them.
        exclude: What would be taken out.
        trainable: All trainable parameters; None where the model does not allow it.
        ratio: These by those of the recommended plan; None where either has none.
        note: What else to know: why it cannot be, or what it is the control of.
        grounds: What is claimed of it, where anything is.
    """

    rules: tuple[str, ...]
    rank: int
    exclude: tuple[str, ...]
    trainable: int | None
    ratio: float | None
    note: str = ""
    grounds: tuple[Ground, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """One choice of a recommendation.

    Attributes:
        name: `targets`, `rank`, `experts`, `alpha`, `learning_rate`, `first_rate`, `batch`, `dropout`.
        value: What was chosen, in words.
        reason: Why, in one sentence.
        strength: That of the weakest claim which it rests on.
        grounds: The claims, with their records.
        otherwise: What else could be, and what it would cost.
    """

    name: str
    value: str
    reason: str
    strength: Strength
    grounds: tuple[Ground, ...]
    otherwise: tuple[Alternative, ...] = ()

    @property
    def supporting(self) -> tuple[Record, ...]:
        """The records that speak for its claims, each once."""
        return tuple({record.id: record for ground in self.grounds for record in ground.supporting}.values())

    @property
    def contradicting(self) -> tuple[Record, ...]:
        """The records that speak against its claims, each once."""
        return tuple({record.id: record for ground in self.grounds for record in ground.contradicting}.values())


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """What to do with a model for a task.

    Attributes:
        model: The map.
        task: The task.
        rules: The recipe and rules of the plan.
        rank: Its rank.
        alpha: Its alpha, one for every weight.
        plan: The plan.
        command: What makes it on the command line.
        choices: Every choice, with its reason.
        warnings: What costs more than one may think, with figures.
        notes: What else to know.
        unknown: What nobody has measured.
    """

    model: ModelMap
    task: Task
    rules: tuple[str, ...]
    rank: int
    alpha: int
    plan: Plan
    command: str
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        return text_of(self)


@dataclasses.dataclass(frozen=True, slots=True)
class RecipeEvidence:
    """What is said for a recipe, and against it: claims that do so where they are true."""

    name: str
    purpose: str
    pro: tuple[Ground, ...]
    contra: tuple[Ground, ...]


class Prices:
    """Plans of one model, each made once: recommendations for several tasks share most of them."""

    def __init__(self, model: ModelMap) -> None:
        self.model = model
        self._made: dict[tuple[tuple[str, ...], int, tuple[str, ...]], Plan | LorascopeError] = {}

    def planned(self, rules: tuple[str, ...], rank: int, exclude: tuple[str, ...] = ()) -> Plan | LorascopeError:
        """The plan of rules, or why there is none."""
        key = (rules, rank, exclude)
        if key not in self._made:
            try:
                self._made[key] = plan_with(
                    self.model, rules, Options(rank=rank, exclude=tuple(map(parse_rule, exclude)))
                )
            except LorascopeError as error:
                self._made[key] = error
        return self._made[key]


def recommend(model: ModelMap, task: str, *, prices: Prices | None = None) -> Recommendation:
    """What to adapt in a model for a task, how much, and how fast to train it, each with its reason.

    Args:
        model: The map.
        task: Name of a task: `classification`, `instruction`, `knowledge`, `style`, `reasoning`, `rl` or
            `continued-pretraining`.
        prices: Plans of this model that were made for another task.

    Raises:
        LorascopeError: There is no such task, the model's head cannot do it, or PEFT cannot adapt the model.
    """
    require_map(model, "recommend")
    wanted, advice = task_of(task), load_advice()
    _check_able(model, wanted)
    prices = prices or Prices(model)
    if prices.model is not model:
        raise LorascopeError(f"the prices are those of {prices.model.model}, not of {model.model}")
    rank = _fitting_rank(model, wanted)
    made = plan_with(model, [wanted.recipe], Options(rank=rank, alpha=advice.alpha))
    return Recommendation(
        model=model,
        task=wanted,
        rules=(wanted.recipe,),
        rank=rank,
        alpha=advice.alpha,
        plan=made,
        command=_command(model, wanted, rank, advice.alpha),
        choices=tuple(_choices(made, wanted, advice, prices)),
        warnings=(*_unreachable(made), *_expert_warnings(made, wanted, advice, prices)),
        notes=tuple(_notes(made, wanted, advice)),
        unknown=tuple(_unknown(made, wanted, advice)),
    )


def evidence_of_recipe(name: str) -> RecipeEvidence:
    """What is said for a recipe and against it.

    Raises:
        LorascopeError: There is no such recipe.
    """
    if name not in RECIPES:
        hint = did_you_mean(name, RECIPES) or f"The recipes are {', '.join(RECIPES)}."
        raise LorascopeError(f"{name!r} is no recipe", hint=hint)
    claims = load_advice().recipes[name]
    return RecipeEvidence(name, RECIPES[name].purpose, _grounds(claims.pro), _grounds(claims.contra))


def _grounds(claims: Iterable[str]) -> tuple[Ground, ...]:
    known = load_evidence().claims
    grounds = []
    for claim in claims:
        pro, contra = for_and_against(claim)
        grounds.append(Ground(known[claim], strength_of(claim, pro, contra), pro, contra))
    return tuple(grounds)


def _weakest(grounds: Iterable[Ground]) -> Strength:
    return max((ground.strength for ground in grounds), key=STRENGTHS.index)


# Whether it can be done.


def _check_able(model: ModelMap, task: Task) -> None:
    if model.refusal:
        raise LorascopeError(
            f"PEFT cannot wrap {model.architecture}: {model.refusal}",
            where=model.model,
            hint="No task can change that: choose another model, or inspect the part of it that you train.",
        )
    if model.head in task.heads:
        return
    other = _other_head(model, task)
    able = [name for name, one in load_advice().tasks.items() if model.head in one.heads]
    if other:
        step = f"The type {model.model_type} has another head that can: --head {other}."
    elif "sequence-classification" in task.heads and model.head == "masked-lm":
        step = "Put a classification head on it, and inspect that module: lorascope.inspect(model)."
    else:
        step = f"This head can do: {', '.join(able)} (--task {able[0]})."
    raise LorascopeError(
        f"{model.architecture} ({model.head}) cannot do the task {task.name}: {task.refused[model.head]}",
        where=model.model,
        hint=step,
    )


def _other_head(model: ModelMap, task: Task) -> str:
    """A head that does the task and that models of this type are released with: an encoder is no decoder."""
    heads = builtin_models().get(model.model_type, ())
    for head in ("sequence-classification", *heads[:1]):
        if head in heads and head in task.heads:
            return head
    return ""


def _fitting_rank(model: ModelMap, task: Task) -> int:
    """The task's rank, halved until it is at most the hidden size by the task's share."""
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


# The choices.


def _choices(made: Plan, task: Task, advice: Advice, prices: Prices) -> Iterator[Choice]:
    rules = "  ".join(str(rule) for rule in made.rules)
    why = task.why
    all_mixers = all(target.weight.role.block == "mixer" for target in made.targets)
    targets = why["mixers" if all_mixers else "targets"]
    yield _choice("targets", f"{task.recipe}: {rules}", targets, _other_targets(made, task, advice, prices))
    yield _choice("rank", str(made.options.rank), why["rank"], _other_ranks(made, task, prices))
    if _routed(made):
        yield _choice("experts", _experts_value(made), why["experts"], _other_experts(made, task, prices))
    yield _choice("alpha", f"{advice.alpha} for every weight whatever its rank", why["alpha"])
    times = f"{advice.rate.multiple:g} times that of full fine-tuning, held constant"
    yield _choice("learning_rate", times, why["learning_rate"])
    rate = first_rate(made.model)
    if rate is not None:
        yield _choice("first_rate", f"{rate:.1e}", why["first_rate"])
    yield _choice("batch", f"below {advice.batch} sequences a step", why["batch"])
    yield _choice("dropout", _dropout_value(made), why["dropout"])


def _choice(name: str, value: str, why: Why, otherwise: Iterable[Alternative] = ()) -> Choice:
    grounds = _grounds(why.claims)
    return Choice(name, value, why.reason, _weakest(grounds), grounds, tuple(otherwise))


def _dropout_value(made: Plan) -> str:
    dropout = made.options.dropout
    return f"{dropout:g}" if dropout else "0, as PEFT has none for weights that it reaches as parameters"


def first_rate(model: ModelMap) -> float | None:
    """A learning rate to begin with; None where the formula was fitted for nothing like the model, see `RateRule`."""
    rule = load_advice().rate
    width = model.dimensions.hidden_size
    exponent = rule.exponents.get(model.model_type)
    if exponent is None or not width or model.head not in rule.heads:
        return None
    return rule.base * rule.multiple * math.pow(rule.width / width, exponent)


# What else could be.


def _alternative(
    made: Plan,
    prices: Prices,
    rules: Sequence[str],
    rank: int,
    exclude: tuple[str, ...] = (),
    note: str = "",
    claims: Iterable[str] = (),
) -> Alternative:
    other = prices.planned(tuple(rules), rank, exclude)
    grounds = _grounds(claims)
    if isinstance(other, LorascopeError):
        reason = other.faults[0]
        return Alternative(tuple(rules), rank, exclude, None, None, f"not possible here: {reason}", grounds)
    trainable = other.resolution.trainable
    own = made.resolution.trainable  # 0 where every matrix has a side of 0
    ratio = trainable / own if own else None
    return Alternative(tuple(rules), rank, exclude, trainable, ratio, note, grounds)


def _other_targets(made: Plan, task: Task, advice: Advice, prices: Prices) -> Iterator[Alternative]:
    for name, said in advice.recipes.items():
        if name != task.recipe:
            rank = said.rank or made.options.rank
            claims = [claim for claim in said.pro if task.name in advice.only.get(claim, (task.name,))]
            yield _alternative(made, prices, [name], rank, claims=claims)
    name, rank = _CONTROL
    control = prices.planned((name,), rank)
    if isinstance(control, Plan):
        note = _beside_balance(control, prices)
        yield _alternative(made, prices, [name], rank, note=note, claims=["wide-before-deep"])


def _beside_balance(control: Plan, prices: Prices) -> str:
    """How many parameters the control has beside the balance that it controls: as many on most shapes, not on all."""
    name, rank = _BALANCE
    balance = prices.planned((name,), rank)
    if not isinstance(balance, Plan):
        return ""
    difference = control.resolution.trainable - balance.resolution.trainable
    of = f"{name} at rank {rank} and {rank // 2}"
    if not difference:
        return f"the control of {of}: exactly as many parameters"
    more = "more" if difference > 0 else "fewer"
    share = abs(difference) / (balance.resolution.trainable or 1)
    return f"the control of {of}: {abs(difference):,} parameters {more} ({share:.1%})"


def _other_ranks(made: Plan, task: Task, prices: Prices) -> Iterator[Alternative]:
    for rank in dict.fromkeys(task.ranks):
        if rank != made.options.rank:
            yield _alternative(made, prices, [task.recipe], rank)


def _routed(made: Plan) -> list[Target]:
    return [target for target in made.targets if target.weight.role.variant == "expert"]


def _experts_value(made: Plan) -> str:
    ranks = sorted({target.rank for target in _routed(made)})
    active, rank = made.model.dimensions.active_experts, made.options.rank
    said = ", ".join(map(str, ranks))
    if active and active > 1:
        return f"rank {said} for each routed expert, {rank} // {active} active experts; the router stays as it is"
    why = "one is active" if active == 1 else "the map does not say how many are active, so that nothing is divided"
    return f"rank {said} for each routed expert, as {why}"


def _other_experts(made: Plan, task: Task, prices: Prices) -> Iterator[Alternative]:
    rank, experts = made.options.rank, made.model.dimensions.experts
    if experts:
        each = max(1, rank // experts)
        note = f"PEFT's documentation: {rank} // {experts} experts{'' if rank >= experts else ', at least 1'}"
        rules = [task.recipe, f"ffn.expert={each}"]
        yield _alternative(made, prices, rules, rank, note=note, claims=["expert-rank-by-all"])
    note = "every expert at the plan's rank"
    yield _alternative(made, prices, [task.recipe, f"ffn.expert={rank}"], rank, note=note)
    yield _alternative(made, prices, [task.recipe], rank, ("ffn.expert",), "routed experts left as they are")


# What must be said beside it.


def _unreachable(made: Plan) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for weight, reason in made.unreachable:
        by_reason.setdefault(reason, []).append(weight.name)
    for reason, names in by_reason.items():
        yield f"{len(names)} weights, such as {names[0]}, are left out: {reason}"


def _expert_warnings(made: Plan, task: Task, advice: Advice, prices: Prices) -> Iterator[str]:
    names = {peft_name(made.model, target.weight) for target in _routed(made)}
    spent = sum(one.trainable for one in made.resolution.adapted if one.name in names)
    total = made.resolution.trainable
    if not spent or spent < EXPERTS_DOMINATE * total:
        return
    said = [f"routed experts take {spent:,} of {total:,} trainable parameters ({spent / total:.0%})"]
    for other in _other_experts(made, task, prices):
        if other.trainable is not None and other.trainable < total:
            said.append(f"{other.note}: {other.trainable:,} in all")
    yield "; ".join([*said, advice.hot.reason])


def _notes(made: Plan, task: Task, advice: Advice) -> Iterator[str]:
    how = task.how.get(made.model.head)
    if how:
        yield how
    yield from task.notes
    adapters = sum(one.trainable for one in made.resolution.adapted)
    held = f"{adapters:,} adapter parameters hold no more than {advice.bits * adapters:,} bits"
    yield f"capacity: {advice.capacity.reason}: {held}"
    weights = sum(target.weight.size for target in made.targets)
    if adapters > weights:
        yield f"the adapters have more parameters than the {weights:,} that they adapt: full fine-tuning costs no more"
    yield advice.note.reason


def _unknown(made: Plan, task: Task, advice: Advice) -> Iterator[str]:
    yield from task.unknown
    said = advice.heads.get(made.model.head)
    if said:
        yield said
    if any(target.weight.role.block == "mixer" for target in made.targets):
        yield "no record compares placements in mixers (state spaces, recurrences, short convolutions)"
    if first_rate(made.model) is None:
        yield "no formula for the learning rate was fitted for a model like this one: sweep three of them"
    else:
        yield "whether the formula of the learning rate holds for models that share the type of Llama or Qwen and no more"
