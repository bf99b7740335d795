"""YAML as PyYAML reads it, and every way in which a file can be hostile or broken."""

from __future__ import annotations

import time

import pytest
import yaml
from samples import fails

from lorascope.sources.yaml_text import MOST_BYTES, parse_yaml

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{letter}: &{letter} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, letter in zip("abcdefgh", "bcdefghi", strict=True)
)
BROKEN = {
    # what is wrong: (the text, parts of the message)
    "truncated": ("lora_target_modules: [q_proj, v_proj\n", ["is not YAML", "line 2"]),
    "a tab": ("a:\n\tb: 1\n", ["is not YAML", "line 2"]),
    "an unknown tag": ("a: !!python/object/apply:os.system [true]\n", ["is not YAML", "python/object"]),
    "a control character": ("a: \x00", ["is not YAML", "character 4"]),
    "two documents": ("a: 1\n---\nb: 2\n", ["is not YAML"]),
    "an alias to nothing": ("a: *b\n", ["is not YAML", "line 1"]),
    "an impossible date": ("a: 2026-13-45\n", ["is not YAML"]),
    "a list": ("- a\n- b\n", ["holds a list, not keys"]),
    "nothing": ("# only a comment\n", ["holds nothing"]),
    "a number as key": ("1: a\n", ["the key 1 is no text"]),
    "no as key": ("no: a\n", ["the key False is no text"]),
    "a key twice": ("a: 1\nb: 2\na: 3\n", ["the key 'a' is given twice (line 3)"]),
    "a key twice below": ("a:\n  b: 1\n  b: 2\n", ["the key 'b' is given twice (line 3)"]),
    "anchors that multiply": (LAUGHS, ["anchors repeat"]),
    "too deep": ("a: " + "[" * 200 + "]" * 200, ["nested more than 100 deep"]),
    "far too deep": ("a: " + "[" * 20_000, ["is not YAML"]),
    "a loop": ("a: &a [*a]\n", ["nested more than 100 deep"]),
    "too long": ("a: " + "x" * MOST_BYTES, ["has more than the"]),
}


@pytest.mark.parametrize(("text", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_files_are_told(text: str, says: list[str]) -> None:
    start = time.process_time()
    with fails("a.yaml", *says):
        parse_yaml(text, "a.yaml")
    assert time.process_time() - start < 10  # a hang, not a speed


@pytest.mark.parametrize(
    "text",
    [
        "lora_r: 16\nlora_target_modules:\n  - q_proj\n  - v_proj\n",
        "learning_rate: 1e-4\n",  # YAML 1.1: a text
        "learning_rate: 1.0e-4\n",
        "a: yes\nb: off\nc: ~\nd: 0x10\ne: 1_000\n",
        "defaults: &d {r: 8}\nown:\n  <<: *d\n  alpha: 16\n",
        "a: 'it''s'\nb: |\n  two\n  lines\n",
        "\ufeffa: 1\n",
    ],
)
def test_values_are_pyyamls(text: str) -> None:
    assert parse_yaml(text, "a.yaml") == yaml.safe_load(text)


def test_all_faults_at_once() -> None:
    with fails("2 faults", "'a' is given twice", "'b' is given twice"):
        parse_yaml("a: 1\na: 2\nb: 1\nb: 2\n", "a.yaml")
