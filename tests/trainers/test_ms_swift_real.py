"""What is said of ms-swift beside ms-swift itself: its parser, its search, its tables, adapters that it trained."""

from __future__ import annotations

import functools
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import lorascope
from lorascope.errors import LorascopeError
from lorascope.plan_api import plan
from lorascope.sources.builtin import builtin_models, load_builtin
from lorascope.trainers.exports import export
from lorascope.trainers.ms_swift.models import types_for
from lorascope.trainers.ms_swift.trainer import MS_SWIFT
from tests.helpers.paths import HELPERS, ROOT
from tests.helpers.samples import sample
from tests.helpers.tiny_models import instructions, tiny_model
from tests.helpers.trainer_cases import agreed
from tests.helpers.trainers.ms_swift_itself import PLANS, WRITTEN
from tests.helpers.venvs import environment, run_in

pytestmark = pytest.mark.slow

ITSELF = HELPERS / "trainers" / "ms_swift_itself.py"
VARIABLES = {"OMP_NUM_THREADS": "2"}
DATA = ROOT / "src" / "lorascope" / "data"
ENTRIES = [
    *(
        ("causal-lm", model_type)
        for model_type in (
            "llama",
            "qwen3",
            "qwen2",
            "mistral",
            "mixtral",
            "qwen3_moe",
            "gpt2",
            "gpt_neox",
            "phi3",
            "falcon",
            "bloom",
            "mamba",
            "mamba2",
            "nemotron_h",
            "deepseek_v3",
            "gpt_oss",
            "gemma3_text",
            "opt",
            "granitemoehybrid",
            "falcon_h1",
            "glm",
        )
    ),
    *(
        ("image-text-to-text", model_type)
        for model_type in (
            "llava",
            "qwen2_vl",
            "qwen2_5_vl",
            "qwen3_vl",
            "qwen3_vl_moe",
            "gemma3",
            "gemma3n",
            "gemma4",
            "llama4",
            "mllama",
            "paligemma",
            "internvl",
            "mistral3",
            "qwen3_5",
            "glm4v",
            "glm4v_moe",
            "paddleocr_vl",
            "florence2",
            "video_llava",
            "blip-2",
            "aya_vision",
            "idefics2",
        )
    ),
]
# What is told as a fault or a finding here, with what the parser makes of it.
COMMANDS: list[tuple[str, str, dict[str, Any]]] = [
    ("--foo 1", "remaining_argv: ['--foo', '1']", {}),
    ("--lora_rank 4 more", "remaining_argv: ['more']", {}),
    ("--lora_r 4", "", {"lora_rank": 4}),
    ("--lora-rank=4 --lora_rank 5", "", {"lora_rank": 5}),
    ("--target q_proj", "SystemExit", {}),
    ("--tuner lora", "SystemExit", {}),
    ("--target_modules", "SystemExit", {}),
    ("--lora_rank 4.0", "SystemExit", {}),
    ("--lora_bias lora_only", "SystemExit", {}),
    ("--use_dora maybe", "SystemExit", {}),
    ("--use_dora --use_rslora Y", "", {"use_dora": True, "use_rslora": True}),
    ("--no_freeze_vit --no-freeze-aligner", "", {"freeze_vit": False, "freeze_aligner": False}),
    ("--no_freeze_vit true", "remaining_argv: ['true']", {}),
    ("--target_regex None", "", {"target_modules": "None"}),
    ("--target_modules a b --target_regex c", "", {"target_modules": "c"}),
    ("--train_type lora", "remaining_argv", {}),
]


def python() -> Path:
    return environment("ms-swift")


def exported() -> list[tuple[str, dict[str, Any]]]:
    """Commands of plans, with what they mean."""
    found = []
    for model_type, head, rules, options in (
        ("llama", "", ("qv",), {}),
        ("llama", "causal-lm", ("attention[-4:]",), {"rslora": True, "dropout": 0.25}),
        ("llama", "sequence-classification", ("qv",), {}),
        ("mixtral", "", ("ffn.expert=4/8",), {}),
        ("qwen3_moe", "", ("attention",), {"rank": 3, "alpha": 7.5, "dora": True}),
        ("qwen2_vl", "", ("vision.attention",), {}),
    ):
        made = plan(sample(model_type, head), *rules, **options)
        config = made.config
        text = export(made, "ms-swift", base="org/a model")
        settings = MS_SWIFT.read(text, "file").settings
        meant = {
            "error": "",
            "model": "org/a model",
            "target_modules": settings.get("target_regex") or list(settings["target_modules"]),
            "target_parameters": list(config.target_parameters) if config.target_parameters else None,
            "lora_rank": config.r,
            "lora_alpha": config.lora_alpha,
            "lora_dropout": config.lora_dropout,
            "lora_bias": config.bias,
            "use_rslora": config.use_rslora,
            "use_dora": config.use_dora,
            "freeze_vit": True,
            "freeze_llm": False,
            "freeze_aligner": True,
            "task_type": "seq_cls" if head == "sequence-classification" else None,
            "num_labels": 2 if head == "sequence-classification" else None,
        }
        found.append((text, meant))
    return found


