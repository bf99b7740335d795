"""ms-swift's options: written from plans, read as users write them, and what its own search makes of them."""

from __future__ import annotations

import dataclasses
import re
import shlex

import pytest

from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap, Module
from lorascope.plan_api import plan
from lorascope.trainers.exports import export
from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.ms_swift.models import Towers, model_types, types_for
from lorascope.trainers.ms_swift.search import linear_endings, within
from lorascope.trainers.ms_swift.trainer import MS_SWIFT
from lorascope.trainers.protocol import Job, Outcome
from tests.helpers.samples import fails, sample
from tests.helpers.wide_plans import MODELS, messages, walked


def asked(model: ModelMap, options: str) -> Outcome:
    return MS_SWIFT.resolve(model, MS_SWIFT.read(f"swift sft --model folder {options}", "train.sh"))


def adapted(outcome: Outcome) -> set[str]:
    """The adapted names, their numbers as one sign."""
    assert outcome.resolution.refusal is None, str(outcome.resolution.refusal)
    return {re.sub(r"\d+", "#", one.name) for one in outcome.resolution.adapted}


def words(text: str) -> dict[str, list[str]]:
    """The options of a written command, as a shell takes it apart."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found: dict[str, list[str]] = {}
    key = ""
    for word in shlex.split("\n".join(lines).replace("\\\n", " ")):
        if word.startswith("--"):
            key = word[2:]
            found[key] = []
        elif key:
            found[key].append(word)
    return found


@pytest.mark.slow
def test_plans_are_written_exactly_or_refused_with_one_that_can_be() -> None:
    def known(text: str) -> None:
        assert words(text).keys() <= known_keys("ms-swift"), text

    assert walked(MS_SWIFT, MODELS, known) == (88, 44, 19)


def test_a_written_command_says_what_it_is() -> None:
    made = plan(sample("llama"), "qv", dropout=0.0)
    text = MS_SWIFT.write(made, Job())
    found = words(text)
    assert found["model"] == ["YOUR/MODEL"] and found["dataset"] == ["vicgalle/alpaca-gpt4#500"]
    assert found["target_modules"] == ["q_proj", "v_proj"] and found["use_hf"] == ["true"]
    for said in ("ms-swift 4.6.0", "LlamaForCausalLM in transformers 5.24.0", "your model", "--model_type, one of: "):
        assert said in text
    named = words(MS_SWIFT.write(made, Job("org/a model", "mine", "there")))
    assert (named["model"], named["dataset"], named["output_dir"]) == (["org/a model"], ["mine"], ["there"])


def test_a_choice_of_layers_is_a_regular_expression() -> None:
    text = export(plan(sample("llama"), "attention.q[-4:]"), "ms-swift")
    found = words(text)
    assert found["target_regex"] == [r"model\.layers\.(28|29|30|31)\.self_attn\.q_proj"]
    assert "target_modules" not in found and "no list of name endings" in text


def test_experts_alone_keep_it_from_searching() -> None:
    text = export(plan(sample("mixtral"), "ffn.expert=4/8"), "ms-swift")
    found = words(text)
    assert found["target_regex"] == ["(?!)"] and "matches no module" in text
    assert found["target_parameters"] == ["down_proj", "gate_up_proj"] and found["lora_dropout"] == ["0.0"]


def test_a_head_for_classes_has_their_number() -> None:
    found = words(export(plan(sample("llama", "sequence-classification"), "qv"), "ms-swift"))
    assert found["task_type"] == ["seq_cls"] and found["num_labels"] == ["2"]


def test_everything_unsupported_is_said_at_once() -> None:
    made = plan(sample("mixtral"), "attention.q=4", "attention.v=8", bias="lora_only")
    assert messages(MS_SWIFT, made) == [
        "ms-swift takes one rank and alpha; this plan has 2 (4/16 on 32 weights, 8/16 on 32 weights).",
        'ms-swift takes bias=none or all only; this plan has bias="lora_only".',
    ]
    for model_type, head, part in (
        ("t5", "seq2seq-lm", "does not train models with the head seq2seq-lm (T5ForConditionalGeneration)"),
        ("idefics2", "image-text-to-text", "ms-swift has no model type for Idefics2"),
    ):
        assert part in messages(MS_SWIFT, plan(sample(model_type, head), "qv"))[0]


def test_all_linear_is_its_default() -> None:
    outcome = asked(sample("llama"), "")
    names = adapted(outcome)
    assert len(names) == 7 and "lm_head" not in names
    (first, *_) = outcome.resolution.adapted
    assert (first.rank, first.alpha) == (8, 32) and outcome.config is not None and outcome.config.lora_dropout == 0.05
    assert [one.code for one in outcome.findings] == ["trainer-filter", "trainer-filter"]
    assert "model types" in outcome.findings[0].message and "lm_head" in outcome.findings[1].where


def test_all_linear_sees_no_conv1d_and_no_bare_parameter() -> None:
    assert asked(sample("gpt2"), "").resolution.refusal is not None
    experts = asked(sample("gpt_oss"), "")
    assert any("target_parameters" in finding.fix for finding in experts.findings)
    assert not any("experts" in name for name in adapted(experts))


def test_towers_are_frozen_for_all_linear_alone() -> None:
    model = sample("qwen2_vl")
    assert all("language_model" in name for name in adapted(asked(model, "")))
    towers = adapted(asked(model, "--freeze_vit false"))
    assert any("visual.blocks" in name for name in towers) and not any("merger" in name for name in towers)
    everything = adapted(asked(model, "--no_freeze_vit --no-freeze-aligner"))
    assert any("merger" in name for name in everything) and everything > towers
    alone = adapted(asked(model, "--freeze_llm --no_freeze_aligner"))
    assert alone == {"model.visual.merger.mlp.#"}
    named = asked(sample("llava"), "--target_modules q_proj v_proj")
    assert any("vision_tower" in name for name in adapted(named))
    assert any("48 weights of towers" in finding.message for finding in named.findings)
    assert str(asked(model, "--freeze_llm").resolution.refusal).startswith("ms-swift stops: no part of the model")


def test_other_names_beside_all_linear_are_dropped_with_towers() -> None:
    outcome = asked(sample("qwen2_vl"), "--target_modules all-linear qkv")
    assert [one.where for one in outcome.findings if one.code == "ignored-key"] == ["qkv"]
    kept = asked(sample("llama"), "--target_modules all-linear embed_tokens all-embedding")
    assert "model.embed_tokens" in adapted(kept)


def test_endings_grow_until_they_stand_for_linear_layers_alone() -> None:
    model = dataclasses.replace(
        sample("llama"),
        modules=(
            Module("layers.0.a.proj", "Linear", "linear"),
            Module("layers.1.a.proj", "Linear", "linear"),
            Module("layers.0.b.proj", "Conv1d", "conv"),
            Module("layers.0.score.proj", "Linear", "linear"),
            Module("up", "GLULinear", "other"),
            Module("out.0", "Linear", "linear"),
        ),
    )
    assert linear_endings(within(model), None) == ["a.proj", "0"]
    assert linear_endings(within(model), Towers(head="model.out")) == ["a.proj"]


def test_mamba_layers_that_peft_refuses_are_taken_out() -> None:
    outcome = asked(sample("mamba2"), "--target_modules in_proj out_proj")
    assert adapted(outcome) == {"backbone.layers.#.mixer.in_proj"}
    assert any("out_proj" in finding.where for finding in outcome.findings)


def test_outputs_of_torch_attention_are_left_alone() -> None:
    model = sample("gemma3")
    outcome = asked(model, "--target_modules out_proj")
    assert not any("head.attention" in name for name in adapted(outcome))
    (skipped,) = [one for one in outcome.findings if "MultiheadAttention" in one.message]
    assert "head.attention.out_proj" in skipped.where


def test_a_class_of_several_model_types() -> None:
    assert len(types_for("LlamaForCausalLM")) == 4 and not types_for("AnyForCausalLM")
    with fails("--model_type is 'lama', which ms-swift does not know", "llama"):
        asked(sample("llama"), "--model_type lama")
    # The map has no towers, so it is the type without them.
    assert len(adapted(asked(sample("glm"), ""))) == 6
    with_towers = asked(sample("glm"), "--model_type glm_edge_v").config
    assert with_towers is not None and str(with_towers.target_modules).startswith(r"^(model\.layers(?=\.)")
    stops = asked(sample("idefics2"), "")
    assert "it has no model type for" in str(stops.resolution.refusal)
    paddle = sample("paddleocr_vl")
    with fails("in ways that differ by model type: paddle_ocr, paddleocr_vl"):
        asked(paddle, "")
    assert adapted(asked(paddle, "--model_type paddleocr_vl"))
    assert adapted(asked(paddle, "--target_modules q_proj"))


def test_tasks_and_saved_modules() -> None:
    model = sample("llama", "sequence-classification")
    outcome = asked(model, "--target_modules q_proj --task_type seq_cls --num_labels 2")
    assert outcome.config is not None and outcome.config.task_type == "SEQ_CLS"
    assert outcome.resolution.saved == ("score",)
    saved = asked(sample("llama"), "--target_modules q_proj --modules_to_save all-embedding all-norm")
    assert len(saved.resolution.saved) == 66 and saved.findings[-1].severity == "note"
    reward = MS_SWIFT.read("swift rlhf --rlhf_type rm --model m --beta 0.1 --target_modules q_proj", "train.sh")
    assert not reward.findings
    config = MS_SWIFT.resolve(model, reward).config
    assert config is not None and config.task_type == "SEQ_CLS"


@pytest.mark.parametrize(
    "text",
    [
        "swift sft --model m --target_modules q_proj v_proj --lora_rank 4 --use_dora true",
        "# a comment\nexport X=1\nCUDA_VISIBLE_DEVICES=0 \\\nswift sft \\\n  --model m --target-modules q_proj v_proj --lora-rank=4 --use_dora\n",
        "--model m --target_modules q_proj v_proj --lora_rank 4 --use_dora yes",
        "torchrun --nproc 2 swift/cli/sft.py --model m --target_modules q_proj v_proj --lora_rank 4 --use_dora T",
        "model: m\ntarget_modules: [q_proj, v_proj]\nlora_rank: 4\nuse_dora: true\nENV: {A: 1}\n",
        '{"model": "m", "target_modules": ["q_proj", "v_proj"], "lora_rank": 4, "use_dora": true}',
        "swift pt --model m --target_m q_proj v_proj --lora_rank 8 --lora_rank 4 --use_do 1",
    ],
    ids=["command", "script", "options", "torchrun", "yaml", "json", "abbreviated"],
)
def test_one_thing_in_many_forms(text: str) -> None:
    found = MS_SWIFT.read(text, "file")
    assert found.base == "m"
    settings = {key: value for key, value in found.settings.items() if key != "method"}
    assert settings == {"target_modules": ("q_proj", "v_proj"), "lora_rank": 4, "use_dora": True}
    assert {finding.code for finding in found.findings} <= {"abbreviated"}


def test_findings_of_reading() -> None:
    text = "swift sft --model $MODEL --lora_ranks 4 --target_regex x --target_modules q_proj"
    found = MS_SWIFT.read(text, "train.sh")
    assert found.base == ""
    assert [(one.code, one.severity) for one in found.findings] == [
        ("unknown-key", "error"),
        ("ignored-key", "warning"),
    ]
    assert "lora_rank" in found.findings[0].fix and "stops at it" in found.findings[0].message
    passed = MS_SWIFT.read(text + " --ignore_args_error true", "train.sh")
    assert passed.findings[0].severity == "warning" and "ignores it" in passed.findings[0].message


def test_every_fault_is_said() -> None:
    text = (
        "swift sft --lora_rank x --lora_alpha nan --lora_dropout 0.1 0.2 --use_dora maybe --lora_bias lora_only --target_modules "
        "--target 1 --tuner_type adalora --model_type none --no_freeze_vit true --freeze_vit --target_parameters $P"
    )
    with fails(
        "--lora_rank is 'x', not a whole number",
        "--lora_alpha is 'nan', not a number",
        "--lora_dropout has 2 values ('0.1 0.2'), not one",
        "--use_dora is 'maybe', not true or false",
        "--lora_bias is 'lora_only', not one of none, all",
        "--target_modules has no value",
        "--target can be --target_modules or --target_parameters or --target_regex",
        "--model_type is 'none'",
        "--no_freeze_vit takes no value",
        "both --no_freeze_vit and --freeze_vit",
        "--target_parameters is '$P', which the shell fills in",
        "11 faults",
    ):
        MS_SWIFT.read(text, "train.sh")
    with fails("target_regex is null, which ms-swift turns into the word None"):
        MS_SWIFT.read("model: m\ntarget_regex: null\n", "file.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("megatron sft --model m", "Megatron's own modules"),
        ("swift infer --model m", "swift infer does not train"),
        ("swift sft train.yaml", "its options are in 'train.yaml'"),
        ("swift sft more --model m", "'more' belongs to no option"),
        ("swift sft --tuner_backend unsloth", "Unsloth makes the adapters"),
        ("swift sft --use_swift_lora true --adapters a", "2 faults"),
    ],
)
def test_what_is_not_covered_is_refused(text: str, said: str) -> None:
    with fails(said):
        MS_SWIFT.resolve(sample("llama"), MS_SWIFT.read(text, "train.sh"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- q_proj",
        "swift sft --model 'm",
        "{",
        "\x00",
        "lora_rank: [",
        "x: " + "[" * 5000,
        "--a " * 600_000,
        "{" * 5000,
    ],
    ids=["nothing", "a list", "open quote", "open", "no text", "cut", "deep", "large", "deep json"],
)
def test_hostile_files_are_faults(text: str) -> None:
    with pytest.raises(LorascopeError):
        MS_SWIFT.read(text, "file")


def test_the_table_of_models() -> None:
    assert len(model_types()) == 237
    assert sum(kind.multimodal for kind in model_types().values()) == 130
    towers = model_types()["qwen2_vl"].towers
    assert towers == Towers(("model.language_model", "lm_head"), ("model.visual.merger",), ("model.visual",))
    assert model_types()["internlm2"].towers == Towers(head="output")
