"""Every code that anything can give has its meaning, and every meaning a code that something gives."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import lorascope
from lorascope.checks.codes import MEANINGS
from tests.helpers.paths import ROOT

SOURCE = Path(lorascope.__file__).parent
_GIVEN = re.compile(r'\b(?:Finding|Behavior|_warn)\(\s*"([a-z]+(?:-[a-z]+)*)"')


def test_every_code_that_is_given_has_a_meaning() -> None:
    given: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        given |= set(_GIVEN.findall(path.read_text(encoding="utf-8")))
    assert len(given) > 40
    assert given <= MEANINGS.keys()


def test_every_meaning_is_given_somewhere() -> None:
    texts = [path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py") if path.name != "catalogue.py"]
    absent = {code for code in MEANINGS if not any(f'"{code}"' in text for text in texts)}
    assert absent == set()


def test_the_codes_of_known_mistakes_have_meanings() -> None:
    rows = tomllib.loads((ROOT / "tests" / "data" / "mistakes.toml").read_text(encoding="utf-8"))["mistake"]
    codes = {code for row in rows for code in row["findings"]}
    assert len(codes) > 30
    assert codes <= MEANINGS.keys()


def test_the_page_has_the_same_meanings() -> None:
    page = (ROOT / "docs" / "checking.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", page, re.MULTILINE))
    assert rows == dict(MEANINGS)
