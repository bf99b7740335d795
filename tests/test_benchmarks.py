"""The benchmark scripts run, and print every row that they promise."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def table_of(script: str, *options: str) -> dict[str, list[str]]:
    """The rows that a script prints, by their first cell."""
    command = (sys.executable, str(BENCHMARKS / script), "--repeats", "1", *options)
    environment = {**os.environ, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if re.match(r"\| [^|]", line)]
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line[2:-1].split("|")] for line in lines)}


def dimensions(rows: dict[str, list[str]]) -> list[float]:
    """The first two figures of each row but the headings."""
    return [float(cell) for title, cells in rows.items() if not title.startswith("process") for cell in cells[:2]]


@pytest.fixture
def processes() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_processes", BENCHMARKS / "processes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def options(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"repeats": 3, "only": "", "instructions": False, **given})


def test_the_ratio_is_the_median_of_pairs(processes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9, 9, 1, 2, 2, 10, 10, 30])  # bare and other in turn; the first pair is not counted
    monkeypatch.setattr(processes, "processor_seconds", lambda process, variables: next(seconds))
    costs = processes.measure({"other": processes.Process(("x",))}, options())
    assert costs == {"other": processes.Cost(10, 3)}


def test_processor_time_is_that_of_the_child(processes: Any) -> None:
    busy = processes.Process(processes.python("import time\nwhile time.process_time() < 0.2: pass"))
    idle = processes.Process(processes.python("import time; time.sleep(0.2)"))
    variables = processes.environment()
    assert processes.processor_seconds(busy, variables) >= 0.19
    assert processes.processor_seconds(idle, variables) < 0.15


def test_peers_are_skipped_or_reported_and_lorascope_is_not(processes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    own = processes.Process(processes.python("pass"), aim=50)
    failing = processes.python("import sys; sys.exit('no luck')")
    rows = {
        "own": own,
        "absent": processes.Process(processes.python("pass"), needs=("no_such_package",)),
        "peer": processes.Process(failing, peer_of="own"),
        "twin": processes.Process(processes.python("pass"), peer_of="own"),
    }
    processes.print_processes(rows, options(repeats=1))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(rows)
    assert re.fullmatch(r"\| own \| \d+ \| \d+\.\d \| 50, reached \|  \|", lines[2])
    assert lines[3] == "| absent | skipped: no_such_package | | | |"
    assert lines[4] == "| peer | failed: no luck | | | |"
    assert re.fullmatch(r"\| twin \| \d+ \| \d+\.\d \|  \| \d+\.\d\d \|", lines[5])
    with pytest.raises(SystemExit, match="no luck"):
        processes.print_processes({"own": processes.Process(failing)}, options(repeats=1))


def test_torchvision_is_hidden_from_peers(processes: Any) -> None:
    """Where it does not fit torch, transformers stops at its import."""
    words = processes.with_transformers("import importlib.util; assert importlib.util.find_spec('torchvision') is None")
    processes.processor_seconds(processes.Process(words), processes.environment())


def test_light_commands() -> None:
    rows = table_of("commands.py", "--only", "inspect")
    assert list(rows) == ["process", "inspect mistral"]
    assert min(dimensions(rows)) > 1


@pytest.mark.slow
def test_commands() -> None:
    rows = table_of("commands.py")
    assert len(rows) == 12
    assert min(dimensions(rows)) > 1
    assert [title for title, cells in rows.items() if re.match(r"[\d.]+, ", cells[2])] == [
        "inspect mistral",
        "plan mistral qv+ffn",
        "recommend mistral --task instruction",
    ]
    assert [title for title, cells in rows.items() if re.fullmatch(r"[\d.]+", cells[3])] == [
        "get_peft_model of mistral on meta",
        "get_peft_model of deepseek_v3 on meta",
    ]


@pytest.mark.slow
def test_headers() -> None:
    rows = table_of("headers.py")
    peers = {title: cells for title, cells in rows.items() if len(cells) > 3 and re.fullmatch(r"[\d.]+", cells[3])}
    assert len(rows) == 23
    assert len(peers) == 10
    assert [title for title in rows if title.startswith("Hub, llama")] == [
        "Hub, llama: inspect",
        "Hub, llama: get_safetensors_metadata",
        "Hub, llama: accelerate estimate-memory",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words", "count"),
    [
        ("pattern_keys.py", (), 11),
        ("adapted_weights.py", ("--only", "mixtral"), 2),
        ("growth.py", ("--only", "3,000"), 2),
        ("traces.py", ("--only", "diffllama"), 2),
    ],
)
def test_other_scripts(script: str, words: tuple[str, ...], count: int) -> None:
    rows = table_of(script, *words)
    titles = {"model", "weights", "architecture", "alone in a process"}
    assert len(rows) >= count
    assert min(
        float(cells[0]) for title, cells in rows.items() if not title.startswith("process") and title not in titles
    )
