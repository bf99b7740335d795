"""Streams that are closed or gone, and interrupts at any moment: an exit code that is right, and no traceback."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell and signals of POSIX")

COMMAND = f"{sys.executable} -m lorascope"
# Commands and their exit codes where somebody reads: fine, findings that matter, bad input.
CODES = {
    "inspect mistral": 0,
    "plan mistral qv": 0,
    "plan mistral --json": 0,
    "compare mistral": 0,
    "recommend mistral --task style": 0,
    "check mistral q_proj": 0,
    "check mistral q_proj nothing_of_it": 1,
    "check mistral q_proj nothing_of_it --json": 1,
    "plan lama": 2,
}


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("words", CODES)
def test_a_reader_that_is_gone_changes_no_exit_code(words: str) -> None:
    done = shell(f"{COMMAND} {words} | true; echo ${{PIPESTATUS[0]}}")
    assert done.stdout == f"{CODES[words]}\n"
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    assert bool(done.stderr) == (CODES[words] == 2)


@pytest.mark.parametrize("words", ["plan mistral qv", "check mistral q_proj nothing_of_it", "plan lama"])
def test_closed_streams(words: str) -> None:
    closed = shell(f"{COMMAND} {words} >&-")
    assert (closed.returncode, closed.stdout, closed.stderr) == (2, "", "lorascope: standard output is closed\n")
    for quiet in ("2>&-", "<&-", "<&- 2>&-", "2>/dev/null"):
        done = shell(f"{COMMAND} {words} {quiet}")
        assert done.returncode == CODES[words], quiet
        assert bool(done.stdout) == (CODES[words] != 2)
        assert "Traceback" not in done.stderr
    assert shell(f"{COMMAND} {words} >&- 2>&- <&-").returncode == 2


def interrupted(words: list[str], after: float) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "lorascope", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever started the tests may have them ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def interrupt_all(moments: int, seconds: float, folder: Path) -> int:
    """Interrupts a command that writes a plan at so many moments of its first seconds; how often it was in time."""
    draw = random.Random(3)
    early = shown = 0
    for number in range(moments):
        code, stderr = interrupted(["plan", "mixtral", "all", "-o", str(folder)], draw.random() * seconds)
        # Before Python has loaded the package's own first lines, it shows the interrupt by itself.
        inside = re.findall(r"lorascope/(?!__init__|__main__)\w+", stderr)
        assert not inside, stderr
        shown += "Traceback" in stderr
        assert code in (0, 130, -signal.SIGINT, 1), (number, code)
        early += code != 0
    assert shown <= moments / 6
    return early


def test_an_interrupt_ends_without_a_traceback(tmp_path: Path) -> None:
    assert 0 < interrupt_all(12, 0.5, tmp_path) <= 12


@pytest.mark.slow
def test_interrupts_at_many_moments(tmp_path: Path) -> None:
    assert 20 < interrupt_all(120, 0.25, tmp_path) <= 120
    # Nothing but a plan is left, and that one is whole.
    assert subprocess.run([sys.executable, "-m", "lorascope", "plan", "mixtral", "-o", str(tmp_path)]).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "plan.json"}


def test_who_ignores_interrupts_still_does() -> None:
    done = shell(
        f"trap '' INT; {COMMAND} plan mistral >/dev/null & P=$!; sleep 0.02; kill -INT $P 2>/dev/null; wait $P; echo $?"
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
