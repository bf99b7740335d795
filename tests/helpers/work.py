"""Work measured in plain calls of Python: processor time over that of an empty function, on this machine and now.

Counting calls with a profile function would be exact, but after thousands of tests CPython 3.11 has been seen to stop in a
loop under one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

# A call that does something takes so many times as long as an empty one, at the most.
_WEIGHT = 25
_CALLS = 100_000


class TooMuchWorkError(AssertionError):
    """What is measured took longer than it may."""


def _nothing() -> None:
    pass


def _seconds_per_call() -> float:
    """Processor time of an empty call, the least of five."""
    spent = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(_CALLS):
            _nothing()
        spent.append(time.process_time() - start)
    return min(spent) / _CALLS


@contextlib.contextmanager
def calls_at_most(limit: int) -> Iterator[None]:
    """Fail where the body takes the processor time of more calls.

    Raises:
        TooMuchWorkError: After the body, whether or not it raised.
    """
    start = time.process_time()
    try:
        yield
    finally:
        spent = time.process_time() - start
        allowed = limit * _WEIGHT * _seconds_per_call()
        if spent > allowed:
            raise TooMuchWorkError(f"{spent:.3f} s of the processor, {limit:,} calls may take {allowed:.3f}")
