"""Work counted in calls: the same on every machine, however busy it is."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


class TooMuchWorkError(AssertionError):
    """What is measured made more calls than it may."""


@contextlib.contextmanager
def calls_at_most(limit: int) -> Iterator[None]:
    """Fail where the body makes more calls, of Python functions and built-in ones together, in this thread.

    Raises:
        TooMuchWorkError: At the call after the last one, so that work without an end ends too.
    """
    with _counted(limit) as calls:
        yield
    if calls[0] > limit:  # somebody has caught what was raised
        raise TooMuchWorkError(f"more than {limit:,} calls")


def count_calls(work: Callable[[], Any]) -> int:
    """How many calls a function makes, of Python functions and built-in ones together, in this thread."""
    with _counted(sys.maxsize) as calls:
        work()
    return calls[0]


@contextlib.contextmanager
def _counted(limit: int) -> Iterator[list[int]]:
    calls = [0]

    def count(frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            calls[0] += 1
            if calls[0] > limit:
                sys.setprofile(before)
                raise TooMuchWorkError(f"more than {limit:,} calls")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)
