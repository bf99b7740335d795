"""Plans as PEFT's own file and as Python: read by PEFT, run, and the same again."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import transformers

import lorascope as ls
from lorascope.peft_rules.lora_config import to_peft
from lorascope.trainers.exports import export
from tests.helpers.samples import TINY_LLAMA, sample
from tests.helpers.tiny_models import tiny_model

MODELS = (
    "mistral",
    "gpt2",
    "t5",
    "bert",
    "mixtral",
    "qwen3_moe",
    "deepseek_v3",
    "gpt_oss",
    "llava",
    "qwen2_vl",
    "mamba2",
)


def test_peft_reads_the_file(tmp_path: Path) -> None:
    tried = 0
    for model_type in MODELS:
        for recipe in ("attention", "ffn", "all"):
            try:
                plan = ls.plan(sample(model_type), recipe)
            except ls.LorascopeError:
                continue
            text = export(plan, "peft", base="org/model")
            (tmp_path / "adapter_config.json").write_text(text, encoding="utf-8")
            read = peft.PeftConfig.from_pretrained(str(tmp_path))
            wanted: dict[str, Any] = {**to_peft(plan.config).to_dict(), "base_model_name_or_path": "org/model"}
            assert read.to_dict() == wanted
            tried += 1
    assert tried == 31


def test_the_script_runs_and_adapts_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_model(tmp_path / "model", "mixtral")
    plan = ls.plan(ls.inspect(str(folder), read="config"), "qv+ffn")
    text = export(plan, "peft-python")
    assert f"from_pretrained('{folder}')" in text  # the model that the plan was made for
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a false alarm about keys of parameters
        exec(compile(text, "train.py", "exec"), names)
    assert names["model"].get_nb_trainable_parameters()[0] == plan.resolution.trainable
    assert isinstance(names["model"].base_model.model, transformers.MixtralForCausalLM)


def test_without_a_base_the_script_says_what_to_write() -> None:
    text = export(ls.plan(sample("mistral")), "peft-python")
    assert "# Your model: a Hub id or a folder.\n" in text
    assert "'YOUR/MODEL'" in text


def test_the_file_is_that_of_save_plan(tmp_path: Path) -> None:
    plan = ls.plan(ls.inspect(transformers.LlamaConfig(**TINY_LLAMA)), "qv+ffn", dora=True)
    ls.save_plan(plan, tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert json.loads(export(plan, "peft")) == saved


def test_both_files_name_the_folder_that_was_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**TINY_LLAMA)).save_pretrained(folder)
    for read in ("headers", "config"):
        plan = ls.plan(ls.inspect(folder, read=read))
        ls.save_plan(plan, tmp_path / read)
        saved = json.loads((tmp_path / read / "adapter_config.json").read_text(encoding="utf-8"))
        assert saved["base_model_name_or_path"] == str(folder)
        assert json.loads(export(plan, "peft")) == saved
