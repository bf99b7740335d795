"""The command line: the same verbs as in Python. Results go to stdout, remarks to stderr.

Exit codes: 0 fine, 1 a finding that matters, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorascope._version import __version__
from lorascope.cli.commands import PURPOSES, command
from lorascope.cli.output import discard_stdout, print_text, streams_open
from lorascope.errors import LorascopeError
from lorascope.foreign_text import one_line, shown

if TYPE_CHECKING:
    from lorascope.cli.commands import Command

# Options whose values may begin with a dash, and how such values begin.
_SIGNED = ("--layers", "--rank", "--alpha", "--scale", "--dropout")
_NEGATIVE = re.compile(r"-(?:[0-9.]|inf|nan)")
_WIDTH = 100  # columns of the help


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    if not streams_open():
        return 2
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in PURPOSES:
        return _root(words)
    name = words[0]
    chosen = command(name)
    options = _parsed(name, chosen, words[1:])
    try:
        code = chosen.run(options)
        print_text(end="")
        return code
    except LorascopeError as error:
        print(f"lorascope {name}: {shown(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        discard_stdout()
        print(f"lorascope {name}: cannot go on: {one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help of a fixed width: to ask the terminal loads compression libraries, once per option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_WIDTH)


def _root(words: Sequence[str]) -> int:
    """Answer a call without a command: its help, the version, or an error."""
    parser = argparse.ArgumentParser(
        prog="lorascope",
        description="Aim LoRA on purpose: see, plan and verify what adapters adapt.",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lorascope {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands")
    for name, purpose in PURPOSES.items():
        commands.add_parser(name, help=purpose)
    _, extra = parser.parse_known_args(words)
    if extra:
        parser.error(f"unrecognized arguments: {one_line(' '.join(extra))}")
    print_text(parser.format_help(), end="")
    return 0


def _parsed(name: str, chosen: Command, words: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command."""
    purpose = PURPOSES[name]
    parser = argparse.ArgumentParser(
        prog=f"lorascope {name}",
        description=purpose[0].upper() + purpose[1:] + ".",
        epilog=chosen.EXAMPLES,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    chosen.add_arguments(parser)
    words, behind = _split_at_dashes(words) if chosen.SEVERAL else (words, [])
    options, extra = parser.parse_known_args(_values_joined(words))
    # argparse stops reading rules at the first option; people write some after it.
    if chosen.SEVERAL and not any(word.startswith("-") for word in extra):
        setattr(options, chosen.SEVERAL, [*getattr(options, chosen.SEVERAL), *extra, *behind])
    elif extra:
        parser.error(f"unrecognized arguments: {one_line(' '.join(extra))}")
    return options


def _split_at_dashes(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What stands before and after `--`: argparse gives a list that may be empty nothing of what follows an option."""
    if "--" not in words or not any(not word.startswith("-") for word in words[: words.index("--")]):
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _values_joined(arguments: Sequence[str]) -> list[str]:
    """`--layers -8:` as `--layers=-8:`: argparse takes a leading dash for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in _SIGNED and _NEGATIVE.match(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
