"""The command line of a trainer in a shell script, as options with their words; nothing is run or expanded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from lorascope.errors import LorascopeError

_CONTINUED = re.compile(r"\\\r?\n")
_ENDS = frozenset({";", "&&", "||", "|", "&", ";;"})
# A script is some hundred lines.
MOST_BYTES = 2**20


def command_words(text: str, where: str, programs: Iterable[str]) -> list[str]:
    """The words of the first command that runs one of the programs, from the program on.

    Args:
        text: A shell script, a command, or options alone, which are taken as they are.
        where: The file, for messages.
        programs: Names of programs (`trl`) and of scripts (`sft.py`), without their folders.

    Raises:
        LorascopeError: A quotation has no end, or no command runs one of them.
    """
    if len(text) > MOST_BYTES:
        raise LorascopeError(
            f"has more than the {MOST_BYTES} characters that are read", where=where, hint="Give the command alone."
        )
    wanted = frozenset(programs)
    faults: list[str] = []
    for number, line in enumerate(_CONTINUED.sub(" ", text).splitlines(), 1):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError as error:
            faults.append(f"command {number} cannot be read: {str(error).lower()}")
            continue
        for command in _split(words):
            if command[0].startswith("--"):
                return command
            for at, word in enumerate(command):
                if PurePosixPath(word).name in wanted:
                    return command[at:]
    raise LorascopeError(
        *(faults or [f"no command here runs {' or '.join(sorted(wanted))}"]),
        where=where,
        hint="Give a script or a file with the trainer's command line in it.",
    )


def _split(words: Sequence[str]) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for word in words:
        if word in _ENDS:
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def options_of(words: Sequence[str]) -> dict[str, list[str]]:
    """Each option with the words after it, `--lora-r=8` as `--lora_r 8`; given twice, the last counts, as in argparse."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            current = [value] if equals else []
            found[key.replace("-", "_")] = current
        else:
            current.append(word)
    return found
