"""Command lines of trainers in scripts as people write them; nothing is run."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorascope.errors import LorascopeError
from lorascope.trainers.command_lines import MOST_BYTES, command_words, options_of
from tests.helpers.samples import fails

COMMANDS = {
    "plain": "swift sft --lora_rank 8",
    "continued": "swift sft \\\n    --lora_rank 8\n",
    "after a comment": "#!/bin/bash\n# swift sft --lora_rank 4\nswift sft --lora_rank 8  # eight\n",
    "with variables before": "CUDA_VISIBLE_DEVICES=0,1 NPROC_PER_NODE=2 \\\nswift sft --lora_rank 8",
    "after another command": "cd somewhere && swift sft --lora_rank 8; echo done",
    "by a path": "/opt/bin/swift sft --lora_rank 8",
    "a launcher before": "accelerate launch --num_processes 2 swift sft --lora_rank 8",
    "windows line ends": "swift sft \\\r\n  --lora_rank 8\r\n",
    "a comment with a backslash before": "# a comment \\\nswift sft --lora_rank 8",
    "an escaped line before": "echo \\'a\nswift sft --lora_rank 8",
    "its output redirected": "swift sft --lora_rank 8 > train.log 2>&1",
    "its output appended": "swift sft --lora_rank 8 2>> 'train log' &",
    "both outputs redirected": "swift sft --lora_rank 8 &> train.log",
    "piped": "swift sft --lora_rank 8 2>&1 | tee train.log",
    "its input redirected": "swift sft <input --lora_rank 8",
    "a broken line before": "echo 'no end\nswift sft --lora_rank 8",
}


@pytest.mark.parametrize("text", COMMANDS.values(), ids=COMMANDS.keys())
def test_the_command_is_found(text: str) -> None:
    words = command_words(text, "train.sh", ["swift", "sft.py"])
    assert words[0].endswith("swift")
    assert options_of(words) == {"lora_rank": ["8"]}


def test_a_script_is_a_program_too() -> None:
    assert command_words("python examples/sft.py --lora_r 8", "a.sh", ["trl", "sft.py"]) == [
        *("examples/sft.py", "--lora_r", "8")
    ]


def test_options_alone() -> None:
    assert command_words("--lora_r 8", "options", ["trl"]) == ["--lora_r", "8"]


def test_options_as_argparse_has_them() -> None:
    words = ["trl", "sft", "--lora-r=8", "--lora_target_modules", "q_proj", "v_proj", "--use_peft", "--lora_r", "16"]
    assert options_of(words) == {"lora_r": ["16"], "lora_target_modules": ["q_proj", "v_proj"], "use_peft": []}


def test_quotations_hold_regular_expressions() -> None:
    words = command_words(r"swift sft --target_regex '^model\.layers\.(0|1)\..*$'", "train.sh", ["swift"])
    assert options_of(words)["target_regex"] == [r"^model\.layers\.(0|1)\..*$"]


def test_nothing_is_expanded_or_run() -> None:
    words = command_words("swift sft --model $(touch gone) `id` $HOME", "train.sh", ["swift"])
    assert "$HOME" in " ".join(words)


WORDS = (
    "a 'b c' d",
    "a'b'c \"d\"e",
    "'' \"\" a",
    "a#b #c",
    "a 'b#c' # d",
    r"a\ b c\'d \#e",
    r'"a\"b" "c\\d" "e\$f" "g\`h" "i\jk"',
    r"'a\b' 'c\\d'",
    "a \\\n  b",
    'a "b \\\nc"',
    "a\tb\n",
    "a\x0bb \x85c \u2028d \xa0e \x1cf",
    "a {} [b] (c) *d ?e !f ~g =h %i",
    "a;b",
    "a&&b",
    "ä 'ö ü' \U0001f600",
)


@pytest.mark.parametrize("text", WORDS)
def test_words_are_those_of_bash(text: str) -> None:
    """What a program named so gets from bash, of what nothing has to be expanded in."""
    script = "show() { printf '%s\\0' \"$@\"; }\nset -f\n"
    bare = text.translate({ord(c): "\\" + c for c in "()"}) if "(" in text else text
    done = subprocess.run(["bash"], input=f"{script}show --a {bare}\n", capture_output=True, text=True, check=False)
    wanted = done.stdout.split("\0")[:-1]
    assert wanted[0] == "--a"
    assert command_words(f"show --a {bare}\n", "a.sh", ["show"])[1:] == wanted


SCRIPTS = (
    "A=8\nshow --a $A",
    "A=8; B=q_proj\nshow --a ${A} --b $B",
    "export A=8 B=9\nshow --a $A$B",
    "A=${A:-8}\nshow --a $A ${B:-9} ${C-10}",
    "B=x\nA=${A:-$B/y}\nshow --a $A/z",
    "A='b c'\nshow --a $A",
    "A='b c'\nshow --a \"$A\" '$A' \"\\$A\"",
    "A='--r 8 --alpha 16'\nshow --a $A --b",
    'A="--r 8 \\\n --alpha 16"\nshow --a ${A}x',
    "A=' b '\nshow --a x${A}y",
    "A=(--r 8 'q r')\nshow --a \"${A[@]}\"",
    'A=(\n  --r 8  # eight\n  --m x\n)\nA+=(--n 1)\nshow --a "${A[@]}" --b',
    "A=(b c)\nshow --a ${A[@]}",
    "A=1\nA=2\nshow --a $A\nA=3",
    "A=q\nA+=_proj\nshow --a $A",
    "A=\nshow --a $A b ${A:-c}",
    'A=8 \nB=$A\nC="$B/$A"\nshow --a $C # $A',
    "readonly A=8\ndeclare B=9\nshow --a $A $B",
)


@pytest.mark.parametrize("text", SCRIPTS)
def test_variables_are_those_of_bash(text: str) -> None:
    """What a program named so gets from bash where the script sets all that it uses."""
    script = "show() { printf '%s\\0' \"$@\"; }\nset -f\n"
    done = subprocess.run(["bash"], input=f"{script}{text}\n", capture_output=True, text=True, check=True)
    assert command_words(text, "a.sh", ["show"])[1:] == done.stdout.split("\0")[:-1]


def test_variables_that_grow_without_end_are_refused() -> None:
    doubled = "A=xxxxxxxxxxxxxxxx\n" + "A=$A$A\n" * 40 + "swift sft --model $A"
    with fails("a.sh", "its variables make more than 1048576 characters"):
        command_words(doubled, "a.sh", ["swift"])
    nested = "${A:-" * 30 + "x" + "}" * 30
    assert command_words(f"swift sft --model {nested}", "a.sh", ["swift"])


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))))
def test_what_is_quoted_comes_back(words: list[str]) -> None:
    text = "swift " + " ".join(map(shlex.quote, words))
    assert command_words(text, "a.sh", ["swift"])[1:] == words


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        *(
            "a ",
            "'a' ",
            '"a" ',
            "'",
            '"',
            "\\",
            "\\a",
            "\\\n",
            '"\\\n',
            '\\"',
            '"\\"',
            "#",
            "# ",
            "#\n",
            "\n",
            "\r",
            "\r\n",
        ),
        *(
            ";",
            "&",
            "|",
            "a;",
            "> ",
            ">",
            "<",
            "--a ",
            "--a=b ",
            "swift\n",
            "swift ",
            "trl ",
            "a'\n",
            'a"\n',
            "x",
            " ",
            "\t",
        ),
    ],
)
def test_a_megabyte_takes_seconds_at_most(part: str) -> None:
    text = (part * MOST_BYTES)[:MOST_BYTES]
    for start in ("", "swift sft --a "):
        began = time.process_time()
        with contextlib.suppress(LorascopeError):
            options_of(command_words((start + text)[:MOST_BYTES], "a.sh", ["swift"]))
        assert time.process_time() - began < 15  # a hang, not a speed


def test_too_many_options_are_refused() -> None:
    assert len(options_of([f"--a{number}" for number in range(1000)])) == 1000
    with fails("gives 1001 options"):
        options_of([f"--a{number}" for number in range(1001)])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no command here runs swift or trl"),
        ("echo hello", "no command here runs swift or trl"),
        ("swift sft --model 'no end", "no closing quotation"),
        ("x" * (MOST_BYTES + 1), "has more than the"),
    ],
)
def test_faults(text: str, says: str) -> None:
    start = time.process_time()
    with fails("train.sh", says):
        command_words(text, "train.sh", ["swift", "trl"])
    assert time.process_time() - start < 10
