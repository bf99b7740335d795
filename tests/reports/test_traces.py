"""What is printed of traces: one line that adds up, few lines for many weights, and every doubt by name."""

from __future__ import annotations

import dataclasses

import pytest

from lorascope.model.types import ModelMap, Role, Trace, Weight
from lorascope.plan_api import plan
from lorascope.reports.json import map_json
from lorascope.reports.model import map_text
from lorascope.reports.traces import VERDICTS, traces_text, verdict
from tests.helpers.samples import sample

VALUES = Role("", "", "attention", "", "v")


def trace_of(weight: Weight) -> Trace | None:
    """A trace by the weight's part, so that every standing is there once and gates are not looked at."""
    plain = Trace(
        weight.name, weight.role, False, weight.role, "executed", f"seen in layer {weight.layer}", "high", False
    )
    match weight.role.part:
        case "k":
            return dataclasses.replace(plain, flow=VALUES, confidence="low", disagrees=True, evidence="it is weighed")
        case "v":
            return dataclasses.replace(plain, named=Role(), guess=True, flow=VALUES, confidence="medium")
        case "o":
            return dataclasses.replace(
                plain, flow=None, status="ambiguous", confidence="medium", evidence="two read it"
            )
        case "down":
            return dataclasses.replace(
                plain, flow=None, status="unexecuted", confidence="medium", evidence="no \x1b call"
            )
        case "gate":
            return None
    return plain


def traced(name: str) -> ModelMap:
    model = sample(name)
    return dataclasses.replace(model, traces=tuple(filter(None, map(trace_of, model.weights))))


def test_every_verdict_is_counted_once() -> None:
    model = traced("llama")
    line = traces_text(model, model.weights).splitlines()[0]
    assert line == (
        "traced 194 weights: 66 confirmed, 32 by dataflow only, 32 disagree, 32 ambiguous, 32 not executed; 32 not traced"
    )
    assert {verdict(trace) for trace in model.traces} == set(VERDICTS)


def test_many_weights_are_few_lines() -> None:
    model = traced("llama")
    text = traces_text(model, model.weights)
    assert len(text.splitlines()) < 25
    squeezed = " ".join(text.split())
    assert "attention.self.q, ffn.dense.up 64 confirmed seen in layer 0 (and 31 more like it)" in squeezed
    assert "attention.self.v 32 by dataflow only seen in layer 0" in squeezed
    for said in (
        "Names and dataflow disagree: - model.layers.{0-31}.self_attn.k_proj (32): the name says attention.self.k, "
        "dataflow says attention.v; listed as attention.self.k: it is weighed",
        "Dataflow is ambiguous; the name decides: - model.layers.{0-31}.self_attn.o_proj (32): the name says attention.self.o: two read",
        "Not executed; the name decides: - model.layers.{0-31}.mlp.down_proj (32): ",
    ):
        assert said in squeezed


def test_what_is_well_is_one_table() -> None:
    model = sample("llama")
    agreed = tuple(dataclasses.replace(trace, evidence="seen") for trace in map(plainly, model.weights))
    text = traces_text(dataclasses.replace(model, traces=agreed), model.weights)
    first, empty, head, *rows = text.splitlines()
    assert first == "traced 226 weights: 226 confirmed, 0 by dataflow only, 0 disagree, 0 ambiguous, 0 not executed"
    assert (empty, head.split(), len(rows)) == ("", ["roles", "count", "verdict", "evidence"], 1)
    assert rows[0].startswith("embedding.token, attention.self.q, attention.self.k, ")
    assert rows[0].endswith("  226  confirmed  seen")


def plainly(weight: Weight) -> Trace:
    return Trace(weight.name, weight.role, False, weight.role, "executed", "", "high", False)


def test_it_stands_below_the_table_of_every_grouping() -> None:
    model = traced("llava")
    for by in ("role", "layer", "module"):
        text = map_text(model, by=by)
        assert "(image-text-to-text; built-in, traced, " in text.splitlines()[0]
        assert text.index("share") < text.index("\ntraced ")
        assert "\x1b" not in text
    assert "\ntraced " not in map_text(sample("llava"))


def test_a_component_shows_its_own_traces() -> None:
    text = map_text(traced("llava"), component="vision")
    assert "vision.attention.self.q" in text
    assert "language_model" not in text


def test_a_plan_says_what_no_forward_pass_confirms() -> None:
    model = traced("llama")
    notes = [*map(str, plan(model, "attention.q,k,v,o=8").notes)]
    doubts = [note for note in notes if note.startswith(("Names and dataflow disagree", "No forward pass"))]
    assert doubts == [
        "Names and dataflow disagree: attention.self.k (32 modules, such as model.layers.0.self_attn.k_proj): "
        "the name says attention.self.k, dataflow says attention.v: it is weighed",
        "No forward pass confirms the role: attention.self.o (32 modules, such as model.layers.0.self_attn.o_proj): "
        "the name says attention.self.o: two read it",
    ]
    assert plan(sample("llama"), "attention.q=8").notes == plan(model, "attention.q=8").notes


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_json_has_one_for_each_weight(name: str) -> None:
    model = traced(name)
    found = {weight["name"]: weight["trace"] for weight in map_json(model)["weights"]}
    traces = {trace.weight: trace for trace in model.traces}
    assert len(found) == len(model.weights)
    for weight in model.weights:
        trace, printed = traces.get(weight.name), found[weight.name]
        if trace is None:
            assert printed is None
            continue
        assert printed.keys() == {"named", "guess", "flow", "status", "evidence", "confidence", "disagrees"}
        assert (printed["flow"] is None) == (trace.flow is None)
        assert printed["named"].keys() == {"component", "stack", "block", "variant", "part"}
        assert printed["evidence"] == trace.evidence
    if name == "llama":
        flow = found["model.layers.0.self_attn.k_proj"]["flow"]
        assert flow == {"component": None, "stack": None, "block": "attention", "variant": None, "part": "v"}
    assert {weight["trace"] for weight in map_json(sample(name))["weights"]} == {None}
