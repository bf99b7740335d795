"""The role of every weight, decided by reading the forward pass of its model before any trace."""

from __future__ import annotations

import fnmatch
import re
from functools import cache
from pathlib import Path

# block, variant, part
Facts = tuple[str, str, str]

_VARIANTS = ("self", "cross", "linear", "dense", "shared", "expert")
_ROWS = Path(__file__).with_name("truths.tsv")


def truth(model: str, weight: str) -> str:
    """The text of a weight's role.

    `a | b` is right either way; of `a + b` the weight does both at once.

    Raises:
        KeyError: No row speaks of it.
    """
    for models, names, role in _rows():
        if models.fullmatch(model) and names.fullmatch(weight):
            return role
    raise KeyError(f"{model}: {weight}")


def facts_of(text: str) -> Facts:
    """Block, variant and part of a role's text without component and stack."""
    block, *words = text.split(".")
    variant = words.pop(0) if words and words[0] in _VARIANTS else ""
    return block, variant, ".".join(words)


@cache
def _rows() -> tuple[tuple[re.Pattern[str], re.Pattern[str], str], ...]:
    rows = []
    for line in _ROWS.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            models, names, role = line.split("\t")
            rows.append((_pattern(models), _pattern(names), role))
    return tuple(rows)


def _pattern(text: str) -> re.Pattern[str]:
    """A shell's pattern, with `#` for the digits of one number."""
    return re.compile(fnmatch.translate(text.replace("#", "\0")).replace("\0", "[0-9]+"))
