"""Builds default configurations with one number replaced, each in a process with limits on memory and time.

`python fuzzed_configs.py REPORT SEED COUNT`: a line of JSON for each, with its outcome and what it took.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MEMORY = 8 * 2**30  # of addresses, of which torch alone takes two
SECONDS = 100
VALUES: tuple[Any, ...] = (
    *(10**power for power in (4, 5, 6, 7, 9, 12, 18)),
    *(3_999_999, 2**31 - 1, -1, -(10**6), 0),
    *(1e6, 1e12, "1000000000", None),
    *([10**6] * 5, [10**5] * 2000, [1] * 200_000),
)


def numbers(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where a configuration has integers, lists of them, or factors."""
    for key, value in config.items():
        if isinstance(value, dict):
            if key not in ("id2label", "label2id"):
                yield from numbers(value, (*path, key))
        elif (isinstance(value, int | float) and not isinstance(value, bool)) or (
            isinstance(value, list) and value and isinstance(value[0], int)
        ):
            yield *path, key


def main() -> None:
    """Writes the report."""
    import architectures

    architectures.mend_torchvision()
    import torch  # noqa: F401
    import transformers

    from lorascope.errors import LorascopeError
    from lorascope.inspecting import inspect

    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    report, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    entries = list(architectures.entries())
    folder = Path(tempfile.mkdtemp())
    for _ in range(count):
        entry = chance.choice(entries)
        config = json.loads(entry.config().to_json_string(use_diff=False)) | {"architectures": [entry.architecture]}
        path = chance.choice(list(numbers(config)))
        value = chance.choice(VALUES)
        inner = config
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            try:
                outcome = "built" if inspect(folder, read="config").weights is not None else ""
            except LorascopeError:
                outcome = "refused"
            except BaseException as error:
                outcome = f"{type(error).__name__}: {error}"[:300]
            add(report, [entry.model_type, ".".join(path), repr(value)[:30], outcome])
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status:
            add(report, [entry.model_type, ".".join(path), repr(value)[:30], f"ended by {status}"])


def add(report: str, row: list[str]) -> None:
    """Writes one line."""
    with Path(report).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
