"""A role that is a guess is never shown as if it were known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lorascope as ls
from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap, Role
from lorascope.plans.files import plan_from_json, plan_to_json
from lorascope.reports.json import map_json
from lorascope.reports.model import map_text
from tests.helpers.samples import sample

DOWN = [f"model.layers.{layer}.mlp.down_proj" for layer in range(32)]
UP = [f"model.layers.{layer}.mlp.up_proj" for layer in range(32)]


def guessed() -> ModelMap:
    """A model whose down projections are guesses, and whose up projections nobody knows."""
    model = sample("mistral")
    weights = tuple(
        dataclasses.replace(weight, guess=True)
        if weight.name in DOWN
        else dataclasses.replace(weight, guess=True, role=Role())
        if weight.name in UP
        else weight
        for weight in model.weights
    )
    return dataclasses.replace(model, weights=weights)


def in_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("by", ["role", "layer", "module"])
def test_inspect_counts_and_names_them(by: str) -> None:
    text = in_one_line(map_text(guessed(), by=by))
    assert "ffn.dense.down?" in text
    assert "ffn.dense.down " not in text.partition("- ")[0]
    assert "Unknown role, listed as other?: 32 of 226 weights: model.layers.{0-31}.mlp.up_proj" in text
    assert "Guessed role, listed as ffn.dense.down?: 32 of 226 weights: model.layers.{0-31}.mlp.down_proj" in text
    assert "?" not in map_text(sample("mistral"), by=by)


def test_guesses_of_a_role_stand_apart_from_what_is_known_of_it() -> None:
    model = sample("mistral")
    half = tuple(dataclasses.replace(w, guess=True) if w.name in DOWN[:8] else w for w in model.weights)
    rows = map_text(dataclasses.replace(model, weights=half)).splitlines()
    counts = {row.split()[0]: int(row.split()[1]) for row in rows if row.startswith("ffn.dense.down")}
    assert counts == {"ffn.dense.down?": 8, "ffn.dense.down": 24}


def test_json_marks_each() -> None:
    weights = {weight["name"]: weight["guess"] for weight in map_json(guessed())["weights"]}
    assert {name for name, guess in weights.items() if guess} == {*DOWN, *UP}


def test_a_plan_on_guesses_says_so() -> None:
    model = guessed()
    plan = ls.plan(model, "attention.q=8", "ffn.down=4")
    (note,) = [note for note in plan.notes if note.code == "guessed-role"]
    assert str(note).startswith(
        "32 modules here have a guessed role (ffn.dense.down?), which no known name confirms: "
        "model.layers.{0-31}.mlp.down_proj."
    )
    assert "ffn.dense.down?" in str(plan)
    again = plan_from_json(json.loads(json.dumps(plan_to_json(plan))))
    assert again.notes == plan.notes
    assert [n.code for n in ls.plan(model, "attention").notes if n.code == "guessed-role"] == []
    assert [n.code for n in ls.plan(sample("mistral"), "all").notes if n.code == "guessed-role"] == []


def test_a_check_of_guesses_says_so() -> None:
    check = ls.check(guessed(), "q_proj", "down_proj")
    (finding,) = [one for one in check.findings if one.code == "guessed-role"]
    assert (finding.severity, finding.where) == ("note", "model.layers.{0-31}.mlp.down_proj")
    assert "ffn.dense.down?" in str(check)
    assert not [one for one in ls.check(guessed(), "q_proj").findings if one.code == "guessed-role"]


def test_a_comparison_and_a_recommendation_say_so() -> None:
    model = guessed()
    assert "have a guessed role (ffn.dense.down?)" in in_one_line(str(ls.compare(model, "ffn", "all")))
    assert "have a guessed role (ffn.dense.down?)" in in_one_line(str(ls.recommend(model, "style")))


def test_names_alone_are_a_doubt_of_a_recommendation(tmp_path: Path) -> None:
    model = dataclasses.replace(sample("mistral"), basis="names")
    assert "rests on tensor names alone" in in_one_line(str(ls.recommend(model, "style")))
