"""Which PEFT a rule speaks of: three releases differ in a handful of rules, and each difference names its release."""

from __future__ import annotations

import functools
import re

from lorascope.errors import LorascopeError

Release = tuple[int, int]

OLDEST: Release = (0, 19)


@functools.lru_cache(maxsize=64)
def release_of(peft: str) -> Release:
    """The `(major, minor)` of a PEFT version, with a development version counted as the release it leads to.

    Args:
        peft: As `peft.__version__` gives it: `0.21.2`, `0.20.1.dev0`.

    Raises:
        LorascopeError: It is not a version, or older than the rules reach.
    """
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(\.dev)?", peft)
    if match is None:
        raise LorascopeError(f'"{peft}" is not a PEFT version.', hint="Give it as peft.__version__ shows it: 0.21.2")
    major, minor, patch, development = match.groups()
    release = (int(major), int(minor))
    if development and patch not in (None, "0"):
        release = (release[0], release[1] + 1)
    if release < OLDEST:
        raise LorascopeError(
            f"The rules of PEFT {peft} are not known: they start at {OLDEST[0]}.{OLDEST[1]}.",
            hint="Update PEFT: pip install -U peft",
        )
    return release
