"""Diagnostics: values that compare, and templates that can always be filled."""

from __future__ import annotations

import ast
import dataclasses
import pickle
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import lorascope
from lorascope.peft_rules import reasons
from lorascope.peft_rules.diagnostics import Diagnostic, Reason, RefusalError, array, listed_names

NAMED = {name: value for name, value in vars(reasons).items() if isinstance(value, Reason)}
SOURCE = Path(lorascope.__file__).parent


def fields(template: str) -> set[str]:
    """The names of the values that a template needs."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def uses() -> Iterator[tuple[str, ast.Call]]:
    """Every case that is made of a reason by its name: `reasons.NAME.about(…)`, or of one of a file's own."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "about":
                yield ast.unparse(node.func.value).removeprefix("reasons."), node


def test_values_not_texts_are_compared() -> None:
    one = reasons.RANK_NOT_POSITIVE.about("q_proj", rank=0)
    assert one == reasons.RANK_NOT_POSITIVE.about("q_proj", rank=0)
    assert one != reasons.RANK_NOT_POSITIVE.about("q_proj", rank=-1)
    assert one != reasons.RANK_NOT_POSITIVE.about("k_proj", rank=0)
    assert len({one, reasons.RANK_NOT_POSITIVE.about("q_proj", rank=0)}) == 1
    assert one.code == "rank-invalid"
    assert str(one) == 'The rank of "q_proj" is 0; PEFT takes positive ranks only. To leave it out, exclude it.'
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.names = ()  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(one)) == one
    assert str(RefusalError(one)) == str(one)


def test_formats_of_templates() -> None:
    reason = Reason(
        "code", "{names:listed}; {name}; {words:joined}; {numbers:array}; {text:literal}; {text!r}; {n:,}", "{name}: "
    )
    case = reason.about("a", "b", words=("x", "y"), numbers=(2, 10), text='q"', n=1234)
    assert str(case) == 'a: a, b; a; x and y; [2, 10]; "q\\""; \'q"\'; 1,234'
    assert str(Reason("code", "{x}", "{name}: ").about(x="{name}")) == "{name}", "values are no templates"


def test_many_names_are_cut() -> None:
    assert listed_names(map(str, range(9))) == "0, 1, 2, 3, 4, 5 and 3 more"
    assert listed_names(["x" * 300]) == "x" * 200 + "…"
    assert array(range(12, 0, -1)) == "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10 … and 2 more]"
    assert array(["b", "a"]) == "['a', 'b']"


def test_every_reason_is_used_with_the_values_of_its_template() -> None:
    used: set[str] = set()
    for name, call in uses():
        reason = NAMED.get(name)
        if reason is None:  # of a trainer, or chosen between two
            continue
        used.add(name)
        given = {keyword.arg for keyword in call.keywords}
        needed = set() if callable(reason.text) else fields(reason.text) - {"names", "name"}
        assert needed <= given, (name, needed - given)
        of_names = callable(reason.text) or fields(reason.text) & {"names", "name"}
        assert call.args or not of_names or callable(reason.text), name
    assert len(used) >= 110
    chosen = {"STRING_IN_LETTERS", "STRING_TO_NAMES", "REWRITTEN", "REWRITTEN_TWICE_THE_RANK"}
    assert NAMED.keys() - used == chosen


def test_every_reason_is_declared_once() -> None:
    assert len({(reason.code, reason.text, reason.before) for reason in NAMED.values()}) == len(NAMED) >= 120
    for name, reason in NAMED.items():
        assert reason.code == reason.code.lower().strip(), name
        if isinstance(reason.text, str):
            assert reason.text.endswith((".", "}", "down_proj")), name


@pytest.mark.parametrize("name", NAMED)
def test_a_sentence_begins_with_a_capital_or_a_name(name: str) -> None:
    reason = NAMED[name]
    if isinstance(reason.text, str):
        first = reason.text.lstrip('"')
        assert (
            first[0].isupper()
            or first[0] == "{"
            or "_" in first.split()[0]
            or first.startswith(("a list", "use_", "bias"))
        ), name
    assert isinstance(reason.about("x"), Diagnostic)
