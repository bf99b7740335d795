"""Fixes in the checked tool's own keys: each can be pasted, and is read back by the tool's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import lorascope as ls
from lorascope.checks.setting_syntax import SettingSyntax
from lorascope.trainers.registry import TRAINERS
from tests.helpers.samples import sample

AXOLOTL = SettingSyntax("axolotl", "yaml", {"target_modules": "lora_target_modules", "use_dora": "peft_use_dora"})
TRL = SettingSyntax("TRL", "command", {"target_modules": "lora_target_modules", "use_dora": "use_dora"})


@pytest.mark.parametrize(
    ("key", "value", "python", "yaml_text", "command"),
    [
        (
            "target_modules",
            ["q_proj", 'a "b'],
            'target_modules=["q_proj", "a \\"b"]',
            'lora_target_modules: ["q_proj", "a \\"b"]',
            "--lora_target_modules q_proj 'a \"b'",
        ),
        ("target_modules", ".*x", 'target_modules=".*x"', 'lora_target_modules: ".*x"', "--lora_target_modules '.*x'"),
        ("use_dora", False, "use_dora=False", "peft_use_dora: false", "--use_dora false"),
        (
            "target_modules",
            {"q_proj": 16, "a.b": 8},
            'target_modules={"q_proj": 16, "a.b": 8}',
            'lora_target_modules: {"q_proj": 16, "a.b": 8}',
            """--lora_target_modules '{"q_proj": 16, "a.b": 8}'""",
        ),
    ],
)
def test_a_setting(key: str, value: Any, python: str, yaml_text: str, command: str) -> None:
    assert [syntax.write(key, value) for syntax in (SettingSyntax(), AXOLOTL, TRL)] == [python, yaml_text, command]
    assert yaml.safe_load(yaml_text) == {AXOLOTL.name(key): value}


def test_a_tool_without_the_key() -> None:
    assert AXOLOTL.write("bias", "none") == 'bias="none" (in PEFT; axolotl has no key for it)'
    assert (AXOLOTL.has("bias"), SettingSyntax().has("bias")) == (False, True)


def test_every_trainer_with_peft_has_keys() -> None:
    keys = {name: trainer.keys for name, trainer in TRAINERS.items() if trainer.keys}
    assert set(keys) == {"axolotl", "llamafactory", "ms-swift", "trl", "unsloth"}
    assert all({"target_modules", "r", "lora_alpha", "lora_dropout"} <= names.keys() for names in keys.values())


FACTORY = "model_name_or_path: x\nstage: sft\ndo_train: true\nfinetuning_type: lora\ndataset: x\noutput_dir: x\n"


@pytest.mark.parametrize(
    ("trainer", "file", "text", "fix"),
    [
        ("axolotl", "a.yaml", "base_model: x\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_modules: q_proj\n", 'lora_target_modules: ["q_proj"]'),
        ("llamafactory", "a.yaml", FACTORY + "lora_target: query\n", '"q_proj" in lora_target'),
        ("unsloth", "a.py", "model = FastLanguageModel.get_peft_model(model, r=8, target_modules=['query'])\n", '"q_proj" in target_modules'),
    ],
)  # fmt: skip
def test_a_fix_in_the_trainers_keys(trainer: str, file: str, text: str, fix: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    fixes = [finding.fix for finding in ls.check(sample("llama"), tmp_path / file, trainer=trainer).findings]
    assert any(fix in text for text in fixes), fixes


@pytest.mark.parametrize(
    ("trainer", "text", "key"),
    [
        (
            "axolotl",
            "base_model: x\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_modules: [nope, q_proj]\n",
            "lora_target_modules",
        ),
        (
            "axolotl",
            "base_model: x\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_modules: [nope]\n",
            "lora_target_modules",
        ),
        ("trl", "model_name_or_path: x\nuse_peft: true\nlora_target_modules: [nope, q_proj]\n", "lora_target_modules"),
        ("peft", '{"peft_type": "LORA", "target_modules": ["nope", "q_proj"]}', "target_modules"),
    ],
)
def test_a_name_without_a_match_is_placed_in_the_files_own_key(
    trainer: str, text: str, key: str, tmp_path: Path
) -> None:
    file = tmp_path / ("adapter_config.json" if trainer == "peft" else "config.yaml")
    file.write_text(text, encoding="utf-8")
    (finding,) = [one for one in ls.check(sample("mistral"), file).findings if one.code == "no-match"]
    assert (finding.where, '"nope" matches no module' in finding.message) == (key, True)
