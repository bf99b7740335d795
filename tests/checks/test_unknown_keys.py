"""Keys that PEFT does not have: dropped from a file, refused as an argument."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest

import lorascope as ls
from tests.helpers.samples import sample

# Keys of earlier releases, of other programs, and misspelt ones; and how much each matters in a file.
KEYS: dict[str, tuple[Any, str]] = {
    "enable_lora": (None, "note"),
    "merge_weights": (False, "note"),
    "created_by": ("a program", "note"),
    "lora_dim": (8, "warning"),
    "rank_patern": ({"q_proj": 4}, "warning"),
    "target_module": (["k_proj"], "warning"),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_file_drops_it_and_an_argument_raises(key: str, tmp_path: Path) -> None:
    value, severity = KEYS[key]
    content = {"peft_type": "LORA", "target_modules": ["q_proj", "v_proj"], key: value}
    (tmp_path / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = peft.LoraConfig.from_pretrained(str(tmp_path))
    assert any(key in str(one.message) and "ignored" in str(one.message) for one in caught)
    assert loaded.target_modules == {"q_proj", "v_proj"}
    check = ls.check(sample("llama"), tmp_path)
    assert [(one.code, one.severity) for one in check.findings if one.code == "unknown-key"] == [
        ("unknown-key", severity)
    ]
    assert len(check.resolution.adapted) == 64
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        peft.LoraConfig(**{"target_modules": ["q_proj"], key: value})
    given = ls.check(sample("llama"), content)
    assert [one.severity for one in given.findings if one.code == "unknown-key"] == ["error"]


def test_many_keys_take_no_time(tmp_path: Path) -> None:
    content = {"peft_type": "LORA", "target_modules": ["q_proj"], **{f"{'x' * 90}{n}": n for n in range(50_000)}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    findings = [one for one in ls.check(sample("llama"), tmp_path).findings if one.code == "unknown-key"]
    assert "49,980 more unknown keys" in findings[0].message
