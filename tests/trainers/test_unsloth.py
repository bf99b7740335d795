"""Unsloth's scripts: written from plans, read as its `get_peft_model` takes them, and what that makes of them."""

from __future__ import annotations

import ast
import dataclasses

import pytest

from lorascope.errors import LorascopeError
from lorascope.findings import Finding
from lorascope.model.types import ModelMap
from lorascope.plan_api import plan
from lorascope.trainers.exports import export
from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.protocol import Job, Outcome
from lorascope.trainers.python_text import call_arguments, read_script
from lorascope.trainers.unsloth.trainer import UNSLOTH
from tests.helpers.samples import fails, sample
from tests.helpers.wide_plans import MODELS, messages, walked

SEVEN = '["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]'


def asked(model: ModelMap, call: str, loading: str = "") -> Outcome:
    """What a call does: `FastModel: r=8`, on a model that is loaded by the same class."""
    owner, _, arguments = call.partition(":")
    text = f"m, t = {owner}.from_pretrained('folder'{loading})\nm = {owner}.get_peft_model(m, {arguments})\n"
    return UNSLOTH.resolve(model, UNSLOTH.read(text, "train.py"))


def told(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(one.code, one.severity) for one in findings]


def is_a_script(text: str) -> None:
    """It is Python, and has only arguments that Unsloth knows."""
    compile(text, "train.py", "exec")
    assert call_arguments(read_script(text, "train.py", "get_peft_model"), ("get_peft_model",)).keys() <= known_keys(
        "unsloth"
    ), text


def test_plans_of_one_model_are_written_or_refused() -> None:
    assert walked(UNSLOTH, MODELS[:1], is_a_script) == (7, 1, 0)


@pytest.mark.slow
def test_plans_are_written_exactly_or_refused() -> None:
    assert walked(UNSLOTH, MODELS, is_a_script) == (109, 23, 0)


def test_a_written_script_says_what_it_is() -> None:
    made = plan(sample("llama"), "qv", dropout=0.0)
    text = UNSLOTH.write(made, Job())
    assert text.startswith("# Unsloth 2026.10.9, PEFT 0.21.2.\n# 4,194,304 trainable parameters in 64 weights.\n")
    for said in ("from unsloth import FastLanguageModel  #", "# Your model: ", "'YOUR/MODEL'", "# Your data: "):
        assert said in text
    given = call_arguments(read_script(text, "train.py", "get_peft_model"), ("get_peft_model",))
    assert (given["r"], given["lora_alpha"], given["target_modules"]) == (8, 16, ["q_proj", "v_proj"])
    assert not {"task_type", "finetune_mlp_modules"} & given.keys()  # FastLanguageModel stops at them on llama
    named = UNSLOTH.write(made, Job("org/model", "mine.jsonl", "there"))
    assert "'org/model'" in named and "YOUR" not in named and "Your" not in named
    assert "load_dataset(\"json\", data_files='mine.jsonl'" in named and "save_pretrained('there')" in named


def test_a_script_is_read_back_as_its_plan() -> None:
    made = plan(sample("qwen3_moe"), "attention.q=4/32", "ffn.expert[-2:]=2", dropout=0.0)
    text = export(made, "unsloth", base="org/model")
    asked_again = UNSLOTH.read(text, "train.py")
    outcome = UNSLOTH.resolve(made.model, asked_again)
    assert asked_again.base == "org/model"
    assert outcome.resolution.adapted == made.resolution.adapted
    assert outcome.resolution.trainable == made.resolution.trainable


def test_images_are_trained_by_the_class_for_them() -> None:
    text = export(plan(sample("gemma3", "image-text-to-text"), "vision.attention"), "unsloth")
    assert "from unsloth import FastVisionModel" in text and "UnslothVisionDataCollator(model, tokenizer)" in text
    given = call_arguments(read_script(text, "train.py", "get_peft_model"), ("get_peft_model",))
    assert all(given[key] is True for key in given if key.startswith("finetune_") and "audio" not in key)
    assert "filters none" in text and "vision" not in str(given["target_modules"])


def test_experts_are_kept_out_or_named() -> None:
    without = export(plan(sample("qwen3_moe"), "attention"), "unsloth")
    assert "    target_parameters=[]," in without and "adds no experts of its own" in without
    with_them = export(plan(sample("mixtral"), "ffn.expert=4/8"), "unsloth")
    given = call_arguments(read_script(with_them, "train.py", "get_peft_model"), ("get_peft_model",))
    assert given["target_parameters"] == ["down_proj", "gate_up_proj"] and given["lora_dropout"] == 0.0
    assert "PEFT cannot apply dropout to fused experts" in with_them


