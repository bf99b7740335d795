"""Turns rules into a plan."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TypeGuard

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted, shell_word
from lorascope.model.types import ModelMap, Weight
from lorascope.peft_rules.adaptability import why_not_adaptable
from lorascope.peft_rules.addresses import as_parameter, peft_name
from lorascope.peft_rules.dead_weights import why_dead_with_kernels
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.name_patterns import in_matching_time
from lorascope.peft_rules.releases import NEWEST
from lorascope.plans.compiler import Compiled, compile_targets
from lorascope.plans.map_gaps import gap_notes
from lorascope.plans.notes import NO_DROPOUT
from lorascope.plans.plan_notes import omissions, plan_notes
from lorascope.plans.recipes import DEFAULT, RECIPES, recipe_rules
from lorascope.plans.rules import FACT_OF, check_layers, parse_rule, select
from lorascope.plans.types import Assignment, Options, Plan, Rule, Target

DEFAULT_RANK = 8
DEFAULT_ALPHA = 16.0
DEFAULT_DROPOUT = 0.05
_BIASES = ("none", "all", "lora_only")
# Ranks and alphas stay within what a rule can say.
_MOST_RANK = 999_999
_MOST_ALPHA = 999_999_999


@in_matching_time
def plan_with(model: ModelMap, texts: Sequence[str], options: Options, faults: Sequence[LorascopeError] = ()) -> Plan:
    """Plan recipes and rules with some options.

    Args:
        model: The map.
        texts: Recipes and rules, in order; the recipe `qv` if there is none.
        options: Settings of the plan; its recipe is set here.
        faults: What is wrong with the options already, to be raised with all else that is.

    Raises:
        LorascopeError: A fault in the options or rules, a rule that selects nothing, or something that PEFT cannot do
            for this model.
    """
    own = option_faults(options)
    expansion = _expand(model, texts or (DEFAULT,), options.rank if type(options.rank) is int else DEFAULT_RANK, own)
    raise_all([*own, *faults])
    if options.scale is None:
        alpha = float(DEFAULT_ALPHA if options.alpha is None else options.alpha)
        options = dataclasses.replace(options, alpha=alpha)
    options = dataclasses.replace(options, recipe="+".join(expansion.recipes))
    assignments, unreachable = _assign(model, expansion.rules, options)
    options, dropout_notes = _settle_dropout(model, assignments, options)
    compiled = compile_targets(model, assignments, options)
    notes = (*expansion.notes, *dropout_notes)
    return assemble_plan(model, expansion.rules, options, assignments, unreachable, compiled, notes)


def assemble_plan(
    model: ModelMap,
    rules: tuple[Rule, ...],
    options: Options,
    assignments: Sequence[Assignment],
    unreachable: tuple[tuple[Weight, Diagnostic], ...],
    compiled: Compiled,
    notes: Sequence[Diagnostic],
) -> Plan:
    """Put a plan together from its compiled parts.

    Args:
        model: The map.
        rules: The rules.
        options: Settings of the whole plan.
        assignments: What is adapted, in the map's order.
        unreachable: What the rules select and PEFT cannot adapt.
        compiled: The configuration of the assignments.
        notes: Notes on the rules and options, after those on the map and before those on the plan.
    """
    adapted = {item.name: item for item in compiled.resolution.adapted}
    targets = tuple(
        Target(item.weight, item.rank, item.alpha, item.rule, adapted[peft_name(model, item.weight)])
        for item in assignments
    )
    left_out = tuple(omissions(model, targets, unreachable))
    return Plan(
        model=model,
        rules=rules,
        options=options,
        targets=targets,
        config=compiled.config,
        resolution=compiled.resolution,
        releases=compiled.releases,
        unreachable=unreachable,
        left_out=left_out,
        notes=(*gap_notes(model), *notes, *plan_notes(model, rules, targets, unreachable, left_out, compiled)),
    )


def rules_at(model: ModelMap, texts: Sequence[str], rank: int) -> tuple[Rule, ...]:
    """The rules of recipes and rules, where recipes start from a rank.

    Raises:
        LorascopeError: With the faults of all texts.
    """
    faults: list[LorascopeError] = []
    expansion = _expand(model, texts, rank, faults)
    raise_all(faults)
    return expansion.rules


def means_recipe(text: str) -> bool:
    """Whether a text is a recipe's name, or looks like one.

    Raises:
        LorascopeError: It is a recipe's name with a rank or layers.
    """
    if not isinstance(text, str) or text in RECIPES:
        return isinstance(text, str)
    name = re.split(r"[\[=/]", text)[0].strip()
    if name in RECIPES and not set(re.split("[.,]", name)) <= FACT_OF.keys():
        raise LorascopeError(
            f"{name} is a recipe, which takes neither rank nor layers of its own",
            where=repr(text),
            hint=f"Write {name} and give --rank, --alpha or --layers; or write the rule that you mean.",
        )
    return not set(".,=[") & set(text) and text.strip() not in FACT_OF


def option_faults(options: Options) -> list[LorascopeError]:
    """Everything wrong with the options of a plan by themselves."""
    faults = _number_faults(options)
    if options.alpha is not None and options.scale is not None:
        faults.append("alpha and scale are both given, and each decides the other: leave one out")
    if options.bias not in _BIASES:
        faults.append(f"bias {quoted(options.bias)} is not one of {', '.join(_BIASES)}")
    layers: object = options.layers
    if not isinstance(layers, str):
        faults.append(f"layers {quoted(layers)} is not a text such as -8: or 0,3")
    elif layers:
        check_layers(layers.replace(" ", ""), faults)
    defaults = f"The defaults are rank {DEFAULT_RANK}, alpha {DEFAULT_ALPHA:g}, dropout {DEFAULT_DROPOUT:g}, bias none."
    return [LorascopeError(*faults, where="options", hint=defaults)] if faults else []


def _number_faults(options: Options) -> list[str]:
    faults = []
    if type(options.rank) is not int or not 1 <= options.rank <= _MOST_RANK:
        faults.append(f"rank {quoted(options.rank)} is not a whole number from 1 to {_MOST_RANK}")
    for name, value in (("alpha", options.alpha), ("scale", options.scale)):
        if value is not None and not (_is_number(value) and 0 < value <= _MOST_ALPHA):
            faults.append(f"{name} {quoted(value)} is not a number above 0 and up to {_MOST_ALPHA}")
    if options.dropout is not None and not (_is_number(options.dropout) and 0 <= options.dropout < 1):
        faults.append(f"dropout {quoted(options.dropout)} is not a number from 0 up to, but not including, 1")
    return faults


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, int) and not isinstance(value, bool):  # of any length, beyond what is a float
        return True
    return isinstance(value, float) and math.isfinite(value)


def raise_all(faults: Sequence[LorascopeError]) -> None:
    """Raise all faults as one error, if there are any."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise LorascopeError(*faults)


