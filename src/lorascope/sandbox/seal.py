"""Builds offline: no requests, no questions on the terminal."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from typing import Any

from lorascope.sandbox.hub_library import hub_part

_here = threading.local()
_lock = threading.Lock()
_depth = 0
_before: list[tuple[Any, str, Any, Any]] = []


def _sealed_here() -> bool:
    return getattr(_here, "depth", 0) > 0


class _Offline:
    """Replaces `HF_HUB_OFFLINE`: true in sealed threads."""

    def __init__(self, before: object) -> None:
        self._before = before

    def __bool__(self) -> bool:
        return _sealed_here() or bool(self._before)


class _Patience(int):
    """Replaces transformers' wait for an answer: none in sealed threads."""

    def __gt__(self, other: int) -> bool:
        return not _sealed_here() and int(self) > other


@contextlib.contextmanager
def sealed() -> Iterator[None]:
    """Keep this thread from requests and from questions about code.

    Other threads are not affected. What was there before is restored when the last of several that overlap ends.
    """
    global _depth
    with _lock:
        if not _depth:
            _install()
        _depth += 1
    _here.depth = getattr(_here, "depth", 0) + 1
    try:
        yield
    finally:
        _here.depth -= 1
        with _lock:
            _depth -= 1
            if not _depth:
                _restore()


def _install() -> None:
    hub = hub_part("constants")
    code = importlib.import_module("transformers.dynamic_module_utils")
    for module, name, stand_in in (
        (hub, "HF_HUB_OFFLINE", _Offline(getattr(hub, "HF_HUB_OFFLINE", False))),
        (code, "TIME_OUT_REMOTE_CODE", _Patience(getattr(code, "TIME_OUT_REMOTE_CODE", 0))),
    ):
        _before.append((module, name, getattr(module, name, None), stand_in))
        setattr(module, name, stand_in)


def _restore() -> None:
    while _before:
        module, name, value, stand_in = _before.pop()
        if getattr(module, name) is stand_in:  # else someone else has set it meanwhile
            setattr(module, name, value)
