"""Command lines in shell scripts, read without running them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from lorascope.errors import LorascopeError
from lorascope.sources.files.json_text import first_faults
from lorascope.trainers.shell_variables import ShellVariables, Word, array_start

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


def command_words(text: str, where: str, programs: Iterable[str], methods: Collection[str] = ()) -> list[str]:
    """The words of the first command for some programs.

    Args:
        text: A shell script, a command, or options alone, which are taken as they are.
        where: The file, for messages.
        programs: Names of programs (`trl`) and of scripts (`sft.py`), without their folders.
        methods: Words after the program (`sft`) that mean training. Without such a command, the first one counts.

    Raises:
        LorascopeError: A quotation has no end, or no command runs one of them.
    """
    _require_short(text, where)
    names = frozenset(programs)
    faults: list[str] = []
    others: list[list[str]] = []
    for command in _commands(text, where, faults):
        if command[0].startswith("--"):
            return command
        for at, word in enumerate(command):
            if (name := _program(word)) in names:
                if not methods or name.endswith(".py") or (command[at + 1 : at + 2] and command[at + 1] in methods):
                    return command[at:]
                others.append(command[at:])
                break
    if others:
        return others[0]
    raise LorascopeError(
        *(first_faults(faults) or [f"no command here runs {' or '.join(sorted(names))}"]),
        where=where,
        hint="Give a script or a file with the trainer's command line in it.",
    )


def words_of_commands(text: str, where: str) -> list[list[str]]:
    """The words of each command of a script."""
    _require_short(text, where)
    return list(_commands(text, where, []))


def programs_of(commands: Iterable[Sequence[str]]) -> frozenset[str]:
    """Every word of some commands that can be a program, without its folder."""
    return frozenset(_program(word) for command in commands for word in command if not word.startswith("-"))


def _program(word: str) -> str:
    return word.rpartition("/")[2]


def _require_short(text: str, where: str) -> None:
    if len(text) > MOST_BYTES:
        raise LorascopeError(
            f"has more than the {MOST_BYTES} characters that are read", where=where, hint="Give the command alone."
        )


def _commands(text: str, where: str, faults: list[str]) -> Iterator[list[str]]:
    """The words of each command, with the variables that the script sets; redirections are left out."""
    variables = ShellVariables(where)
    for command in _parsed_commands(text, faults):
        start = array_start(command[0][0][0]) if command[0][0][1] == "plain" else None
        if start:
            variables.set_list(start[1], _members(command, start), more=bool(start[2]))
        elif not variables.assigns(command):
            words = [word for pieces in command for word in variables.expanded(pieces)]
            if words:
                yield words


def _members(command: Sequence[Word], start: re.Match[str]) -> list[Word]:
    """The words between the parentheses of an array."""
    (first, kind), *rest = command[0]
    words = [[(first[start.end() :], kind), *rest], *command[1:]]
    text, kind = words[-1][-1]
    if kind == "plain" and text.endswith(")"):
        words[-1] = [*words[-1][:-1], (text[:-1], kind)]
    return [word for word in words if any(text or kind != "plain" for text, kind in word)]


def _parsed_commands(text: str, faults: list[str]) -> Iterator[list[Word]]:
    """The words of each command in pieces; redirections and unclosed quotations are left out."""
    command: list[Word] = []
    word: Word = []  # an empty quotation is a piece too
    redirected = in_list = False
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
            command, word, redirected, in_list, at = [], [], False, False, end
            continue
        kind, part = token.lastgroup, token[0]
        at = token.end()
        line += part.count("\n")
        if kind == "single":
            word.append((part[1:-1], "single"))
        elif kind == "double":
            word += _double_quoted(part[1:-1])
        elif kind == "escaped":
            word.append((part[1:], "single"))
        elif kind == "plain":
            in_list = in_list or (not command and not word and array_start(part) is not None)
            word.append((part, "plain"))
        elif kind != "joined":
            closed = bool(word) and word[-1][1] == "plain" and word[-1][0].endswith(")")
            descriptor = kind == "redirect" and "".join(text for text, _ in word).isdecimal()
            if word and not redirected and not descriptor:
                command.append(word)
            redirected = kind == "redirect" or (redirected and not word and kind == "space")
            word = []
            if kind in ("line", "end") and command and (not in_list or closed or kind == "end"):
                yield command
                command, in_list = [], False
    if word and not redirected:
        command.append(word)
    if command:
        yield command


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return max(match.end() if match else at, at + 1)


def _double_quoted(text: str) -> Word:
    """The pieces of a double quotation: what is escaped in it is not expanded."""
    pieces: Word = []
    at = 0
    for match in _ESCAPED.finditer(text):
        pieces += [(text[at : match.start()], "double"), (match[1] if not match[1].endswith("\n") else "", "single")]
        at = match.end()
    return [*pieces, (text[at:], "double")]


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
