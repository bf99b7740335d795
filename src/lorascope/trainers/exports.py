"""Exports to other trainers, verified by reading them back."""

from __future__ import annotations

import itertools
import math
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
from lorascope.plans.map_gaps import warn_of_gaps
from lorascope.plans.planner import plan_with
from lorascope.plans.rules import own_components
from lorascope.plans.types import Options, Plan, Rule
from lorascope.trainers.protocol import Job, Trainer
from lorascope.trainers.registry import trainer_called

_CLOSE = 1e-9
# Processor time for the search of a plan that a trainer can run: each try takes seconds on the largest maps.
_SECONDS = 5.0


@in_matching_time
@no_collection()  # a sixth of the time on the largest maps
def export(plan: Plan, to: str, *, base: str = "", data: str = "", output: str = "lora-output") -> str:
    """Write the configuration with which another trainer does exactly a plan.

    Args:
        plan: The plan.
        to: The tool: `peft`, `peft-python`, `axolotl`, `llamafactory`, `ms-swift`, `trl`, `unsloth`, `torchtune`,
            `mlx-lm`.
        base: The model to train, a Hub id or a folder; by default the one that the plan was made for.
        data: The data, as the tool names it; by default its own demonstration data.
        output: The folder that it writes to.

    Raises:
        LorascopeError: No such tool, or its configuration cannot express the plan: with everything that it does not
            support, and the closest plan that it can run.
    """
    trainer = trainer_called(to)
    if trainer.form == "json":  # all others have comments, which say it
        warn_of_gaps(plan.model)
    others = [key for key, value in (("base", base), ("data", data), ("output", output)) if not isinstance(value, str)]
    if others:
        raise LorascopeError(
            *(f"{key} is not a string" for key in others), where=f"export to {to}", hint="Give names or paths."
        )
    job = Job(base or _base_of(plan), data, output)
    if unsupported := trainer.unsupported(plan):
        raise LorascopeError(
            *(limit.message for limit in unsupported),
            where=f"export to {to}",
            hint=_elsewhere(trainer) if any(limit.part == "model" for limit in unsupported) else _advice(plan, trainer),
        )
    try:
        text = trainer.write(plan, job)
    except LorascopeError as error:
        raise LorascopeError(*error.faults, where=error.where or f"export to {to}", hint=error.hint) from error
    difference = _difference(plan, trainer, text)
    if difference:
        raise LorascopeError(
            f"{trainer.title} {trainer.release} would not adapt what the plan does: {difference}",
            where=f"export to {to}",
            hint=_advice(plan, trainer),
        )
    return text


def _base_of(plan: Plan) -> str:
    """The plan's model, if it has a loadable name."""
    return plan.model.model if plan.model.source in LOADABLE else ""


def _difference(plan: Plan, trainer: Trainer, text: str) -> str:
    """How the trainer's result differs from the plan."""
    outcome = trainer.resolve(plan.model, trainer.read(text, f"export to {trainer.name}"))
    resolution = outcome.resolution
    if resolution.refusal is not None:
        return str(resolution.refusal)
    planned, adapted = _sizes(plan.model, plan.resolution), _sizes(plan.model, resolution)
    for name in sorted(planned.keys() | adapted.keys()):
        if not _equal(planned.get(name), adapted.get(name)):
            return f"{name} gets (rank, scale) {adapted.get(name)}; the plan has {planned.get(name)}"
    if resolution.trainable != plan.resolution.trainable:
        return f"{resolution.trainable:,} parameters are trained; the plan has {plan.resolution.trainable:,}"
    if outcome.config is not None and outcome.config.lora_dropout != plan.config.lora_dropout:
        return f"dropout is {outcome.config.lora_dropout:g}; the plan has {plan.config.lora_dropout:g}"
    return ""


def _equal(one: tuple[int, float] | None, other: tuple[int, float] | None) -> bool:
    """Two ranks and scales are the same, up to rounding."""
    return (
        one is not None and other is not None and one[0] == other[0] and math.isclose(one[1], other[1], rel_tol=_CLOSE)
    )


def _sizes(model: ModelMap, resolution: Resolution) -> dict[str, tuple[int, float]]:
    """Rank and scale by name in the map, whatever name PEFT uses."""
    sizes = {}
    for adapted in resolution.adapted:
        weight = weight_of(model, adapted.name)
        sizes[weight.name if weight else adapted.name] = (adapted.rank, adapted.scale)
    return sizes


def _advice(plan: Plan, trainer: Trainer) -> str:
    try:
        near = nearest_plan(plan, trainer)
    except TimeoutError:
        return f"Found no close plan within {_SECONDS:g} seconds. Export to peft, which takes every plan."
    if near is None:
        return _elsewhere(trainer)
    changes, closest = near
    return f"Closest plan {trainer.title} can run, with {changes}: {plan_command(closest)}"


def _elsewhere(trainer: Trainer) -> str:
    return f"{trainer.title} can run no plan close to this one. Export to peft, which takes every plan."


def nearest_plan(plan: Plan, trainer: Trainer) -> tuple[str, Plan] | None:
    """The closest plan that the trainer can run.

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
            changed = plan_with(plan.model, [str(rule) for rule in request.rules], request.options)
            _require_time(until)
            if trainer.unsupported(changed):
                continue
            _require_time(until)
            if not _difference(changed, trainer, trainer.write(changed, Job())):
                return " and ".join(changes), changed
        except LorascopeError:
            continue
    return None


def _require_time(until: float) -> None:
    if time.thread_time() > until:
        raise TimeoutError


def plan_command(plan: Plan) -> str:
    """The command that makes a plan, safe to paste."""
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
    """The shortest spelling of a number with all its digits."""
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
