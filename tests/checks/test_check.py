"""Findings on configurations that people paste, and none on those that we compile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lorascope as ls
from lorascope.cli.main import main
from lorascope.reports.check import check_text

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    # (model, configuration): the findings' codes, in order
    "right": ("mistral", {"target_modules": SEVEN, "task_type": "CAUSAL_LM"}, []),
    "nothing matches": ("gpt2", {"target_modules": SEVEN, "task_type": "CAUSAL_LM"}, ["refused", *["no-match"] * 5]),
    "towers": ("llava", {"target_modules": SEVEN, "task_type": "CAUSAL_LM"}, ["outside", "released-parts"]),
    "experts left out": ("gpt_oss", {"target_modules": ["q_proj", "v_proj"]}, []),
    "dense FFN only": ("llama4_text", {"target_modules": SEVEN}, ["left-out"]),
    "unknown name": ("mistral", {"target_modules": ["q_proj", "nope"]}, ["no-match"]),
    "PEFT's default": ("mistral", {"target_modules": None, "task_type": "CAUSAL_LM"}, ["default-targets"]),
    "router": (
        "phimoe",
        {"target_modules": "all-linear", "task_type": "CAUSAL_LM"},
        ["dead-or-crashing", "router", "left-out"],
    ),
    "dropout with parameters": (
        "mixtral",
        {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.down_proj"], "lora_dropout": 0.1},
        ["refused", "parameters-options"],
    ),
}


@pytest.mark.parametrize(("model", "config", "codes"), CASES.values(), ids=CASES.keys())
def test_findings(model: str, config: dict[str, object], codes: list[str]) -> None:
    found = ls.check(ls.inspect(model), config)
    assert [finding.code for finding in found.findings] == codes
    assert all(finding.message and finding.fix and finding.where for finding in found.findings)


@pytest.mark.parametrize("model", ["llama", "mixtral", "deepseek_v3", "llava", "gpt2", "bert", "t5", "qwen3_next"])
@pytest.mark.parametrize("recipe", ["qv", "attention", "all"])
def test_our_own_plans_raise_no_error_and_hit_nothing_else(model: str, recipe: str) -> None:
    made = ls.plan(ls.inspect(model), recipe)
    codes = {finding.code for finding in ls.check(made.model, made.config).findings}
    assert not codes & {"refused", "outside", "dead-or-crashing"}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "target_modules": SEVEN}), encoding="utf-8"
    )
    assert main(["check", "llava", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("! 1 warning, 1 note\n")
    assert "72 weights of the vision tower (attention) are adapted too" in " ".join(out.split())
    assert main(["check", "mistral", str(tmp_path / "adapter_config.json")]) == 0
    assert "nothing to report" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no adapter_config.json"),
        ("[]", "not an object"),
        ("{", "is not JSON"),
        ('{"peft_type": "LOHA"}', "not LORA"),
        ('{"peft_type": "LORA", "target_modules": 3}', "target_modules is 3"),
        ('{"target_modules": 3}', "has no peft_type"),
    ],
)
def test_bad_adapters(content: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content, encoding="utf-8")
    assert main(["check", "mistral", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""


def test_many_findings_of_one_code_are_folded() -> None:
    """JSON has all of them; the text has as many as thirty lines hold, and counts the rest."""
    model = ls.inspect("mistral")
    leaves = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj"]
    entries = [f"{layer}.{leaf}" for layer in range(32) for leaf in leaves]
    full = [f"layers.{entry}" for entry in entries]
    check = ls.check(model, {"target_modules": entries + full})
    covered = [finding for finding in check.findings if finding.code == "covered"]
    assert len(covered) == 128
    assert covered[0].message.startswith('layers.0.self_attn.q_proj is already matched by "0.self_attn.q_proj"')
    assert {finding.severity for finding in covered} == {"note"}
    text = str(check)
    shown = text.count("(covered)")
    assert 1 < shown < 10 and f"… and {128 - shown} more of this kind (--all lists them)" in text
    assert len(text.splitlines()) <= 30
    assert check_text(check, everything=True).count("(covered)") == 128
