"""Releases as numbers: as `packaging` reads them, by one parser in the whole package."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest
from packaging.version import Version

import lorascope
from lorascope.errors import LorascopeError
from lorascope.peft_rules.releases import NEWEST, OLDEST, parse_release, release_of

# Every minor version of PEFT, transformers, vLLM and SGLang so far, with more patches than they ever had.
PEFT = [f"0.{minor}.{patch}" for minor in range(1, 24) for patch in range(6)]
TRANSFORMERS = [f"4.{minor}.{patch}" for minor in range(58) for patch in range(4)]
TRANSFORMERS += [f"5.{minor}.{patch}" for minor in range(25) for patch in range(4)]
SERVERS = [f"0.{minor}.{patch}" for minor in range(35) for patch in range(7)] + ["0.9.0.1", "0.4.6.post1", "0.5.0rc2"]
RELEASES = [*PEFT, *TRANSFORMERS, *SERVERS]


def test_the_numbers_are_those_of_packaging() -> None:
    for text in RELEASES:
        version = Version(text)
        numbers = version.release + ((version.post,) if version.post is not None else ())
        assert parse_release(text) == numbers, text
    assert len(RELEASES) == 138 + 332 + 248


def test_the_order_is_that_of_packaging() -> None:
    ordered = sorted((text for text in RELEASES if "rc" not in text), key=Version)
    numbers = [parse_release(text) or () for text in ordered]
    assert numbers == sorted(numbers)
    assert len(numbers) == len(RELEASES) - 1


def test_a_development_version_counts_as_the_release_before() -> None:
    for before, after in itertools.pairwise(PEFT):
        for text in (f"{after}.dev0", f"{after}dev3"):
            numbers = parse_release(text) or ()
            assert (parse_release(before) or ()) <= numbers < (parse_release(after) or ()), text
            assert Version(before) < Version(text) < Version(after)
    assert parse_release("0.22.dev0") == (0, 21, 99)


@pytest.mark.parametrize("text", ["", "x", "1", "v0.21.2", ".1", "9" * 5_000, f"{'9' * 5_000}.1"])
def test_what_is_no_version(text: str) -> None:
    assert parse_release(text) is None
    with pytest.raises(LorascopeError, match="not a version of PEFT"):
        release_of(text)


def test_releases_before_the_oldest_are_refused() -> None:
    assert release_of(NEWEST) >= OLDEST
    assert release_of("0.18.0") == (0, 18, 0)
    with pytest.raises(LorascopeError, match=r"start at 0\.18"):
        release_of("0.17.1")


def test_there_is_one_parser() -> None:
    """Nothing else compiles an expression for a version or imports `packaging`."""
    parsers = set()
    paths = [*Path(lorascope.__file__).parent.rglob("*.py")]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            named |= {node.module or ""} if isinstance(node, ast.ImportFrom) else set()
            assert not any(name.partition(".")[0] in ("packaging", "distutils") for name in named), path
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "dev)?" in node.value:
                parsers.add(path.name)
            assert not (isinstance(node, ast.Name) and node.id == "LooseVersion"), path
    assert len(paths) > 200
    assert parsers == {"releases.py"}
