"""What the recipes mean on each kind of model."""

from __future__ import annotations

import dataclasses

import pytest

from lorascope.model.types import ModelMap
from lorascope.plans.notes import EXPERT_RANK
from lorascope.plans.recipes import RECIPES, recipe_rules
from lorascope.plans.rules import parse_rule
from tests.helpers.samples import fails, sample


def texts(name: str, model: ModelMap, rank: int = 8) -> list[str]:
    return [str(rule) for rule in recipe_rules(name, model, rank)[0]]


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("qv", ["attention.q,v=8"]),
        ("qv+ffn", ["attention.q,v=8", "ffn=4"]),
        ("vo", ["attention.v,o=8"]),
        ("vo+down", ["attention.v,o=8", "ffn.down=8"]),
        ("attention", ["attention=8"]),
        ("ffn", ["ffn=8"]),
        ("all", ["attention,ffn,mixer=8"]),
    ],
)
def test_on_a_dense_model(name: str, rules: list[str]) -> None:
    assert texts(name, sample("llama")) == rules
    assert recipe_rules(name, sample("llama"), 8)[1] == ()


def test_every_recipe_is_tried_here() -> None:
    assert set(RECIPES) == {"qv", "qv+ffn", "vo", "vo+down", "attention", "ffn", "all"}


@pytest.mark.parametrize(
    ("model", "active", "name", "rank", "rules"),
    [
        ("mixtral", 2, "ffn", 8, ["ffn=8", "ffn.expert=4"]),
        ("mixtral", 2, "qv+ffn", 8, ["attention.q,v=8", "ffn=4", "ffn.expert=2"]),
        ("mixtral", 2, "all", 9, ["attention,ffn,mixer=9", "ffn.expert=4"]),
        ("mixtral", 2, "attention", 8, ["attention=8"]),
        ("mixtral", 2, "qv", 8, ["attention.q,v=8"]),
        ("mixtral", 2, "vo", 8, ["attention.v,o=8"]),
        ("mixtral", 2, "vo+down", 8, ["attention.v,o=8", "ffn.down=8", "ffn.expert.down=4"]),
        ("mixtral", 2, "ffn", 1, ["ffn=1", "ffn.expert=1"]),
        ("mixtral", 2, "qv+ffn", 1, ["attention.q,v=1", "ffn=1", "ffn.expert=1"]),
        ("deepseek_v3", 8, "ffn", 16, ["ffn=16", "ffn.expert=2"]),
        ("deepseek_v3", 8, "ffn", 4, ["ffn=4", "ffn.expert=1"]),
    ],
)
def test_routed_experts_share_the_rank(model: str, active: int, name: str, rank: int, rules: list[str]) -> None:
    mapped = sample(model)
    assert mapped.dimensions.active_experts == active
    found, notes = recipe_rules(name, mapped, rank)
    assert [str(rule) for rule in found] == rules
    if any("expert" in rule for rule in rules):
        selector, _, each = rules[-1].partition("=")
        assert notes == (
            EXPERT_RANK.about(rank=int(rules[-2].rpartition("=")[2]), each=int(each), active=active, selector=selector),
        )
    else:
        assert notes == ()


@pytest.mark.parametrize("active", [None, 0, 1])
def test_one_active_expert_shares_with_nobody(active: int | None) -> None:
    model = sample("mixtral")
    lone = dataclasses.replace(model, dimensions=dataclasses.replace(model.dimensions, active_experts=active))
    assert texts("ffn", lone) == ["ffn=8"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("qvv", 'Did you mean "qv"'),
        ("qv+fnn", 'Did you mean "qv+ffn"'),
        ("ALL", 'Did you mean "all"'),
        ("everything", "The recipes are qv, qv+ffn, vo, vo+down, attention, ffn, all"),
        ("", "The recipes are qv, qv+ffn, vo, vo+down, attention, ffn, all"),
    ],
)
def test_an_unknown_recipe(name: str, hint: str) -> None:
    with fails(f"{name!r} is neither a recipe nor a rule", hint):
        recipe_rules(name, sample("llama"), 8)


def test_recipes_say_what_they_are_for() -> None:
    for recipe in RECIPES.values():
        assert recipe.purpose
        assert all(str(parse_rule(selector)) == selector and divisor >= 1 for selector, divisor in recipe.parts)
