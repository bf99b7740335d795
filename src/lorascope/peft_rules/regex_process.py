"""A second Python for slow regular expressions, ended when time is up.

Nothing else ends one: `re` looks for signals alone, which a library must not catch and a thread cannot. The process is
started when the first pattern needs it, kept for the next, ended with the time of a match, and with this process.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

# Reads a line of JSON, answers with one. It ends with its input, and by itself where a match takes too long: SIGPROF
# comes after that much time of its own, SIGALRM after a multiple of it where nobody is left to end it. Its memory is
# bounded, so that a pattern cannot take all there is.
_PROGRAM = """
import json, re, sys, time, warnings
warnings.simplefilter("ignore")
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
except (ImportError, OSError, ValueError):
    pass
try:
    import signal
    alarm, timer = signal.alarm, lambda seconds: signal.setitimer(signal.ITIMER_PROF, seconds)
except AttributeError:
    alarm = timer = int
patterns = {}
for line in sys.stdin.buffer:
    asked = json.loads(line)
    alarm(int(4 * asked["seconds"]) + 10)
    timer(asked["seconds"])
    begun = time.process_time()
    try:
        if "pattern" in asked:
            patterns[asked["id"]] = re.compile(asked["pattern"])
        tried = getattr(patterns[asked["id"]], asked["way"])
        found = []
        for name in asked["names"]:
            match = tried(name)
            found.append(match and [match.group(), match.groups(), match.groupdict()])
            if time.process_time() - begun > 0.1:
                break
        answer = {"found": found}
    except Exception as error:
        answer = {"fault": str(error), "kind": type(error).__name__}
    alarm(0)
    timer(0)
    answer["seconds"] = time.process_time() - begun
    sys.stdout.write(json.dumps(answer) + chr(10))
    sys.stdout.flush()
"""
# The thread that reads what a process answers.
_READER = "lorascope patterns"
# Until a process that was just started can answer, on a machine that is busy.
_STARTING = 30.0
# A process ends itself when its own time is up. Other processes may keep it waiting for so many times that long.
_PATIENCE = 4.0 if hasattr(signal, "setitimer") else 1.0


class NoProcessError(Exception):
    """The second process cannot be started here."""


class RegexProcess:
    """The process, and the patterns it knows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._known: set[int] = set()
        # How often one was started.
        self.started = 0

    def ask(self, number: int, pattern: str, way: str, names: Sequence[str], seconds: float) -> dict[str, Any] | None:
        """Matches of the process; None if it was too slow or died.

        Args:
            number: The pattern's, by which the process keeps it.
            pattern: Its text.
            way: `match`, `fullmatch` or `search`.
            names: What to match; none to compile the pattern alone. The last ones are left out once it takes long.
            seconds: How much of its own time it may take.

        Raises:
            NoProcessError: There can be no such process.
        """
        with self._lock:
            process = self._running()
            asked = {"id": number, "way": way, "names": list(names), "seconds": seconds}
            if number not in self._known:
                asked["pattern"] = pattern
            assert process.stdin is not None
            line = b""
            try:
                process.stdin.write(json.dumps(asked).encode() + b"\n")
                process.stdin.flush()
                line = self._answers.get(timeout=_PATIENCE * seconds + 1.0)
            except (OSError, queue.Empty):
                pass
            finally:  # Whoever interrupts the wait must not leave an answer for the next.
                if not line:
                    self._end()
            if not line:
                return None
            answer: dict[str, Any] = json.loads(line)
            if "fault" not in answer:
                self._known.add(number)
            return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        return self._process

    def _start(self) -> None:
        self._end()
        if not sys.executable or getattr(sys, "frozen", False):
            raise NoProcessError
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise NoProcessError from error
        if not self.started:
            atexit.register(self.close)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._forget)
        self._process, self._known = process, set()
        self._answers = queue.SimpleQueue()
        threading.Thread(target=_read, args=(process, self._answers), daemon=True, name=_READER).start()
        self.started += 1
        assert process.stdin is not None
        try:
            process.stdin.write(b'{"id": 0, "pattern": "", "way": "match", "names": [], "seconds": 60}\n')
            process.stdin.flush()
            ready = self._answers.get(timeout=_STARTING)
        except (OSError, queue.Empty):
            ready = b""
        if not ready:
            self._end()
            raise NoProcessError

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        # The thread that reads the other pipe closes it.
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _forget(self) -> None:
        """Forget the process in a fork, which does not own it."""
        if self._process is not None:
            self._process.returncode = 0  # It is nobody to wait for.
        self._process, self._lock = None, threading.Lock()


def _read(process: subprocess.Popen[bytes], answers: queue.SimpleQueue[bytes]) -> None:
    """Pass on each line of a process, then an empty one."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            answers.put(line)
    answers.put(b"")
