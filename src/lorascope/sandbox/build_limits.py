"""Limits on building a model: time, tensors and memory."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorascope.errors import LorascopeError
from lorascope.sandbox.memory_bound import MemoryBound, is_out_of_memory
from lorascope.sandbox.watchdog import OverrunError, Watchdog

if TYPE_CHECKING:
    from torch.overrides import TorchFunctionMode

# The largest models take some ten seconds and 300,000 calls. Where others use the processor, too, it is this process's own
# seconds that count, until several times as many have passed.
MOST_SECONDS = 60.0
_LOADED = 4
MOST_CALLS = 8_000_000
MOST_TENSORS = 2_000_000
MOST_MEMORY = 6 * 2**30
_HINT = "Check the counts and sizes in the configuration. A checkpoint's headers need no building: --source headers."


@contextlib.contextmanager
def limited_build(what: str) -> Iterator[None]:
    """End the block once it takes too much time, tensors or memory.

    Each call of torch is counted. From a thread a watchdog looks at the clock and at the memory of the process, and ends
    loops that call nothing of torch. What one call would allocate beyond the memory is refused by the system.

    Args:
        what: What is built, for the message.

    Raises:
        LorascopeError: It took more.
    """
    begun, used, held = time.monotonic(), time.process_time(), _resident()

    def passed() -> str:
        elapsed = time.monotonic() - begun
        own = time.process_time() - used
        if elapsed > MOST_SECONDS and (own > MOST_SECONDS or elapsed > _LOADED * MOST_SECONDS):
            return f"it takes more than {MOST_SECONDS:g} seconds"
        return _too_much(MOST_MEMORY) if _resident() - held > MOST_MEMORY else ""

    watchdog = Watchdog(passed)
    bound = MemoryBound(MOST_MEMORY)
    try:
        with bound, watchdog, _counting():
            yield
    except OverrunError as error:
        watchdog.stop()
        raise LorascopeError(f"{what} is not built: {watchdog.reason or error}", hint=_HINT) from None
    except Exception as error:
        if bound.room is None or not is_out_of_memory(error):
            raise
        raise LorascopeError(f"{what} is not built: {_too_much(bound.room)}", hint=_HINT) from None


def _too_much(room: int) -> str:
    return f"it takes more than {room / 2**30:.1f} GiB of memory"


def _resident() -> int:
    """Bytes of memory that the process uses; 0 where unknown."""
    try:
        with Path("/proc/self/statm").open("rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _counting() -> TorchFunctionMode:
    import torch
    from torch.overrides import TorchFunctionMode as Mode

    makers = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.arange, torch.tensor}

    class Counting(Mode):  # type: ignore[misc]  # torch has no types
        """Counts the calls of torch and the tensors that they make."""

        calls = tensors = 0

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls += 1
            self.tensors += function in makers
            if self.tensors > MOST_TENSORS:
                raise OverrunError(f"it makes more than {MOST_TENSORS:,} tensors")
            if self.calls > MOST_CALLS:
                raise OverrunError(f"it takes more than {MOST_CALLS:,} operations")
            return function(*args, **(kwargs or {}))

    return Counting()
