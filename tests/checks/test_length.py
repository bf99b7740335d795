"""No check prints more than thirty lines unless it is asked for all."""

from __future__ import annotations

import random
import re

import pytest

import lorascope as ls
from lorascope.cli.main import main
from lorascope.findings import Finding, Severity
from lorascope.reports.check import check_text
from lorascope.reports.findings import folded_findings
from lorascope.sources.builtin import builtin_models
from tests.helpers.samples import sample

_MOST = 30
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WRONG = [
    ["q_proj", "v_proj", *map(str, range(40))],
    [f"layers.{number}" for number in range(60)],
    ["wrong_proj", "other_proj", "norm", "mlp", "lm_head", "embed_tokens", "0", "weight"],
    ["query", "key", "value", "dense", "c_attn", "fc1", "fc2", "Wqkv"],
]


@pytest.mark.parametrize("names", WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize(
    "model_type", ["llama", "qwen3_moe", "gemma3n", "t5", "whisper", "nemotron_h", "jamba", "deepseek_v3"]
)
def test_wrong_names(model_type: str, names: list[str]) -> None:
    settings = {"peft_type": "LORA", "target_modules": names, "rank_pattern": dict.fromkeys(names, 4), "use_x": 1}
    check = ls.check(sample(model_type), settings, serve="vllm")
    text = check_text(check)
    assert len(text.splitlines()) <= _MOST, text
    # Whatever is left out is counted.
    codes = {finding.code for finding in check.findings}
    assert all(code in text for code in codes)
    assert len(check_text(check, everything=True)) >= len(text)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120])
def test_the_seven_names_on_every_built_in_model(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lengths = {
        name: len(check_text(ls.check(sample(*name), *SEVEN, serve="vllm")).splitlines())
        for name in ((model_type, head) for model_type, heads in builtin_models().items() for head in heads)
    }
    assert len(lengths) > 480
    assert {name: length for name, length in lengths.items() if length > _MOST} == {}


def test_any_findings_fold() -> None:
    draw = random.Random(3)
    severities: tuple[Severity, ...] = ("error", "warning", "note")
    for _ in range(300):
        findings = [
            Finding(
                f"code-{draw.randrange(8)}",
                severity,
                "a place",
                "word " * draw.randrange(1, 90),
                "fix " * draw.randrange(9),
            )
            for severity in severities
            for _ in range(draw.randrange(12))
        ]
        room = draw.randrange(6, 40)
        lines = folded_findings(findings, "a place", room)
        first = [line for line in lines if line.startswith(("✗", "!", "·"))]
        assert len(lines) <= max(room, 10)
        assert bool(first) == bool(findings)
        counted = sum(int(number) for line in lines for number in re.findall(r"^ *… (?:and )?(\d+) more", line))
        assert len(first) + counted == len(findings)


def test_all_lists_what_is_folded(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = [str(number) for number in range(30)]
    assert main(["check", "llama", "q_proj", *numbers]) == 1
    short = capsys.readouterr().out
    assert "--all" in short
    assert main(["check", "llama", "q_proj", *numbers, "--all"]) == 1
    assert capsys.readouterr().out.count("(digit-name)") == 30