@dataclasses.dataclass(frozen=True, slots=True)
class _Expansion:
    """Rules of recipes and rules, with names of recipes and notes."""

    rules: tuple[Rule, ...]
    recipes: tuple[str, ...]
    notes: tuple[Diagnostic, ...]


def _expand(model: ModelMap, texts: Sequence[str], rank: int, faults: list[LorascopeError]) -> _Expansion:
    rules: list[Rule] = []
    recipes: list[str] = []
    notes: list[Diagnostic] = []
    for text in texts:
        try:
            if means_recipe(text):
                added, remarks = recipe_rules(text, model, rank)
                recipes.append(text)
                rules.extend(added)
                notes.extend(remarks)
            else:
                rules.append(parse_rule(text))
        except LorascopeError as error:
            faults.append(error)
    return _Expansion(tuple(rules), tuple(recipes), tuple(notes))


def parse_exclusions(texts: str | Sequence[str], faults: list[LorascopeError]) -> tuple[Rule, ...]:
    """Rules of one exclusion or several; faults in them are added to `faults`."""
    rules: list[Rule] = []
    for text in (texts,) if isinstance(texts, str) else texts:
        try:
            rule = parse_rule(text)
            if rule.rank is not None:
                raise LorascopeError(
                    "an exclusion has no rank", where=f"exclude {text!r}", hint=f"Write {rule.selector} alone."
                )
            rules.append(rule)
        except LorascopeError as error:
            faults.append(error)
    return tuple(rules)


