"""Values that no user means in trainers' configurations: a clean refusal, or a check that can be printed.

Each value stands in each place of a whole configuration, in the language that the trainer reads: YAML, Python, JSON or the
words of a shell.
"""

from __future__ import annotations

import collections
import functools
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import lorascope as ls
from lorascope.errors import LorascopeError
from lorascope.foreign_text import json_text
from lorascope.model.types import ModelMap
from lorascope.reports.json import check_json
from tests.helpers.samples import sample
from tests.helpers.shallow_models import shallow_map

NINES, LONG = "9" * 400, "9" * 5000
NUMBERS = (
    *(
        "0",
        "-1",
        "1",
        "1.5",
        "-0.0",
        "1e5",
        "1e308",
        "1e309",
        "-1e309",
        "1e999",
        "9223372036854775807",
        "9223372036854775808",
    ),
    *("9" * 250, NINES, LONG, f"-{NINES}", f"-{LONG}", f"{NINES}.5", f"{LONG}.0", f"1e{LONG}", f"0.{LONG}"),
    *(f"0x{'f' * count}" for count in (2, 16, 240, 400, 5000)),
    *(f"0b{'1' * count}" for count in (2, 64, 400, 5000)),
    *(f"0o{'7' * count}" for count in (2, 30, 400, 5000)),
    *(f"0{'7' * count}" for count in (2, 30, 400, 5000)),
    *(f"1{':59' * count}" for count in (1, 20, 400, 5000)),
    *(f"1{':59' * count}.5" for count in (1, 400, 5000)),
    *(
        "nan",
        "NaN",
        ".nan",
        "inf",
        "-inf",
        ".inf",
        "-.inf",
        "Infinity",
        "-Infinity",
        "infinity",
        "1_000",
        "1__0e1",
        "1_e5",
        "_1",
    ),
    *(
        "float('nan')",
        "1e999-1e999",
        "1j",
        "True",
        "true",
        "no",
        "null",
        "None",
        "~",
        "''",
        '""',
        "[]",
        "{}",
        "[1]",
        "{a: 1}",
    ),
    *(
        "{1: 2}",
        "[[8]]",
        "'8'",
        '"8"',
        "b'8'",
        "...",
        "²",
        "١٢",
        "１",
        "\\",
        "'",
        '"',
        "#",
        "$x",
        "`x`",
        "$(x)",
        " ",
        "-",
        "--",
        "-8",
    ),
    *(
        "'\\ud800'",
        '"\\ud800"',
        "\x85",
        "\u2028",
        "2026-01-01",
        "!!int ''",
        "!!float x",
        "!!bool abc",
        "!!binary a",
        "!!set {a}",
    ),
    *(
        "*a",
        "&a 8",
        "!!python/object:os.system a",
        "{2026-01-01: 2026-01-01}",
        "q_proj",
        "['q_proj']",
        '["q_proj", ""]',
        "[null]",
    ),
)
TEMPLATES = {
    "axolotl": (
        "base_model: a/b\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_dropout: 0.05\nlora_target_modules: [q_proj]\n",
        (
            *("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear", "lora_rank_pattern"),
            *(
                "lora_alpha_pattern",
                "peft_layers_to_transform",
                "peft_layers_pattern",
                "lora_modules_to_save",
                "adapter",
            ),
            *(
                "lora_target_parameters",
                "peft_use_dora",
                "plugins",
                "rl",
                "unfrozen_parameters",
                "base_model",
                "no_such_key",
            ),
        ),
    ),
    "llamafactory": (
        "model_name_or_path: a/b\nstage: sft\nfinetuning_type: lora\nlora_rank: 8\nlora_alpha: 16\nlora_target: q_proj\n",
        (
            *("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target", "use_llama_pro", "stage"),
            *("freeze_trainable_layers", "use_rslora", "freeze_vision_tower", "model_name_or_path", "no_such_key"),
        ),
    ),
    "trl": (
        "model_name_or_path: a/b\nuse_peft: true\nlora_r: 8\nlora_alpha: 16\nlora_target_modules: [q_proj, v_proj]\n",
        (
            *(
                "use_peft",
                "lora_r",
                "lora_alpha",
                "lora_dropout",
                "lora_target_modules",
                "lora_target_parameters",
                "env",
            ),
            *("lora_modules_to_save", "lora_task_type", "use_dora", "chat_template_path", "no_such_key"),
        ),
    ),
    "mlx-lm": (
        "model: a/b\nfine_tune_type: lora\nnum_layers: 8\nlora_parameters: {rank: 8, scale: 2.0, dropout: 0.0, keys: [self_attn.q_proj]}\n",
        ("num_layers", "fine_tune_type", "lora_parameters", "model", "config", "no_such_key"),
    ),
    "torchtune": (
        "model:\n  _component_: torchtune.models.llama2.lora_llama2_7b\n  lora_attn_modules: [q_proj]\n  lora_rank: 8\n",
        ("model", "checkpointer", "lora_rank", "no_such_key"),
    ),
    "ms-swift": (
        "swift sft --model a/b --lora_rank 8 --lora_alpha 16 --target_modules q_proj",
        (
            *(
                "lora_rank",
                "lora_alpha",
                "lora_dropout",
                "target_modules",
                "target_regex",
                "target_parameters",
                "use_dora",
            ),
            *("lora_bias", "modules_to_save", "task_type", "tuner_type", "model_type", "no_such_key", "freeze_vit"),
        ),
    ),
    "unsloth": (
        "model = FastLanguageModel.get_peft_model(model, r=8, lora_alpha=16, target_modules=['q_proj'])",
        (
            *("r", "lora_alpha", "lora_dropout", "bias", "target_modules", "target_parameters", "layers_to_transform"),
            *(
                "layers_pattern",
                "finetune_last_n_layers",
                "rank_pattern",
                "alpha_pattern",
                "modules_to_save",
                "use_rslora",
            ),
            *("ensure_weight_tying", "task_type", "no_such_key", "exclude_modules", "use_dora"),
        ),
    ),
    "peft-python": (
        "peft.LoraConfig(r=8, lora_alpha=16, target_modules=['q_proj'])",
        (
            *("r", "lora_alpha", "lora_dropout", "bias", "target_modules", "target_parameters", "layers_to_transform"),
            *(
                "layers_pattern",
                "rank_pattern",
                "alpha_pattern",
                "modules_to_save",
                "use_rslora",
                "task_type",
                "no_such_key",
            ),
        ),
    ),
    "peft": (
        '{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}',
        (
            *("r", "lora_alpha", "lora_dropout", "bias", "target_modules", "target_parameters", "layers_to_transform"),
            *(
                "layers_pattern",
                "rank_pattern",
                "alpha_pattern",
                "modules_to_save",
                "peft_type",
                "base_model_name_or_path",
            ),
        ),
    ),
}
# The command lines of a trainer whose files are YAML.
TRL_COMMAND = (
    "trl sft --model_name_or_path a/b --use_peft --lora_r 8 --lora_alpha 16 --lora_target_modules q_proj v_proj"
)


