"""Ends a thread's work from outside, without signals."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable


class OverrunError(BaseException):
    """A limit is exceeded. Not an `Exception`, which other code catches."""


class Watchdog:
    """Raises `OverrunError` in the thread that entered it.

    It arrives between two instructions of Python. A call that waits in the system or computes in C is not ended by it,
    but what follows is.

    Args:
        passed: Called a few times a second, from another thread. Its text says which limit is passed, if any.

    Attributes:
        reason: What `passed` said; empty while no limit is passed.
    """

    # How often it looks, and how often at most it raises: again where the first was swallowed, later each time.
    _EVERY = 0.25
    _MOST_RAISED = 10

    def __init__(self, passed: Callable[[], str]) -> None:
        self._passed = passed
        self._lock = threading.Lock()
        self._entered = threading.Event()
        self._ended = threading.Event()
        self._over = False
        self.reason = ""

    def __enter__(self) -> Watchdog:
        self._thread = threading.get_ident()
        threading.Thread(target=self._look, daemon=True, name="lorascope watchdog").start()
        self._entered.set()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop raising. Call it again where an `OverrunError` left the block.

        The error may arrive at the first instruction of `__exit__`, before anything could be done there.
        """
        done = False
        while not done:
            try:
                self._over = True
                with self._lock:  # nothing is being raised now
                    _raise_in(self._thread, None)  # what is on its way and has not arrived
                self._ended.set()
                done = True
            except OverrunError:
                pass

    def _look(self) -> None:
        self._entered.wait()
        raised = 0
        while raised < self._MOST_RAISED and not self._ended.wait(self._EVERY * 2**raised):
            reason = self._passed()
            if reason:
                with self._lock:
                    if self._over:
                        return
                    self.reason = reason
                    _raise_in(self._thread, OverrunError)
                    raised += 1


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raise in another thread, or cancel what has not arrived."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind) if kind else None)
