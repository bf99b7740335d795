"""From rules to a plan: which weights get which rank and alpha, and what must be said about that."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TypeGuard

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import quoted
from lorascope.model.types import ModelMap, Weight
from lorascope.peft_rules.adaptability import obstacle
from lorascope.peft_rules.addresses import as_parameter
from lorascope.peft_rules.name_patterns import in_matching_time
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.resolve import resolve
from lorascope.plans.arguments import require_map, require_texts
from lorascope.plans.compiler import compile_targets
from lorascope.plans.notes import remarks
from lorascope.plans.recipes import DEFAULT, RECIPES, recipe_rules
from lorascope.plans.rules import FACT_OF, check_layers, parse_rule, select
from lorascope.plans.types import Options, Plan, Rule, Target

DEFAULT_RANK = 8
DEFAULT_ALPHA = 16.0
DEFAULT_DROPOUT = 0.05
_BIASES = ("none", "all", "lora_only")
# Ranks and alphas stay within what a rule can say.
_MOST_RANK = 999_999
_MOST_ALPHA = 999_999_999


@in_matching_time
def plan(
    model: ModelMap,
    *rules: str,
    rank: int = DEFAULT_RANK,
    alpha: float | None = None,
    scale: float | None = None,
    dropout: float | None = None,
    bias: str = "none",
    rslora: bool = False,
    dora: bool = False,
    layers: str = "",
    exclude: str | Sequence[str] = (),
) -> Plan:
    """The plan of recipes and rules for a model; a later rule wins over an earlier one, weight by weight.

    Args:
        model: The map.
        rules: Recipe names (`qv+ffn`) and rules (`ffn[-8:]=4/16`), in order; the recipe `qv` if there is none.
        rank: Rank of rules that name none, and the one that recipes start from.
        alpha: One alpha for every weight whatever its rank (the default, 16): under Adam the first update then does
            not depend on the rank (LoRA Without Regret, Thinking Machines Lab 2025).
        scale: Instead of alpha: one effective scale for every weight, so that alpha follows the rank.
        dropout: Dropout on the adapters' inputs; 0.05 if not given, and 0 where PEFT allows none.
        bias: Which biases to train: `none`, `all` or `lora_only`.
        rslora: Scale by alpha / sqrt(rank) instead of alpha / rank.
        dora: Train a magnitude per output too.
        layers: Layers of rules that name none, such as `-8:`.
        exclude: Selectors whose weights are taken out.

    Raises:
        LorascopeError: A fault in the arguments or rules, a rule that selects nothing, or something that PEFT cannot
            do for this model.
    """
    require_map(model, "plan")
    require_texts("plan", "exclude", exclude)
    faults = option_faults(rank, alpha, scale, dropout, bias, layers)
    parsed, names, notes = _rules(model, rules or (DEFAULT,), rank if type(rank) is int else DEFAULT_RANK, faults)
    excluded = _exclusions((exclude,) if isinstance(exclude, str) else exclude, faults)
    _raise_all(faults)
    options = Options(
        recipe="+".join(names),
        rank=rank,
        alpha=None if scale is not None else float(DEFAULT_ALPHA if alpha is None else alpha),
        scale=scale,
        dropout=DEFAULT_DROPOUT if dropout is None else dropout,
        bias=bias,
        rslora=rslora,
        dora=dora,
        layers=layers,
        exclude=excluded,
    )
    targets, unreachable = _targets(model, parsed, options)
    options, dropout_notes = _dropout(model, targets, options, asked=dropout is not None)
    config = compile_targets(model, targets, options)
    drafted = Plan(
        model=model,
        rules=parsed,
        options=options,
        targets=targets,
        config=config,
        resolution=resolve(model, config, NEWEST),
        unreachable=unreachable,
    )
    return dataclasses.replace(drafted, notes=(*notes, *dropout_notes, *remarks(drafted)))


def rules_at(model: ModelMap, texts: Sequence[str], rank: int) -> tuple[Rule, ...]:
    """The rules of recipes and rules, where recipes start from a rank.

    Raises:
        LorascopeError: With the faults of all texts.
    """
    faults: list[LorascopeError] = []
    rules, _, _ = _rules(model, texts, rank, faults)
    _raise_all(faults)
    return rules


def means_recipe(text: str) -> bool:
    """The text is a recipe's name, or a word that is no rule either; a recipe's name with more to it is an error."""
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


def option_faults(
    rank: object, alpha: object, scale: object, dropout: object, bias: object, layers: object
) -> list[LorascopeError]:
    """Everything that is wrong with the options of a plan, whatever the rules and the model."""
    faults: list[str] = []
    if type(rank) is not int or not 1 <= rank <= _MOST_RANK:
        faults.append(f"rank {quoted(rank)} is not a whole number from 1 to {_MOST_RANK}")
    for name, value in (("alpha", alpha), ("scale", scale)):
        if value is not None and not (_is_number(value) and 0 < value <= _MOST_ALPHA):
            faults.append(f"{name} {quoted(value)} is not a number above 0 and up to {_MOST_ALPHA}")
    if alpha is not None and scale is not None:
        faults.append("alpha and scale are both given, and each decides the other: leave one out")
    if dropout is not None and not (_is_number(dropout) and 0 <= dropout < 1):
        faults.append(f"dropout {quoted(dropout)} is not a number from 0 up to, but not including, 1")
    if bias not in _BIASES:
        faults.append(f"bias {quoted(bias)} is none of {', '.join(_BIASES)}")
    if not isinstance(layers, str):
        faults.append(f"layers {quoted(layers)} is not a text such as -8: or 0,3")
    elif layers:
        check_layers(layers.replace(" ", ""), faults)
    defaults = f"The defaults are rank {DEFAULT_RANK}, alpha {DEFAULT_ALPHA:g}, dropout {DEFAULT_DROPOUT:g}, bias none."
    return [LorascopeError(*faults, where="options", hint=defaults)] if faults else []


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, int) and not isinstance(value, bool):  # of any length, beyond what is a float
        return True
    return isinstance(value, float) and math.isfinite(value)


def _raise_all(faults: Sequence[LorascopeError]) -> None:
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise LorascopeError(*faults)


def _rules(
    model: ModelMap, texts: Sequence[str], rank: int, faults: list[LorascopeError]
) -> tuple[tuple[Rule, ...], list[str], list[str]]:
    """The rules of all texts, the names of the recipes among them, and what the recipes say."""
    rules: list[Rule] = []
    names: list[str] = []
    notes: list[str] = []
    for text in texts:
        try:
            if means_recipe(text):
                added, said = recipe_rules(text, model, rank)
                names.append(text)
                rules.extend(added)
                notes.extend(said)
            else:
                rules.append(parse_rule(text))
        except LorascopeError as error:
            faults.append(error)
    return tuple(rules), names, notes


def _exclusions(texts: Sequence[str], faults: list[LorascopeError]) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    for text in texts:
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


def _targets(
    model: ModelMap, rules: Sequence[Rule], options: Options
) -> tuple[tuple[Target, ...], tuple[tuple[Weight, str], ...]]:
    chosen: dict[str, Target] = {}
    faults: list[LorascopeError] = []
    for index, rule in enumerate(rules):
        if options.layers and not rule.layers:
            rule = dataclasses.replace(rule, layers=options.layers.replace(" ", ""))
        rank = options.rank if rule.rank is None else rule.rank
        for weight in _selected(model, rule, faults):
            chosen[weight.name] = Target(weight, rank, alpha_of(rule, rank, options), index)
    for rule in options.exclude:
        for weight in _selected(model, rule, faults):
            chosen.pop(weight.name, None)
    _raise_all(faults)
    if not chosen:
        raise LorascopeError("the exclusions leave nothing to adapt", hint="Exclude less, or plan more.")
    blocked = {name: reason for name, target in chosen.items() if (reason := obstacle(model, target.weight, NEWEST))}
    reachable = chosen.keys() - blocked.keys()
    reached = tuple(chosen[weight.name] for weight in model.weights if weight.name in reachable)
    if not reached:
        reasons = sorted(set(blocked.values()))
        raise LorascopeError(
            *(f"PEFT cannot adapt what the rules select: {reason}" for reason in reasons),
            where=model.model,
            hint="See what PEFT can adapt with: lorascope inspect",
        )
    return reached, tuple((chosen[name].weight, reason) for name, reason in blocked.items())


def _selected(model: ModelMap, rule: Rule, faults: list[LorascopeError]) -> tuple[Weight, ...]:
    try:
        return select(model, rule)
    except LorascopeError as error:
        faults.append(error)
        return ()


def alpha_of(rule: Rule, rank: int, options: Options) -> float:
    """The alpha of what a rule gives a rank: its own, the plan's, or the one that makes the plan's scale."""
    if rule.alpha is not None:
        return rule.alpha
    if options.alpha is not None:
        return options.alpha
    assert options.scale is not None
    return options.scale * (math.sqrt(rank) if options.rslora else rank)


def _dropout(
    model: ModelMap, targets: Sequence[Target], options: Options, *, asked: bool
) -> tuple[Options, tuple[str, ...]]:
    """Dropout and DoRA give way to, or stand in the way of, weights that PEFT reaches as parameters."""
    bare = [target.weight for target in targets if as_parameter(model, target.weight)]
    if not bare:
        return options, ()
    example = f"{len(bare)} of them, such as {bare[0].name}, are reached as parameters"
    if options.dora:
        raise LorascopeError(
            f"DoRA is not possible for these weights: {example}, where PEFT has none",
            hint="Leave out --dora, or take them out of the plan (--exclude ffn.expert).",
        )
    if options.dropout == 0:
        return options, ()
    if asked:
        raise LorascopeError(
            f"dropout {options.dropout:g} is not possible for these weights: {example}, where PEFT has none",
            hint="Set --dropout 0, or take them out of the plan (--exclude ffn.expert).",
        )
    note = f"dropout is 0, not {options.dropout:g}: {example}, where PEFT has no dropout"
    return dataclasses.replace(options, dropout=0.0), (note,)
