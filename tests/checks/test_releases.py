"""Which PEFT a release of transformers asks for. What that release does is run in tests/conformance/test_versions.py."""

from __future__ import annotations

import pytest

import lorascope as ls
from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from tests.helpers.samples import sample


def built_by(release: str) -> ModelMap:
    return dataclasses.replace(sample("mistral"), versions={"transformers": release}, source="config")


@pytest.mark.parametrize(
    ("release", "peft", "told"),
    [
        ("5.24.0", "0.21.2", True),
        ("5.24.0", "0.19.1", True),
        ("5.25.1", "", True),
        ("6.0.0", "", True),
        ("5.23.0", "0.21.2", False),
        ("5.9.0", "", False),
        ("", "", False),
        ("no release\n", "", False),
    ],
)
def test_transformers_asks_for_a_newer_peft(release: str, peft: str, told: bool) -> None:
    check = ls.check(built_by(release), "q_proj", peft=peft)
    found = [one for one in check.findings if one.code == "newer-peft-asked"]
    assert len(found) == told
    assert not check.matters
    if told:
        (finding,) = found
        assert (finding.severity, finding.where) == ("note", f"transformers {release}")
        assert f"PEFT {peft or '0.21.2'}" in finding.message
        assert finding.fix == "Use peft.get_peft_model(model, config)."


@pytest.mark.parametrize("source", ["built-in", "headers", "gguf"])
def test_a_table_of_ours_tells_nothing_of_the_users_transformers(source: str) -> None:
    check = ls.check(dataclasses.replace(built_by("5.24.0"), source=source), "q_proj", peft="0.21.2")
    assert [one.code for one in check.findings if one.code == "newer-peft-asked"] == []
