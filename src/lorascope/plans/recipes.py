"""Recipes: named rules for the common target sets, on any architecture."""

from __future__ import annotations

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError, did_you_mean
from lorascope.model.types import ModelMap
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.plans.notes import EXPERT_RANK
from lorascope.plans.rules import own_components, parse_rule
from lorascope.plans.types import Rule

DEFAULT = "qv"


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """Named rules: each a selector and a divisor of the plan's rank."""

    name: str
    purpose: str
    parts: tuple[tuple[str, int], ...]


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("qv", "attention query and value: few parameters", (("attention.q,v", 1),)),
        Recipe("qv+ffn", "query and value, and the FFN at half the rank", (("attention.q,v", 1), ("ffn", 2))),
        Recipe(
            "vo", "attention value and output: as few parameters, and the more effective half", (("attention.v,o", 1),)
        ),
        Recipe("vo+down", "value, output and the FFN's down projection", (("attention.v,o", 1), ("ffn.down", 1))),
        Recipe("attention", "every attention matrix", (("attention", 1),)),
        Recipe("ffn", "every feed-forward matrix, experts too", (("ffn", 1),)),
        Recipe("all", "attention, feed-forward and mixers", (("attention,ffn,mixer", 1),)),
    )
}


def recipe_rules(name: str, model: ModelMap, rank: int) -> tuple[tuple[Rule, ...], tuple[Diagnostic, ...]]:
    """The rules of a recipe for a model, with notes.

    Routed experts get `max(1, rank // active experts)`: a token passes through the active ones only, so that is the
    rank that it sees in all (LoRA Without Regret, Thinking Machines Lab 2025, section on mixture of experts).

    Raises:
        LorascopeError: There is no such recipe.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        hint = did_you_mean(name, RECIPES) or f"The recipes are {', '.join(RECIPES)}; rules look like attention.q,v=8."
        raise LorascopeError(f"{name!r} is neither a recipe nor a rule", hint=hint)
    rules: list[Rule] = []
    notes: list[Diagnostic] = []
    active = model.dimensions.active_experts
    components = own_components(model)
    routed = any(weight.role.variant == "expert" and weight.role.component in components for weight in model.weights)
    for selector, divisor in recipe.parts:
        own = max(1, rank // divisor)
        rules.append(dataclasses.replace(parse_rule(selector), rank=own))
        if "ffn" in selector and routed and active and active > 1:
            per_expert = max(1, own // active)
            # Of what the recipe adapts of the FFN, the experts' share.
            expert = "ffn.expert.down" if selector == "ffn.down" else "ffn.expert"
            rules.append(dataclasses.replace(parse_rule(expert), rank=per_expert))
            notes.append(EXPERT_RANK.about(rank=own, each=per_expert, active=active, selector=expert))
    return tuple(rules), tuple(notes)
