"""Texts of files that anyone may have written, in everything that is shown: one line each, driving no terminal."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from collections.abc import Iterator

import pytest

import lorascope as ls
from lorascope.checks.types import Check
from lorascope.costs.memory import training_memory
from lorascope.findings import Finding
from lorascope.foreign_text import (
    comment,
    is_class_name,
    is_model_type,
    is_release,
    json_text,
    one_line,
    quoted,
    shell_word,
    shown,
)
from lorascope.model.types import ModelMap, Trace
from lorascope.reports.advice import advice_text, choices_text
from lorascope.reports.check import check_text, serving_text
from lorascope.reports.cost import budget_text, comparison_text, memory_text
from lorascope.reports.json import check_json, map_json, plan_json, serving_json
from lorascope.reports.model import BY, map_text
from lorascope.reports.plan import plan_text
from lorascope.servers.check import serve
from tests.helpers.samples import sample

# Each would begin a line of its own, clear the screen, or turn the writing around.
FAKE = "→ Everything is fine."
EVIL = [f"a{mark}{FAKE}" for mark in ("\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029")] + [
    f"a\x1b[2J{FAKE}",
    f"a\x9b2J{FAKE}",
    f"a\x00{FAKE}",
    f"a\x7f{FAKE}",
    f"a\u202e{FAKE}",
    f"a\u2066{FAKE}",
    f"a\u200b{FAKE}",
    f"a\ud800{FAKE}",
    f"a\x1b]8;;https://example.org\x07{FAKE}",
]


def hostile(text: str) -> ModelMap:
    """A map with the text wherever a file can put one."""
    model = sample("llama")
    name = {module.name: f"{module.name}{text}" for module in model.modules if module.name.endswith(".0.mlp.down_proj")}
    assert len(name) == 1
    modules = tuple(
        dataclasses.replace(
            module,
            name=name.get(module.name, module.name),
            class_name=f"{module.class_name}{text}" if module.kind == "other" else module.class_name,
        )
        for module in model.modules
    )
    weights = tuple(
        dataclasses.replace(
            weight,
            name=name.get(weight.name, weight.name),
            module=name.get(weight.module, weight.module),
            quantization=text if weight.role.part == "up" else "",
            guess=weight.role.part == "o",
        )
        for weight in model.weights
    )
    first = weights[3]
    return dataclasses.replace(
        model,
        model=text,
        model_type=text,
        architecture=text,
        source=text,
        versions={"transformers": text, "commit": text, text: text},
        modules=modules,
        weights=weights,
        notes=(text, f"note {text}"),
        unexplained=(text,),
        traces=(Trace(first.name, first.role, False, None, "ambiguous", text, "low", False),),
    )


def screens(model: ModelMap, text: str) -> Iterator[str]:
    """Everything that can be shown of it."""
    for by in BY:
        yield map_text(model, by=by)
    plan = ls.plan(model, "attention.q,v=8", "ffn.gate=4")
    training = ls.Training()
    yield plan_text(plan)
    yield memory_text(training_memory(plan, training), training)
    yield comparison_text(ls.compare(model, "qv"))
    budgeted = ls.plan(model, "ffn.gate", budget="1M")
    yield budget_text(dataclasses.replace(budgeted, next_cost=None, limiting_weight=text))
    advised = ls.recommend(model, "instruction")
    yield advice_text(advised, explain=True)
    yield choices_text(advised)
    checked = ls.check(model, {"peft_type": "LORA", "target_modules": ["q_proj", text]})
    findings = (Finding("no-match", "error", text, text, text), *checked.findings)
    resolution = dataclasses.replace(checked.resolution, saved=(text,))
    serving = serve(model, plan.config, plan.resolution, "vllm")
    flags = dataclasses.replace(serving, flags=(text,))
    yield serving_text(flags)
    yield check_text(Check(model, text, checked.config, resolution, findings, "", checked.peft, flags))


@pytest.mark.parametrize("text", EVIL, ids=ascii)
def test_no_screen_shows_a_line_of_a_file(text: str) -> None:
    model = hostile(text)
    shown_texts = list(screens(model, text))
    assert len(shown_texts) == 11
    for screen in shown_texts:
        assert not [line for line in screen.split("\n") if not line.isprintable()]
        for line in screen.splitlines():
            assert not line.lstrip(" -").startswith(FAKE), line


def test_plain_texts_are_shown_as_they_are() -> None:
    assert "model plain: plain (causal-lm; plain, traced, transformers plain, commit plain)" in map_text(
        hostile("plain")
    )


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_json_has_no_number_that_json_has_not(value: float) -> None:
    def refuse(name: str) -> object:
        raise AssertionError(name)

    model = hostile("plain")
    plan = ls.plan(model, "attention.q,v=8")
    adapted = tuple(dataclasses.replace(one, scale=value, alpha=value) for one in plan.resolution.adapted)
    resolution = dataclasses.replace(plan.resolution, adapted=adapted)
    config = dataclasses.replace(plan.config, lora_alpha=value, lora_dropout=value)
    serving = serve(model, plan.config, plan.resolution, "vllm")
    values = [
        map_json(model),
        plan_json(dataclasses.replace(plan, resolution=resolution, config=config)),
        check_json(Check(model, "x", config, resolution, ())),
        serving_json(serving),
        {"a": [value, (value,), {"b": value}], "c": 1.5},
    ]
    for one in values:
        text = json_text(one)
        assert text.isascii()
        json.loads(text, parse_constant=refuse)
    assert json.loads(json_text(values[-1])) == {"a": [None, [None], {"b": None}], "c": 1.5}


# The boundary itself.


@pytest.mark.parametrize("text", [*EVIL, "plain", "é×漢", "a'b\"c", "\\n", ""], ids=ascii)
def test_escapes(text: str) -> None:
    for escaped in (one_line(text), quoted(text), comment(text)):
        assert escaped.isprintable()
        escaped.encode()
    assert shown(f"{text}\n\t") == "".join(f"{one_line(part)}\n" for part in text.split("\n")) + "\t"
    assert one_line(one_line(text)) == one_line(text)
    assert not text.isprintable() or one_line(text) == text
    compile(f"{comment(text)}\n1\n", "script", "exec")
    assert shlex.split(f"run {shell_word(text)}") == ["run", one_line(text)]
    assert not re.search(r"coding[:=]\s*([-\w.]+)", comment(f"{text} coding: utf-7 coding=utf-7"))


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (
            is_class_name,
            ["LlamaForCausalLM", "_A", "Qwen2_5_VL"],
            ["", "A B", "A.B", "1A", "Ä", "A\n", "A" * 201, None, 1],
        ),
        (is_model_type, ["llama", "xlm-roberta", "qwen2.5"], ["", "-x", "a b", "a/b", "a\n", "é", "a" * 101, None, []]),
        (is_release, ["5.23.0", "2.13.0+cpu", "0123abc"], ["", "5 0", "5\n", "5;x", "é", "1" * 65, None, 5]),
    ],
)
def test_what_may_enter(check: object, right: list[object], wrong: list[object]) -> None:
    assert callable(check)
    assert [value for value in right if not check(value)] == []
    assert [value for value in wrong if check(value)] == []


@pytest.mark.parametrize("text", ["-x", "--trust-remote-code", "-"])
def test_a_word_of_a_command_is_no_option(text: str) -> None:
    assert shlex.split(shell_word(text)) == [f"./{text}"]