@functools.cache
def answers(folder: Path) -> dict[str, Any]:
    texts = [f"swift sft --model folder {text}" for text, _, _ in COMMANDS] + [text for text, _ in exported()]
    asked = {"entries": ENTRIES, "commands": texts}
    (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    run_in(python(), ["-P", str(ITSELF), "asked.json", "answers.json"], folder, VARIABLES)
    found: dict[str, Any] = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return answers(tmp_path_factory.mktemp("ms_swift"))


def test_its_search_and_peft_do_what_is_said(said: dict[str, Any]) -> None:
    assert said["versions"] == {"peft": "0.20.0", "transformers": "5.19.0"}
    assert len(said["models"]) == len(ENTRIES) == 43
    assert agreed(said["models"], list(WRITTEN)) == {"done": 720, "stopped": 206, "plans": 152}
    assert len(PLANS) == 6


def test_its_parser_takes_what_is_written(said: dict[str, Any]) -> None:
    cases = exported()
    assert len(cases) == 6
    for found, (_, meant) in zip(said["commands"][len(COMMANDS) :], cases, strict=True):
        assert found == meant


@pytest.mark.parametrize("at", range(len(COMMANDS)), ids=[text for text, _, _ in COMMANDS])
def test_its_parser_makes_of_words_what_is_said(said: dict[str, Any], at: int) -> None:
    found, (text, error, values) = said["commands"][at], COMMANDS[at]
    assert error in found["error"] and bool(error) == bool(found["error"])
    assert {key: found[key] for key in values} == values
    try:
        read = MS_SWIFT.read(f"swift sft --model folder {text}", "file")
    except LorascopeError:
        assert error, text
    else:
        stops = any(one.severity == "error" for one in read.findings)
        assert stops == bool(error), text


def test_classes_without_a_model_type_stop_where_it_cannot_load_them(said: dict[str, Any]) -> None:
    counts = {False: 0, True: 0}
    for name, stops in said["stops"].items():
        head, model_type = name.split("/")
        if head not in builtin_models().get(model_type, ()):
            continue
        model = load_builtin(model_type, head)
        # The language model alone of a whole model's configuration is not what a checkpoint with that configuration has.
        if types_for(model.architecture) or model.model_type != model_type:
            continue
        outcome = MS_SWIFT.resolve(model, MS_SWIFT.read("swift sft --model m --target_regex '.*'", "file"))
        assert str(outcome.resolution.refusal).startswith("ms-swift stops") == stops, name
        counts[stops] += 1
    assert counts == {False: 119, True: 54}


@pytest.mark.parametrize(
    ("what", "file", "lines"),
    [
        ("sft", "trainer_keys/ms-swift.txt", 357),
        ("rlhf", "trainer_keys/ms-swift-rlhf.txt", 509),
        ("models", "ms_swift_models.tsv", 318),
    ],
)
def test_the_tables_are_its_own(tmp_path: Path, what: str, file: str, lines: int) -> None:
    printed = run_in(
        python(),
        ["-P", str(ROOT / "tools" / "trainer_keys" / "ms_swift.py"), what],
        tmp_path,
        {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tools'}"},
    )
    own = printed[printed.index("# ms-swift 4.6.0") :]
    assert own == (DATA / file).read_text(encoding="utf-8") and len(own.splitlines()) == lines


@pytest.mark.parametrize(
    ("family", "rules", "options"),
    [
        ("llama", ("attention.q,v=4/12", "ffn.down=4/12"), {"bias": "all"}),
        ("qwen3_moe", ("attention.o[1]=2/3", "ffn.expert=2/3"), {"rslora": True}),
    ],
    ids=["llama", "experts"],
)
def test_it_trains_the_plan(tmp_path: Path, family: str, rules: tuple[str, ...], options: dict[str, Any]) -> None:
    model = tiny_model(tmp_path / "model", family)
    instructions(tmp_path / "tiny.jsonl")
    made = lorascope.plan(lorascope.inspect(str(model)), *rules, **options)
    text = export(made, "ms-swift", base=str(model), data="tiny.jsonl", output="out")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    words = shlex.split("\n".join(lines).replace("\\\n", " "))[2:]
    over = (
        f"--model_type {family} --template dummy --max_steps 2 --gradient_accumulation_steps 1 --use_cpu true "
        "--torch_dtype float32 --report_to none --save_strategy steps --save_steps 2 --add_version false"
    )
    run_in(python(), ["-P", str(ITSELF), *words, *over.split()], tmp_path, VARIABLES)
    folder = tmp_path / "out" / "checkpoint-2"
    saved = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert (saved["r"], saved["lora_alpha"]) == (made.config.r, made.config.lora_alpha)
    assert (saved["use_rslora"], saved["use_dora"]) == (made.config.use_rslora, made.config.use_dora)
    assert (saved["lora_dropout"], saved["bias"]) == (made.config.lora_dropout, made.config.bias)
    weights = saved_factors(folder / "adapter_model.safetensors")
    assert len(weights) == len(made.resolution.adapted)
    assert sum(a + b for a, b in weights.values()) == made.resolution.trainable


def saved_factors(file: Path) -> dict[str, tuple[int, int]]:
    """How many numbers the two factors of each adapter of a saved file have."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        sizes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    found = {}
    for name, shape in sizes.items():
        if ".lora_A." in name:
            other = sizes[name.replace(".lora_A.", ".lora_B.")]
            found[name] = (shape[0] * shape[1], other[0] * other[1])
    return found
