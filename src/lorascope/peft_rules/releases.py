"""Releases of PEFT and of everything else, as numbers.

A rule compares the release with the start of a version: `release >= (0, 21)` holds from 0.21.0 on. Not `packaging`: it
takes longer to import than a plan takes to make.
"""

from __future__ import annotations

import functools
import re

from lorascope.errors import LorascopeError

Release = tuple[int, ...]

_VERSION = re.compile(r"(\d{1,9}(?:\.\d{1,9})+)(?:\.?post(\d{1,9}))?(\.?dev)?")

OLDEST: Release = (0, 18)
# One release of each minor version: the rules differ between them, not within them.
SUPPORTED_PEFT = ("0.19.1", "0.20.0", "0.21.2")
NEWEST = SUPPORTED_PEFT[-1]


@functools.lru_cache(maxsize=64)
def release_of(version: str) -> Release:
    """The numbers of a version of PEFT.

    Args:
        version: As `peft.__version__` gives it: `0.21.2`, `0.20.1.dev0`.

    Raises:
        LorascopeError: It is not a version, or older than the rules reach.
    """
    numbers = parse_release(version)
    if numbers is None:
        raise LorascopeError(f'"{version}" is not a version of PEFT.', hint="Give it as peft.__version__ shows: 0.21.2")
    if numbers < OLDEST:
        raise LorascopeError(
            f"The rules of PEFT {version} are not known: they start at {OLDEST[0]}.{OLDEST[1]}.",
            hint="Update PEFT: pip install -U peft",
        )
    return numbers


def parse_release(version: str) -> Release | None:
    """The numbers of a version, at least three; None if it has none.

    The number of a post release comes last. A development version counts as the last release before it, because nobody
    knows which of the later changes it has.

    >>> parse_release("0.5.6.post2"), parse_release("0.21.2.dev0")
    ((0, 5, 6, 2), (0, 21, 1))
    """
    match = _VERSION.match(version)
    if match is None:
        return None
    numbers = [int(number) for number in match[1].split(".")]
    numbers += [0] * (3 - len(numbers))
    if match[3]:
        *earlier, minor, patch = numbers
        return (*earlier, minor, patch - 1) if patch else (*earlier, minor - 1, 99)
    return (*numbers, int(match[2])) if match[2] else tuple(numbers)