def test_what_is_unsupported_is_named() -> None:
    (ends,) = messages(UNSLOTH, plan(sample("llama"), "embedding.token", "head"))
    assert "model.embed_tokens, lm_head" in ends and "trains them in full" in ends
    (every,) = messages(UNSLOTH, plan(sample("t5"), "attention.q"))
    assert every == "Unsloth's rules for encoder-decoder models are not covered here."
    with fails("Unsloth makes no adapters of embeddings and heads (lm_head)", "export to unsloth"):
        export(plan(sample("llama"), "attention.q", "head"), "unsloth")


def test_the_own_code_takes_names_and_adds_experts() -> None:
    llama = asked(sample("llama"), "FastLanguageModel:")
    assert (len(llama.resolution.adapted), llama.resolution.adapted[0].rank, llama.findings) == (224, 16, ())
    moe = asked(sample("qwen3_moe"), f"FastModel: target_modules={SEVEN}")
    assert sum(one.name.endswith("experts.down_proj") for one in moe.resolution.adapted) == 24
    (finding,) = moe.findings
    assert finding.severity == "note" and "adds the experts: mlp.experts.gate_up_proj" in finding.message
    assert "Leave gate_proj, up_proj and down_proj out" in finding.fix
    # PEFT's own rewrite of the names adds them all the same, whatever the parameters.
    rewritten = asked(sample("qwen3_moe"), f"FastModel: target_modules={SEVEN}, target_parameters=[]")
    assert sum(one.name.endswith("experts.down_proj") for one in rewritten.resolution.adapted) == 24
    searched = asked(sample("qwen3_moe"), "FastModel:")
    assert "Give target_parameters=[]" in searched.findings[-1].fix
    without = asked(sample("qwen3_moe"), "FastModel: target_parameters=[]")
    assert not any("experts" in one.name for one in without.resolution.adapted)


def test_embeddings_are_moved_to_what_is_saved() -> None:
    outcome = asked(sample("llama"), "FastLanguageModel: target_modules=['q_proj', 'embed_tokens']")
    assert outcome.resolution.saved == ("model.embed_tokens",) and len(outcome.resolution.adapted) == 32
    assert told(outcome.findings) == [("trainer-filter", "warning")]
    stopped = asked(sample("llama"), "FastLanguageModel: target_modules=['lm_head']")
    assert "no other target is left" in str(stopped.resolution.refusal)
    with fails("shares a weight", "0 modules have that name"):
        asked(sample("gpt_neo"), "FastModel: target_modules=['q_proj', 'embed_tokens', 'lm_head']")


def test_names_are_filtered_by_the_parts() -> None:
    model = sample("gemma3", "image-text-to-text")
    outcome = asked(model, f"FastVisionModel: target_modules={SEVEN}, finetune_vision_layers=False")
    assert not any("vision" in one.name for one in outcome.resolution.adapted)
    assert told(outcome.findings) == [("trainer-filter", "warning")]
    assert "finetune_vision_layers" in outcome.findings[0].message


def test_a_model_that_does_not_generate_trains_its_heads() -> None:
    classifier = sample("llama", "sequence-classification")
    outcome = asked(classifier, "FastModel: target_modules=['q_proj']")
    assert outcome.resolution.saved == ("score",) and "trains score in full" in outcome.findings[0].message
    alone = asked(classifier, "FastModel: target_modules=['q_proj'], modules_to_save=[]")
    assert alone.resolution.saved == () and alone.resolution.trainable == outcome.resolution.trainable - 2 * 4096
    bare = dataclasses.replace(classifier, head="causal-lm")
    with fails("does not generate", "Give modules_to_save, or a task_type."):
        asked(bare, "FastModel: target_modules=['q_proj']")


def test_what_is_saved_without_a_weight_is_not_trained() -> None:
    outcome = asked(sample("qwen3_moe"), "FastModel: target_modules=['q_proj'], modules_to_save=['mlp']")
    (finding,) = outcome.findings
    assert "trains no parameters of model.layers.{0-23}.mlp.experts" in finding.message
    routers = 24 * 128 * 2048
    assert outcome.resolution.trainable == sum(one.trainable for one in outcome.resolution.adapted) + routers


