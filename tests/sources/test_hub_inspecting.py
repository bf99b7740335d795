"""A Hub id from the command line: what is printed, what it costs, and what goes wrong, over a loopback server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorascope.cli.main import main
from lorascope.inspecting import inspect
from tests.helpers.hub_server import Repo, Server, connected
from tests.helpers.samples import TINY_LLAMA
from tests.helpers.sparse_checkpoints import write_checkpoint
from tests.sources.test_to_model_map import llama

NAME = "someone/small"
SIZES = {"hidden_size": 2048, "intermediate_size": 4096, "vocab_size": 32000}


def large(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape of the tiny model at the sizes of a real one."""
    widths = {16: SIZES["hidden_size"], 24: SIZES["intermediate_size"], 32: SIZES["vocab_size"]}
    return tuple(widths[size] for size in shape)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tensors = {name: (dtype, large(name, shape)) for name, (dtype, shape) in llama().items()}
    return write_checkpoint(tmp_path / "model", tensors, 2, TINY_LLAMA | SIZES)


@pytest.fixture
def hub(folder: Path, tmp_path: Path) -> Iterator[Server]:
    with Server({NAME: Repo.of_folder(folder)}) as server, connected(server.endpoint, tmp_path / "cache"):
        yield server


def test_the_same_map_as_of_the_folder(hub: Server, folder: Path) -> None:
    ours, local = inspect(NAME), inspect(folder)
    assert (ours.weights, ours.modules, ours.dimensions) == (local.weights, local.modules, local.dimensions)
    assert (ours.source, ours.model, ours.notes) == ("headers", NAME, ())
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    # Facts, configuration and index, and a part of each file.
    assert len(hub.requests) == 5
    assert hub.sent < 0.01 * weights
    assert inspect(NAME).weights == ours.weights


def test_the_commit_is_said(hub: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", NAME, "--json"]) == 0
    commit = json.loads(capsys.readouterr().out)["model"]["commit"]
    assert len(commit) == 40
    assert main(["plan", NAME]) == 0
    assert f"headers, transformers 5.24.0, commit {commit[:12]})" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("repo", "arguments", "said"),
    [
        (None, [], ["no such repository", "Check the name"]),
        (
            Repo({"model.safetensors": b"", "config.json": b"{}"}, gated=True, readers=("hf_mine",)),
            [],
            ["is gated", "Accept the license", "hf auth login"],
        ),
        (Repo({"pytorch_model.bin": b"", "config.json": b"{}"}), ["--source", "headers"], ["pickle files", "onvert"]),
        (Repo({"model.safetensors": b"version https://git-lfs"}), [], ["config.json"]),
    ],
    ids=["missing", "gated", "pickle", "no configuration"],
)
def test_what_goes_wrong_says_what_to_do(
    repo: Repo | None, arguments: list[str], said: list[str], hub: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    if repo is not None:
        hub.repositories["someone/other"] = repo
    assert main(["inspect", "someone/other", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    text = " ".join(shown.err.split())
    assert [word for word in said if word not in text] == []


def test_neither_torch_nor_transformers_is_needed(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from lorascope.cli.main import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'transformers', 'peft', 'numpy', 'safetensors'} & sys.modules.keys()))"
    )
    with Server({NAME: Repo.of_folder(folder)}) as server:
        environment = {**os.environ, "HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-c", code, "inspect", NAME]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_its_configuration_is_traced_and_no_weight_is_fetched(hub: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", NAME, "--trace", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert hub.of("config.json") and not hub.of(".safetensors")
    assert {weight["trace"]["confidence"] for weight in found["weights"]} == {"high"}
    assert [weight["name"] for weight in found["weights"]] == [weight.name for weight in inspect(NAME).weights]
