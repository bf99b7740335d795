"""Ends what a thread does from outside once a limit is passed: in any thread, without signals."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable


class OverrunError(BaseException):
    """A limit is passed. No `Exception`, which other people's code catches here and there."""


class Watchdog:
    """Within its block, the thread that entered it gets an `OverrunError` once a limit is passed.

    It arrives between two instructions of Python. A call that waits in the system or computes in C is not ended by it,
    but what follows is.

    Args:
        passed: Called a few times a second, from another thread. Its text says which limit is passed, if any.

    Attributes:
        reason: What `passed` said; empty while no limit is passed.
    """

    # How often it looks.
    _EVERY = 0.25

    def __init__(self, passed: Callable[[], str]) -> None:
        self._passed = passed
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.reason = ""

    def __enter__(self) -> Watchdog:
        self._thread = threading.get_ident()
        threading.Thread(target=self._look, daemon=True, name="lorascope watchdog").start()
        return self

    def __exit__(self, *_: object) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OverrunError), self._lock:  # it may arrive right here
                self._ended.set()
                _raise_in(self._thread, None)  # what is on its way and has not arrived

    def _look(self) -> None:
        while not self._ended.wait(self._EVERY):
            reason = self._passed()
            if reason:
                with self._lock:
                    if not self._ended.is_set():  # and again where it was swallowed
                        self.reason = reason
                        _raise_in(self._thread, OverrunError)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raises in another thread at its next instruction, or takes back what is still on its way there."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind) if kind else None)
