"""axolotl's YAML: written from plans, read as its schema reads it, and what its own search and its changes in PEFT make."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

import lorascope
from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.model.types import ModelMap
from lorascope.plan_api import plan
from lorascope.trainers.axolotl.targets import linear_names
from lorascope.trainers.axolotl.trainer import AXOLOTL
from lorascope.trainers.exports import export
from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.protocol import Job, Outcome
from tests.helpers.samples import fails, sample
from tests.helpers.wide_plans import MODELS, messages, walked

FILE = "base_model: folder\nadapter: lora\nlora_r: 8\nlora_alpha: 16\n"


def asked(model: ModelMap, text: str) -> Outcome:
    """The outcome of a file, with the findings of its reading."""
    config = AXOLOTL.read(FILE + text, "file.yaml")
    outcome = AXOLOTL.resolve(model, config)
    return dataclasses.replace(outcome, findings=(*config.findings, *outcome.findings))


def told(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(one.code, one.severity) for one in findings]


def of_its_keys(text: str) -> None:
    assert set(yaml.safe_load(text)) <= known_keys("axolotl"), text


def test_plans_of_one_model_are_written_or_refused() -> None:
    assert walked(AXOLOTL, MODELS[:1], of_its_keys) == (6, 2, 1)


@pytest.mark.slow
def test_plans_are_written_exactly_or_refused() -> None:
    assert walked(AXOLOTL, MODELS, of_its_keys) == (83, 49, 13)


def test_a_written_file_says_what_it_is() -> None:
    made = plan(sample("llama"), "qv", dropout=0.0)
    text = AXOLOTL.write(made, Job())
    data = yaml.safe_load(text)
    assert data["base_model"] == "YOUR/MODEL" and data["datasets"] == [
        {"path": "mhenrichsen/alpaca_2k_test", "type": "alpaca"}
    ]
    assert data["lora_target_modules"] == ["q_proj", "v_proj"] and (data["lora_r"], data["lora_alpha"]) == (8, 16)
    for said in ("axolotl 0.19.0", "5.24.0", "5.16.1", "Your model", "Your data"):
        assert said in text
    named = yaml.safe_load(AXOLOTL.write(made, Job("org/model", "mine.jsonl", "there")))
    assert (named["base_model"], named["output_dir"]) == ("org/model", "there")
    assert named["datasets"] == [{"path": "mine.jsonl", "type": "alpaca", "ds_type": "json"}]


def test_ranks_layers_and_parameters_are_in_its_own_keys() -> None:
    sizes = yaml.safe_load(export(plan(sample("llama"), "attention.q=4/32", "attention.v=8"), "axolotl"))
    assert (sizes["lora_rank_pattern"], sizes["lora_alpha_pattern"]) == ({"v_proj": 8}, {"v_proj": 16})
    layers = yaml.safe_load(export(plan(sample("llama"), "attention[-2:]"), "axolotl"))
    assert layers["peft_layers_to_transform"] == [30, 31]
    text = export(plan(sample("mixtral"), "ffn.expert=4/8"), "axolotl")
    experts = yaml.safe_load(text)
    assert experts["lora_target_parameters"] == ["down_proj", "gate_up_proj"] and experts["lora_dropout"] == 0.0
    assert "PEFT cannot apply dropout to fused experts" in text and "lora_target_modules" not in experts
    towers = export(plan(sample("llava"), "vision.attention"), "axolotl")
    assert isinstance(yaml.safe_load(towers)["lora_target_modules"], str) and "one regular expression" in towers


def test_everything_unsupported_is_said_at_once() -> None:
    made = plan(sample("t5"), "attention.q", scale=0.3, bias="all")
    unsupported = messages(AXOLOTL, made)
    assert len(unsupported) == 3
    for part in ("the head seq2seq-lm", "this plan has 2.4", 'bias="all"'):
        assert any(part in message for message in unsupported), unsupported
    bare = dataclasses.replace(sample("llama"), prepares_generation=False, architecture="Encoder")
    (message,) = messages(AXOLOTL, plan(bare, "qv"))
    assert message.endswith("prepare_inputs_for_generation; Encoder has none.")


def test_linear_layers_are_found_by_the_ends_of_their_names() -> None:
    outcome = asked(sample("llama"), "lora_target_linear: true\n")
    assert len(outcome.resolution.adapted) == 7 * 32
    (finding,) = outcome.findings
    assert finding.severity == "note" and "leaves out lm_head" in finding.message
    assert {name for name in linear_names(sample("gemma3n", "image-text-to-text")) if name.isdigit()} == set("012")
    loose = asked(sample("gemma3n", "image-text-to-text"), "lora_target_linear: true\n")
    assert any("'0', '1', '2'" in finding.message for finding in loose.findings)
    text = asked(sample("llama"), "lora_target_linear: true\nlora_target_modules: .*wte\n")
    assert text.findings[0].severity == "warning" and "no longer a regular expression" in text.findings[0].message


def test_weights_of_other_classes_are_not_found() -> None:
    nothing = asked(sample("gpt2"), "lora_target_linear: true\n")
    assert nothing.resolution.refusal is not None and "finds no linear layer" in nothing.findings[0].message
    assert "48 weights (Conv1D modules)" in nothing.findings[1].message
    experts = asked(sample("gpt_oss"), "lora_target_linear: true\n")
    assert any("bare parameters" in finding.message for finding in experts.findings)
    # PEFT takes these names for the fused experts: the routers alone are left out.
    names = "lora_target_linear: true\nlora_target_modules: [gate_proj, up_proj, down_proj]\n"
    both = asked(sample("qwen3_moe"), names)
    assert sum(one.name.endswith("experts.down_proj") for one in both.resolution.adapted) == 24
    (left,) = [finding for finding in both.findings if "misses" in finding.message]
    assert left.where == "model.layers.{0-23}.mlp.gate.weight" and "24 weights" in left.message


def test_fused_experts_train_without_dropout() -> None:
    text = "lora_target_modules: [w1, w2, w3, q_proj]\nlora_dropout: 0.1\n"
    outcome = asked(sample("mixtral"), text)
    assert len(outcome.resolution.adapted) == 3 * 32
    (finding,) = outcome.findings
    assert finding.where == "lora_dropout" and "the other weights with lora_dropout 0.1" in finding.message
    assert "do not go with lora_dropout" in str(asked(sample("mixtral"), f"{text}rl: dpo\n").resolution.refusal)
    assert "do not go with use_dora" in str(asked(sample("mixtral"), f"{text}peft_use_dora: true\n").resolution.refusal)


def test_quantized_experts_are_found_under_their_old_names() -> None:
    text = "lora_target_parameters: [mlp.experts.gate_proj, mlp.experts.up_proj]\n"
    assert str(asked(sample("qwen3_moe"), text).resolution.refusal).startswith("Nothing is adapted")
    outcome = asked(sample("qwen3_moe"), f"{text}quantize_moe_experts: true\nload_in_4bit: true\n")
    assert len(outcome.resolution.adapted) == 24 and "24 fused gate_up_proj" in outcome.findings[0].message


def test_frozen_towers_have_dead_adapters() -> None:
    text = "lora_target_modules: [q_proj]\n"
    free, frozen = asked(sample("llava"), text), asked(sample("llava"), f"{text}freeze_mm_modules: true\n")
    assert free.resolution.adapted == frozen.resolution.adapted
    dead = [one for one in frozen.resolution.adapted if ".vision_tower." in one.name]
    assert dead and frozen.resolution.trainable == free.resolution.trainable - sum(one.trainable for one in dead)
    assert told(frozen.findings) == [("trainer-filter", "error")] and f"{len(dead)} of" in frozen.findings[0].message


def test_no_targets_adapt_nothing() -> None:
    assert "Nothing is adapted" in str(asked(sample("llama"), "").resolution.refusal)
    assert asked(sample("llama"), "lora_target_modules: all-linear\n").resolution.trainable == 19_988_480


def test_what_makes_no_lora_is_said() -> None:
    config = AXOLOTL.read("base_model: folder\nlora_r: 8\n", "file.yaml")
    full = AXOLOTL.resolve(sample("llama"), config)
    assert "makes no LoRA adapter, because adapter is not set" in str(full.resolution.refusal) and full.config is None
    assert told(config.findings) == [("ignored-key", "error")]
    other = AXOLOTL.resolve(sample("llama"), AXOLOTL.read("adapter: llama-adapter\n", "file.yaml"))
    assert "because adapter is 'llama-adapter'" in str(other.resolution.refusal)


def test_replicated_layers_are_those_of_peft() -> None:
    outcome = asked(sample("llama"), "lora_target_modules: [q_proj]\npeft_layer_replication: [[0, 2], [1, 2]]\n")
    assert [weight.name for weight in outcome.resolution.adapted] == [
        f"model.layers.{number}.self_attn.q_proj" for number in range(3)
    ]


def test_what_is_not_covered_is_refused() -> None:
    with fails("target_parameters is 'experts.down_proj'"):
        asked(sample("llama"), "lora_target_parameters: experts.down_proj\n")


@pytest.mark.parametrize(
    ("text", "code", "severity", "said"),
    [
        ("lora_target_module: q", "unknown-key", "error", "ignores it silently"),
        ("lora_target_module: q\nplugins: [a.B]", "unknown-key", "note", "unless a plugin knows it"),
        ("lora_exclude_modules: [q]", "ignored-key", "error", "nothing is excluded"),
        ("lora_model_dir: there", "ignored-key", "warning", "trains that adapter on"),
        ("unfrozen_parameters: [lm_head]", "trainer-filter", "warning", "theirs too"),
        ("plugins: [a.B]", "trainer-filter", "note", "a.B are not read"),
    ],
)
def test_findings_of_reading(text: str, code: str, severity: str, said: str) -> None:
    found = AXOLOTL.read(f"{FILE}{text}\n", "file.yaml").findings
    assert (code, severity, "file.yaml") == (found[0].code, found[0].severity, found[0].where)
    assert said in found[0].message and len(found) == 1 + ("plugins" in text and "module" in text)


@pytest.mark.parametrize(
    ("key", "value", "becomes"),
    [
        ("lora_r", "' 4.0 '", 4),
        ("lora_r", "4.0", 4),
        ("lora_dropout", "1e-1", 0.1),
        ("peft_use_dora", "'Yes'", True),
        ("peft_layers_to_transform", "['0', 1.0]", [0, 1]),
        ("lora_rank_pattern", "{q_proj: '4'}", {"q_proj": 4}),
    ],
)
def test_values_become_what_its_schema_makes_of_them(key: str, value: str, becomes: Any) -> None:
    rest = FILE.replace("lora_r: 8\n", "") if key == "lora_r" else FILE
    assert AXOLOTL.read(f"{rest}{key}: {value}\n", "file.yaml").settings[key] == becomes


def test_every_fault_is_said() -> None:
    text = (
        "adapter: qlora\nload_in_8bit: true\nlora_r: 8.5\nlora_alpha: x\nlora_dropout: .1\nlora_target_modules: ['(']\n"
        "lora_target_linear: maybe\nlora_target_parameters: [a.b]\nlora_modules_to_save: lm_head\nlora_rank_pattern: {q: 0}\n"
        "peft_layers_to_transform: [0.5]\npeft_layers_pattern: [h]\nlora_model_dir: 3\nquantize_moe_experts: 'on'\n"
    )
    with fails(
        "lora_r is 8.5, not a whole number",
        "lora_alpha is 'x', not a whole number",
        "lora_target_linear is 'maybe', not true or false",
        "lora_modules_to_save is 'lm_head', not a list of strings",
        "lora_rank_pattern is {'q': 0}, not keys with whole numbers above 0",
        "peft_layers_to_transform is [0.5], not a list of whole numbers",
        "lora_model_dir is 3, not a string",
        "adapter: qlora needs load_in_4bit: true",
        "adapter: qlora does not go with load_in_8bit",
        "lora_dropout is 0.1; with lora_target_parameters axolotl takes 0 only",
        "peft_layers_pattern is given without",
        "'(', not a regular expression",
        "12 faults",
    ):
        AXOLOTL.read(text, "file.yaml")
    with fails("lora_r is missing", "lora_alpha is missing"):
        AXOLOTL.read("adapter: lora\nlora_r: null\n", "file.yaml")
    with fails("load_in_8bit or load_in_4bit is set without an adapter", "quantize_moe_experts is set without adapter"):
        AXOLOTL.read("load_in_4bit: true\nquantize_moe_experts: true\n", "file.yaml")


@pytest.mark.parametrize(
    "text",
    ["", "- q", "lora_r: [", "\x00", "a: &a [*a]", "x: " + "[" * 5000, "lora_r: 4\nlora_r: 8", "9" * 2_000_000],
    ids=["nothing", "a list", "cut", "no text", "a circle", "deep", "twice", "large"],
)
def test_hostile_files_are_faults(text: str) -> None:
    with pytest.raises(LorascopeError):
        AXOLOTL.read(text, "file.yaml")


@pytest.mark.parametrize(
    "key", ["lora_r", "lora_dropout", "lora_target_modules", "peft_layers_to_transform", "adapter"]
)
@pytest.mark.parametrize("value", ["9" * 5000, ".inf", ".nan", "[[[]]]", "{a: {b: c}}", "2020-01-01", "!!binary aGk="])
def test_no_value_is_more_than_a_fault(key: str, value: str) -> None:
    rest = "".join(line for line in FILE.splitlines(keepends=True) if not line.startswith(f"{key}:"))
    try:
        AXOLOTL.resolve(sample("llama"), AXOLOTL.read(f"{rest}{key}: {value}\n", "file.yaml"))
    except LorascopeError as error:
        assert len(str(error)) < 1000


@pytest.mark.parametrize(
    ("given", "told"), [("pissa", "warning"), ("nonsense", "error"), ("gaussian", ""), (True, ""), (None, "")]
)
def test_the_initialization_reaches_peft(given: object, told: str, tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    content = {"base_model": "a/b", "adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_modules": ["q_proj"]}
    file.write_text(yaml.safe_dump({**content, "peft_init_lora_weights": given}), encoding="utf-8")
    check = lorascope.check(sample("llama"), file, trainer="axolotl", serve="sglang")
    assert [one.severity for one in check.findings if one.code == "initialization"] == ([told] if told else [])
    starts = (
        [
            one.answer
            for one in check.serving.answers
            if one.question == "options" and "init_lora_weights=" in one.reason
        ]
        if check.serving
        else []
    )
    assert starts == (["no"] if given == "pissa" else [])
