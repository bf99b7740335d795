"""What is said of axolotl beside axolotl itself: its schema, its search for linear layers, the adapters that it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorascope.errors import LorascopeError
from lorascope.plan_api import plan
from lorascope.trainers.axolotl.trainer import AXOLOTL
from lorascope.trainers.exports import export
from tests.helpers.paths import HELPERS, ROOT
from tests.helpers.samples import sample
from tests.helpers.trainers.axolotl_itself import FILE, RULES, WRITTEN
from tests.helpers.venvs import environment, run_in

pytestmark = pytest.mark.slow

ITSELF = HELPERS / "trainers" / "axolotl_itself.py"
VARIABLES = {"OMP_NUM_THREADS": "2", "AXOLOTL_DO_NOT_TRACK": "1"}
ENTRIES = [
    *(
        ("causal-lm", model_type)
        for model_type in (
            "llama",
            "qwen3",
            "mixtral",
            "qwen3_moe",
            "qwen2_moe",
            "gpt_oss",
            "deepseek_v3",
            "gpt2",
            "gpt_neox",
            "phi3",
            "falcon",
            "bloom",
            "opt",
            "mamba2",
            "nemotron_h",
            "falcon_h1",
            "granitemoehybrid",
        )
    ),
    *(
        ("image-text-to-text", model_type)
        for model_type in ("llava", "qwen2_5_vl", "qwen3_vl_moe", "gemma3", "gemma4 with towers", "mllama", "internvl")
    ),
    ("sequence-classification", "llama"),
]
# Values of single keys, over FILE: the schema takes them as told here, or refuses them here and there.
VALUES: list[tuple[str, Any]] = [
    *(("lora_r", value) for value in (4, "4", " 4 ", "4.0", 4.0, 4.5, True, "four", [4], 1e300)),
    *(("lora_alpha", value) for value in (16, "16", 12.5, "12.5", -1, {})),
    *(("lora_dropout", value) for value in (0, 0.1, "1e-1", "much", True, None, [0.1])),
    *(("peft_use_dora", value) for value in (True, "yes", "N", "maybe", 1, 0, 2, 1.0, None)),
    *(("lora_target_linear", value) for value in ("on", "of", [])),
    *(("lora_target_modules", value) for value in ("q_proj", ["q_proj"], [], [1], 1, ["("], "(", {"q_proj": 1})),
    *(("lora_target_parameters", value) for value in ("experts.down_proj", ["experts.down_proj"], [None])),
    *(("lora_modules_to_save", value) for value in (["lm_head"], "lm_head", [])),
    *(("lora_rank_pattern", value) for value in ({"q_proj": 4}, {"q_proj": "4"}, {"q_proj": 0}, {"q": 1.5}, [], {})),
    *(("lora_alpha_pattern", value) for value in ({"q_proj": 4.0}, {"q_proj": -4}, {"q_proj": None})),
    *(("peft_layers_to_transform", value) for value in ([0, 1], ["0"], [0.5], 3, [])),
    *(("freeze_mm_modules", value) for value in (True, "false", "never")),
    *(("adapter", value) for value in ("lora", 3, ["lora"])),
    *(("lora_model_dir", value) for value in ("there", 3)),
]
# What the schema refuses of keys together, and beside each the same where it is taken.
TOGETHER: list[dict[str, Any]] = [
    {"adapter": "qlora"},
    {"adapter": "qlora", "load_in_4bit": True},
    {"adapter": "qlora", "load_in_4bit": True, "load_in_8bit": True},
    {"adapter": "qlora", "load_in_4bit": True, "gptq": True},
    {"adapter": None, "load_in_4bit": True},
    {"adapter": None},
    {"lora_target_parameters": ["experts.down_proj"], "lora_dropout": 0.1},
    {"lora_target_parameters": ["experts.down_proj"], "lora_dropout": 0.0},
    {"peft_layers_pattern": ["layers"]},
    {"peft_layers_pattern": ["layers"], "peft_layers_to_transform": [1]},
    {"peft_layers_to_transform": [1], "unfrozen_parameters": ["lm_head"]},
    {"quantize_moe_experts": True, "lora_target_linear": True, "load_in_4bit": True},
    {"quantize_moe_experts": True},
    {"lora_target_modules": ["q_proj", "*."]},
    {"lora_rr": 8, "lora_exclude_modules": ["layers.0"], "lora_target_modules": ["q_proj"]},
]
PLANS: list[tuple[str, str, tuple[str, ...], dict[str, Any]]] = [
    ("llama", "causal-lm", ("qv",), {}),
    ("llama", "causal-lm", ("attention[-4:]",), {"rslora": True, "dropout": 0.25}),
    ("qwen3", "causal-lm", ("attention.q=4/32", "ffn=2"), {"dora": True}),
    ("gpt2", "causal-lm", ("attention",), {}),
    ("mixtral", "causal-lm", ("ffn.expert=4/8",), {}),
    ("qwen3_moe", "causal-lm", ("attention", "ffn.expert.down"), {"rank": 4}),
    ("llava", "image-text-to-text", ("vision.attention",), {}),
    ("gemma3", "image-text-to-text", ("attention.q,o[0]=2",), {}),
]


@pytest.fixture(scope="module")
def python() -> Path:
    return environment("axolotl")


@pytest.fixture(scope="module")
def exported() -> list[tuple[dict[str, Any], str]]:
    """What each plan means in axolotl's keys, and its file."""
    found = []
    for model_type, head, rules, options in PLANS:
        made = plan(sample(model_type, head), *rules, **options)
        config = made.config
        meant = {
            "adapter": "lora",
            "lora_r": config.r,
            "lora_alpha": config.lora_alpha,
            "lora_dropout": config.lora_dropout,
            "peft_use_dora": config.use_dora,
            "peft_use_rslora": config.use_rslora,
        }
        found.append((meant, export(made, "axolotl", base="org/model")))
    return found


