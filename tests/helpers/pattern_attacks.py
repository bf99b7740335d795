"""Patterns that keep Python's `re` busy for ever, or stop it, and every place where anybody can put one.

Run with a number of patterns to print what comes of each of them in each place, as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lorascope as ls
from lorascope.errors import LorascopeError
from lorascope.peft_rules import name_patterns

EVIL = (
    r"(([a-z_.0-9]+)+)+X",
    "(.*)*X",
    "(a|a)*X",
    r"(\w|\w\w)*X",
    r"((?:[a-z]+\.?)+)+X",
    r"(.*?)*?X",
    "(.*.*)*X",
    "(.+)+(.+)+X",
    "(" * 100_000,
    "a" * 1_000_000,
    "a" * 1_000_001,
    "(?:" * 60 + r"[a-z.]+" + ")+" * 60 + "X",
    r"(.*[a-z]){20}X",
    r"(.*\.){5,}X",
    r"(?:.?){60}X{3}",
    ".?" * 60 + "X" * 3,
    r"(?:\w?){50}\w{50}X",
    r"[a-z_.0-9]*" * 12 + "X",
    ".*" * 20 + "X",
    r"(.+)\1+X",
    r"(.*)\1(.*)\2X",
    r"(?P<a>.+)(?P=a)*X",
    r"(?=(.*)*X)q",
    r"(?!(([a-z_.0-9]+)+)+X).*Y",
    r".*(?<=q)(?=(\w+)+X)",
    r"(?=.*.*.*.*.*.*.*X)q_proj",
    r"(?i)(([A-Z_.0-9]+)+)+1X",
    r"(?s)(.*)*X",
    r"(?x) ( ( [a-z_.0-9]+ )+ )+ X",
    r"(?i:([a-z_.]+)+)+X",
    "(?i)[Ā-\U0010ffff]" + "[Ā-\U0010ffff]" * 300,
    r"([\w\W]+)+\b\BX",
    r"((?:\d|\w|[^x])+)+X",
    r"(?>(.*)*)X",
    r"(.*)*+X",
    r"(([a-z]++\.?)+)+X",
    r"(a)?(?(1).*|(.*)*)X",
    r"(?(1)a|b)",
    r"(\w+)?(?(1)(\w+)+X|.)",
    "x{99999999999999999999}",
    "x{4294967295}",
    "(x{0,60000}){60000}",
    "(((x{1,100}){1,100}){1,100}){1,100}",
    r"(\w{1,30}){1,30}X",
    r"(\w+\s?)+X",
    "|".join(f"(.*{letter})*X" for letter in "abcdefghij"),
    "(" + "|".join("a" * n for n in range(1, 60)) + ")*X",
    "(" + "|".join("model.layers.0"[:n] for n in range(1, 14)) + "|[a-z.0-9_])*X",
    "a" * 90_000 + "|" + "a" * 90_000,
    "(a|b)*" * 100_000,
    "[" * 100_000,
    "[[a]",
    "[a--b]*q_proj",
    "\\",
    "*",
    ")",
    "(?P<idx>x)",
    r"\N{BULLET}\777",
    "(?<=a*)b",
    "[z-a]",
    "(?i",
    "a**",
    "(?#" * 1000,
)
MODEL = "mistral"
Place = Callable[[ls.ModelMap, str, Path], object]


def _peft(**settings: Any) -> Place:
    """A configuration of PEFT, in which the text `PATTERN` stands for the pattern."""

    def place(model: ls.ModelMap, pattern: str, folder: Path) -> object:
        return ls.check(model, _filled({"target_modules": ["q_proj"], **settings}, pattern))

    return place


def _filled(value: Any, pattern: str) -> Any:
    if isinstance(value, dict):
        return {_filled(key, pattern): _filled(inner, pattern) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, pattern) for inner in value]
    return pattern if value == "PATTERN" else value


def _file(name: str, text: str, trainer: str) -> Place:
    """A trainer's file, in which `PATTERN` stands for the pattern as JSON, YAML and Python write it."""

    def place(model: ls.ModelMap, pattern: str, folder: Path) -> object:
        path = folder / name
        path.write_text(text.replace("PATTERN", json.dumps(pattern, ensure_ascii=False)), encoding="utf-8")
        return ls.check(model, path, trainer=trainer)

    return place


