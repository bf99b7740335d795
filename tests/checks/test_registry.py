"""Rules: every code that anything gives is declared once, and the page has the declarations."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from checking_page import checking_page

import lorascope
from lorascope.checks import registry
from lorascope.checks.registry import CONFIGURATION, apply_rules, finders_of, rules
from lorascope.checks.rule import Finder, FindingRule
from tests.helpers.findings import context_on
from tests.helpers.paths import ROOT
from tests.helpers.samples import sample

SOURCE = Path(lorascope.__file__).parent
KINDS = registry._EVERY_KIND
_GIVEN = re.compile(r'\bFinding\(\s*"([a-z]+(?:-[a-z]+)*)"')
_REASON = re.compile(r'\bReason\(\s*"([a-z]+(?:-[a-z]+)*)"')
# Codes that the trainers' own rooms give.
OF_TRAINERS = {"unknown-key", "ignored-key", "abbreviated", "no-adapter", "trainer-filter"}


def test_every_file_of_rules_is_registered() -> None:
    files = {path.stem for path in (SOURCE / "checks" / "rules").glob("*.py")} - {"__init__"}
    assert {kind.__name__.rpartition(".")[2] for kind in KINDS} == files
    assert len(KINDS) == len(files) >= 20


def test_a_code_is_declared_once() -> None:
    declared = [value for kind in KINDS for value in vars(kind).values() if isinstance(value, FindingRule)]
    distinct = {id(rule): rule for rule in declared}.values()
    assert len(distinct) == len(rules()) == 76
    assert all(rule.meaning and rule.why.endswith((".", "`")) for rule in distinct)
    assert all(rule.meaning[0].islower() or rule.meaning.startswith(("PEFT", "DoRA")) for rule in distinct)


def test_every_rule_has_a_function_or_a_trainer() -> None:
    found_by = {rule.code for finder in finders_of(KINDS) for rule in finder.rules}
    assert {"refused", "origin", "not-servable", *OF_TRAINERS} == set(rules()) - found_by
    assert len(finders_of(KINDS)) >= 40
    assert all(isinstance(finder, Finder) and finder.find.__doc__ for finder in finders_of(KINDS))


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("gpt_oss", {"target_modules": ["q_proj", "gate_proj", ".*x", "nope"], "rank_pattern": {"nope": 4}}),
        ("llava", {"target_modules": "all-linear", "exclude_modules": ["nope"]}),
        ("llama", {"target_modules": ["q_proj", "lm_head"], "layers_to_transform": [0, 99], "modules_to_save": ["x"]}),
    ],
)
def test_a_function_gives_the_codes_that_it_declares(model: str, arguments: dict[str, object]) -> None:
    context = context_on(sample(model), arguments)
    count = 0
    for finder in finders_of(CONFIGURATION):
        findings = list(finder.find(context))
        assert {finding.code for finding in findings} <= {rule.code for rule in finder.rules}
        count += len(findings)
    assert count == len(list(apply_rules(CONFIGURATION, context))) >= 3


def test_every_code_in_the_source_is_declared() -> None:
    given: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        given |= set(_GIVEN.findall(text))
        if path.parent.name in ("peft_rules", "trainers"):  # other rooms have reasons of their own
            given |= set(_REASON.findall(text))
    assert len(given) > 25
    assert given <= rules().keys()


def test_the_codes_of_known_mistakes_are_declared() -> None:
    rows = tomllib.loads((ROOT / "tests" / "data" / "mistakes.toml").read_text(encoding="utf-8"))["mistake"]
    codes = {code for row in rows for code in row["findings"]}
    assert len(codes) > 30
    assert codes <= rules().keys()


def test_the_page_has_the_declarations() -> None:
    page = ROOT / "docs" / "checking.md"
    assert page.read_text(encoding="utf-8") == checking_page(), "python tools/build_docs.py writes the table"
    assert len(re.findall(r"^\| `[a-z-]+` \| (?:error|warning|note) \|", checking_page(), re.MULTILINE)) == 76
