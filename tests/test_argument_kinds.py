"""Arguments of wrong kinds in Python: an error of lorascope's own, which names the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import lorascope as ls
from lorascope.trainers.exports import export
from tests.helpers.samples import fails, sample

CALLS: dict[str, tuple[Callable[[Any, Any], object], tuple[Any, ...], str]] = {
    "check names": (lambda model, value: ls.check(model, value), ({1: 2}, {None: 1}, {("a",): 1}), "the name"),
    "check peft": (lambda model, value: ls.check(model, "q_proj", peft=value), (None, 5, [], b"0.21"), "peft"),
    "check trainer": (lambda model, value: ls.check(model, "q_proj", trainer=value), (5, [None], None), "trainer"),
    "check serve": (lambda model, value: ls.check(model, "q_proj", serve=value), (5, [], None), "serve"),
    "check revision": (lambda model, value: ls.check(model, "org/a", revision=value), (5, [], b"x"), "revision"),
    "verify peft": (lambda model, value: ls.verify(model, {"r": 8}, peft=value), (None, 5, []), "peft"),
    "plan exclude": (lambda model, value: ls.plan(model, exclude=value), (None, 5, [None], b"x", object), "exclude"),
    "compare rules": (lambda model, value: ls.compare(model, value), (None, b"x", 5, [None]), "rules"),
    "compare training": (lambda model, value: ls.compare(model, training=value), (5, "x", []), "training"),
    "plan budget": (lambda model, value: ls.plan(model, budget=value), (5, []), "budget"),
    "plan training": (lambda model, value: ls.plan(model, budget="20M", training=value), (5, "x"), "training"),
    "plan rank_cap": (lambda model, value: ls.plan(model, budget="20M", rank_cap=value), ("8", 1.5), "rank_cap"),
    "plan training without budget": (lambda model, value: ls.plan(model, training=value), (ls.Training(),), "budget"),
    "training_memory": (lambda model, value: ls.training_memory(ls.plan(model), value), (None, 5, {}), "training"),
    "load_plan": (lambda model, value: ls.load_plan(value), (None, b"x", 5, [], object()), "path"),
    "export": (lambda model, value: export(ls.plan(model), value), (None, 5, []), "unknown trainer"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_kind_is_told_by_its_name(call: str) -> None:
    model = sample("mistral")
    function, values, named = CALLS[call]
    assert values
    for value in values:
        with fails(named):
            function(model, value)


def test_what_is_right_is_still_taken() -> None:
    model = sample("mistral")
    assert ls.check(model, {"target_modules": ["q_proj"], "r": 8}, peft="0.20").resolution.adapted
    assert ls.plan(model, exclude=("attention.q",)).targets
    assert ls.plan(model, "all", exclude="attention.q").targets
    assert ls.plan(model, "all", exclude={"attention.q": 1}.keys()).targets  # type: ignore[arg-type]
    assert ls.compare(model, "qv", ["attention.q", "ffn"], training=ls.Training()).candidates
    assert ls.plan(model, budget="20M").plan.targets
    with pytest.raises(ls.LorascopeError, match="2 faults"):
        ls.check(model, "q_proj", peft=5, serve=5)  # type: ignore[arg-type]
