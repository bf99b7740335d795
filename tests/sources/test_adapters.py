"""Adapters in folders, files and repositories: what is read of them, and every way in which they can be broken."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from lorascope.sources.adapters import CONFIG, TENSORS, read_adapter
from tests.helpers.hub_server import Huge, Repo, Server, connected
from tests.helpers.samples import fails
from tests.helpers.sparse_checkpoints import frame, write_file

NAME = "someone/adapter"
SETTINGS: dict[str, Any] = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "peft_version": "0.21.2"}
SHAPES = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": ("F32", (8, 16)),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": ("F32", (16, 8)),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound adapter."""
    found = tmp_path / "adapter"
    found.mkdir()
    (found / CONFIG).write_text(json.dumps(SETTINGS), encoding="utf-8")
    write_file(found / TENSORS, SHAPES)
    return found


@pytest.mark.parametrize("of", [str, Path, lambda folder: folder / CONFIG])
def test_a_folder_or_its_configuration(of: Any, folder: Path) -> None:
    found = read_adapter(of(folder))
    assert found.config == SETTINGS
    assert found.where == str(folder / CONFIG)
    assert found.tensors is not None
    assert {name: (one.dtype, one.shape) for name, one in found.tensors.items()} == SHAPES
    assert (found.notes, found.commit) == ((), "")


def test_a_configuration_by_itself(folder: Path, tmp_path: Path) -> None:
    (folder / TENSORS).unlink()
    assert read_adapter(folder).tensors is None
    assert read_adapter(folder).notes == ()
    other = tmp_path / "planned.json"
    other.write_text(json.dumps(SETTINGS), encoding="utf-8")
    found = read_adapter(other)
    assert (found.config, found.tensors, found.where) == (SETTINGS, None, str(other))


def test_a_pointer_of_git_lfs_is_no_fault_of_the_adapter(folder: Path) -> None:
    (folder / TENSORS).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 16794200\n")
    found = read_adapter(folder)
    assert (found.config, found.tensors) == (SETTINGS, None)
    (note,) = found.notes
    assert note.startswith(f"{TENSORS} is a pointer of Git LFS, not the file, and its tensors are not checked.")
    assert note.endswith("git lfs pull")


def test_a_pickle_is_named_and_never_opened(folder: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(folder / "ran"),)

    (folder / TENSORS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Attack()))
    found = read_adapter(folder)
    assert found.tensors is None
    assert "adapter_model.bin is a pickle" in found.notes[0]
    assert not (folder / "ran").exists()
    write_file(folder / TENSORS, SHAPES)
    assert read_adapter(folder).notes == ()  # PEFT does not look at it either


def test_what_is_no_file_of_peft_is_named(folder: Path) -> None:
    (folder / TENSORS).rename(folder / "adapters.safetensors")
    assert "mlx-lm" in read_adapter(folder).notes[0]
    (folder / "adapters.safetensors").rename(folder / "adapter_model-00001-of-00002.safetensors")
    (folder / "adapter_model.safetensors.index.json").write_text("{}", encoding="utf-8")
    assert "PEFT reads no index" in read_adapter(folder).notes[0]


# What is no adapter.


def test_adapters_below(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for step in (1000, 500, 50):
        (run / f"checkpoint-{step}").mkdir()
        (run / f"checkpoint-{step}" / CONFIG).write_bytes((folder / CONFIG).read_bytes())
    with fails(
        f"there is no {CONFIG}; adapters lie in 'checkpoint-50', 'checkpoint-500', 'checkpoint-1000'",
        f"Give the one that is meant: {run / 'checkpoint-1000'}",
    ):
        read_adapter(run)
    for step in range(6):
        (run / f"other-{step}").mkdir()
        (run / f"other-{step}" / CONFIG).write_text("{}", encoding="utf-8")
    with fails("9 folders below"):
        read_adapter(run)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], ["it has no files"]),
        (["a.txt", "b.txt", "c.txt", "d.txt", "e.txt"], ["'a.txt'", "and 1 more"]),
        (["config.json", "model.safetensors"], ["it is a model's", "lorascope inspect"]),
        (["pytorch_model.bin"], ["it is a model's"]),
        ([TENSORS], ["which maps the tensors to weights", "of the same training"]),
    ],
)
def test_a_folder_without_an_adapter(files: list[str], said: list[str], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with fails(str(tmp_path), f"there is no {CONFIG}", *said):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    "source", ["", "nowhere", "a/b/c", "/nowhere/adapter", "x" * 5000, "with\0nul", "nowhere/adapter_config.json/x"]
)
def test_a_source_that_is_none(source: str) -> None:
    with fails("neither a file, a folder nor a Hub id"):
        read_adapter(source)


def test_a_file_that_is_none(folder: Path) -> None:
    with fails("is not an adapter's configuration", f"Give the folder that it lies in: {folder}"):
        read_adapter(folder / TENSORS)
    link = folder / "broken"
    link.symlink_to(folder / "gone")
    with fails("neither a file"):
        read_adapter(link)


# What is broken.