def _assign(
    model: ModelMap, rules: Sequence[Rule], options: Options
) -> tuple[tuple[Assignment, ...], tuple[tuple[Weight, Diagnostic], ...]]:
    """Assignments that PEFT can adapt, and other weights with reasons."""
    chosen = _chosen(model, rules, options)
    if not chosen:
        raise LorascopeError("the exclusions leave nothing to adapt", hint="Exclude less, or plan more.")
    blocked = {
        name: reason for name, item in chosen.items() if (reason := why_left_out(model, item.weight, rules[item.rule]))
    }
    reachable = tuple(
        chosen[weight.name] for weight in model.weights if weight.name in chosen and weight.name not in blocked
    )
    if not reachable:
        reasons = sorted({str(reason) for reason in blocked.values()})
        raise LorascopeError(
            *(f"PEFT cannot adapt what the rules select: {reason}" for reason in reasons),
            where=model.model,
            hint=f"See what PEFT can adapt: lorascope inspect {shell_word(model.model)}",
        )
    return reachable, tuple((chosen[name].weight, reason) for name, reason in blocked.items())


def why_left_out(model: ModelMap, weight: Weight, rule: Rule | None = None) -> Diagnostic | None:
    """Why a rule that selects a weight leaves it out, or None.

    PEFT cannot adapt it, or fused kernels would read it past its adapter and the rule does not name its part.
    """
    if reason := why_not_adaptable(model, weight, NEWEST):
        return reason
    if rule is not None and any(FACT_OF[values[0]] == "part" for values in rule.facts):
        return None
    selector = ".".join(word for word in (weight.role.block, weight.role.part) if word)
    return why_dead_with_kernels(model, weight, selector=selector)


def _chosen(model: ModelMap, rules: Sequence[Rule], options: Options) -> dict[str, Assignment]:
    """Assignments by weight, in the order of their first selection."""
    chosen: dict[str, Assignment] = {}
    faults: list[LorascopeError] = []
    for index, rule in enumerate(rules):
        if options.layers and not rule.layers:
            rule = dataclasses.replace(rule, layers=options.layers.replace(" ", ""))
        rank = options.rank if rule.rank is None else rule.rank
        for weight in _selected(model, rule, faults):
            chosen[weight.name] = Assignment(weight, rank, alpha_of(rule, rank, options), index)
    for rule in options.exclude:
        for weight in _selected(model, rule, faults):
            chosen.pop(weight.name, None)
    raise_all(faults)
    return chosen


def _selected(model: ModelMap, rule: Rule, faults: list[LorascopeError]) -> tuple[Weight, ...]:
    try:
        return select(model, rule)
    except LorascopeError as error:
        faults.append(error)
        return ()


def alpha_of(rule: Rule, rank: int, options: Options) -> float:
    """Alpha under a rule: its own, the plan's, or by scale."""
    if rule.alpha is not None:
        return rule.alpha
    if options.alpha is not None:
        return options.alpha
    assert options.scale is not None
    return options.scale * (math.sqrt(rank) if options.rslora else rank)


def _settle_dropout(
    model: ModelMap, assignments: Sequence[Assignment], options: Options
) -> tuple[Options, tuple[Diagnostic, ...]]:
    """The options with a dropout that PEFT can apply to all weights.

    Raises:
        LorascopeError: PEFT cannot apply the dropout or the DoRA that is wanted.
    """
    bare = [item.weight for item in assignments if as_parameter(model, item.weight)]
    dropout = DEFAULT_DROPOUT if options.dropout is None else options.dropout
    if not bare:
        return dataclasses.replace(options, dropout=dropout), ()
    example = f"PEFT adapts {len(bare)} of these weights, such as {bare[0].name}, through target_parameters"
    if options.dora:
        raise LorascopeError(
            f"DoRA is not possible: {example}, which have no DoRA",
            hint="Leave out --dora, or take them out of the plan (--exclude ffn.expert).",
        )
    if options.dropout:
        raise LorascopeError(
            f"dropout {dropout:g} is not possible: {example}, which have no dropout",
            hint="Set --dropout 0, or take them out of the plan (--exclude ffn.expert).",
        )
    notes = () if options.dropout == 0 else (_no_dropout(bare),)
    return dataclasses.replace(options, dropout=0.0), notes


def _no_dropout(bare: Sequence[Weight]) -> Diagnostic:
    experts = all(weight.role.variant == "expert" for weight in bare)
    return NO_DROPOUT.about(bare[0].name, count=len(bare), experts=experts)
