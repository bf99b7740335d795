"""A plan as another tool's configuration: refused where that tool cannot say it, and read back before it is given out."""

from __future__ import annotations

import itertools
import math
import re
import shlex
import time
from collections.abc import Iterator, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.gc_paused import no_collection
from lorascope.model.types import LOADABLE, ModelMap
from lorascope.peft_rules.addresses import as_parameter, weight_of
from lorascope.peft_rules.name_patterns import in_matching_time
from lorascope.peft_rules.types import Resolution
from lorascope.plans.planner import plan_with
from lorascope.plans.rules import own_components
from lorascope.plans.types import Options, Plan, Rule
from lorascope.trainers.protocol import Job, Trainer
from lorascope.trainers.registry import trainer_called

_CLOSE = 1e-9
# Of a processor, for the search of a plan that a tool can run: each try takes seconds on the largest maps.
_SECONDS = 5.0
# How a trainer begins a loss that is of the model, so that no other plan of it is run either.
_OF_MODEL = re.compile(r"all \d+ weights\. |the kind of model \(")


@in_matching_time
@no_collection()  # a sixth of the time on the largest maps
def export(plan: Plan, to: str, *, base: str = "", data: str = "", output: str = "lora-output") -> str:
    """The text of a configuration that makes another tool adapt exactly the targets of a plan.

    Args:
        plan: The plan.
        to: The tool: `peft`, `peft-python`, `axolotl`, `llamafactory`, `ms-swift`, `trl`, `unsloth`, `torchtune`,
            `mlx-lm`.
        base: The model that it trains, a Hub id or a folder; the one that the plan was made for if not given.
        data: What it trains on, in the tool's own way to name data; its own demonstration data if not given.
        output: The folder that it writes to.

    Raises:
        LorascopeError: There is no such tool, or it cannot say what the plan says: with everything that would be lost,
            and the nearest plan that it can run.
    """
    trainer = trainer_called(to)
    wrong = [key for key, value in (("base", base), ("data", data), ("output", output)) if not isinstance(value, str)]
    if wrong:
        raise LorascopeError(
            *(f"{key} is no text" for key in wrong), where=f"export to {to}", hint="Give names or paths."
        )
    job = Job(base or _base_of(plan), data, output)
    losses = trainer.losses(plan)
    if losses:
        raise LorascopeError(
            *(f"{trainer.title} would lose {loss}" for loss in losses),
            where=f"export to {to}",
            hint=_elsewhere(trainer) if any(map(_OF_MODEL.match, losses)) else _advice(plan, trainer),
        )
    try:
        text = trainer.write(plan, job)
    except LorascopeError as error:
        raise LorascopeError(*error.faults, where=error.where or f"export to {to}", hint=error.hint) from error
    difference = _difference(plan, trainer, text)
    if difference:
        raise LorascopeError(
            f"{trainer.title} {trainer.release} would not do the plan: {difference}",
            where=f"export to {to}",
            hint=_advice(plan, trainer),
        )
    return text


def _base_of(plan: Plan) -> str:
    """The model that a plan was made for, where it is known by a name that a trainer can load."""
    return plan.model.model if plan.model.source in LOADABLE else ""


def _difference(plan: Plan, trainer: Trainer, text: str) -> str:
    """How what the tool does with the text differs from the plan; empty if it does not."""
    outcome = trainer.resolve(plan.model, trainer.read(text, f"export to {trainer.name}"))
    done = outcome.resolution
    if done.refusal is not None:
        return str(done.refusal)
    wanted, found = _sizes(plan.model, plan.resolution), _sizes(plan.model, done)
    for name in sorted(wanted.keys() | found.keys()):
        one, other = wanted.get(name), found.get(name)
        if one is None or other is None or one[0] != other[0] or not math.isclose(one[1], other[1], rel_tol=_CLOSE):
            return f"{name} gets (rank, scale) {other} where the plan has {one}"
    if done.trainable != plan.resolution.trainable:
        return f"{done.trainable:,} parameters are trained where the plan has {plan.resolution.trainable:,}"
    if outcome.config is not None and outcome.config.lora_dropout != plan.config.lora_dropout:
        return f"dropout is {outcome.config.lora_dropout:g} where the plan has {plan.config.lora_dropout:g}"
    return ""


def _sizes(model: ModelMap, resolution: Resolution) -> dict[str, tuple[int, float]]:
    """Rank and scale by the name in the map, as releases of PEFT differ in how they reach a weight."""
    sizes = {}
    for one in resolution.adapted:
        weight = weight_of(model, one.name)
        sizes[weight.name if weight else one.name] = (one.rank, one.scale)
    return sizes


def _advice(plan: Plan, trainer: Trainer) -> str:
    try:
        near = nearest_plan(plan, trainer)
    except TimeoutError:
        return f"No plan near this one was found within {_SECONDS:g} seconds. Export to peft, which takes every plan."
    if near is None:
        return _elsewhere(trainer)
    said, made = near
    return f"The nearest that it can run, with {said}: {plan_command(made)}"


