"""What is said of TRL beside TRL itself: its parser, its configuration for PEFT, and adapters that it trained."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import lorascope
from lorascope.errors import LorascopeError
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plan_api import plan
from lorascope.plans.types import Plan
from lorascope.trainers.exports import export
from lorascope.trainers.trl.trainer import TRL
from tests.helpers.paths import HELPERS, ROOT
from tests.helpers.samples import sample
from tests.helpers.tiny_models import conversations, tiny_model
from tests.helpers.venvs import environment, run_in

pytestmark = pytest.mark.slow

ITSELF = HELPERS / "trainers" / "trl_itself.py"
CPU = {"OMP_NUM_THREADS": "2"}
# What the parser needs beside a configuration on a machine without a GPU.
HERE = {"output_dir": "out", "use_cpu": True, "report_to": "none"}

PLANS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "llama": (("qv",), {}),
    "qwen2": (("attention.q",), {"rslora": True}),
    "qwen3": (("attention[-4:]", "ffn"), {"dora": True, "dropout": 0.1}),
    "gpt2": (("qv",), {"scale": 0.3}),
    "gpt_neox": (("attention.q",), {}),
    "mixtral": (("ffn",), {}),
    "qwen3_moe": (("attention.o",), {}),
    "qwen2_moe": (("attention", "ffn.shared"), {}),
    "deepseek_v3": (("attention",), {}),
    "qwen2_5_vl": (("attention", "ffn"), {}),
    "llava": (("vision.attention",), {}),
    "mamba2": (("mixer",), {}),
}
# What users write in files, over HERE, and on command lines.
FILES: list[dict[str, Any]] = [
    {"use_peft": True},
    {"lora_r": 8},
    {"use_peft": True, "lora_target_modules": ["q_proj"]},
    {"use_peft": True, "lora_target_modules": "q_proj"},
    {"use_peft": True, "lora_target_modules": "q"},
    {"use_peft": True, "lora_target_modules": []},
    {"use_peft": True, "lora_target_modules": "all-linear", "lora_modules_to_save": ["lm_head"]},
    {"use_peft": True, "lora_target_modules": ["q_proj", "v_proj"], "lora_r": "32", "lora_alpha": "64"},
    {"use_peft": True, "lora_dropout": "1e-1", "lora_alpha": 12.5},
    {"use_peft": True, "lora_task_type": None, "use_rslora": "yes", "use_dora": "t"},
    {"use_peft": True, "lora_task_type": "SEQ_CLS"},
    {"use_peft": True, "lora_target_parameters": ["mlp.experts.down_proj"]},
    {"use_peft": 0},
    {"use_peft": None},
    {"use_peft": "false"},
    {"use_peft": True, "lora_rr": 8, "env": {"A": 1}},
]
# TRL or PEFT stops at these, here or when the layers are made.
BROKEN: list[dict[str, Any]] = [
    {"use_peft": "maybe"},
    {"use_peft": True, "lora_r": "8.5"},
    {"use_peft": True, "lora_alpha": "12.5"},
    {"use_peft": True, "lora_dropout": "much"},
    {"use_peft": True, "env": 3},
]
COMMANDS = [
    "trl sft --use_peft --lora_target_modules q_proj v_proj --lora_r 8",
    "trl sft --use_peft --lora_target_modules q_proj",
    "trl sft --use_peft --lora-target-modules=q_proj --lora-alpha=4",
    "trl sft --use_peft --lora_target_modules all-linear --lora_dropout 0",
    "python trl/scripts/sft.py --use_peft true --lora_target_m q_proj k_proj --use_rslora",
    "accelerate launch --num_processes 2 sft.py --model_name_or_path a/b --use_peft True --lora_target_parameters x y",
    "trl sft --lora_r 8",
    "trl sft --use_peft no",
    "trl sft --use_peft --lora_target_modules 'q_proj v_proj'",
    "trl sft --use_peft --lora_modules_to_save lm_head --lora_task_type SEQ_CLS --use_dora yes",
    "trl sft --lora_r 4 --use_peft --lora_r 2",
]
BROKEN_COMMANDS = [
    "trl sft --use_peft --lora_r eight",
    "trl sft --use_peft --lora_alpha 12.5",
    "trl sft --use_peft perhaps",
    "trl sft --use_peft --lora_target_modules",
    "trl sft --use_peft --lora_r",
    "trl sft --use_peft --lora_targ q_proj",
]


@pytest.fixture(scope="module")
def python() -> Path:
    return environment("trl")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for processes that TRL starts: the installed torchvision may not fit the installed torch."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['torchvision'] = None\n", encoding="utf-8")
    return {**CPU, "PYTHONPATH": str(folder)}


def exported() -> Iterator[tuple[Plan, str]]:
    for model_type, (rules, options) in PLANS.items():
        made = plan(sample(model_type), *rules, **options)
        yield made, export(made, "trl")


def comparable(config: AdapterConfig) -> dict[str, Any]:
    """A configuration as `trl_itself` prints TRL's; an empty tuple of parameters is PEFT's None."""
    found = {key: value for key in ITS if (value := getattr(config, key)) is not None or key in ITS}
    return {key: sorted(value) if isinstance(value, tuple) else value for key, value in found.items()}


ITS = (
    "target_modules",
    "target_parameters",
    "r",
    "lora_alpha",
    "lora_dropout",
    "bias",
    "use_rslora",
    "use_dora",
    "modules_to_save",
    "task_type",
    "rank_pattern",
    "alpha_pattern",
    "exclude_modules",
    "layers_to_transform",
)


def told(text: str) -> dict[str, Any]:
    """What is said here of a file or command, in the form of what TRL itself did."""
    trainer = TRL
    try:
        asked = trainer.read(text, "file")
        outcome = trainer.resolve(sample("llama"), asked)
    except LorascopeError as error:
        return {"refused": str(error)}
    if outcome.config is None:
        return {"adapter": False}
    return {"base": asked.base or None, **comparable(outcome.config)}


def test_files_and_commands_mean_to_trl_what_is_told(python: Path, tmp_path: Path) -> None:
    plans = list(exported())
    here = yaml.safe_dump(HERE)
    ours = [yaml.safe_dump(written) for written in (*FILES, *BROKEN)]
    files = [text.replace("output_dir: lora-output\n", here) for _, text in plans] + [here + text for text in ours]
    fixed = ["--output_dir", "out", "--use_cpu", "--report_to", "none"]
    commands = [shlex.split(command) for command in (*COMMANDS, *BROKEN_COMMANDS)]
    words = [
        [*command[next(i for i, w in enumerate(command) if w.endswith(("sft", "sft.py"))) + 1 :], *fixed]
        for command in commands
    ]
    (tmp_path / "asked.json").write_text(json.dumps({"files": files, "commands": words}), encoding="utf-8")
    out = run_in(python, [str(ITSELF), "parse", str(tmp_path / "asked.json")], tmp_path, CPU)
    itself = json.loads(out.splitlines()[-1])
    # As exported, the file means the plan's own configuration, said within what TRL has.
    for (made, text), its in zip(plans, itself["files"][: len(plans)], strict=True):
        assert "refused" not in its, (text, its)
        assert its == told(text), text
        assert (its["r"], its["lora_alpha"], its["lora_dropout"]) == (
            made.config.r,
            made.config.lora_alpha,
            made.config.lora_dropout,
        )
        assert (its["use_rslora"], its["use_dora"], its["task_type"]) == (
            made.config.use_rslora,
            made.config.use_dora,
            made.config.task_type,
        )
    pairs = [
        *zip(ours, itself["files"][len(plans) :], strict=True),
        *zip((*COMMANDS, *BROKEN_COMMANDS), itself["commands"], strict=True),
    ]
    refused = 0
    for text, its in pairs:
        said = told(text)
        assert ("refused" in said) == ("refused" in its), (text, said, its)
        if "refused" in its:
            refused += 1
        else:
            assert its == said, text
    assert (len(plans), len(pairs), refused) == (12, 38, len(BROKEN) + len(BROKEN_COMMANDS))


def test_what_trl_does_with_unknown_keys(python: Path, site: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({**HERE, "use_peft": True, "lora_rr": 8}), encoding="utf-8")
    found = list(TRL.read(file.read_text(encoding="utf-8"), "c.yaml").findings)
    assert [(finding.code, "lora_rr" in finding.message) for finding in found] == [("unknown-key", True)]
    assert "trl stops at it" in found[0].message
    with pytest.raises(AssertionError, match="unrecognized arguments: --lora_rr"):
        run_in(python, [str(python.parent / "trl"), "sft", "--config", str(file)], tmp_path, site)
    # The script alone passes over it: `test_files_and_commands_mean_to_trl_what_is_told` has such a file.
    with pytest.raises(AssertionError, match=r"not used by the HfArgumentParser: \['--lora_rr', '8'\]"):
        run_in(python, ["-m", "trl.scripts.sft", "--output_dir", "out", "--use_cpu", "--lora_rr", "8"], tmp_path, site)


def test_adapters_that_trl_trained_are_those_of_the_plan(python: Path, site: dict[str, str], tmp_path: Path) -> None:
    data = conversations(tmp_path / "data.jsonl")
    rules = {
        "mixtral": ("attention.q,v", "ffn.expert"),
        "llama": ("attention.q", "ffn.down"),
        "qwen3": ("attention.o[1]",),
        "qwen3_moe": ("attention.o", "ffn.expert.down"),
    }
    made, files = {}, []
    for family, own in rules.items():
        model = lorascope.inspect(str(tiny_model(tmp_path / family, family)))
        made[family] = plan(model, *own, rank=4, alpha=6)
        text = export(made[family], "trl", data=str(data), output=str(tmp_path / f"{family}-out"))
        file = tmp_path / f"{family}.yaml"
        more = {"max_steps": 1, "use_cpu": True, "report_to": "none", "save_strategy": "no"}
        file.write_text(text + yaml.safe_dump(more), encoding="utf-8")
        files.append(str(file))
    # The first by the command that the file names, the others by the script that it starts.
    run_in(python, [str(python.parent / "trl"), "sft", "--config", files[0]], tmp_path, site)
    run_in(python, [str(ITSELF), "train", *files[1:]], tmp_path, CPU)
    for family, one in made.items():
        assert saved(tmp_path / family, tmp_path / f"{family}-out") == {
            target.weight.name: (target.rank, target.alpha) for target in one.targets
        }, family
    assert len(made) == 4


def saved(base: Path, adapter: Path) -> dict[str, tuple[int, float]]:
    """Rank and alpha of every weight that a saved adapter adapts, as PEFT loads it."""
    import peft
    import transformers
    from safetensors import safe_open

    from tests.helpers.oracle import adapted_weights

    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    wrapped = peft.PeftModel.from_pretrained(model, adapter)
    found = {name: (rank, alpha) for name, (rank, alpha, _) in adapted_weights(wrapped).items()}
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        # One A and one B each: PEFT's own loading would pass over what is missing.
        assert len(list(file.keys())) == 2 * len(found)
    return found


def test_trl_stops_at_an_adapted_head(python: Path, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "llama")
    data = conversations(tmp_path / "data.jsonl")
    text = yaml.safe_dump(
        {
            **HERE,
            "model_name_or_path": str(base),
            "datasets": [{"path": "json", "data_files": str(data)}],
            "use_peft": True,
            "lora_target_modules": ["q_proj", "lm_head"],
        }
    )
    outcome = TRL.resolve(lorascope.inspect(str(base)), TRL.read(text, "c.yaml"))
    assert 'TRL stops at an adapter of "lm_head"' in str(outcome.resolution.refusal)
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match="adapter to `lm_head` is not supported"):
        run_in(python, [str(ITSELF), "train", str(tmp_path / "c.yaml")], tmp_path, CPU)


def test_the_keys_are_trls_own(python: Path, tmp_path: Path) -> None:
    variables = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tools'}"}
    # -P, or the folder of the tool would hold the module trl.
    printed = run_in(python, ["-P", str(ROOT / "tools/trainer_keys/trl.py")], tmp_path, variables)
    kept = (ROOT / "src/lorascope/data/trainer_keys/trl.txt").read_text(encoding="utf-8")
    assert printed == kept
    assert len(kept.splitlines()) == 393
