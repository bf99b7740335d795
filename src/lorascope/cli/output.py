"""What a command prints: results to stdout, remarks to stderr."""

from __future__ import annotations

import io
import os
import sys

from lorascope.foreign_text import json_text, one_line


def streams_open() -> bool:
    """Prepares both streams for any text; false if stdout is closed (`lorascope … >&-`)."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  it stays open
    if sys.stdout is None:
        print("lorascope: standard output is closed", file=sys.stderr)
        return False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without × shows an escape
            stream.reconfigure(errors="backslashreplace")
    return True


def print_text(text: str = "", *, end: str = "\n") -> None:
    """Print to stdout. A reader that is gone (`| head`) does not change the exit code."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        discard_stdout()


def print_json(value: object) -> None:
    """Print a value as JSON."""
    print_text(json_text(value))


def remark(text: str) -> None:
    """Print one line to stderr."""
    print(one_line(text), file=sys.stderr)


def discard_stdout() -> None:
    """Keep Python from failing again when it flushes stdout on exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
