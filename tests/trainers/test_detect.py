"""Whose configuration a file is: shell scripts, Python, notebooks. Each is checked as a user would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest

import lorascope as ls
from lorascope.cli.main import main
from lorascope.trainers.detect import TrainerFile, read_file
from tests.helpers.samples import fails, sample

SWIFT = "swift sft --model M --tuner_type lora --lora_rank 8 --target_modules all-linear"
TRL = "trl sft --model_name_or_path M --use_peft --lora_target_modules q_proj v_proj --lora_r 8"
SCRIPTS = {
    "ms-swift": SWIFT,
    "ms-swift in lines": "# 22GB\nCUDA_VISIBLE_DEVICES=0 \\\nswift sft \\\n  --model M \\\n  --lora_rank 8 \\\n  --target_modules all-linear\n",
    "ms-swift with variables": f"RANK=8\nMODEL=${{1:-M}}\n{SWIFT.replace('rank 8', 'rank $RANK')} --output_dir out/$RANK",
    "ms-swift with an array": 'ARGS=(\n  --lora_rank 8\n  --target_modules all-linear\n)\nswift sft --model M "${ARGS[@]}"',
    "ms-swift after others": f"swift export --adapters x\nswift infer --adapters x\n{SWIFT}\nswift eval --model M",
    "ms-swift by its script": SWIFT.replace("swift sft", "torchrun --nproc_per_node 2 swift/cli/sft.py"),
    "trl": TRL,
    "trl after the download": f"set -e\nhuggingface-cli download M && {TRL}",
    "trl by its script": TRL.replace("trl sft", "accelerate launch --config_file c.yaml trl/scripts/sft.py"),
    "trl with dashes": TRL.replace("lora_target_modules", "lora-target-modules").replace("use_peft", "use-peft"),
}


def read(folder: Path, name: str, text: str) -> TrainerFile:
    (folder / name).write_text(text, encoding="utf-8")
    found = read_file(folder / name)
    assert isinstance(found, TrainerFile)
    return found


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("suffix", [".sh", ".slurm", ""])
def test_a_script_is_of_the_trainer_that_it_runs(name: str, suffix: str, tmp_path: Path) -> None:
    found = read(tmp_path, f"train{suffix}", SCRIPTS[name])
    assert found.trainer.name == name.split()[0]
    check = ls.check(sample("llama"), tmp_path / f"train{suffix}")
    everywhere = name.startswith("ms-swift")
    assert len(check.resolution.adapted) == (7 if everywhere else 2) * 32
    assert {target.rank for target in check.resolution.adapted} == {8}
    assert not check.matters


def test_a_variable_that_the_script_does_not_set_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text(SWIFT.replace("rank 8", "rank $RANK"), encoding="utf-8")
    with fails("a.sh", "lora_rank", "$RANK"):
        ls.check(sample("llama"), tmp_path / "a.sh")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("axolotl train examples/llama.yml --lora-r 8", "Axolotl"),
        ("accelerate launch -m axolotl.cli.train examples/llama.yml", "Axolotl"),
        ("FORCE_TORCHRUN=1 llamafactory-cli train examples/llama.yaml", "LLaMA-Factory"),
        ("tune run lora_finetune_single_device --config llama.yaml", "torchtune"),
        ("python -m mlx_lm.lora --config llama.yaml", "mlx-lm"),
    ],
)
def test_a_script_that_names_the_configuration_says_which_file(text: str, title: str, tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text(text, encoding="utf-8")
    with fails(f"runs {title} with the options in", "llama.y", "Check that file instead"):
        ls.check(sample("llama"), tmp_path / "a.sh")


def test_a_script_of_nobody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("pip install peft\npython train.py", encoding="utf-8")
    with fails("is neither a trainer's configuration nor an adapter's", "--as"):
        ls.check(sample("llama"), tmp_path / "a.sh")


PYTHON = "config = LoraConfig(r=8, target_modules=['q_proj', 'v_proj'], task_type='CAUSAL_LM')\n"
UNSLOTH = (
    "from unsloth import FastLanguageModel\nmodel, tokenizer = FastLanguageModel.from_pretrained('M')\n"
    "model = FastLanguageModel.get_peft_model(model, r=8, target_modules=['q_proj', 'v_proj'])\n"
)
PROGRAMS = {
    "peft-python": PYTHON,
    "peft-python with a trainer's words": f"print(args.dataset_name, args.use_peft, args.lora_rank)\n{PYTHON}",
    "peft-python with constants": f"rank = 4\n{PYTHON.replace('r=8', 'r=2 * rank, lora_alpha=rank * 4')}",
    "peft-python with get_peft_model": f"{PYTHON}model = get_peft_model(model, config)\n",
    "unsloth": UNSLOTH,
    "unsloth with a trainer's words": f"print(args.dataset_name, args.use_peft)\n{UNSLOTH}",
    "unsloth with LoraConfig": f"from peft import LoraConfig\n{UNSLOTH}",
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("form", ["py", "ipynb"])
def test_a_program_is_of_what_it_calls(name: str, form: str, tmp_path: Path) -> None:
    text = PROGRAMS[name] if form == "py" else notebook(*PROGRAMS[name].splitlines(keepends=True))
    found = read(tmp_path, f"train.{form}", text)
    assert found.trainer.name == name.split()[0]
    targets = ls.check(sample("llama"), tmp_path / f"train.{form}").resolution.adapted
    assert len(targets) == 64
    assert {target.rank for target in targets} == {8}


def notebook(*cells: str, **more: Any) -> str:
    code = [{"cell_type": "code", "source": cell.splitlines(keepends=True), "outputs": []} for cell in cells]
    text = {"cell_type": "markdown", "source": ["LoraConfig(r=1)"]}
    return json.dumps({"cells": [text, *code], "nbformat": 4, "metadata": {}, **more})


MAGIC = (
    "!pip install peft \\\n  trl\n",
    "%%capture\nimport os\n%pip install peft\nif True:\n    !nvidia-smi\n",
    "%%bash\nthis is no Python (\n",
    "LoraConfig?\n",
    "%%time\nrank = 8\n",
    "files = !ls\nout = %env HOME\n",
)


def test_what_a_notebook_says_to_itself_is_left_out(tmp_path: Path) -> None:
    read(tmp_path, "a.ipynb", notebook(*MAGIC, PYTHON.replace("r=8", "r=rank")))
    targets = ls.check(sample("llama"), tmp_path / "a.ipynb").resolution.adapted
    assert {target.rank for target in targets} == {8}
    assert len(targets) == 64


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "has no cells"),
        ('{"cells": {}}', "has no cells"),
        ('{"cells": [1, {"cell_type": "code", "source": 7}, {"cell_type": "code"}]}', "is neither"),
        ("{", "a.ipynb"),
        (notebook("LoraConfig(r=\n"), "is not Python"),
    ],
)
def test_a_broken_notebook_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text(text, encoding="utf-8")
    with fails("a.ipynb", says):
        ls.check(sample("llama"), tmp_path / "a.ipynb")


def test_what_mlx_lm_saves_is_read_by_its_rules(tmp_path: Path) -> None:
    """mlx-lm writes all its options into a file of PEFT's name, beside tensors of its own."""
    saved = {
        "fine_tune_type": "lora",
        "num_layers": 16,
        "lora_parameters": {"keys": ["self_attn.q_proj"], "rank": 16, "scale": 2.0, "dropout": 0.0},
        "model": "mlx-community/Llama-2-7b-4bit",
        "adapter_path": "adapters",
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(saved), encoding="utf-8")
    for given in (tmp_path, tmp_path / "adapter_config.json"):
        check = ls.check(sample("llama"), given)
        assert check.trainer.startswith("mlx-lm ")
        assert [(target.name, target.rank) for target in check.resolution.adapted] == [
            (f"model.layers.{layer}.self_attn.q_proj", 16) for layer in sorted(range(16, 32), key=str)
        ]