_AXOLOTL = "base_model: x/y\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nmicro_batch_size: 1\n"
_TRL = "model_name_or_path: x/y\ndataset_name: x/y\nuse_peft: true\nlora_r: 8\noutput_dir: out\n"
_FACTORY = "model_name_or_path: x/y\nstage: sft\ndo_train: true\nfinetuning_type: lora\n"
_UNSLOTH = (
    "from unsloth import FastLanguageModel\n"
    'model, tokenizer = FastLanguageModel.from_pretrained("x/y")\n'
    "model = FastLanguageModel.get_peft_model(model, r=16, lora_alpha=16, "
)
PLACES: dict[str, Place] = {
    "target_modules": _peft(target_modules="PATTERN"),
    "an entry of target_modules": _peft(target_modules=["q_proj", "PATTERN"]),
    "target_parameters": _peft(target_parameters=["PATTERN"]),
    "exclude_modules": _peft(exclude_modules="PATTERN"),
    "an entry of exclude_modules": _peft(exclude_modules=["PATTERN"]),
    "layers_pattern": _peft(layers_to_transform=[0], layers_pattern="PATTERN"),
    "an entry of layers_pattern": _peft(layers_to_transform=[0], layers_pattern=["h", "PATTERN"]),
    "rank_pattern": _peft(rank_pattern={"PATTERN": 4}),
    "alpha_pattern": _peft(alpha_pattern={"PATTERN": 4}),
    "modules_to_save": _peft(modules_to_save=["PATTERN"]),
    "verify": lambda model, pattern, _: ls.verify(model, {"target_modules": pattern}),
    "a server": lambda model, pattern, _: ls.check(model, {"target_modules": pattern}, serve="vllm"),
    "the command line": lambda model, pattern, _: ls.check(model, pattern),
    "trl's option": lambda model, pattern, _: ls.check(
        model, "--lora_target_modules", pattern, "--lora_r", "8", "--use_peft", trainer="trl"
    ),
    "ms-swift's option": lambda model, pattern, _: ls.check(
        model, "--target_regex", pattern, "--model", "x/y", trainer="ms-swift"
    ),
    "axolotl": _file("a.yaml", f"{_AXOLOTL}lora_target_modules: PATTERN\n", "axolotl"),
    "axolotl's list": _file("a.yaml", f"{_AXOLOTL}lora_target_modules: [q_proj, PATTERN]\n", "axolotl"),
    "axolotl's layers": _file(
        "a.yaml",
        f"{_AXOLOTL}lora_target_modules: [q_proj]\npeft_layers_to_transform: [0]\npeft_layers_pattern: [PATTERN]\n",
        "axolotl",
    ),
    "llamafactory": _file("l.yaml", f"{_FACTORY}lora_target: PATTERN\n", "llamafactory"),
    "trl": _file("t.yaml", f"{_TRL}lora_target_modules: [PATTERN]\n", "trl"),
    "unsloth": _file("u.py", f"{_UNSLOTH}target_modules=PATTERN)\n", "unsloth"),
    "unsloth's layers": _file(
        "u.py", f"{_UNSLOTH}target_modules='.*q_proj', layers_to_transform=[0], layers_pattern=PATTERN)\n", "unsloth"
    ),
    "torchtune": _file(
        "tt.yaml",
        "model:\n  _component_: torchtune.models.llama3_1.lora_llama3_1_8b\n  lora_attn_modules: [PATTERN]\n"
        "  lora_rank: 8\n  lora_alpha: 16\n",
        "torchtune",
    ),
    "mlx-lm": _file(
        "m.yaml",
        "model: x/y\ntrain: true\nlora_parameters:\n  keys: [PATTERN]\n  rank: 8\n  scale: 2.0\n  dropout: 0.0\n",
        "mlx-lm",
    ),
    "peft-python": _file(
        "p.py", "from peft import LoraConfig\nconfig = LoraConfig(r=8, target_modules=PATTERN)\n", "peft-python"
    ),
}


def main(count: int, seconds: float) -> None:
    """Try the first `count` patterns, or all, in each place with a limit of time."""
    warnings.simplefilter("error")
    name_patterns.MOST_SECONDS = seconds
    model = ls.inspect(MODEL)
    folder = Path(tempfile.mkdtemp())
    for number, pattern in enumerate(EVIL[:count] if count else EVIL):
        for name, place in PLACES.items():
            begun = time.process_time()
            try:
                place(model, pattern, folder)
                outcome = "told"
            except name_patterns.PatternLimitError:
                outcome = "limit"
            except LorascopeError as error:
                outcome = f"refused: {str(error)[:200]}"
            took = round(time.process_time() - begun, 2)
            print(json.dumps({"pattern": number, "place": name, "outcome": outcome, "seconds": took}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
