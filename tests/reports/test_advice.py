"""A recommendation as text and JSON: the command first, every choice with its strength, every source on request."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from lorascope.advice.evidence import load_evidence
from lorascope.advice.recommend import evidence_of_recipe, recommend
from lorascope.reports.advice import advice_json, advice_text, recipe_evidence_text
from tests.helpers.samples import sample


def test_the_command_comes_first() -> None:
    lines = advice_text(recommend(sample("llama"), "instruction")).splitlines()
    assert lines[0].startswith("model llama: LlamaForCausalLM (causal-lm; built-in")
    assert lines[1] == "task instruction: follow instructions, chat, call tools"
    assert lines[3] == "run: lorascope plan llama all --rank 16 --alpha 32"
    assert lines[4] == "39,976,960 trainable parameters, 0.593 % of 6.74B"


def test_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    text = advice_text(recommend(sample("mixtral"), "style"))
    for said in (
        "- targets (moderate): all: attention,ffn,mixer=16  ffn.expert=8: ",
        "- learning rate (moderate): 10 times that of full fine-tuning",
        "- dropout (untested): 0 (PEFT cannot apply it to target_parameters): PEFT's habit; no study found",
        "warning:\n- Routed experts are ",
        "qv8-ffn4-balance: untested",
        "control for qv+ffn (ranks 8 and 4): same number of parameters",
        "all --exclude ffn.expert",
        "that style needs the FFN is folklore",
        "untested:\n- target modules for style: no study compares them",
    ):
        assert said in text, said
    assert text.endswith("- dropout 0 (no study found)\n\nsources for each choice: --explain")
    assert "https://" not in text
    # No line is there twice.
    bullets = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(bullets) == len(set(bullets)) >= 13


@pytest.mark.parametrize(("model", "task"), [("llama", "rl"), ("mixtral", "knowledge"), ("t5", "reasoning")])
def test_explained_holds_every_record_of_every_choice(model: str, task: str) -> None:
    found = recommend(sample(model), task)
    text = advice_text(found, explain=True)
    records = {record.id: record for choice in found.choices for record in (*choice.supporting, *choice.contradicting)}
    assert len(records) > 15
    for record in records.values():
        assert record.url in text and record.title in text
        for limit in record.limits:
            assert limit in text
        for figure in record.figures:
            assert figure.what in text
    for choice in found.choices:
        for ground in choice.grounds:
            assert f"{ground.claim.id}: " in text
    assert "--explain" not in text


def test_names_cannot_drive_a_terminal() -> None:
    evil = dataclasses.replace(sample("llama"), model="a\x1b[2J\nb")
    text = advice_text(recommend(evil, "rl"))
    assert "\x1b" not in text
    assert "run: lorascope plan 'a\\x1b[2J\\nb' all" in text


def test_json_says_the_same() -> None:
    found = recommend(sample("mixtral"), "rl")
    said: dict[str, Any] = json.loads(json.dumps(advice_json(found)))
    assert said["command"] == found.command
    assert (said["task"], said["rules"], said["rank"], said["alpha"]) == ("rl", ["all"], 8, 32)
    assert [choice["name"] for choice in said["choices"]] == [choice.name for choice in found.choices]
    assert said["plan"]["trainable"] == found.plan.resolution.trainable
    cited = set()
    for choice in said["choices"]:
        claims = choice["claims"] + [claim for other in choice["alternatives"] for claim in other["claims"]]
        for claim in claims:
            cited |= {one["record"] for one in claim["for"] + claim["against"]}
    assert cited == said["records"].keys()
    known = {record.id: record for record in load_evidence().records}
    for name, record in said["records"].items():
        assert (record["url"], record["grade"]) == (known[name].url, known[name].grade)
    experts = next(choice for choice in said["choices"] if choice["name"] == "experts")
    assert experts["alternatives"][0]["rules"] == ["all", "ffn.expert=1"]
    assert experts["alternatives"][2]["exclude"] == ["ffn.expert"]
    assert said["unknown"] and said["warnings"] and said["notes"]


def test_a_recipe() -> None:
    text = recipe_evidence_text(evidence_of_recipe("qv+ffn"))
    assert text.startswith(
        "qv+ffn: query and value, and the FFN at half the rank\nsupports it, if true:\n- Q and V at rank 8"
    )
    assert "(untested: 0 for, 0 against)" in text
    assert "\ncontradicts it, if true:\n- Within the attention, V and O" in text


def test_str_is_the_text() -> None:
    found = recommend(sample("llama"), "rl")
    assert str(found) == advice_text(found)
