"""Builds a commented shell command.

Every value is one quoted word, and none can become an option.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.foreign_text import comment, quoted

# Line breaks, controls, marks that turn the direction of writing, halves of surrogate pairs: a shell takes most of them
# within quotation marks, but not everybody who reads the command or pastes it does.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shell_command(remarks: Sequence[str], program: Sequence[str], options: Mapping[str, Any]) -> str:
    """A command with an option a line.

    Args:
        remarks: Comment lines at the top.
        program: The words that it begins with.
        options: Names without dashes, with the value of each, or a list of values.

    Raises:
        LorascopeError: A value cannot be a word of a command line, all such values at once.
    """
    faults = [
        f"{key} would be {quoted(value)}, which cannot stand on a command line"
        for key, value in options.items()
        if any(map(_UNWRITABLE.search, _words(value)))
        or (len(_words(value)) != 1 and any(word.startswith("-") for word in _words(value)))
    ]
    if faults:
        raise LorascopeError(*faults, hint="Give a name without line breaks and other controls, or export to peft.")
    parts = [" ".join(map(shlex.quote, program)), *(_option(key, _words(value)) for key, value in options.items())]
    return "\n".join([*map(comment, remarks), " \\\n    ".join(parts)]) + "\n"


def _words(value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [word for item in value for word in _words(item)]
    return [("true" if value else "false") if isinstance(value, bool) else str(value)]


def _option(key: str, words: Sequence[str]) -> str:
    # argparse takes a word that begins with a dash for an option, unless an equals sign joins it to its own.
    between = "=" if len(words) == 1 and words[0].startswith("-") else " "
    return f"--{key}{between}{' '.join(map(shlex.quote, words))}"
