"""What a finding says to write can be pasted: foreign text in it is one literal of Python, JSON and YAML."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import lorascope as ls
from lorascope.foreign_text import literal
from tests.helpers.samples import sample

EVIL = (
    'q_proj|", r=__import__("os").system("id") or "',
    '"], r=__import__("os").system("id") or ["',
    'q_proj\\", x="',
    '(q_proj)", x="',
    "q_*\"; print('x')",
    'model."layers.0.self_attn.q_proj',
    '"',
    "\\",
    "a\nb\u202e\x1b[31m",
)
PLACES: dict[str, Any] = {
    "target_modules": lambda text: {"target_modules": text},
    "target_modules, in a list": lambda text: {"target_modules": [text, "q_proj"]},
    "target_modules, two of a list": lambda text: {"target_modules": [text, f"{text}.q_proj", "v_proj"]},
    "target_parameters": lambda text: {"target_modules": ["q_proj"], "target_parameters": [text]},
    "exclude_modules": lambda text: {"target_modules": ["q_proj"], "exclude_modules": text},
    "exclude_modules, in a list": lambda text: {"target_modules": ["q_proj"], "exclude_modules": [text]},
    "modules_to_save": lambda text: {"target_modules": ["q_proj"], "modules_to_save": [text]},
    "rank_pattern": lambda text: {"target_modules": ["q_proj"], "rank_pattern": {text: 4}},
    "alpha_pattern": lambda text: {"target_modules": ["q_proj"], "alpha_pattern": {f"{text}.*": 4, "q_proj": 8}},
    "layers_pattern": lambda text: {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": text},
    "task_type": lambda text: {"target_modules": ["q_proj"], "task_type": text},
    "bias": lambda text: {"target_modules": ["q_proj"], "bias": text},
}


def outside_of_literals(text: str) -> str:
    """A fix without its texts in double quotes, each of which Python reads."""
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"', text):
        ast.literal_eval(found[0])
    return re.sub(r'"(?:[^"\\]|\\.)*"', "", text)


def findings(place: str, text: str) -> Iterator[ls.Finding]:
    """What is said of a configuration with the text in a place; nothing where it is refused as a whole."""
    try:
        yield from ls.check(sample("mistral"), PLACES[place](text)).findings
    except ls.LorascopeError:
        return


@pytest.mark.parametrize("place", PLACES)
def test_no_fix_holds_foreign_text_outside_of_a_literal(place: str) -> None:
    said = 0
    for text in EVIL:
        for finding in findings(place, text):
            said += 1
            left = outside_of_literals(finding.fix)
            assert '"' not in left, finding.fix
            assert not any(word in left for word in ("__import__", "x=", "print(")), finding.fix
    assert said >= 2


def test_the_text_of_the_attack() -> None:
    text = 'q_proj|", r=__import__("os").system("id") or "'
    (finding,) = (one for one in findings("target_modules", text) if one.code == "no-match")
    start = finding.fix.index('"')
    value = ast.literal_eval(finding.fix[start : finding.fix.rindex('"') + 1])
    assert value == f".*[.]({text})"


@pytest.mark.parametrize("text", [*EVIL, "plain", "größe", r"model\.layers\.\d+", "x" * 2_000])
def test_a_literal_is_read_back(text: str) -> None:
    written = literal(text)
    assert written.isprintable()
    assert ast.literal_eval(written) == json.loads(written) == yaml.safe_load(written) == text


def test_a_cut_literal_is_no_text() -> None:
    written = literal("x" * 2_001)
    assert written == f'"{"x" * 2_000}"…'
    with pytest.raises(SyntaxError):
        ast.literal_eval(written)


def test_suggested_commands_are_quoted(tmp_path: Any) -> None:
    """The name of a folder is one word of every command that a finding gives."""
    import shlex

    folder = tmp_path / "a b;c"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral", "architectures": ["MistralForCausalLM"]}))
    model = ls.inspect(folder)
    assert " " in model.model
    commands = 0
    for config in (
        {"target_modules": ["zzz"], "modules_to_save": ["zzzz"]},
        {"target_modules": [f"q_proj.*{'x' * 900}|layers.0.*q_proj", f"(?:{'y' * 1_200})?.*q_proj"]},
    ):
        for finding in ls.check(model, config).findings:
            for command in re.findall(r"lorascope (?:plan|inspect) .*", finding.fix):
                assert shlex.split(command)[2] == model.model, command
                commands += 1
    assert commands >= 2
