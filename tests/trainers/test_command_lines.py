"""Command lines of trainers in scripts as people write them; nothing is run."""

from __future__ import annotations

import time

import pytest
from samples import fails

from lorascope.trainers.command_lines import MOST_BYTES, command_words, options_of

COMMANDS = {
    "plain": "swift sft --lora_rank 8",
    "continued": "swift sft \\\n    --lora_rank 8\n",
    "after a comment": "#!/bin/bash\n# swift sft --lora_rank 4\nswift sft --lora_rank 8  # eight\n",
    "with variables before": "CUDA_VISIBLE_DEVICES=0,1 NPROC_PER_NODE=2 \\\nswift sft --lora_rank 8",
    "after another command": "cd somewhere && swift sft --lora_rank 8; echo done",
    "by a path": "/opt/bin/swift sft --lora_rank 8",
    "a launcher before": "accelerate launch --num_processes 2 swift sft --lora_rank 8",
    "windows line ends": "swift sft \\\r\n  --lora_rank 8\r\n",
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
