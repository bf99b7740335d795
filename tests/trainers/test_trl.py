"""TRL's YAML and command lines: written from plans, read with TRL's defaults, and what its configuration for PEFT adapts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import yaml

from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.plan_api import plan
from lorascope.trainers.exports import export
from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.protocol import Job, Outcome
from lorascope.trainers.trl.files import means_command
from lorascope.trainers.trl.trainer import TRL
from tests.helpers.samples import fails, sample
from tests.helpers.wide_plans import MODELS, messages, walked


def asked(model: ModelMap, text: str) -> Outcome:
    """The outcome of a file, with the findings of its reading."""
    config = TRL.read(text, "file")
    outcome = TRL.resolve(model, config)
    return dataclasses.replace(outcome, findings=(*config.findings, *outcome.findings))


def sizes(outcome: Outcome) -> tuple[int, int, float]:
    """How many are adapted, and the rank and alpha of the first."""
    assert outcome.resolution.refusal is None, str(outcome.resolution.refusal)
    adapted = outcome.resolution.adapted
    return len(adapted), adapted[0].rank, adapted[0].alpha


def of_its_keys(text: str) -> None:
    assert set(yaml.safe_load(text)) <= known_keys("trl") | {"datasets"}, text


def test_plans_of_one_model_are_written_or_refused() -> None:
    assert walked(TRL, MODELS[:1], of_its_keys) == (5, 3, 2)


@pytest.mark.slow
def test_plans_are_written_exactly_or_refused() -> None:
    assert walked(TRL, MODELS, of_its_keys) == (67, 65, 28)


def test_a_written_file_says_what_it_is() -> None:
    made = plan(sample("llama"), "qv", dropout=0.0)
    text = TRL.write(made, Job())
    data = yaml.safe_load(text)
    assert (data["model_name_or_path"], data["dataset_name"]) == ("YOUR/MODEL", "trl-lib/Capybara")
    assert data["use_peft"] is True and data["lora_target_modules"] == ["q_proj", "v_proj"]
    assert (data["lora_r"], data["lora_alpha"], data["lora_dropout"]) == (8, 16, 0.0)
    for said in ("TRL 1.16.0: trl sft --config", "5.24.0", "Your model", "Your data"):
        assert said in text
    named = yaml.safe_load(TRL.write(made, Job("org/model", "mine.jsonl", "there")))
    assert (named["model_name_or_path"], named["output_dir"]) == ("org/model", "there")
    assert named["datasets"] == [{"path": "json", "data_files": "mine.jsonl"}]


def test_a_single_name_is_written_so_that_it_stays_one() -> None:
    text = export(plan(sample("qwen2"), "attention.q"), "trl")
    assert yaml.safe_load(text)["lora_target_modules"] == r"(.*\.)?q_proj" and "unwraps a one-element list" in text
    empty = export(plan(sample("mixtral"), "ffn.expert=4/8"), "trl")
    data = yaml.safe_load(empty)
    assert data["lora_target_modules"] == [] and data["lora_target_parameters"] == ["down_proj", "gate_up_proj"]
    assert "no default modules" in empty and "TRL's default is 0.05" in empty


def test_a_fraction_is_an_alpha_in_a_file() -> None:
    text = export(plan(sample("llama"), "qv", scale=0.3), "trl")
    assert yaml.safe_load(text)["lora_alpha"] == 2.4 and "whole numbers only" in text


def test_everything_unsupported_is_said_at_once() -> None:
    unsupported = messages(TRL, plan(sample("t5"), "head", "attention.q=4", bias="all"))
    assert len(unsupported) == 4
    for part in ("the head seq2seq-lm", "an adapter of lm_head", "one rank", 'bias="all"'):
        assert any(part in message for message in unsupported), unsupported


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("use_peft: true", (64, 16, 32)),
        ("use_peft: 'yes'\nlora_r: '4'\nlora_target_modules: [k_proj, o_proj]", (64, 4, 32)),
        (r"use_peft: true" "\n" r"lora_target_modules: '.*\.q_proj'", (32, 16, 32)),
        ("use_peft: true\nlora_target_modules: All-Linear", (224, 16, 32)),
        ("trl sft --use_peft --lora_target_modules q_proj v_proj --lora_r 8", (64, 8, 32)),
        ("trl dpo --use_peft --lora_target_modules=all-linear --lora-alpha 4", (224, 16, 4)),
        (
            "#!/bin/bash\nset -e\npython scripts/sft.py --use_peft true \\\n --lora_target_m k_proj v_proj && ls",
            (64, 16, 32),
        ),
        ("accelerate launch --num_processes 2 grpo.py --use_peft --lora_r 4 --lora_r 2", (64, 2, 32)),
        ("--use_peft --lora_target_parameters self_attn.k_proj.weight --lora_dropout 0", (96, 16, 32)),
    ],
)
def test_files_and_commands_with_its_defaults(text: str, found: tuple[int, int, float]) -> None:
    outcome = asked(sample("llama"), text)
    assert sizes(outcome) == found and outcome.findings == ()
    assert outcome.config is not None and outcome.config.lora_dropout == (0.0 if "dropout" in text else 0.05)


def test_commands_are_told_from_files() -> None:
    for text in ("trl sft --use_peft", "# x: y\npython a/dpo.py", "--lora_r 8", "A=1 trl grpo \\\n --lora_r 8"):
        assert means_command(text), text
    for text in ("use_peft: true", "# trl sft\nlora_r: 8", "run: trl sft --config", "- trl sft", "", "trl: sft"):
        assert not means_command(text), text


def test_without_use_peft_nothing_is_adapted() -> None:
    for text in ("lora_r: 8\nlora_alpha: 4", "trl sft --lora_r 8 --lora_alpha 4"):
        outcome = asked(sample("llama"), text)
        assert (
            str(outcome.resolution.refusal).startswith("TRL makes no LoRA adapter, because use_peft is ")
            and outcome.config is None
        )
        (finding,) = outcome.findings
        assert (finding.code, finding.severity) == ("ignored-key", "error")
        assert "no effect without use_peft: lora_alpha, lora_r" in finding.message


def test_a_single_name_is_a_regular_expression() -> None:
    nothing = asked(sample("llama"), "use_peft: true\nlora_target_modules: [q_proj]\n")
    assert str(nothing.resolution.refusal).endswith('give ".*[.]q_proj".') and '["q_proj"]' not in str(
        nothing.resolution.refusal
    )
    (finding,) = nothing.findings
    assert finding.severity == "error" and r"Write .*\.q_proj" in finding.fix
    one = asked(sample("llama"), "use_peft: true\nlora_target_modules: [model.layers.0.self_attn.q_proj]\n")
    assert sizes(one)[0] == 1 and [finding.severity for finding in one.findings] == ["note"]
    strange = asked(sample("llama"), "use_peft: true\nlora_target_modules: 'q_proj|v_proj'\n")
    assert "full names" in strange.findings[0].fix


def test_an_adapted_head_is_refused_where_trl_refuses_it() -> None:
    text = "use_peft: true\nlora_target_modules: [lm_head, q_proj]\n"
    assert 'TRL stops at an adapter of "lm_head"' in str(asked(sample("llama"), text).resolution.refusal)
    saved = asked(sample("llama"), "use_peft: true\nlora_modules_to_save: [lm_head]\n")
    assert saved.resolution.saved == ("lm_head",)
    command = "trl reward --use_peft --lora_target_modules q_proj v_proj --lora_task_type SEQ_CLS"
    assert sizes(asked(sample("llama", "sequence-classification"), command))[0] == 64


@pytest.mark.parametrize(
    ("text", "code", "severity", "said"),
    [
        ("use_peft: true\nlora_rr: 8", "unknown-key", "error", "lora_rr is an unknown key: trl stops at it"),
        ("trl sft --use_peft --foo 1", "unknown-key", "error", "python sft.py stops"),
        ("trl sft --use_peft --config a.yaml", "ignored-key", "warning", "was not read"),
        ("use_peft: 1", "trainer-filter", "warning", "not false itself"),
        ("use_peft: true\nchat_template_path: org/model", "trainer-filter", "warning", "in full"),
    ],
)
def test_findings_of_reading(text: str, code: str, severity: str, said: str) -> None:
    found = TRL.read(text, "file").findings
    assert [(one.code, one.severity, one.where) for one in found] == [(code, severity, "file")]
    assert said in found[0].message


def test_every_fault_is_said() -> None:
    text = (
        "use_peft: []\nlora_r: '1.5'\nlora_alpha: x\nlora_dropout: {}\nlora_target_modules: 3\nlora_modules_to_save: head\n"
        "lora_task_type: 3\nuse_dora: perhaps\nenv: 3\n"
    )
    with fails(
        "env is 3",
        "use_peft is []",
        "lora_r is '1.5', not a whole number",
        "lora_alpha is 'x'",
        "lora_dropout is {}",
        "lora_target_modules is 3",
        "lora_modules_to_save is 'head', not a list of strings",
        "lora_task_type is 3, not a string",
        "use_dora is 'perhaps'",
        "9 faults",
    ) as caught:
        TRL.read(text, "file.yaml")
    assert [fault.split(" is ")[0] for fault in caught.value.faults][:4] == [
        "env",
        "use_peft",
        "lora_task_type",
        "lora_r",
    ]
    with fails(
        "--lora_r is '1.5'", "--lora_alpha has no value", "--use_dora is 'maybe'", "--lora_target_modules has no"
    ):
        TRL.read("trl sft --use_peft --lora_r 1.5 --lora_alpha --use_dora maybe --lora_target_modules", "run.sh")
    with fails("--lora_r has 2 values ('1 2'), not one", "--lora_t can be --lora_target_modules or"):
        TRL.read("trl sft --lora_r 1 2 --lora_t q_proj", "run.sh")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- q",
        "lora_r: [",
        "\x00",
        "a: &a [*a]",
        "x: " + "[" * 5000,
        "lora_r: 4\nlora_r: 8",
        "9" * 2_000_000,
        "bash train.sh",
        "trl sft --use_peft 'open",
        "trl sft " + "--lora_r 8 " * 200_000,
    ],
    ids=["nothing", "a list", "cut", "no text", "circle", "deep", "twice", "large", "no trl", "open", "long"],
)
def test_hostile_input_is_a_fault(text: str) -> None:
    with pytest.raises(LorascopeError):
        TRL.read(text, "file")


@pytest.mark.parametrize("key", ["lora_r", "lora_dropout", "lora_target_modules", "use_peft", "lora_task_type"])
@pytest.mark.parametrize("value", ["9" * 5000, ".inf", ".nan", "[[[]]]", "{a: {b: c}}", "2020-01-01", "!!binary aGk="])
def test_no_value_is_more_than_a_fault(key: str, value: Any) -> None:
    use = "" if key == "use_peft" else "use_peft: true\n"
    try:
        asked(sample("llama"), f"{use}{key}: {value}\n")
    except LorascopeError as error:
        assert len(str(error)) < 1000
