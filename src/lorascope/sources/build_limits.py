"""Limits on building a model from a foreign configuration: time, tensors and memory, in any thread and without signals."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorascope.errors import LorascopeError

if TYPE_CHECKING:
    from torch.overrides import TorchFunctionMode

# The largest models take some ten seconds and 300,000 calls. Where others use the processor, too, it is this process's own
# seconds that count, until several times as many have passed.
MOST_SECONDS = 60.0
_LOADED = 4
MOST_CALLS = 8_000_000
MOST_TENSORS = 2_000_000
MOST_MEMORY = 6 * 2**30
# How often the clock and the memory are looked at from outside.
_EVERY = 0.25
_HINT = "Check the counts and sizes in the configuration. A checkpoint's headers need no building: --source headers."


class _OverrunError(BaseException):
    """Building takes too much. No `Exception`, which modeling code catches here and there."""


@contextlib.contextmanager
def limited_build(
    what: str, *, seconds: float | None = None, calls: int | None = None, memory: int | None = None
) -> Iterator[None]:
    """Ends what is built within it once it takes too long, too many tensors or too much memory.

    Two guards look after it. One sees each call of torch, and counts. The other looks from a thread at the clock and at
    the memory of the process, and ends loops that call nothing of torch.

    Args:
        what: What is built, for the message.
        seconds: The longest that it may take; `MOST_SECONDS` if None.
        calls: The most calls of torch; `MOST_CALLS` if None.
        memory: The most bytes by which the process may grow; `MOST_MEMORY` if None.

    Raises:
        LorascopeError: It took more.
    """
    seconds = MOST_SECONDS if seconds is None else seconds
    watch = _Watch(seconds, MOST_MEMORY if memory is None else memory)
    try:
        with watch, _counting(MOST_CALLS if calls is None else calls, watch.check):
            yield
    except _OverrunError as error:
        reason = watch.reason or str(error)
        raise LorascopeError(f"{what} is not built: {reason}", hint=_HINT) from None


class _Watch:
    """Raises `_OverrunError` in the thread that it was entered in, once time or memory is used up."""

    def __init__(self, seconds: float, memory: int) -> None:
        self._seconds = seconds
        self._memory = memory
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.reason = ""

    def check(self) -> None:
        """Raises if the time is up."""
        if self._is_late():
            self.reason = self._late()
            raise _OverrunError(self.reason)

    def _is_late(self) -> bool:
        passed, used = time.monotonic() - self._begun, time.process_time() - self._used
        return passed > self._seconds and (used > self._seconds or passed > _LOADED * self._seconds)

    def _late(self) -> str:
        return f"it takes more than {self._seconds:g} seconds"

    def __enter__(self) -> None:
        self._begun, self._used = time.monotonic(), time.process_time()
        self._held = _resident()
        self._builder = threading.get_ident()
        self._thread = threading.Thread(target=self._look, daemon=True, name="lorascope build limits")
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(_OverrunError), self._lock:  # it may arrive right here
                self._ended.set()
                _raise_in(self._builder, None)  # what is on its way and has not arrived
        self._thread.join(_EVERY)

    def _look(self) -> None:
        while not self._ended.wait(_EVERY):
            late = self._is_late()
            grown = _resident() - self._held
            if late or grown > self._memory:
                with self._lock:
                    if self._ended.is_set():
                        return
                    self.reason = (
                        self._late() if late else f"it takes more than {self._memory / 2**30:.1f} GiB of memory"
                    )
                    _raise_in(self._builder, _OverrunError)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raises in another thread at its next instruction, or takes back what is still on its way there."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind) if kind else None)


def _resident() -> int:
    """Bytes of memory that the process holds now; 0 where the system does not tell."""
    try:
        with Path("/proc/self/statm").open("rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _counting(most: int, check: Callable[[], None]) -> TorchFunctionMode:
    import torch
    from torch.overrides import TorchFunctionMode as Mode

    makers = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.arange, torch.tensor}

    class Counting(Mode):  # type: ignore[misc]  # torch has no types
        """Counts the calls of torch and the tensors that they make."""

        calls = tensors = 0

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls += 1
            if function in makers:
                self.tensors += 1
            if self.calls > most or self.tensors > MOST_TENSORS:
                raise _OverrunError(
                    f"it makes more than {MOST_TENSORS:,} tensors"
                    if self.tensors > MOST_TENSORS
                    else f"it takes more than {most:,} steps"
                )
            if not self.calls % 64:
                check()
            return function(*args, **(kwargs or {}))

    return Counting()
