"""What the words of a check are taken for, and what becomes of words and files that are broken."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

import lorascope as ls
from lorascope.checks.inputs import read_check_input
from lorascope.cli.main import main
from lorascope.trainers.exports import export
from lorascope.trainers.registry import TRAINERS
from tests.helpers.samples import fails, sample

SUFFIXES = {"json": ".json", "yaml": ".yaml", "command": ".sh", "python": ".py"}


def test_words_are_names() -> None:
    model = sample("mistral")
    for words, wanted in (
        (["q_proj"], ["q_proj"]),
        (["q_proj", "v_proj"], ["q_proj", "v_proj"]),
        (["q_proj,v_proj"], ["q_proj", "v_proj"]),
        (["q_proj", ".*v_proj"], ["q_proj", ".*v_proj"]),
        ([r".*\.(q|v)_proj"], r".*\.(q|v)_proj"),
        (["all-linear"], "all-linear"),
    ):
        given = read_check_input(model, words, rank=4, alpha=12)
        assert given.settings == {
            "target_modules": wanted,
            "r": 4,
            "lora_alpha": 12,
            "task_type": "CAUSAL_LM",
        }


@pytest.mark.parametrize("name", [name for name in TRAINERS if name != "peft"])
def test_an_exported_file_is_checked_as_its_trainers(name: str, tmp_path: Path) -> None:
    plan = ls.plan(sample("llama"), "qv")
    file = tmp_path / f"some{SUFFIXES[TRAINERS[name].form]}"
    file.write_text(export(plan, name, base="org/model"), encoding="utf-8")
    for found in (ls.check(plan.model, str(file)), ls.check(plan.model, file, trainer=name)):
        assert found.trainer.startswith(TRAINERS[name].title)
        assert found.peft == TRAINERS[name].peft
        assert {one.name for one in found.resolution.adapted} == {target.weight.name for target in plan.targets}
        assert not found.matters, [str(finding) for finding in found.findings]


def test_options_after_a_trainers_name() -> None:
    words = ["--lora_target_modules", "q_proj", "v_proj", "--use_peft", "--lora_r", "4"]
    found = ls.check(sample("mistral"), *words, trainer="trl")
    assert {one.rank for one in found.resolution.adapted} == {4}
    assert len(found.resolution.adapted) == 64
    words = ["--tuner_type", "lora", "--target_modules", "q_proj", "--lora_rank", "2"]
    assert len(ls.check(sample("mistral"), *words, trainer="ms-swift").resolution.adapted) == 32


def test_a_saved_plan_and_an_adapter_of_another_name(tmp_path: Path) -> None:
    plan = ls.plan(sample("mistral"), "qv+ffn")
    ls.save_plan(plan, tmp_path)
    (tmp_path / "adapter_config.json").rename(tmp_path / "other.json")
    for name in ("plan.json", "other.json"):
        assert ls.check(plan.model, tmp_path / name).resolution.adapted == plan.resolution.adapted


HEADER = struct.pack("<Q", 2**30)
CONFIG = json.dumps({"peft_type": "LORA", "target_modules": ["q_proj"]}).encode()
# what is wrong: (the files of a folder, the words of the check, what is said)
BAD: dict[str, tuple[dict[str, bytes], list[str], list[str]]] = {
    "no such file": ({}, ["nothing.yaml"], ["nothing.yaml: there is no such file"]),
    "no such folder": ({}, ["./nothing"], ["there is no such file or folder"]),
    "an empty folder": ({"x/note.txt": b""}, ["x"], ["x: ", "adapter_config.json"]),
    "an empty word": ({}, [""], ["nothing is given to check"]),
    "truncated JSON": ({"adapter_config.json": b'{"target_modules": ["q_p'}, ["adapter_config.json"], ["is not JSON"]),
    "truncated YAML": (
        {"a.yaml": b"adapter: lora\nlora_target_modules: [q_proj\n"},
        ["a.yaml"],
        ["is not YAML", "line 3"],
    ),
    "an unknown trainer": (
        {"a.yaml": b"a: 1\n"},
        ["a.yaml"],
        ["neither a trainer's configuration nor", "--as", "axolotl"],
    ),
    "not text": ({"a.yaml": b"\xff\xfe\x00"}, ["a.yaml"], ["is not text"]),
    "too long": ({"a.yaml": b"a: " + b"x" * 2**20}, ["a.yaml"], ["more than the 1,048,576 bytes"]),
    "a list": ({"a.json": b"[1]"}, ["a.json"], ["holds a list, not an object"]),
    "wrong types": (
        {"adapter_config.json": b'{"peft_type": "LORA", "r": "8", "target_modules": 3, "lora_alpha": []}'},
        ["."],
        ["3 faults", "r is '8', not a whole number", "target_modules is 3", "lora_alpha is ()"],
    ),
    "a header of a gigabyte": (
        {"adapter_config.json": CONFIG, "adapter_model.safetensors": HEADER + b"{" * 4096},
        ["."],
        ["adapter_model.safetensors"],
    ),
    "a truncated file of tensors": (
        {"adapter_config.json": CONFIG, "adapter_model.safetensors": struct.pack("<Q", 100) + b'{"a":'},
        ["."],
        ["adapter_model.safetensors"],
    ),
    "axolotl's wrong types": (
        {"a.yaml": b"adapter: lora\nlora_r: many\nlora_target_modules: 3\n"},
        ["a.yaml"],
        ["a.yaml", "lora_r", "lora_target_modules"],
    ),
    "LLaMA-Factory's wrong types": (
        {"a.yaml": b"finetuning_type: lora\nlora_target: [3]\nlora_rank: many\n"},
        ["a.yaml"],
        ["a.yaml", "lora_rank"],
    ),
}


@pytest.mark.parametrize(("files", "words", "says"), BAD.values(), ids=BAD.keys())
def test_bad_input(
    files: dict[str, bytes],
    words: list[str],
    says: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert main(["check", "mistral", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    for part in says:
        assert part in captured.err


FACTORY = (
    "model_name_or_path: org/model\nstage: sft\ndo_train: true\nfinetuning_type: lora\nlora_target: q_proj\n"
    "dataset: alpaca_en_demo\ntemplate: default\noutput_dir: out\n"
)


def test_unknown_keys_are_named(tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "adapter_config.json": {"peft_type": "LORA", "target_modules": ["q_proj"], "quite_new": 1},
        "axolotl.yaml": "adapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_modules: [q_proj]\nlora_exclude_modules: [v]\n",
        "factory.yaml": FACTORY + "lora_rnk: 8\n",
    }
    named = {"adapter_config.json": "quite_new", "axolotl.yaml": "lora_exclude_modules", "factory.yaml": "lora_rnk"}
    for name, content in files.items():
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        found = ls.check(sample("mistral"), tmp_path / name)
        codes = [finding.code for finding in found.findings if named[name] in finding.message]
        assert codes
        assert set(codes) <= {"unknown-key", "ignored-key"}, name


def test_an_adapter_for_another_model(tmp_path: Path) -> None:
    import peft
    import transformers

    from tests.helpers.samples import TINY_LLAMA

    small = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**TINY_LLAMA))
    peft.get_peft_model(small, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(
        tmp_path
    )
    own = ls.inspect(transformers.LlamaConfig(**TINY_LLAMA))
    assert not ls.check(own, tmp_path).matters
    other = ls.inspect(transformers.LlamaConfig(**{**TINY_LLAMA, "hidden_size": 32}))
    codes = {finding.code for finding in ls.check(other, tmp_path).findings if finding.severity == "error"}
    assert "tensor-shape" in codes


@pytest.mark.parametrize(("arguments", "says"), [((), "nothing is given"), (({}, {}), "several configurations")])
def test_too_little_and_too_much(arguments: tuple[Any, ...], says: str) -> None:
    with fails(says):
        ls.check(sample("mistral"), *arguments)


def test_a_trainers_peft_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(export(ls.plan(sample("llama"), "qv"), "axolotl"), encoding="utf-8")
    with fails("axolotl 0.19.0 runs with PEFT 0.20.0", "--peft"):
        ls.check(sample("llama"), tmp_path / "a.yaml", peft="0.19.1")
