"""What is said of Unsloth beside Unsloth itself: both `get_peft_model`, PEFT as it changes it, and what it then trains."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.paths import HELPERS, ROOT
from tests.helpers.venvs import environment, run_in

pytestmark = pytest.mark.slow

ITSELF = HELPERS / "trainers" / "unsloth_itself.py"
# What is refused here whether Unsloth does it or not, and how often.
STRICTER = {
    # It lists the layers of such models itself, by other rules.
    "not covered: Unsloth's rules for encoder-decoder models are not covered here": 35,
    # It has PEFT tie what shares the head's weight, under whatever name; PEFT's rules for that are not restated.
    "not covered: modules_to_save has embed_tokens, which shares a weight, and 0 modules have that name": 8,
}


@pytest.fixture(scope="module")
def python() -> Path:
    return environment("unsloth")


@pytest.fixture(scope="module")
def said(python: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    printed = run_in(python, ["-P", str(ITSELF)], tmp_path_factory.mktemp("unsloth"))
    return [json.loads(line) for line in printed.splitlines()]


def test_every_script_does_what_is_said(said: list[dict[str, Any]]) -> None:
    first, seen, *rows = said
    assert first == {"peft": "0.21.2", "transformers": "5.24.0", "unsloth": "2026.10.9", "unsloth_zoo": "2026.10.9"}
    assert seen == {"configurations": 469, "experts": [], "encoder-decoders": []}
    outcomes = [(f"{row['model']}: {row['what']}", outcome(row)) for row in rows]
    counts = Counter(kind for _, kind in outcomes)
    agreed = {"same": 1077, "both refuse": 221, "no file": 35}
    assert [one for one in outcomes if one[1] not in (*agreed, *STRICTER)] == []
    assert counts == {**agreed, **STRICTER}
    assert (len({row["model"] for row in rows}), len(rows)) == (33, 1376)


def outcome(row: dict[str, Any]) -> str:
    """How what is said and what was done go together."""
    if "said" not in row:
        return "no file"
    said, did = row["said"], row["did"]
    if "not covered" in said:
        return f"not covered: {said['not covered']}"
    if "error" in said or "error" in did:
        return "both refuse" if "error" in said and "error" in did else f"said {said}, did {did}"[:400]
    if said["adapted"].keys() != did["adapted"].keys():
        more, fewer = did["adapted"].keys() - said["adapted"].keys(), said["adapted"].keys() - did["adapted"].keys()
        return f"more: {sorted(more)[:4]}, fewer: {sorted(fewer)[:4]}"
    for name, sizes in did["adapted"].items():
        if not all(map(math.isclose, sizes, said["adapted"][name])):
            return f"{name}: {sizes}, not {said['adapted'][name]}"
    return "same" if said["trainable"] == did["trainable"] else f"trains {did['trainable']}, not {said['trainable']}"


def test_the_keys_are_unsloths_own(python: Path, tmp_path: Path) -> None:
    variables = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tools'}"}
    # -P, or the folder of the tool would hold the module unsloth.
    printed = run_in(python, ["-P", str(ROOT / "tools/trainer_keys/unsloth.py")], tmp_path, variables)
    kept = (ROOT / "src/lorascope/data/trainer_keys/unsloth.txt").read_text(encoding="utf-8")
    assert printed == kept
    assert len(kept.splitlines()) == 59