@pytest.mark.parametrize(
    "saved",
    [
        {"r": 8, "target_modules": ["q_proj"]},
        {"config": {"architecture": "lora", "r": 8}, "hidden_size": 768, "model_class": "BertAdapterModel"},
        {},
    ],
)
def test_a_file_of_nobody_under_the_name_of_pefts_is_refused(saved: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(saved), encoding="utf-8")
    with pytest.raises(KeyError, match="peft_type"):  # as PeftModel.from_pretrained asks first
        peft.PeftConfig._get_peft_type(str(tmp_path))
    with fails("has no peft_type, without which PEFT loads no adapter", '"peft_type": "LORA"'):
        ls.check(sample("llama"), tmp_path)
    if "r" in saved:  # the next step works
        (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **saved}), encoding="utf-8")
        assert len(ls.check(sample("llama"), tmp_path).resolution.adapted) == 32
        assert peft.PeftConfig.from_pretrained(tmp_path).peft_type == "LORA"


FULL = {
    "axolotl": ("a.yaml", "base_model: m\nsequence_len: 2048\nmicro_batch_size: 1\n"),
    "axolotl with another adapter": ("a.yaml", "base_model: m\nadapter: llama-adapter\nsequence_len: 2048\n"),
    "llamafactory": ("a.yaml", "model_name_or_path: m\nstage: sft\nfinetuning_type: full\ntemplate: llama2\n"),
    "llamafactory with some layers": ("a.yaml", "model_name_or_path: m\nstage: sft\nfinetuning_type: freeze\n"),
    "trl": ("a.yaml", "model_name_or_path: m\ndataset_name: x\nuse_peft: false\n"),
    "trl by a command": ("a.sh", "trl sft --model_name_or_path m --dataset_name x"),
    "ms-swift": ("a.sh", "swift sft --model m --tuner_type full --dataset x"),
    "ms-swift with another tuner": ("a.sh", "swift sft --model m --tuner_type adalora --dataset x"),
    "mlx-lm": ("a.yaml", "model: m\nfine_tune_type: full\nnum_layers: 16\niters: 10\n"),
    "torchtune": (
        "a.yaml",
        "model:\n  _component_: torchtune.models.llama2.llama2_7b\ntokenizer: {}\ncheckpointer: {checkpoint_dir: m}\n",
    ),
}


@pytest.mark.parametrize("name", FULL)
def test_a_training_without_lora_is_one_finding_whoever_trains(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, text = FULL[name]
    (tmp_path / file).write_text(text, encoding="utf-8")
    check = ls.check(sample("llama"), tmp_path / file)
    assert [(one.code, one.severity) for one in check.findings] == [("no-adapter", "error")]
    assert check.resolution.trainable == 0
    assert main(["check", "llama", str(tmp_path / file)]) == 1
    assert "Set " in capsys.readouterr().out
