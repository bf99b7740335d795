"""The benchmark scripts run, and print every row that they promise."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def rows_of(script: str, *options: str) -> list[list[str]]:
    """The cells of every row that a script prints, without headings."""
    command = (sys.executable, str(BENCHMARKS / script), "--repeats", "1", *options)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line[2:-1].split("|")] for line in done.stdout.splitlines() if line[:1] == "|"]
    headings = {place - 1 for place, cells in enumerate(rows) if set(cells[0]) <= {"-"} or cells[0].startswith("---")}
    return [cells for place, cells in enumerate(rows) if place not in headings and place - 1 not in headings]


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
    ((title, _, ratio, aim, _),) = rows_of("commands.py", "--only", "inspect")
    assert title == "inspect mistral"
    assert float(ratio) > 1
    assert aim.startswith("4, ")


@pytest.mark.slow
def test_commands() -> None:
    rows = rows_of("commands.py")
    assert len(rows) == 11
    assert min(float(ratio) for _, _, ratio, _, _ in rows) > 1
    assert [aim.partition(",")[0] for _, _, _, aim, _ in rows if aim] == ["4", "5", "10"]
    assert [title for title, _, _, _, times in rows if times] == [
        "get_peft_model of mistral on meta",
        "get_peft_model of deepseek_v3 on meta",
    ]


@pytest.mark.slow
def test_headers() -> None:
    rows = rows_of("headers.py")
    assert len(rows) == 12 + 6 + 4
    assert min(float(cells[2]) for cells in rows) > 0
    assert [(title, aim.partition(",")[0]) for title, _, _, aim, _ in rows[:18] if aim] == [
        ("llama: inspect", "8"),
        ("deepseek_v3: inspect", "30"),
    ]
    assert sum(bool(cells[4]) for cells in rows[:18]) == 10
    assert {title for title, *_ in rows[18:]} < {title for title, *_ in rows[12:18]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words", "count"),
    [
        ("pattern_keys.py", (), 10),
        ("adapted_weights.py", ("--only", "mixtral"), 1),
        ("growth.py", ("--only", "3,000"), 1),
        ("traces.py", ("--only", "diffllama"), 3 + 1 + 1),
    ],
)
def test_other_scripts(script: str, words: tuple[str, ...], count: int) -> None:
    rows = rows_of(script, *words)
    assert len(rows) == count
    assert min(float(cell) for cells in rows for cell in cells[-2:] if cell) > 0
