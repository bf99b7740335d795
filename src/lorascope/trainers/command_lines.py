"""Command lines in shell scripts, read without running them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from lorascope.errors import LorascopeError
from lorascope.sources.files.json_text import first_faults

# A script is some hundred lines.
MOST_BYTES = 2**20
# The largest trainer has some 700 options; each given one is compared with all of them.
_MOST_OPTIONS = 1_000

# bash's tokens, except quotations over several lines. No two alternatives match the same text, so the time is linear.
_TOKEN = re.compile(
    r"""
      (?P<joined> \\\r?\n )
    | (?P<line> \r?\n )
    | (?P<space> [ \t\r]++ )
    | (?P<redirect> &>>? | [<>]++[&|]? )
    | (?P<end> [;&|]++ )
    | (?P<single> '[^'\n]*+' )
    | (?P<double> "(?: [^"\\\n]++ | \\\r?\n | \\. )*+" )
    | (?P<escaped> \\. )
    | (?P<plain> [^ \t\r\n<>;&|'"\\]++ )
    """,
    re.VERBOSE,
)
_REST = re.compile(r"(?: [^\\\n]++ | \\\r?\n | \\. )*+", re.VERBOSE)
_COMMENT = re.compile(r"[^\n]*+")
_ESCAPED = re.compile(r'\\(\r?\n|["\\$`])')


def command_words(text: str, where: str, programs: Iterable[str]) -> list[str]:
    """The words of the first command for some programs.

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
    names = frozenset(programs)
    faults: list[str] = []
    for command in _commands(text, faults):
        if command[0].startswith("--"):
            return command
        for at, word in enumerate(command):
            if word.rpartition("/")[2] in names:
                return command[at:]
    raise LorascopeError(
        *(first_faults(faults) or [f"no command here runs {' or '.join(sorted(names))}"]),
        where=where,
        hint="Give a script or a file with the trainer's command line in it.",
    )


def _commands(text: str, faults: list[str]) -> Iterator[list[str]]:
    """The words of each command; redirections and unclosed quotations are left out."""
    command: list[str] = []
    word: list[str] = []  # its pieces; an empty quotation is one too
    redirected = False
    at, line = 0, 1
    while at < len(text):
        if not word and text[at] == "#":
            at = _end(_COMMENT, text, at)
            continue
        token = _TOKEN.match(text, at)
        if token is None and text[at] == "\\":  # the last character of the text
            break
        if token is None:
            faults.append(f"line {line} has no closing quotation mark")
            end = _end(_REST, text, at)
            line += text.count("\n", at, end)
            command, word, redirected, at = [], [], False, end
            continue
        kind, part = token.lastgroup, token[0]
        at = token.end()
        line += part.count("\n")
        if kind == "single":
            word.append(part[1:-1])
        elif kind == "double":
            word.append(_ESCAPED.sub(_unescaped, part[1:-1]))
        elif kind == "escaped":
            word.append(part[1:])
        elif kind == "plain":
            word.append(part)
        elif kind != "joined":
            descriptor = kind == "redirect" and "".join(word).isdecimal()
            if word and not redirected and not descriptor:
                command.append("".join(word))
            redirected = kind == "redirect" or (redirected and not word and kind == "space")
            word = []
            if kind in ("line", "end") and command:
                yield command
                command = []
    if word and not redirected:
        command.append("".join(word))
    if command:
        yield command


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return max(match.end() if match else at, at + 1)


def _unescaped(match: re.Match[str]) -> str:
    return match[1] if not match[1].endswith("\n") else ""


def options_of(words: Sequence[str]) -> dict[str, list[str]]:
    """Each option with its words; the last one counts.

    Raises:
        LorascopeError: There are more than any command line has.
    """
    options: dict[str, list[str]] = {}
    current: list[str] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            current = [value] if equals else []
            options[key.replace("-", "_")] = current
        else:
            current.append(word)
    if len(options) > _MOST_OPTIONS:
        raise LorascopeError(
            f"gives {len(options)} options, more than the {_MOST_OPTIONS} that are read", hint="Give the command alone."
        )
    return options
