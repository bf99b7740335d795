"""Inspects folders one by one in a process of its own that records what each of them makes Python do.

`python watched.py REPORT FOLDER…` with answers on stdin that nobody must read. The report has, for each folder: the model
class or the refusal, and every file that was opened to be written, every connection, every command, every file of the
folder that was read, run or imported, and every question that was asked.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

events: list[str] = []
recording = False
folder = ""


def note(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook."""
    if not recording:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = bool(isinstance(mode, str) and set(mode) & set("wax+")) or bool(
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes and path != os.devnull:
            events.append(f"writes {path}")
        elif isinstance(path, str | bytes) and "evil" in os.fsdecode(path):
            events.append(f"reads {Path(os.fsdecode(path)).name}")
    elif event in (
        "socket.connect",
        "socket.getaddrinfo",
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "builtins.input",
    ):
        events.append(f"{event} {arguments[-1]!r}"[:200])
    elif event in ("exec", "compile", "import", "pickle.find_class"):
        text = repr(arguments)
        if folder in text or "evil" in text:
            events.append(f"{event} {text[:200]}")


def main() -> None:
    """Inspects each folder."""
    global recording, folder
    import torch  # noqa: F401
    import transformers

    from lorascope.errors import LorascopeError
    from lorascope.inspecting import inspect

    transformers.logging.set_verbosity_error()
    tempfile.gettempdir()  # which tries it out once
    sys.addaudithook(note)
    report, *folders = sys.argv[1:]
    found = {}
    for name in folders:
        folder = name
        events.clear()
        recording = True
        try:
            outcome = inspect(Path(name), read="config").architecture
        except LorascopeError as error:
            outcome = f"refused: {error}"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        recording = False
        found[Path(name).name] = [outcome, sorted(set(events))]
    Path(report).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
