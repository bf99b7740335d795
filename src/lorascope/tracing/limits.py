"""Limits of a trace: time, operations, nodes, memory.

A model's own code is run, which may loop or allocate without end. `Meter` counts while it runs, and ends it where a
bound is met. It needs no torch.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.sandbox.watchdog import OverrunError, Watchdog

_Result = TypeVar("_Result")

# Seconds between two looks at the clock while no operation runs.
_TICK = 0.25
# Operations between two looks at the clock.
_EVERY = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one trace. Every architecture of `tests/conformance` stays within.

    Attributes:
        seconds: Of the processor, in the thread that traces.
        waiting: Seconds by the clock.
        operations: Tensor operations of all calls.
        nodes: Uses of weights, products, sums and choices in the graph of one call.
        edges: Connections between them.
        known: Bytes of all tensors together that are computed with their numbers.
    """

    seconds: float = 90
    waiting: float = 300
    operations: int = 1_000_000
    nodes: int = 60_000
    edges: int = 3_000_000
    known: int = 4 * 2**30


LIMITS = Limits()


class LimitMet(BaseException):  # no fault of the code that it ends, which must not catch it
    """A limit is exceeded."""


class Meter:
    """Counts what a trace has used so far."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or LIMITS
        self._operations = 0
        self._known = 0
        self._edges = 0
        self._thread = threading.get_ident()
        self._started = time.monotonic()
        self._cpu = time.thread_time()
        self._armed = False

    def count_operation(self) -> None:
        """Count a tensor operation."""
        self._operations += 1
        if self._operations > self.limits.operations:
            raise LimitMet(f"it runs more than {self.limits.operations} tensor operations")
        if self._operations % _EVERY == 0:
            self.check_time()

    def start_graph(self) -> None:
        """Start counting the graph of another call."""
        self._edges = 0

    def count_node(self, index: int, edges: int) -> None:
        """Count a node of a graph."""
        self._edges += edges
        if index >= self.limits.nodes or self._edges > self.limits.edges:
            raise LimitMet(
                f"one call uses weights and values more often than {self.limits.nodes} times "
                f"(or in more than {self.limits.edges} combinations)"
            )

    def count_bytes(self, size: int) -> None:
        """Count bytes of a tensor with known numbers."""
        self._known += size
        if self._known > self.limits.known:
            raise LimitMet(f"positions, masks and indices take more than {self.limits.known / 2**30:.0f} GiB")

    def check_time(self) -> None:
        """End the trace if its time is over."""
        if time.thread_time() - self._cpu > self.limits.seconds:
            raise LimitMet(f"it takes more than {self.limits.seconds:g} seconds of a processor")
        if reason := self.overdue():
            raise LimitMet(reason)

    def share(self) -> float:
        """The share of the limits that is used up, of the one that is nearest."""
        spent = (
            self._operations / self.limits.operations,
            (time.thread_time() - self._cpu) / self.limits.seconds,
            (time.monotonic() - self._started) / self.limits.waiting,
            self._known / self.limits.known,
        )
        return max(spent)

    def overdue(self) -> str:
        """The message once too much time has passed; empty before."""
        over = time.monotonic() - self._started > self.limits.waiting
        return f"it takes more than {self.limits.waiting:g} seconds" if over else ""

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Lets the clock end this block at any instruction."""
        try:
            self._armed = True
            yield
        finally:
            self._armed = False

    def tick(self, number: int, frame: object) -> None:
        """Check the time; the handler of a signal."""
        if self._armed:
            self.check_time()


class Clock:
    """Makes a meter check the time four times a second."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._before: Any = None
        possible = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
        if possible and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0):
            self._before = signal.getsignal(signal.SIGALRM)

    @property
    def runs(self) -> bool:
        """It can run here."""
        return self._before is not None

    def start(self) -> None:
        """Start it."""
        if self._before is not None:
            signal.signal(signal.SIGALRM, self._meter.tick)
            signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)

    def stop(self) -> None:
        """Stop it; calling it twice is harmless."""
        if self._before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)


def within_limits(limits: Limits | None, where: str, run: Callable[[Meter], _Result]) -> _Result:
    """Result of a function that counts what it uses.

    Raises:
        LorascopeError: A bound is met: which one, and what to do.
    """
    meter = Meter(limits)
    clock = Clock(meter)
    watchdog = Watchdog(meter.overdue)
    try:
        if clock.runs:
            clock.start()
            return run(meter)
        with watchdog:
            return run(meter)
    except (LimitMet, OverrunError) as met:
        raise LorascopeError(
            f"tracing was stopped: {str(met) or watchdog.reason}",
            where=where,
            hint="Without tracing, names decide the roles: leave --trace (trace=True) out. Or give one small call "
            "in Python: inspect(module, trace=True, inputs={…}).",
        ) from None
    finally:
        try:
            clock.stop()
        except BaseException:  # an interrupt on its way: once more, to the end
            clock.stop()
            raise
