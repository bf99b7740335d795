"""The page on errors: every message that it explains is one that the package gives."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import lorascope
from tests.helpers.paths import ROOT

SOURCE = Path(lorascope.__file__).parent


def literals() -> set[str]:
    """The texts in the source, formatted ones with `{}` for each value."""
    texts: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                texts.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    return texts


def test_every_message_is_one_of_the_package() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) >= 35
    texts = literals()
    assert [message for message in messages if not any(message in text for text in texts)] == []