@pytest.fixture(scope="module")
def said(
    python: Path, exported: list[tuple[dict[str, Any], str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Everything that is asked of axolotl, in one process, because importing it takes seconds."""
    folder = tmp_path_factory.mktemp("axolotl")
    together = [yaml.safe_dump({**FILE, **changes}) for changes in TOGETHER]
    texts = [*(text for _, text in exported), *together]
    (folder / "asked.json").write_text(
        json.dumps({"entries": ENTRIES, "values": VALUES, "texts": texts}), encoding="utf-8"
    )
    printed = run_in(python, ["-P", str(ITSELF), "asked.json"], folder, VARIABLES)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def test_its_search_and_its_adapters_are_those_told(said: dict[str, Any]) -> None:
    assert said["versions"] == {"peft": "0.20.0", "transformers": "5.16.1"}
    assert len(said["models"]) == len(ENTRIES) == 25
    counts: dict[str, int] = {}
    wrong: dict[str, str] = {}
    for name, outcomes in said["models"].items():
        assert outcomes.keys() == {*WRITTEN, *(f"plan: {rule}" for rule in RULES)}, (name, outcomes)
        for case, outcome in outcomes.items():
            kind = outcome.partition(":")[0]
            counts[kind] = counts.get(kind, 0) + 1
            if kind not in (("same", "no file") if case.startswith("plan: ") else ("same", "both refuse")):
                wrong[f"{name}, {case}"] = outcome
    assert wrong == {}
    assert counts == {"same": 336, "both refuse": 225, "no file": 14}


def test_single_values_become_what_is_told(said: dict[str, Any]) -> None:
    refused = 0
    for (key, value), its in zip(VALUES, said["values"], strict=True):
        try:
            settings = AXOLOTL.read(json.dumps({**FILE, key: value}), "file").settings
        except LorascopeError as error:
            assert "refused" in its, (key, value, its, str(error))
            assert key in str(error)
            refused += 1
            continue
        assert "refused" not in its, (key, value, its)
        assert settings.get(key) == its["is"], (key, value, its)
    assert (len(VALUES), refused) == (71, 30)


def test_what_keys_together_are_refused(said: dict[str, Any]) -> None:
    refused = 0
    for changes, its in zip(TOGETHER, said["texts"][len(PLANS) :], strict=True):
        try:
            AXOLOTL.read(yaml.safe_dump({**FILE, **changes}), "file")
        except LorascopeError as error:
            assert "refused" in its, (changes, its, str(error))
            refused += 1
        else:
            assert "refused" not in its, (changes, its)
    assert (len(TOGETHER), refused) == (15, 10)
    # Keys that it does not know are gone without a word.
    unknown = said["texts"][-1]
    assert unknown["lora_target_modules"] == ["q_proj"] and not {"lora_rr", "lora_exclude_modules"} & unknown.keys()
    found = AXOLOTL.read(yaml.safe_dump({**FILE, **TOGETHER[-1]}), "file").findings
    assert [(one.code, one.severity) for one in found] == [("unknown-key", "error"), ("ignored-key", "error")]


def test_its_schema_takes_what_is_written(said: dict[str, Any], exported: list[tuple[dict[str, Any], str]]) -> None:
    for (meant, text), its in zip(exported, said["texts"][: len(PLANS)], strict=True):
        assert "refused" not in its, (its, text)
        assert {key: its.get(key) or False if key.startswith("peft_") else its[key] for key in meant} == meant
        written = yaml.safe_load(text)
        bearing = {key: value for key, value in written.items() if key.startswith(("lora_", "peft_", "adapter"))}
        assert {key: its.get(key) for key in bearing} == bearing
    assert len(exported) == 8


def test_the_keys_are_axolotls_own(python: Path, tmp_path: Path) -> None:
    variables = {**VARIABLES, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tools'}"}
    # -P, or the folder of the tool would hold the module axolotl.
    printed = run_in(python, ["-P", str(ROOT / "tools/trainer_keys/axolotl.py")], tmp_path, variables)
    kept = (ROOT / "src/lorascope/data/trainer_keys/axolotl.txt").read_text(encoding="utf-8")
    assert printed[printed.index("# axolotl") :] == kept
    assert len(kept.splitlines()) == 395
