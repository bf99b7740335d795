"""Bounds this process's memory, so that excess raises an error."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

# What foreign configurations and models may take, of what is free.
_SHARE = 0.75
_lock = threading.Lock()
# What each bound that is set now allows, and what was there before the first of them.
_active: dict[int, int] = {}
_before = (0, 0)


class MemoryBound:
    """Lets this process allocate a limited number of bytes.

    torch raises a `RuntimeError` (`is_out_of_memory`). Only Linux tells how much is used and free. It is memory that is
    bounded (`RLIMIT_DATA`), not addresses, of which libraries of a GPU reserve far more than they use.

    Args:
        most: Bytes beyond what is used when this is made; only the share of what is free if None.

    Attributes:
        room: Bytes that may be allocated; None where there is no bound.
    """

    def __init__(self, most: int | None = None) -> None:
        used, free = _used_and_free()
        self.room: int | None = None
        if free is not None:
            self.room = int(free * _SHARE) if most is None else min(most, int(free * _SHARE))
            self._limit = used + self.room

    def start(self) -> None:
        """Set the bound; of several, the widest holds."""
        global _before
        if self.room is None:
            return
        import resource

        with _lock:
            if not _active:
                _before = resource.getrlimit(resource.RLIMIT_DATA)
            _active[id(self)] = self._limit
            _set_soft(max(_active.values()))

    def stop(self) -> None:
        """Restore the limit; calling it twice is harmless."""
        if self.room is None:
            return
        with _lock:
            _active.pop(id(self), None)
            _set_soft(max(_active.values(), default=None))

    def __enter__(self) -> MemoryBound:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def is_out_of_memory(error: BaseException | None) -> bool:
    """The error, or one of its causes, is a failed allocation."""
    for _ in range(20):  # foreign exceptions can chain without end
        if error is None:
            return False
        if isinstance(error, MemoryError) or (type(error) is RuntimeError and "can't allocate memory" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _set_soft(limit: int | None) -> None:
    """Set the bound within the first one; None restores that."""
    import resource

    if _before == (0, 0):  # none was ever set
        return
    soft, hard = _before
    if limit is not None:
        soft = min([limit, *(bound for bound in _before if bound != resource.RLIM_INFINITY)])
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _used_and_free() -> tuple[int, int | None]:
    """Allocated bytes of this process, and free bytes; None where unknown."""
    if sys.platform != "linux":
        return 0, None
    try:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * os.sysconf("SC_PAGE_SIZE")
        words = Path("/proc/meminfo").read_text(encoding="ascii").split()
        free = int(words[words.index("MemAvailable:") + 1]) * 1024
    except (OSError, ValueError, IndexError):
        return 0, None
    return used, free
