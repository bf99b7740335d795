"""`check` with the base that the adapter names, swapped arguments, and folders of several adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lorascope.cli.main import main
from tests.helpers.samples import TINY_LLAMA
from tests.helpers.sparse_checkpoints import write_file


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A llama of one embedding and two layers, as a folder of headers."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY_LLAMA), encoding="utf-8")
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (32, 16), "lm_head.weight": (32, 16)}
    shapes |= {"model.norm.weight": (16,)}
    for layer in (0, 1):
        stem = f"model.layers.{layer}"
        shapes |= {f"{stem}.self_attn.{name}_proj.weight": (16, 16) for name in "qkvo"}
        shapes |= {f"{stem}.mlp.{name}_proj.weight": (24, 16) for name in ("gate", "up")}
        shapes |= {f"{stem}.mlp.down_proj.weight": (16, 24)}
        shapes |= {f"{stem}.{name}_layernorm.weight": (16,) for name in ("input", "post_attention")}
    write_file(folder / "model.safetensors", {name: ("F32", shape) for name, shape in shapes.items()})
    return folder


def adapter(folder: Path, base: object, **settings: Any) -> str:
    folder.mkdir(parents=True)
    content = {"peft_type": "LORA", "base_model_name_or_path": base, "target_modules": ["q_proj", "v_proj"], **settings}
    (folder / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    return str(folder)


def test_the_base_that_the_adapter_names(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = adapter(tmp_path / "adapter", str(base))
    assert main(["check", given]) == 0
    alone = capsys.readouterr()
    assert f"base model, as {given} names it: {base}" in alone.err
    assert main(["check", str(base), given]) == 0
    assert capsys.readouterr().out == alone.out


def test_the_file_and_a_trainers_configuration(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = adapter(tmp_path / "adapter", str(base))
    assert main(["check", f"{given}/adapter_config.json"]) == 0
    axolotl = tmp_path / "axolotl.yaml"
    axolotl.write_text(
        f"base_model: {base}\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_modules: [q_proj, v_proj]\n",
        encoding="utf-8",
    )
    capsys.readouterr()
    main(["check", str(axolotl)])
    assert f"names it: {base}" in capsys.readouterr().err


@pytest.mark.parametrize("named", [None, "", 3])
def test_no_base_is_named(named: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = adapter(tmp_path / "adapter", named)
    assert main(["check", given]) == 2
    error = capsys.readouterr().err
    assert "names no base model" in error and f"lorascope check MODEL {given}" in error


def test_a_base_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = adapter(tmp_path / "adapter", "/nowhere/at/all")
    assert main(["check", given]) == 2
    assert f"To check on another base: lorascope check MODEL {given}" in capsys.readouterr().err
    # The advice works.
    assert main(["check", "llama", given]) == 0


def test_no_code_of_a_base_that_an_adapter_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = adapter(tmp_path / "adapter", "someone/with-code")
    assert main(["check", given, "--trust-remote-code"]) == 2
    assert f"lorascope check MODEL {given} --trust-remote-code" in capsys.readouterr().err


def test_a_model_alone_is_nothing_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "llama"]) == 2
    assert "lorascope check llama q_proj v_proj" in capsys.readouterr().err
    assert main(["check", "llama", "q_proj", "v_proj"]) == 0


def test_swapped_arguments(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = adapter(tmp_path / "adapter", "x/y")
    assert main(["check", given, str(base)]) == 0
    swapped = capsys.readouterr()
    assert f"read as: lorascope check {base} {given}" in swapped.err
    assert main(["check", str(base), given]) == 0
    assert capsys.readouterr().out == swapped.out


def test_the_last_of_a_trainings_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (50, 1000, 500):
        adapter(tmp_path / "run" / f"checkpoint-{step}", "x/y", r=step)
    assert main(["check", "llama", str(tmp_path / "run"), "--json"]) in (0, 1)
    printed = capsys.readouterr()
    assert "checkpoint-1000" in printed.err and json.loads(printed.out)["targets"][0]["rank"] == 1000


def test_every_adapter_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("policy", "reward"), 1):
        adapter(tmp_path / "run" / name, "llama", r=number)
    assert main(["check", "llama", str(tmp_path / "run"), "--json"]) == 0
    assert [body["targets"][0]["rank"] for body in json.loads(capsys.readouterr().out)] == [1, 2]
    assert main(["check", str(tmp_path / "run"), "--json"]) == 0


@pytest.mark.parametrize(
    ("model_type", "named", "noted"),
    [
        ("mistral", "meta-llama/Llama-2-7b-hf", True),
        ("llama", "meta-llama/Llama-2-7b-hf", False),
        ("qwen2", "Qwen/Qwen2.5-7B-Instruct", False),
        ("qwen3", "google/gemma-2-9b", True),
        ("llama", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", False),
        ("llama", "HuggingFaceTB/SmolLM2-135M", False),
        ("llama", "tiiuae/Falcon3-7B-Base", False),
        ("llama", "01-ai/Yi-34B", False),
        ("llama", "my-org/my-model", False),
    ],
)
def test_another_family_by_the_recorded_name(
    model_type: str, named: str, noted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = adapter(tmp_path / "adapter", named)
    assert main(["check", model_type, given]) == 0
    assert ("note (other-base)" in capsys.readouterr().out) is noted