BROKEN = {
    "empty": (b"", "is not JSON"),
    "cut": (b'{"r": 8', "is not JSON"),
    "list": (b"[1, 2]", "not an object"),
    "twice": (b'{"r": 8, "r": 16}', "has the key 'r' twice"),
    "NaN": (b'{"lora_alpha": NaN}', "holds NaN"),
    "deep": (b'{"a":' * 200 + b"1" + b"}" * 200, "nested deeper"),
    "deeper": (b"[" * 200_000, "nested deeper"),
    "no text": (b"\xff\xfe{}", "is not UTF-8"),
    "digits": (b'{"r": ' + b"9" * 10_000 + b"}", "digits"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_configuration(kind: str, folder: Path, tmp_path: Path) -> None:
    data, said = BROKEN[kind]
    (folder / CONFIG).write_bytes(data)
    with fails(str(folder), said):
        read_adapter(folder)
    alone = tmp_path / "alone.json"
    alone.write_bytes(data)
    with fails(str(alone), said):
        read_adapter(alone)


def test_a_configuration_of_any_size_is_not_read(folder: Path) -> None:
    with (folder / CONFIG).open("r+b") as file:
        file.truncate(20 * 2**30)
    with fails("that are read"):
        read_adapter(folder)


def test_all_faults_of_both_files(folder: Path) -> None:
    (folder / CONFIG).write_bytes(b'{"r": NaN, "a": 1, "a": 2}')
    (folder / TENSORS).write_bytes((2**30).to_bytes(8, "little") + b"{}" * 100)
    with fails("3 faults", "holds NaN", "has the key 'a' twice", f"{TENSORS}: is not a safetensors file") as caught:
        read_adapter(folder)
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "too few"),
        ((2**63).to_bytes(8, "little") + b"{}", "is not a safetensors file"),
        (frame(b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'), "the file at"),
        (frame(b'{"x":1}'), "is described by 1"),
        ((1000).to_bytes(8, "little") + b"{}", "within its header"),
    ],
)
def test_broken_tensors(data: bytes, said: str, folder: Path) -> None:
    (folder / TENSORS).write_bytes(data)
    with fails(str(folder), said):
        read_adapter(folder)


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_links_out_of_the_folder_and_pipes(name: str, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with fails("leads out of the folder"):
        read_adapter(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with fails("named pipe"):
        read_adapter(folder)


# The Hub.


def adapter_repo(folder: Path, **arguments: Any) -> Repo:
    """A repository of a folder's files, zeros for the numbers."""
    return Repo.of_folder(folder, **arguments)


def test_a_repository(folder: Path, tmp_path: Path) -> None:
    with Server({NAME: adapter_repo(folder)}) as hub, connected(hub.endpoint, tmp_path / "cache"):
        found = read_adapter(NAME)
        assert found.config == SETTINGS
        assert found.where == f"{NAME}/{CONFIG}"
        assert found.tensors is not None
        assert set(found.tensors) == set(SHAPES)
        assert found.commit == Repo({}).commit
        assert found.notes == ()
        assert not list((tmp_path / "cache").glob("**/*.json"))  # nothing of it is kept


def test_weights_are_never_fetched(folder: Path, tmp_path: Path) -> None:
    huge = {f"{name}.{number}": ("F32", (8, 4096)) for name in SHAPES for number in range(200)}
    write_file(folder / TENSORS, huge)
    repo = adapter_repo(folder)
    assert isinstance(repo.files[TENSORS], Huge)
    with Server({NAME: repo}) as hub, connected(hub.endpoint, tmp_path / "cache"):
        found = read_adapter(NAME)
        assert found.tensors is not None
        assert len(found.tensors) == 400
        assert hub.sent < 500_000


def test_a_repository_from_the_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no config.json, by which models are found there."""
    with Server({NAME: adapter_repo(folder)}) as hub, connected(hub.endpoint, tmp_path / "cache"):
        huggingface_hub.hf_hub_download(NAME, CONFIG)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        found = read_adapter(NAME)
        assert (found.config, found.tensors, found.commit) == (SETTINGS, None, Repo({}).commit)
        assert len(found.notes) == 2
        assert found.notes[0].startswith("HF_HUB_OFFLINE is set: the cache is read")
        assert found.notes[1].startswith(f"{TENSORS} is not in the cache")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        huggingface_hub.hf_hub_download(NAME, TENSORS)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        before = len(hub.requests)
        found = read_adapter(NAME)
        assert found.tensors is not None
        assert set(found.tensors) == set(SHAPES)
        assert len(found.notes) == 1
        assert len(hub.requests) == before


def test_repositories_that_hold_no_adapter(folder: Path, tmp_path: Path) -> None:
    repositories = {
        NAME: Repo({"config.json": b"{}", "model.safetensors": b"x"}),
        "someone/private": adapter_repo(folder, private=True),
    }
    with Server(repositories) as hub, connected(hub.endpoint, tmp_path / "cache"):
        with fails(NAME, f"there is no {CONFIG}", "it is a model's"):
            read_adapter(NAME)
        with fails("someone/private", "there is no such repository, or it is private"):
            read_adapter("someone/private")
        with fails("no revision 'v2'"):
            read_adapter(NAME, revision="v2")
