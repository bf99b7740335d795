"""Checks on a built-in model say what holds for the default configuration alone."""

from __future__ import annotations

import build_released_parts
import pytest

import lorascope as ls
from lorascope.packaged import load_json
from tests.helpers.samples import sample

GEMMA4 = sample("gemma4", "image-text-to-text")
TABLE = load_json("released_parts.json")


def findings(model: ls.ModelMap, *names: str, **settings: object) -> dict[str, ls.Finding]:
    given = {"peft_type": "LORA", "target_modules": list(names), **settings}
    return {finding.code: finding for finding in ls.check(model, given).findings}


def test_the_table_has_what_differs() -> None:
    assert len(TABLE) == 14
    assert sum(map(len, TABLE.values())) == 18
    assert {"image-text-to-text/gemma4", "seq2seq-lm/t5", "causal-lm/deepseek_v2"} <= TABLE.keys()


@pytest.mark.slow
def test_the_table_is_what_transformers_builds() -> None:
    assert build_released_parts.released_parts() == TABLE, "stale: run python tools/build_released_parts.py"


def test_towers_that_the_default_lacks_make_peft_raise() -> None:
    finding = findings(GEMMA4, "q_proj", "v_proj")["released-parts"]
    assert finding.severity == "warning" and "PEFT raises on google/gemma-4-E2B-it" in finding.message
    pattern = r"model[.]audio_tower[.].*|model[.]vision_tower[.].*"
    assert pattern in finding.fix
    # The advice works, and is not called idle: it takes nothing out of the default.
    mended = findings(GEMMA4, "q_proj", "v_proj", exclude_modules=pattern)
    assert not {"released-parts", "exclude-unmatched"} & mended.keys()
    # Without such modules elsewhere it is idle.
    assert "exclude-unmatched" in findings(sample("llama"), "q_proj", exclude_modules=pattern)


def test_a_name_that_released_models_have_is_no_mistake() -> None:
    t5 = sample("t5", "seq2seq-lm")
    found = findings(t5, "q", "wi_0", "wi_1")["no-match"]
    assert found.severity == "note" and "have it" in found.message
    assert findings(t5, "q", "wi_7")["no-match"].severity == "warning"


def test_what_a_release_lacks_is_noted() -> None:
    found = findings(sample("deepseek_v2"), "q_a_proj", "q_b_proj")["released-parts"]
    assert found.severity == "note" and "deepseek-ai/DeepSeek-V2-Lite" in found.message
    assert "released-parts" not in findings(sample("deepseek_v2"), "o_proj")


def test_a_plan_says_so() -> None:
    assert "google/gemma-4-E2B-it has other modules" in str(ls.plan(GEMMA4, "qv"))
    assert "has other modules" not in str(ls.plan(sample("llama"), "qv"))
