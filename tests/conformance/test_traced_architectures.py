"""Every promised architecture, traced, gives what is recorded; where name and dataflow contradict each other is decided."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import architectures
import pytest

from lorascope.plans.rules import FACT_OF
from lorascope.sources.builtin import builtin_models
from tests.conformance.decisions import DECIDED, cases, cases_of, contradictions, core

RESULTS = json.loads(Path(__file__).with_name("traces.json").read_text(encoding="utf-8"))["entries"]
STATES = ("agree", "open", "ambiguous", "unexecuted", "disagree")
# The whole names of roles that adapters are most often put on.
MAIN = {f"attention.{part}" for part in ("q", "k", "v", "o")} | {f"ffn.{part}" for part in ("gate", "up", "down")}


def states(row: Mapping[str, Any]) -> Counter[str]:
    """How many weights of an architecture are in each state."""
    return Counter(
        agree=row["agree"] - row["open"],
        open=row["open"],
        ambiguous=sum(row["ambiguous"].values()),
        unexecuted=sum(row["unexecuted"].values()),
        disagree=sum(number for *_, number in row["disagree"]),
    )


def test_counts_of_what_was_compared() -> None:
    assert len(RESULTS) == 397
    heads = Counter(label.partition("/")[0] for label in RESULTS if "+" not in label)
    assert heads == {"causal-lm": 196, "image-text-to-text": 100, "seq2seq-lm": 38, "masked-lm": 51}
    found: Counter[str] = Counter()
    for row in RESULTS.values():
        assert states(row).total() == row["weights"]
        found.update(states(row))
    assert found == {"agree": 110282, "open": 6169, "ambiguous": 2261, "unexecuted": 50, "disagree": 585}
    assert sum(row["agree"] == row["weights"] for row in RESULTS.values()) == 312
    # transformers 5.24 asks the text model's output of Llama 4 for images.
    odd = {"image-text-to-text/llama4"}
    assert {label for label, row in RESULTS.items() if row["notes"]} == odd


def test_counts_of_what_adapters_are_put_on() -> None:
    found = {part: Counter(dict.fromkeys(STATES, 0)) for part in MAIN}
    for row in RESULTS.values():
        for part in MAIN & row["parts"].keys():
            found[part].update(dict(zip(STATES, row["parts"][part], strict=True)))
    assert {part: [numbers[state] for state in STATES] for part, numbers in sorted(found.items())} == {
        "attention.k": [11610, 203, 58, 0, 12],
        "attention.o": [14035, 319, 19, 0, 12],
        "attention.q": [11734, 285, 58, 0, 12],
        "attention.v": [11622, 277, 18, 0, 12],
        "ffn.down": [18403, 0, 19, 0, 121],
        "ffn.gate": [7833, 0, 32, 0, 118],
        "ffn.up": [14186, 0, 6, 0, 120],
    }


def test_every_contradiction_is_decided_once_and_every_decision_is_needed() -> None:
    found = list(contradictions(RESULTS))
    assert [(one, len(cases_of(one))) for one in found if len(cases_of(one)) != 1] == []
    used = {(case, one.model_type) for one in found for case in cases_of(one)}
    assert [case for case in cases() if {t for c, t in used if c == case} != set(case.model_types.split())] == []


def test_what_adapters_are_put_on_is_contradicted_in_decided_cases_only() -> None:
    found = [one for one in contradictions(RESULTS) if core(one.named) or core(one.flow)]
    assert [one for one in found if not cases_of(one)] == []
    wrong: Counter[str] = Counter()
    for one in found:
        if core(one.named) and [case.right for case in cases_of(one)] == ["names"]:
            wrong[one.model_type] += one.number
    assert wrong == {"deepseek_v4": 43, "deepseek_vl_hybrid": 3, "longcat_flash": 84, "yoso": 48}


def test_the_form_of_the_decisions() -> None:
    header, *lines = DECIDED.read_text(encoding="utf-8").splitlines()
    assert header.split("\t") == ["model types", "name pattern", "named", "flow", "right", "reason"]
    assert {line.count("\t") for line in lines} == {5}
    assert len(set(cases())) == len(cases()) == len(lines)
    for case in cases():
        assert set(case.model_types.split()) <= builtin_models().keys(), case
        assert re.compile(case.pattern), case
        for role in (case.named, case.flow):
            assert set(role.split(".")) <= FACT_OF.keys(), case
        assert case.named != case.flow, case
        assert case.right in ("names", "dataflow", "both"), case
        assert len(case.reason) > 20, case


def test_what_is_core() -> None:
    assert core("text.attention.self.q_a") == "attention.q_a"
    assert core("vision.encoder.ffn.expert.gate_up") == "ffn.gate_up"
    others = (
        "text.attention.linear.q",
        "text.attention.self.position",
        "text.ffn.expert",
        "text.mixer.gate",
        "text.router",
    )
    assert [core(role) for role in others] == [""] * 5


ENTRIES = [*architectures.entries(), *architectures.layouts()]


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.head}-{entry.label}")
def test_what_dataflow_says(entry: architectures.Entry) -> None:
    from tests.conformance.traces import measure_traces

    found = json.loads(json.dumps(measure_traces(entry)))
    assert found == RESULTS[f"{entry.head}/{entry.label}"], "stale: run python tools/build_docs.py --measure-traces"


@pytest.mark.slow
def test_every_promised_architecture_is_here() -> None:
    assert RESULTS.keys() == {f"{entry.head}/{entry.label}" for entry in ENTRIES}
