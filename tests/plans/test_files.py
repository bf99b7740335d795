"""Maps and plans as files: whole or not at all, and as good a source as the model itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lorascope.inspecting import inspect
from lorascope.plan_api import plan
from lorascope.plans.files import load_plan, plan_to_json, save_map, save_plan
from lorascope.sources.files.json_files import read_json
from lorascope.sources.files.plain import MOST_BYTES
from tests.helpers.samples import fails, sample


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2", "t5", "llava"])
def test_saved_files_are_sources_of_the_same_plan(name: str, tmp_path: Path) -> None:
    model = sample(name)
    made = plan(model, "qv+ffn", "attention.o[-1]=2")
    map_file = save_map(model, tmp_path / "some" / "map.json")
    _, plan_file = save_plan(made, tmp_path / "plan")
    for file in (map_file, plan_file):
        assert inspect(file) == model
        assert plan(inspect(str(file)), "qv+ffn", "attention.o[-1]=2") == made
    assert load_plan(plan_file) == load_plan(tmp_path / "plan") == made


def test_what_is_written(tmp_path: Path) -> None:
    made = plan(sample("llama"), "qv+ffn")
    config_file, plan_file = save_plan(made, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "plan.json"]
    assert json.loads(config_file.read_text(encoding="utf-8")) == {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        "target_modules": ["down_proj", "gate_proj", "q_proj", "up_proj", "v_proj"],
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "bias": "none",
        "rank_pattern": {"down_proj": 4, "gate_proj": 4, "up_proj": 4},
        "alpha_pattern": {"down_proj": 16, "gate_proj": 16, "up_proj": 16},
        "task_type": "CAUSAL_LM",
    }
    written = json.loads(plan_file.read_text(encoding="utf-8"))
    assert len(written.pop("digest")) == 64
    assert written == plan_to_json(made)
    again = [path.read_bytes() for path in (config_file, plan_file)]
    save_plan(made, tmp_path)
    assert [path.read_bytes() for path in (config_file, plan_file)] == again


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_the_users_umask_holds(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        file = save_map(sample("gpt2"), tmp_path / "map.json")
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o640


def test_the_target_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious", encoding="utf-8")
    with fails(f"{tmp_path / 'out' / 'adapter_config.json'}: cannot be written", "Name a place that can be written to"):
        save_plan(plan(sample("gpt2")), tmp_path / "out")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "precious"


def test_the_target_is_a_folder(tmp_path: Path) -> None:
    with fails(f"{tmp_path}: cannot be written: there is something else than a file"):
        save_map(sample("gpt2"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="a pipe with a name")
def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with fails("there is something else than a file"):
        save_map(sample("gpt2"), tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("failing", [1, 2])
def test_a_full_disk_leaves_what_was_there(failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_plan(plan(sample("gpt2"), "all"), tmp_path)
    old = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert old.keys() == {"adapter_config.json", "plan.json"}
    write, calls = Path.open, 0

    def full(path: Path, *arguments: object, **options: object) -> object:
        nonlocal calls
        calls += "x" in arguments  # what is opened to be written
        if calls == failing and "x" in arguments:
            write(path, "w").close()  # the file is there, and empty
            raise OSError(28, "No space left on device")
        return write(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with fails("cannot be written: No space left on device"):
        save_plan(plan(sample("gpt2")), tmp_path)
    monkeypatch.undo()
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == old


def test_a_failing_rename_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with fails("cannot be written: Permission denied"):
        save_plan(plan(sample("gpt2")), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["a\0b", "x" * 300], ids=["nul", "long"])
def test_a_name_that_no_file_has(path: str, tmp_path: Path) -> None:
    with fails("cannot be written"):
        save_map(sample("gpt2"), tmp_path / path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"hello", "is not JSON"),
        (b'{"a": ', "is not JSON"),
        (b'{"a": "\xff"}', "is not UTF-8: invalid start byte at byte 7"),
        (b"\xff\xfe{\x00}\x00", "is not UTF-8: invalid start byte at byte 0"),
        (b"[" * 10_000_000, "holds more than 2000000 values"),
        (b'{"a":' * 100_000, "is nested deeper than 100 levels"),
        (b"9" * 100_000, "holds a number of 100000 digits"),
        (b"[]", "not a config.json, saved map or saved plan"),
        (b"null", "not a config.json, saved map or saved plan"),
        (b'{"format": "lorascope.map/9"}', "not a config.json, saved map or saved plan"),
        (b'{"format": ["lorascope.map/2"]}', "not a config.json, saved map or saved plan"),
        (b'{"format": "lorascope.map/2"}', "model: must be a text"),
        (b'{"format": "lorascope.plan/3"}', "not a saved model map"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else None,
)
def test_files_that_are_no_source(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(content)
    with fails(said, "→"):
        inspect(file)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    with file.open("wb") as opened:
        opened.truncate(MOST_BYTES + 1)  # sparse
    with fails(f"has more than the {MOST_BYTES:,} bytes that are read", "or a file that lorascope saved"):
        read_json(file)


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with fails("plan.json: there is no such file"):
        load_plan(tmp_path)
