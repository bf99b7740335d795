"""Keyword arguments of a call, read from the syntax tree alone."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from lorascope.errors import LorascopeError
from lorascope.trainers.python_text import (
    MOST_BYTES,
    call_arguments,
    call_owner,
    call_text,
    calls_function,
    method_arguments,
    read_script,
)
from tests.helpers.samples import fails

FUNCTIONS = ("LoraConfig", "get_peft_model")


def arguments(text: str) -> dict[str, Any]:
    return call_arguments(read_script(text, "train.py", FUNCTIONS[0]), FUNCTIONS)


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
    assert arguments(text) == {"r": 8, "target_modules": ["q_proj"]}


def test_the_first_function_that_is_called_counts() -> None:
    text = "get_peft_model(model, LoraConfig(r=4))\n"
    assert arguments(text) == {"r": 4}


CONSTANTS = (
    "rank = 16\nLoraConfig(r=rank, lora_alpha=2 * rank)",
    "R: int = 8\nALPHA = R * 2 + 1\nLoraConfig(r=R, lora_alpha=ALPHA, lora_dropout=R / 100)",
    "names = ['q_proj']\nLoraConfig(target_modules=names + ['v_proj'], r=7 // 2 - 1)",
    "base = 'proj'\nLoraConfig(target_modules=['q_' + base, 'v_' + base], rank_pattern={'q_' + base: 4})",
    "def main():\n    rank = 4\n    return LoraConfig(r=rank, layers_to_transform=(0, rank))",
    "class Settings:\n    other = 8\nr = 2\nLoraConfig(r=r)",
)


@pytest.mark.parametrize("text", CONSTANTS)
def test_constants_are_what_python_makes_of_them(text: str) -> None:
    given: list[dict[str, Any]] = []
    scope = {"LoraConfig": lambda **values: given.append(values)}
    exec(text + ("\nmain()" if "def main" in text else ""), scope)
    assert arguments(text) == given[0]


@pytest.mark.parametrize(
    "text",
    [
        "r = 8\nr = 16\nLoraConfig(r=r)",
        "for r in (4, 8):\n    LoraConfig(r=r)",
        "def f(r=8):\n    return LoraConfig(r=r)\nr = 4",
        "from settings import r\nLoraConfig(r=r)",
        "r = 8\ndef f():\n    global r\n    r = 4\nLoraConfig(r=r)",
        "class S:\n    r = 8\nLoraConfig(r=r)",
        "r = 8\nr += 1\nLoraConfig(r=r)",
        "r = int(input())\nLoraConfig(r=r)",
        "LoraConfig(r='8' * 10**9)",
        "LoraConfig(r=[8] * 10**9)",
        "LoraConfig(r=2 ** 10**9)",
        "LoraConfig(r=8 // 0)",
        "LoraConfig(r=10**400 * 1.5)",
        "r = r\nLoraConfig(r=r)",
        "LoraConfig(r=args.r)",
    ],
)
def test_what_is_not_one_value_is_not_written_out(text: str) -> None:
    with fails("train.py", "r of LoraConfig in line", "is not written out"):
        arguments(text)


def test_long_sums_are_no_work() -> None:
    start = time.process_time()
    doubled = "a0 = 'x' * 1\n" + "b0 = [1, 2, 3, 4]\n" + "".join(f"b{n + 1} = b{n} + b{n}\n" for n in range(60))
    with fails("is not written out"):
        arguments(f"{doubled}LoraConfig(target_modules=b60)")
    assert time.process_time() - start < 5


def test_nothing_runs(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    text = f"open({str(trap)!r}, 'w')\nLoraConfig(r=8)"
    assert arguments(text) == {"r": 8}
    assert not trap.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("LoraConfig(r=", "line 1 is not Python"),
        ("x\x00y", "not Python"),
        ("((" * 5000, "not Python"),
        ("print(1)", "does not call LoraConfig or get_peft_model"),
        ("LoraConfig(r=rank)", "r of LoraConfig in line 1 is not written out"),
        ("LoraConfig(**settings)", "hides its arguments"),
        ("LoraConfig(r=rank, lora_alpha=alpha)", "2 faults"),
        ("LoraConfig(r=" + "-" * 5000 + "1)", "train.py"),
        (f"LoraConfig(r={'9' * 5000})", "line 1 is not Python"),
        (f"LoraConfig(r={'9' * 400})", "r of LoraConfig in line 1 is a whole number of hundreds of digits"),
        (f"LoraConfig(r=-0x{'f' * 5000})", "r of LoraConfig in line 1 is a whole number of hundreds of digits"),
        (f"LoraConfig(r=0b{'1' * 5000}, lora_alpha=[0o{'7' * 5000}])", "2 faults"),
        ("LoraConfig(r=8, r=4)", "r of LoraConfig in line 1 is given twice"),
        ("LoraConfig(r={[]})", "r of LoraConfig in line 1 is not written out"),
        ("LoraConfig(r='\udcff')", "it is not Python"),
        ("#" * (MOST_BYTES + 1), "has more than the"),
    ],
)
def test_faults(text: str, says: str) -> None:
    with fails("train.py", says):
        arguments(text)


def test_a_method_of_some_owners_has_values_and_dots() -> None:
    text = "T.from_pretrained('t', a=1)\nm = x.M.from_pretrained('m', a=2, b=c, **d)\nM.from_pretrained(a=3)\n"
    script = read_script(text, "train.py", "from_pretrained")
    assert method_arguments(script, {"M"}, "from_pretrained") == {"a": 2, "b": ...}
    assert method_arguments(script, {"N"}, "from_pretrained") == {}
    assert call_owner(script, "from_pretrained") == ("T", 1)
    assert call_text(script, "from_pretrained", "model_name") == "t"
    assert call_text(script, "nothing", "model_name") == ""
    assert calls_function(script, "from_pretrained") and not calls_function(script, "m")
    with fails("train.py", "line 1 is not Python"):
        read_script("M.from_pretrained(", "train.py", "from_pretrained")


def test_foreign_escapes_warn_nobody() -> None:
    assert arguments(r"LoraConfig(target_modules='\d')") == {"target_modules": r"\d"}


HALF = MOST_BYTES // 2
COSTLY = {
    "statements": "a\n" * HALF,
    "calls": "f()\n" * HALF,
    "calls in calls": ("f(" * 150 + ")" * 150 + "\n") * HALF,
    "a list": "LoraConfig(r=[" + "1," * (HALF - 10) + "])",
    "lists": ("[" * 90 + "]" * 90 + "\n") * HALF,
    "a sum": "+".join("1" * HALF),
    "signs": "-" * (MOST_BYTES - 1) + "1",
    "parentheses": "(" * MOST_BYTES,
    "attributes": "a" + ".a" * (HALF - 1),
    "calls of calls": "a" + "()" * (HALF - 1),
    "comparisons": "a<" * (HALF - 1) + "a",
    "formatted texts": "f'{a}'\n" * HALF,
    "an error at the end": "[" + "a," * (HALF - 3) + "1 2]",
    "digits": "LoraConfig(r=" + "9" * (HALF - 10) + ")",
    "hexadecimal digits": "LoraConfig(r=0x" + "f" * (HALF - 10) + ")",
    "texts": "LoraConfig(r=" + "'a' " * (HALF // 2 - 10) + ")",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", COSTLY.values(), ids=COSTLY.keys())
def test_the_longest_texts_take_seconds_at_most(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(LorascopeError):
        arguments(text[:MOST_BYTES])
    assert time.process_time() - start < 15  # a hang, not a speed