def test_how_the_model_is_loaded_counts() -> None:
    call = "FastLanguageModel: finetune_mlp_modules=False"
    assert "hands finetune_mlp_modules to LoraConfig" in str(asked(sample("llama"), call).resolution.refusal)
    slow = asked(sample("llama"), call, ", load_in_8bit=True")
    assert len(slow.resolution.adapted) == 4 * 32
    with fails("full_finetuning of from_pretrained makes Unsloth train every weight"):
        asked(sample("llama"), call, ", full_finetuning=True")
    with fails("load_in_8bit of from_pretrained is not written out"):
        asked(sample("llama"), call, ", load_in_8bit=wanted")


@pytest.mark.parametrize(
    ("model_type", "head", "said"),
    [
        ("t5", "seq2seq-lm", "encoder-decoder"),
        ("bart", "causal-lm", "encoder-decoder"),
        ("diffusion_gemma", "image-text-to-text", "diffusion"),
    ],
)
def test_kinds_that_are_not_covered_are_refused(model_type: str, head: str, said: str) -> None:
    with fails(said, "Check such a model in Unsloth itself."):
        asked(sample(model_type, head), "FastModel:")


def test_models_of_several_models_are_refused() -> None:
    model = sample("llama")
    talking = dataclasses.replace(model.modules[0], name="talker")
    with fails("several models"):
        asked(dataclasses.replace(model, modules=(*model.modules, talking)), "FastModel:")


def test_unknown_arguments_are_named() -> None:
    text = "m = FastModel.get_peft_model(m, r=8, target_module=['q_proj'])\nm.add_new_tokens(['a'])\n"
    found = UNSLOTH.read(text, "train.py").findings
    assert told(found) == [("unknown-key", "error"), ("trainer-filter", "warning")]
    assert "target_module is an unknown key: FastModel ignores it silently" in found[0].message
    assert "target_modules" in found[0].fix and "embed_tokens and lm_head in full" in found[1].message
    stopped = asked(sample("llama"), "FastLanguageModel: target_module=['q_proj']")
    assert "hands target_module to LoraConfig" in str(stopped.resolution.refusal)


def test_every_fault_is_said() -> None:
    call = (
        "get_peft_model(m, 8, r=0, target_modules=3, target_parameters='a', layers_to_transform=[0.5], modules_to_save=[1], "
        "finetune_last_n_layers='2', finetune_mlp_modules=1, use_dora='no', trainable_token_indices=[1])"
    )
    with fails(
        "r is 0, not a whole number above 0",
        "target_modules is 3, not a string or a list of strings",
        "modules_to_save is [1], not a string or a list of strings",
        "target_parameters is 'a', not a list of strings",
        "layers_to_transform is [0.5], not a whole number or a list of them",
        "finetune_last_n_layers is '2', not a whole number",
        "finetune_mlp_modules is 1, not true or false",
        "use_dora is 'no', not true or false",
        "trainable_token_indices is set, which is not covered here",
        "2 arguments without a name",
        "is called on Mine, not on FastLanguageModel",
        "load_in_8bit of from_pretrained is not written out",
        "12 faults",
    ):
        UNSLOTH.read(f"m = FastModel.from_pretrained('m', load_in_8bit=x)\nm = Mine.{call}\n", "train.py")


@pytest.mark.parametrize(
    "text",
    ["", "x = 1", "FastModel.get_peft_model(", "\x00", "FastModel.get_peft_model(m, r=rank)", "(" * 5000],
    ids=["nothing", "no call", "cut", "no text", "a name", "deep"],
)
def test_hostile_files_are_faults(text: str) -> None:
    with pytest.raises(LorascopeError):
        UNSLOTH.read(text, "train.py")


@pytest.mark.parametrize(
    "key", ["r", "lora_alpha", "lora_dropout", "bias", "target_modules", "layers_pattern", "rank_pattern", "task_type"]
)
@pytest.mark.parametrize(
    "value", ["10 ** 9", "'(['", "[[[]]]", "{'a': {'b': 1}}", "b'x'", "None", "-1", "float", "1e999"]
)
def test_no_value_is_more_than_a_fault(key: str, value: str) -> None:
    for owner in ("FastLanguageModel", "FastModel"):
        try:
            asked(sample("llama"), f"{owner}: {key}={value}")
        except LorascopeError as error:
            assert len(str(error)) < 1000


def test_what_is_written_is_one_tree() -> None:
    text = export(plan(sample("llava", "image-text-to-text"), "qv"), "unsloth", data="mine.json")
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert sum(isinstance(call.func, ast.Attribute) and call.func.attr == "get_peft_model" for call in calls) == 1
