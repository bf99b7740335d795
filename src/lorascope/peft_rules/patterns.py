"""The regular expressions in a configuration, compiled once."""

from __future__ import annotations

import functools
import re


class BadPatternError(ValueError):
    """A pattern of the configuration on which PEFT stops: no regular expression, or one whose group is no number."""


@functools.lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    """A regular expression.

    Raises:
        BadPatternError: It is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise BadPatternError(f'"{pattern}" is not a regular expression: {error}') from error
