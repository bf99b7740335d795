"""The most memory that a process had: `ru_maxrss` would not do, as it begins with what its parent had."""

from __future__ import annotations

import inspect
from pathlib import Path


def peak_memory() -> int:
    """The most bytes that this process ever had in memory, or had since `forget_peak`."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - stands alone as code, too
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def forget_peak() -> int:
    """Begin to count anew; the bytes in memory now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_memory()


# The same function for a process of its own.
PEAK_MEMORY = inspect.getsource(peak_memory)
