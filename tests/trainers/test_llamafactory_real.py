"""What is said of LLaMA-Factory beside LLaMA-Factory itself: its parser, its search, its tables, adapters that it trained."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

import lorascope
from lorascope.plan_api import plan
from lorascope.trainers.exports import export
from lorascope.trainers.llamafactory.parts import PARTS
from lorascope.trainers.llamafactory.trainer import LLAMAFACTORY
from tests.helpers.paths import HELPERS, ROOT
from tests.helpers.samples import sample
from tests.helpers.tiny_models import instructions, tiny_model
from tests.helpers.trainer_cases import agreed
from tests.helpers.trainers.llamafactory_itself import PLANS, WRITTEN
from tests.helpers.venvs import environment, run_in

pytestmark = pytest.mark.slow

ITSELF = HELPERS / "trainers" / "llamafactory_itself.py"
VARIABLES = {"OMP_NUM_THREADS": "2", "LLAMAFACTORY_VERBOSITY": "ERROR"}
# The search of each class of models, those that its table has the parts of and those that it has not.
ENTRIES = [
    *(
        ("causal-lm", model_type)
        for model_type in (
            "llama",
            "gpt2",
            "qwen3",
            "mixtral",
            "qwen3_moe",
            "gpt_neox",
            "phi3",
            "falcon",
            "bloom",
            "mamba",
            "deepseek_v3",
            "gpt_oss",
            "gemma3_text",
            "opt",
            "granitemoehybrid",
            "falcon_h1",
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
            "qwen2_5_omni_thinker",
            "video_llava",
            "blip-2",
            "florence2",
        )
    ),
    ("seq2seq-lm", "t5"),
]
# What is told as a fault or a finding here, with what the parser makes of it.
FILES: list[tuple[str, str, dict[str, Any]]] = [
    ("lora_targets: q_proj", "Some keys are not used", {}),
    ("finetuning_type: qlora", "Invalid fine-tuning method", {}),
    ("lora_dropout: 1e-1", "", {"lora_dropout": 0.1}),
    ("lora_target: 'q_proj, v_proj,'", "", {"lora_target": ["q_proj", "v_proj", ""]}),
    ("lora_target: [q_proj, v_proj]", "", {"lora_target": ["q_proj", "v_proj"]}),
    ("lora_rank: '8'", "", {"lora_rank": "8", "lora_alpha": "88"}),
    ("lora_alpha: 0", "", {"lora_alpha": 16}),
    ("lora_alpha: 7.5", "", {"lora_alpha": 7.5}),
    ("use_dora: 'false'", "", {"use_dora": "false"}),
    ("lora_target: ${stage}", "", {"lora_target": ["${stage}"]}),
    ("lora_target: a\nlora_target: b", "duplicate key", {}),
]


def python() -> Path:
    return environment("llamafactory")


def exported() -> list[tuple[str, dict[str, Any]]]:
    """Files of plans, with what they mean."""
    found = []
    for model_type, rules, options in (
        ("llama", ("qv",), {}),
        ("llama", ("attention[-4:]",), {"rslora": True, "dropout": 0.25}),
        ("qwen3_moe", ("attention",), {"rank": 3, "alpha": 7.5, "dora": True}),
        ("qwen2_vl", ("vision.attention",), {}),
        ("gpt_neox", ("attention", "ffn"), {}),
    ):
        made = plan(sample(model_type), *rules, **options)
        config = made.config
        text = export(made, "llamafactory", base="org/model")
        meant = {
            "error": "",
            "base": "org/model",
            "lora_target": LLAMAFACTORY.read(text, "file").settings["lora_target"],
            "lora_rank": config.r,
            "lora_alpha": config.lora_alpha,
            "lora_dropout": config.lora_dropout,
            "use_rslora": config.use_rslora,
            "use_dora": config.use_dora,
            "freeze_vision_tower": model_type != "qwen2_vl",
        }
        if isinstance(meant["lora_target"], str):
            meant["lora_target"] = meant["lora_target"].split(",")
        found.append((text, meant))
    return found


@functools.cache
def answers(folder: Path) -> dict[str, Any]:
    base = "model_name_or_path: folder\nstage: sft\ndo_train: true\ndataset: d\noutput_dir: out\n"
    texts = [base + text for text, _, _ in FILES] + [text for text, _ in exported()]
    (folder / "asked.json").write_text(json.dumps({"entries": ENTRIES, "files": texts}), encoding="utf-8")
    run_in(python(), ["-P", str(ITSELF), "asked.json", "answers.json"], folder, VARIABLES)
    found: dict[str, Any] = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return answers(tmp_path_factory.mktemp("llamafactory"))


def test_its_search_and_peft_do_what_is_said(said: dict[str, Any]) -> None:
    assert said["versions"] == {"peft": "0.18.1", "transformers": "5.6.0"}
    assert len(said["models"]) == len(ENTRIES) == 37
    assert agreed(said["models"], list(WRITTEN)) == {"done": 524, "stopped": 182, "plans": 151}
    assert len(PLANS) == 5


def test_its_parser_takes_what_is_written(said: dict[str, Any]) -> None:
    cases = exported()
    assert len(cases) == 5
    for found, (_, meant) in zip(said["files"][len(FILES) :], cases, strict=True):
        assert found == meant


@pytest.mark.parametrize("at", range(len(FILES)), ids=[text for text, _, _ in FILES])
def test_its_parser_makes_of_a_value_what_is_said(said: dict[str, Any], at: int) -> None:
    found, (_, error, values) = said["files"][at], FILES[at]
    assert error in found["error"] and bool(error) == bool(found["error"])
    assert {key: found[key] for key in values} == values


def test_the_table_of_parts_is_its_own(said: dict[str, Any]) -> None:
    ours = {
        name: [sorted(words) for words in (parts.projector, parts.vision, parts.language, parts.conflicts)]
        for name, parts in PARTS.items()
    }
    assert ours == said["parts"] and len(ours) == 31


def test_the_keys_are_its_own(tmp_path: Path) -> None:
    printed = run_in(
        python(),
        ["-P", str(ROOT / "tools" / "trainer_keys" / "llamafactory.py")],
        tmp_path,
        {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tools'}"},
    )
    kept = ROOT / "src" / "lorascope" / "data" / "trainer_keys" / "llamafactory.txt"
    assert printed == kept.read_text(encoding="utf-8")
    assert printed.startswith("# llamafactory 0.9.5\n") and len(printed.splitlines()) == 347


@pytest.mark.parametrize(
    ("family", "rules", "options"),
    [
        ("llama", ("attention.q,v=4/12", "ffn.down=4/12"), {}),
        ("llama", ("attention.o[1]=2/3",), {"rslora": True}),
        ("qwen3_moe", ("attention",), {"dora": True, "dropout": 0.1}),
    ],
    ids=["llama", "one layer", "experts beside"],
)
def test_it_trains_the_plan(tmp_path: Path, family: str, rules: tuple[str, ...], options: dict[str, Any]) -> None:
    model = tiny_model(tmp_path / "model", family)
    instructions(tmp_path / "tiny.jsonl")
    (tmp_path / "dataset_info.json").write_text(json.dumps({"tiny": {"file_name": "tiny.jsonl"}}), encoding="utf-8")
    made = lorascope.plan(lorascope.inspect(str(model)), *rules, **options)
    text = export(made, "llamafactory", base=str(model), data="tiny", output="out")
    (tmp_path / "train.yaml").write_text(text, encoding="utf-8")
    over = ["dataset_dir=.", "max_steps=2", "gradient_accumulation_steps=1", "bf16=false", "use_cpu=true"]
    run_in(python(), ["-P", str(ITSELF), "train.yaml", *over], tmp_path, VARIABLES)
    saved = json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (saved["r"], saved["lora_alpha"]) == (made.config.r, made.config.lora_alpha)
    assert (saved["use_rslora"], saved["use_dora"]) == (made.config.use_rslora, made.config.use_dora)
    assert (saved["lora_dropout"], saved["bias"]) == (made.config.lora_dropout, "none")
    ranks = lora_ranks(tmp_path / "out" / "adapter_model.safetensors")
    assert ranks == {one.name: one.rank for one in made.resolution.adapted}


def lora_ranks(file: Path) -> dict[str, int]:
    """The modules that a saved adapter has weights for, with their ranks."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    end = ".lora_A.weight"
    return {name.removeprefix("base_model.model.").removesuffix(end): s[0] for name, s in shapes.items() if end in name}
