"""Which PEFT a rule speaks of: the releases differ in a handful of rules, and each difference names its release.

A rule compares the release with the start of a version: `release >= (0, 21)` holds from 0.21.0 on.
"""

from __future__ import annotations

import functools
import re

from lorascope.errors import LorascopeError

Release = tuple[int, ...]

OLDEST: Release = (0, 18)
# One release of each minor version, because the rules differ between them and not within them.
SUPPORTED_PEFT = ("0.19.1", "0.20.0", "0.21.2")
NEWEST = SUPPORTED_PEFT[-1]


@functools.lru_cache(maxsize=64)
def release_of(version: str) -> Release:
    """The numbers of a version of PEFT.

    A development version counts as the last release before it, because nobody knows which of the later changes it has.

    Args:
        version: As `peft.__version__` gives it: `0.21.2`, `0.20.1.dev0`.

    Raises:
        LorascopeError: It is not a version, or older than the rules reach.
    """
    numbers = parsed_version(version)
    if numbers is None:
        raise LorascopeError(f'"{version}" is not a version of PEFT.', hint="Give it as peft.__version__ shows: 0.21.2")
    if numbers < OLDEST:
        raise LorascopeError(
            f"The rules of PEFT {version} are not known: they start at {OLDEST[0]}.{OLDEST[1]}.",
            hint="Update PEFT: pip install -U peft",
        )
    return numbers


def parsed_version(version: str) -> Release | None:
    """The three numbers of any version, those of the release before for a development version; None if it has none."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(\.?dev)?", version)
    if match is None:
        return None
    major, minor, patch = (int(text or 0) for text in match.groups()[:3])
    if not match.group(4):
        return (major, minor, patch)
    return (major, minor, patch - 1) if patch else (major, minor - 1, 99)
