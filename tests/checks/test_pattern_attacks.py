"""Nothing that anybody can write as a pattern or a list keeps a command busy, or breaks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lorascope as ls
from lorascope.peft_rules import name_patterns
from tests.helpers.paths import HELPERS
from tests.helpers.pattern_attacks import EVIL, PLACES, main
from tests.helpers.peak_memory import PEAK_MEMORY
from tests.helpers.samples import sample

MANY = 10_000


def outcomes(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_there_are_many_patterns_and_places() -> None:
    assert len(EVIL) >= 60
    assert len(PLACES) >= 25


@pytest.mark.slow
def test_an_endless_pattern_in_each_place_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_patterns, "MOST_SECONDS", 0.1)
    main(1, 0.1)
    found = outcomes(capsys.readouterr().out)
    assert len(found) == len(PLACES)
    told = {one["place"] for one in found if one["outcome"] == "told"}
    # Where it is no pattern but a name, it is a name that matches nothing.
    assert told == {
        "an entry of target_modules",
        "target_parameters",
        "an entry of exclude_modules",
        "axolotl's list",
        "llamafactory",
        "torchtune",
        "mlx-lm",
    }
    assert Counter(one["outcome"] for one in found) == {"limit": len(PLACES) - len(told), "told": len(told)}


@pytest.mark.slow
def test_every_pattern_in_every_place_ends() -> None:
    """Each is told of, refused in a sentence, or comes to its limit; a traceback or a hang would end the process."""
    run = subprocess.run(
        [sys.executable, str(HELPERS / "pattern_attacks.py"), "0", "0.04"],
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = outcomes(run.stdout)
    assert len(found) == len(EVIL) * len(PLACES)
    counts = Counter(one["outcome"].partition(":")[0] for one in found)
    assert counts["limit"] > 300
    assert counts["told"] > 900
    assert max(one["seconds"] for one in found) < 10


@pytest.mark.slow
def test_the_command_line_says_what_takes_too_long(tmp_path: Path) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({"peft_type": "LORA", "target_modules": "(([a-z_.0-9]+)+)+X"}))
    for given in (str(tmp_path), "(([a-z_.0-9]+)+)+X"):
        run = subprocess.run(
            [sys.executable, "-m", "lorascope", "check", "mistral", given],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (run.returncode, run.stdout) == (2, "")
        assert "target_modules: a pattern takes too long: '(([a-z_.0-9]+)+)+X'" in run.stderr
        assert "(limit 2 s)" in run.stderr
        assert "Traceback" not in run.stderr


LISTS: dict[str, dict[str, Any]] = {
    "dotted targets of 60 kB": {"target_modules": [f"{'a.' * 30_000}{number}.q_proj" for number in range(20)]},
    "one of 1 MB": {"target_modules": ["a." * 500_000 + "q_proj"]},
    "targets": {"target_modules": ["q_proj", *(f"layers.{number}.x.q_proj" for number in range(MANY))]},
    "targets with signs": {"target_modules": [f"layers.{number}.*q_proj" for number in range(MANY)]},
    "saved modules": {"modules_to_save": [f"w{number}" for number in range(MANY)]},
    "dotted saved modules": {"modules_to_save": [f"model.w{number}" for number in range(MANY)]},
    "layer patterns": {"layers_to_transform": [0], "layers_pattern": [f"l{number}" for number in range(MANY)]},
    "layers": {"layers_to_transform": list(range(-MANY, MANY))},
    "exclusions": {"exclude_modules": [f"w{number}" for number in range(MANY)]},
    "exclusions in a text": {"exclude_modules": "|".join(f"w{number}" for number in range(MANY))},
    "plain keys": {"rank_pattern": {f"l{number}.q_proj": 4 for number in range(MANY)}},
    "keys": {"rank_pattern": {f"layers.{number}.*q_proj": 4 for number in range(MANY)}},
    "bad keys": {"rank_pattern": {f"l{number}(": 4 for number in range(MANY)}},
    "prefixed keys": {"alpha_pattern": {f"base_model.model.l{number}": 4 for number in range(MANY)}},
    "keys of rank 0": {"rank_pattern": {f"l{number}": 0 for number in range(MANY)}},
    "a key of signs": {"rank_pattern": {"!" * 100_000 + "a": 0}},
    "unknown keys": {f"lora_alfa_{number}": 1 for number in range(MANY)},
    "a long unknown key": {"lora" * 20_000: 1},
    "parameters": {"target_parameters": [f"l{number}.experts.down_proj" for number in range(MANY)]},
    "words": {"target_modules": " ".join(f"l{number}" for number in range(MANY))},
    "alternatives": {"target_modules": "|".join(rf"model\.layers\.{number}\.q_proj" for number in range(MANY))},
}


@pytest.mark.slow
@pytest.mark.parametrize("label", LISTS)
def test_lists_of_thousands(label: str, tmp_path: Path) -> None:
    settings = {"peft_type": "LORA", "target_modules": ["q_proj"], "r": 8, **LISTS[label]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    code = (
        "import sys, time, lorascope as ls\n" + PEAK_MEMORY + "told = ls.check(ls.inspect('mistral'), sys.argv[1])\n"
        "longest = max([0, *(len(one.message) + len(one.fix) for one in told.findings)])\n"
        "print(peak_memory(), time.process_time(), len(told.findings), longest)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    memory, seconds, findings, longest = map(float, run.stdout.split())
    assert memory < 400e6
    assert seconds < 30
    assert findings < 100
    assert longest < 12_000


@pytest.mark.slow
def test_patterns_of_which_each_is_short_have_a_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_patterns, "MOST_SECONDS_HERE", 1.0)
    begun = time.process_time()
    with pytest.raises(name_patterns.PatternLimitError, match="take too long together"):
        ls.check(
            sample("mistral"),
            {"target_modules": ["q_proj"], "modules_to_save": [f".*w{number}.*" for number in range(MANY)]},
        )
    assert time.process_time() - begun < 20
