"""Keyword arguments of a call, read from the syntax tree alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from samples import fails

from lorascope.trainers.python_text import MOST_BYTES, call_arguments, method_arguments

FUNCTIONS = ("LoraConfig", "get_peft_model")


@pytest.mark.parametrize(
    "text",
    [
        "LoraConfig(r=8, target_modules=['q_proj'])",
        "import peft\nconfig = peft.LoraConfig(r=8, target_modules=['q_proj'])\nprint(config)",
        "def f():\n    return wrap(peft.LoraConfig(r=8, target_modules=['q_proj']))",
        "m = FastLanguageModel.get_peft_model(model, r=8, target_modules=['q_proj'])",
    ],
)
def test_arguments_are_read(text: str) -> None:
    assert call_arguments(text, "train.py", FUNCTIONS) == {"r": 8, "target_modules": ["q_proj"]}


def test_the_first_function_that_is_called_counts() -> None:
    text = "get_peft_model(model, LoraConfig(r=4))\n"
    assert call_arguments(text, "train.py", FUNCTIONS) == {"r": 4}


def test_nothing_runs(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    text = f"open({str(trap)!r}, 'w')\nLoraConfig(r=8)"
    assert call_arguments(text, "train.py", FUNCTIONS) == {"r": 8}
    assert not trap.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("LoraConfig(r=", "line 1 is not Python"),
        ("x\x00y", "not Python"),
        ("((" * 5000, "not Python"),
        ("print(1)", "does not call LoraConfig or get_peft_model"),
        ("LoraConfig(r=rank)", "r of LoraConfig in line 1 is no value written out"),
        ("LoraConfig(**settings)", "hides its arguments"),
        ("LoraConfig(r=rank, lora_alpha=alpha)", "2 faults"),
        ("LoraConfig(r=" + "-" * 5000 + "1)", "train.py"),
        ("#" * (MOST_BYTES + 1), "has more than the"),
    ],
)
def test_faults(text: str, says: str) -> None:
    with fails("train.py", says):
        call_arguments(text, "train.py", FUNCTIONS)


def test_a_method_of_some_owners_has_values_and_dots() -> None:
    text = "T.from_pretrained('t', a=1)\nm = x.M.from_pretrained('m', a=2, b=c, **d)\nM.from_pretrained(a=3)\n"
    assert method_arguments(text, "train.py", {"M"}, "from_pretrained") == {"a": 2, "b": ...}
    assert method_arguments(text, "train.py", {"N"}, "from_pretrained") == {}
    with fails("train.py", "line 1 is not Python"):
        method_arguments("M.from_pretrained(", "train.py", {"M"}, "from_pretrained")