def _elsewhere(trainer: Trainer) -> str:
    return f"No plan near this one can be run by {trainer.title}. Export to peft, which takes every plan."


def nearest_plan(plan: Plan, trainer: Trainer) -> tuple[str, Plan] | None:
    """The plan that gives up least and that the trainer can run, with what it gives up; None if there is none near.

    Raises:
        TimeoutError: None was found in time.
    """
    until = time.thread_time() + _SECONDS
    for changes in _fewest_first():
        _require_time(until)
        request = _Request(plan.rules, plan.options)
        for change in changes:
            request = _CHANGES[change](plan, request)
        try:
            made = plan_with(plan.model, [str(rule) for rule in request.rules], request.options)
            _require_time(until)
            if trainer.losses(made):
                continue
            _require_time(until)
            if not _difference(made, trainer, trainer.write(made, Job())):
                return " and ".join(changes), made
        except LorascopeError:
            continue
    return None


def _require_time(until: float) -> None:
    if time.thread_time() > until:
        raise TimeoutError


def plan_command(plan: Plan) -> str:
    """The command that makes a plan, which can be pasted whatever its model is called."""
    options = plan.options
    source, rules = plan.model.model, [str(rule) for rule in plan.rules]
    words = []
    if any(rule.rank is None for rule in plan.rules):
        words += ["--rank", str(options.rank)]
    if options.scale is not None:
        words += ["--scale", _number(options.scale)]
    elif options.alpha is not None:
        words += ["--alpha", _number(options.alpha)]
    words += ["--dropout", _number(plan.config.lora_dropout)]
    words += [f"--{name}" for name in ("rslora", "dora") if getattr(options, name)]
    words += ["--bias", options.bias] if options.bias != "none" else []
    words += [f"--layers={options.layers}"] if options.layers else []
    words += [word for rule in options.exclude for word in ("--exclude", str(rule))]
    # What begins with a dash would be taken for an option, if two dashes did not end them.
    words = [*words, "--", source, *rules] if source.startswith("-") else [source, *rules, *words]
    return shlex.join(["lorascope", "plan", *words])


def _number(value: float) -> str:
    """A number without an exponent's worth of zeros, and with every digit that it has."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _fewest_first() -> Iterator[tuple[str, ...]]:
    for count in range(1, len(_CHANGES) + 1):
        yield from itertools.combinations(_CHANGES, count)


@dataclasses.dataclass(frozen=True, slots=True)
class _Request:
    """What a plan is made from."""

    rules: tuple[Rule, ...]
    options: Options


def _plain(plan: Plan, request: _Request) -> _Request:
    options = dataclasses.replace(request.options, dora=False, rslora=False, bias="none")
    return _Request(request.rules, options)


def _one_size(plan: Plan, request: _Request) -> _Request:
    """Every rule at the rank and alpha of the plan's first."""
    rank, alpha = plan.config.r, plan.config.lora_alpha
    rules = tuple(dataclasses.replace(rule, rank=rank, alpha=None) for rule in request.rules)
    return _Request(rules, dataclasses.replace(request.options, rank=rank, alpha=float(alpha), scale=None))


def _modules_alone(plan: Plan, request: _Request) -> _Request:
    """Without what PEFT reaches as parameters."""
    bare = [target.weight for target in plan.targets if as_parameter(plan.model, target.weight)]
    own = own_components(plan.model)
    roles = dict.fromkeys((w.role.component, w.role.block, w.role.variant) for w in bare)
    exclude = [
        Rule(tuple((word,) for word in (component if component not in own else "", block, variant) if word))
        for component, block, variant in roles
    ]
    return _Request(request.rules, _excluding(request.options, exclude))


def _every_layer(plan: Plan, request: _Request) -> _Request:
    rules = tuple(dataclasses.replace(rule, layers="") for rule in request.rules)
    return _Request(rules, dataclasses.replace(request.options, layers=""))


def _blocks_alone(plan: Plan, request: _Request) -> _Request:
    """Without embeddings and heads."""
    exclude = (Rule((("embedding",),)), Rule((("head",),)))
    present = {target.weight.role.block for target in plan.targets}
    return _Request(request.rules, _excluding(request.options, [r for r in exclude if r.facts[0][0] in present]))


def _excluding(options: Options, rules: Sequence[Rule]) -> Options:
    return dataclasses.replace(options, exclude=(*options.exclude, *rules))


_CHANGES = {
    "one rank and alpha for all": _one_size,
    "plain LoRA without DoRA, rsLoRA and biases": _plain,
    "every layer": _every_layer,
    "no embeddings and heads": _blocks_alone,
    "only what PEFT reaches as modules": _modules_alone,
}
