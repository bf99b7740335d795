"""Fixes that can be pasted: entries of a list, patterns and commands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lorascope.checks.phrases import in_quotes
from lorascope.errors import alike
from lorascope.foreign_text import shell_word
from lorascope.model.types import ModelMap

# So many names are spelled out.
MOST_SPELLED = 8
# So many entries of one setting are looked into one by one: a file may have thousands.
MOST_EXPLAINED = 40
# Longer patterns are not suggested.
LONGEST_PATTERN = 2_000


def planning_command(model: ModelMap, rules: str = "") -> str:
    """The command that writes a configuration for a model."""
    return f"lorascope plan {shell_word(model.model)} {rules}".rstrip()


def inspecting_command(model: ModelMap) -> str:
    """The command that lists the names of a model."""
    return f"lorascope inspect {shell_word(model.model)}"


def suggest_alike(text: str, names: Iterable[str], count: int, cutoff: float) -> str:
    """`Did you mean "q_proj"?`, or an empty string where nothing is alike."""
    near = alike(text, names, count, cutoff)
    return f"Did you mean {' or '.join(in_quotes([name]) for name in near)}?" if near else ""


def pattern_of(names: Sequence[str]) -> str:
    """A regular expression for list entries, without a backslash."""
    escaped = [plain_pattern(name) for name in names]
    return f"(.*[.])?{escaped[0] if len(escaped) == 1 else '(' + '|'.join(escaped) + ')'}"


def plain_pattern(name: str) -> str:
    """A name as a regular expression without a backslash."""
    return "[.]".join(re.escape(word) for word in name.split("."))