def texts(tool: str, key: str, value: str) -> Iterator[str]:
    """The configuration with the value in that place, in every way to put it there."""
    template, _ = TEMPLATES[tool]
    lines = template.splitlines(keepends=True)
    if tool in ("ms-swift",):
        yield f"{template} --{key} {value}\n"
        yield f"{template} --{key}={shlex.quote(value)}\n"
        yield f"{key}: {value}\nmodel: a/b\n"
    elif tool in ("unsloth", "peft-python"):
        gone = {"r": "r=8, ", "lora_alpha": "lora_alpha=16, ", "target_modules": "target_modules=['q_proj']"}.get(
            key, "…"
        )
        yield f"{template[:-1].replace(gone, '').rstrip(', ')}, {key}={value})"
    elif tool == "peft":
        yield f'{template[:-1]}, "{key}": {value}}}'.replace(f'"{key}": 8, ', "")
        yield json.dumps({**json.loads(template), key: value})
    else:
        kept = [line for line in lines if not line.startswith(f"{key}:")]
        yield "".join(kept) + f"{key}: {value}\n"
        yield "".join(kept) + f"{key}: [{value}, {{a: {value}}}]\n"
        yield "".join(kept) + f"{key}: {{a: {value}}}\n"
    if tool == "trl":
        yield f"{TRL_COMMAND} --{key} {value}\n"
    if tool == "mlx-lm":
        yield f"lora_parameters: {{rank: {value}, scale: 2.0, dropout: 0.0}}\n"
        yield f"lora_parameters: {{rank: 8, scale: {value}, dropout: 0.0}}\n"
        yield f"lora_parameters: {{rank: 8, scale: 2.0, dropout: {value}, keys: [{value}]}}\n"
    if tool == "torchtune":
        for inner in (
            "lora_rank",
            "lora_alpha",
            "lora_dropout",
            "lora_attn_modules",
            "use_dora",
            "embed_dim",
            "_component_",
        ):
            rows = [line for line in lines if not line.startswith(f"  {inner}:")]
            yield "".join(rows) + f"  {inner}: {value}\n"
        sizes = "".join(
            f"  {size}: {value}\n" for size in ("vocab_size", "num_layers", "num_heads", "num_kv_heads", "embed_dim")
        )
        yield f"model:\n  _component_: torchtune.models.llama2.lora_llama2\n  lora_attn_modules: [q_proj]\n{sizes}"


def outcome(tool: str, text: str, file: Path, model_type: str = "llama") -> str:
    """What a check of a text says: refused, or one that can be printed in both ways."""
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        # torchtune's builders are told by the number of layers.
        model = sample(model_type) if tool == "torchtune" else shallow(model_type)
        checked = ls.check(model, file, trainer=tool)
    except LorascopeError as error:
        assert len(str(error)) < 20_000
        assert all(line.isprintable() for line in str(error).split("\n")), ascii(str(error))
        return "refused"
    str(checked)
    json.loads(json_text(check_json(checked)))
    return "error" if checked.resolution.refusal is not None else "checked"


@functools.cache
def shallow(model_type: str) -> ModelMap:
    """A built-in map with every kind of its layers, and few of a kind."""
    return shallow_map(sample(model_type))


def every_text(tool: str) -> Iterator[str]:
    for key in TEMPLATES[tool][1]:
        for value in NUMBERS:
            yield from texts(tool, key, value)


@pytest.mark.parametrize("tool", TEMPLATES)
def test_templates_are_configurations(tool: str, tmp_path: Path) -> None:
    assert outcome(tool, TEMPLATES[tool][0], tmp_path / "file") == "checked"


@pytest.mark.parametrize("tool", TEMPLATES)
def test_some_values_in_every_place(tool: str, tmp_path: Path) -> None:
    """Every 29th, which meets each place and each value somewhere."""
    answers = collections.Counter(outcome(tool, text, tmp_path / "file") for text in list(every_text(tool))[::29])
    assert answers.total() > 40
    assert answers["refused"] > 10, answers


@pytest.mark.slow
@pytest.mark.parametrize("tool", TEMPLATES)
def test_every_value_in_every_place(tool: str, tmp_path: Path) -> None:
    answers: collections.Counter[str] = collections.Counter()
    for text in every_text(tool):
        answers[outcome(tool, text, tmp_path / "file")] += 1
    assert answers.total() > 1_500
    assert answers["refused"] > 1_000 and answers["checked"] > 50, answers
