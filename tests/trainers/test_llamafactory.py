"""LLaMA-Factory's YAML: written from plans, read as users write it, and what its own search makes of it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

import lorascope
import lorascope as ls
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.plan_api import plan
from lorascope.sources.builtin import builtin_models
from lorascope.trainers.exports import export
from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.llamafactory.targets import THINKERS
from lorascope.trainers.llamafactory.trainer import LLAMAFACTORY
from lorascope.trainers.protocol import Job, Outcome
from tests.helpers.samples import fails, sample
from tests.helpers.wide_plans import MODELS, messages, walked


def asked(model: ModelMap, text: str) -> Outcome:
    return LLAMAFACTORY.resolve(model, LLAMAFACTORY.read(f"model_name_or_path: folder\n{text}", "file.yaml"))


def adapted(outcome: Outcome) -> set[str]:
    """The adapted names, their numbers as one sign."""
    assert outcome.resolution.refusal is None, str(outcome.resolution.refusal)
    return {re.sub(r"\d+", "#", one.name) for one in outcome.resolution.adapted}


@pytest.mark.slow
def test_plans_are_written_exactly_or_refused_with_one_that_can_be() -> None:
    def known(text: str) -> None:
        assert set(yaml.safe_load(text)) <= known_keys("llamafactory"), text

    assert walked(LLAMAFACTORY, MODELS, known) == (86, 46, 30)


def test_layers_that_newer_releases_reach_as_parameters_are_modules_to_its_peft() -> None:
    made = plan(sample("deepseek_v3", "causal-lm"), "ffn.dense,shared=4")
    assert made.config.target_parameters
    settings = yaml.safe_load(export(made, "llamafactory"))
    assert "target_parameters" not in settings
    assert settings["lora_rank"] == 4
    with fails("has no target_parameters, which PEFT needs for"):
        export(plan(made.model, "ffn=4"), "llamafactory")


def test_a_written_file_says_what_it_is() -> None:
    made = plan(sample("llama"), "qv", dropout=0.0)
    text = LLAMAFACTORY.write(made, Job())
    data = yaml.safe_load(text)
    assert data["model_name_or_path"] == "YOUR/MODEL" and data["dataset"] == "alpaca_en_demo"
    assert data["lora_target"] == "q_proj,v_proj" and data["lora_alpha"] == 16 and data["finetuning_type"] == "lora"
    for said in ("LLaMA-Factory 0.9.5", "5.24.0", "Your model", "chat template"):
        assert said in text
    named = yaml.safe_load(LLAMAFACTORY.write(made, Job("org/model", "mine", "there")))
    assert (named["model_name_or_path"], named["dataset"], named["output_dir"]) == ("org/model", "mine", "there")


def test_many_names_are_a_list() -> None:
    data = yaml.safe_load(export(plan(sample("llama"), "attention[-4:]"), "llamafactory"))
    assert len(data["lora_target"]) == 16 and data["lora_target"][0] == "model.layers.28.self_attn.k_proj"


def test_towers_are_unfrozen_where_a_plan_reaches_them() -> None:
    data = yaml.safe_load(export(plan(sample("qwen2_vl"), "vision.attention"), "llamafactory"))
    assert [data[f"freeze_{part}"] for part in ("vision_tower", "multi_modal_projector", "language_model")] == [
        False,
        True,
        True,
    ]


def test_everything_unsupported_is_said_at_once() -> None:
    made = plan(sample("mixtral"), "attention.q=4", "ffn.expert=8", bias="all", dropout=0.0)
    unsupported = " ".join(messages(LLAMAFACTORY, made))
    for part in ("one rank", "target_parameters", "trains no biases"):
        assert part in unsupported
    assert len(messages(LLAMAFACTORY, made)) == 3


def test_all_is_its_own_search() -> None:
    outcome = asked(sample("llama"), "lora_target: all\n")
    names = adapted(outcome)
    assert len(names) == 7 and "lm_head" not in names
    assert [(one.rank, one.alpha) for one in outcome.resolution.adapted[:1]] == [(8, 16)]
    (finding,) = outcome.findings
    assert finding.code == "trainer-filter" and "lm_head" in finding.where and finding.severity == "note"


def test_all_sees_no_conv1d_and_no_bare_parameter() -> None:
    nothing = asked(sample("gpt2"), "")
    assert nothing.resolution.refusal is not None and "misses 48 weights" in nothing.findings[1].message
    experts = asked(sample("gpt_oss"), "lora_target: all\n")
    assert any("bare parameters" in finding.fix for finding in experts.findings)
    assert not any("experts" in name for name in adapted(experts))


def test_models_of_several_parts_are_searched_by_words_in_names() -> None:
    model = sample("qwen2_vl")
    named = asked(model, "lora_target: q_proj,qkv\n")
    assert adapted(named) == {"model.language_model.layers.#.self_attn.q_proj"}
    (left,) = named.findings
    assert "32 weights" in left.message and "freeze_vision_tower" in left.fix
    towers = asked(model, "lora_target: qkv\nfreeze_vision_tower: false\n")
    assert adapted(towers) == {"model.visual.blocks.#.attn.qkv"}
    loose = asked(model, "lora_target: attn.q\n")
    assert adapted(loose) == {"model.language_model.layers.#.self_attn.q_proj"}
    assert any("somewhere in their names" in finding.message for finding in loose.findings)
    everything = asked(model, "lora_target: 'q_proj,'\n")
    assert everything.resolution.refusal is not None


def test_switches_do_nothing_on_models_that_it_does_not_know_the_parts_of() -> None:
    outcome = asked(sample("idefics2"), "lora_target: all\n")
    assert any("vision" in name for name in adapted(outcome))
    (finding,) = [one for one in outcome.findings if one.code == "ignored-key"]
    assert "freeze_vision_tower" in finding.message


def test_llama_pro_adapts_every_nth_layer() -> None:
    model = sample("llama")
    outcome = asked(model, "lora_target: q_proj\nuse_llama_pro: true\nfreeze_trainable_layers: 4\n")
    assert [one.name.split(".")[2] for one in outcome.resolution.adapted] == ["15", "23", "31", "7"]
    with fails("cannot be divided by freeze_trainable_layers (5)"):
        asked(model, "use_llama_pro: true\nfreeze_trainable_layers: 5\n")
    with fails("needs a number of layers of the model itself"):
        asked(sample("llava"), "use_llama_pro: true\n")


def test_saved_modules_and_a_larger_vocabulary() -> None:
    model = sample("llama")
    saved = asked(model, "lora_target: q_proj\nadditional_target: 'embed_tokens, lm_head'\n")
    assert saved.resolution.saved == ("lm_head", "model.embed_tokens")
    larger = asked(model, "lora_target: q_proj\nresize_vocab: true\n")
    assert larger.resolution.saved == saved.resolution.saved and larger.findings[0].severity == "warning"


def test_numbers_are_those_that_omegaconf_reads() -> None:
    outcome = asked(sample("llama"), "lora_target: q_proj\nlora_dropout: 1e-1\nlora_alpha: null\nlora_rank: 3\n")
    assert outcome.config is not None
    assert (outcome.config.lora_dropout, outcome.config.lora_alpha, outcome.config.r) == (0.1, 6, 3)


@pytest.mark.parametrize(
    ("text", "code", "severity", "said"),
    [
        ("lora_targets: q_proj", "unknown-key", "error", "lora_targets is an unknown key: LLaMA-Factory stops"),
        ("lora_target: all,q_proj", "ignored-key", "error", "only alone"),
        ("lora_target: q_proj,", "ignored-key", "error", "a comma too many"),
        ("lora_alpha: 0", "ignored-key", "warning", "twice the rank"),
        ("freeze_trainable_layers: 4", "ignored-key", "warning", "every layer is adapted"),
        ("stage: rm", "trainer-filter", "note", "value head"),
    ],
)
def test_findings_of_reading(text: str, code: str, severity: str, said: str) -> None:
    found = LLAMAFACTORY.read(f"model_name_or_path: folder\n{text}\n", "file.yaml").findings
    assert [(one.code, one.severity, one.where) for one in found] == [(code, severity, "file.yaml")]
    assert said in found[0].message


def test_every_fault_is_said() -> None:
    text = (
        "finetuning_type: lorra\nlora_rank: '8'\nlora_alpha: x\nlora_dropout: true\nlora_target: 8\nuse_dora: 'false'\n"
        "use_rslora: null\nadditional_target: [1]\nfreeze_trainable_layers: 2.5\nstage: ${stage}\n"
    )
    with fails(
        "finetuning_type is 'lorra', which it refuses",
        "lora_rank is '8', not a whole number",
        "lora_alpha is 'x', not a number",
        "lora_dropout is True",
        "lora_target is 8",
        "use_dora is 'false', not true or false",
        "use_rslora is None",
        "additional_target is [1]",
        "freeze_trainable_layers is 2.5",
        "a reference that LLaMA-Factory does not follow",
        "model_name_or_path is missing",
        "11 faults",
    ):
        LLAMAFACTORY.read(text, "file.yaml")
    with fails("finetuning_type is 'qlora', which it refuses"):
        LLAMAFACTORY.read("model_name_or_path: folder\nfinetuning_type: qlora\n", "file.yaml")


def test_what_is_not_covered_is_refused() -> None:
    text = "use_unsloth: true\nuse_kt: true\nmixture_of_depths: convert\nadapter_name_or_path: before\n"
    with fails("Unsloth makes", "KTransformers makes", "mixture_of_depths", "it trains that adapter on", "4 faults"):
        asked(sample("llama"), text)
    asked(sample("llama"), "adapter_name_or_path: before\ncreate_new_adapter: true\n")


def test_models_that_it_does_not_load() -> None:
    for model_type, head in (("bert", "masked-lm"), ("llama", "sequence-classification")):
        (message,) = messages(LLAMAFACTORY, plan(sample(model_type, head), "qv"))
        assert f"does not train models with the head {head}" in message
    whole = dataclasses.replace(sample("qwen2_5_omni_thinker"), model_type="qwen2_5_omni")
    assert "only the thinker" in messages(LLAMAFACTORY, plan(whole, "qv"))[0]
    with fails("it trains only the thinker of qwen2_5_omni"):
        asked(whole, "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- q_proj",
        "lora_target: [",
        "\x00",
        "a: &a [*a]",
        "x: " + "[" * 5000,
        "lora_target: q\nlora_target: v",
        "9" * 2_000_000,
    ],
    ids=["nothing", "a list", "cut", "no text", "a circle", "deep", "twice", "large"],
)
def test_hostile_files_are_faults(text: str) -> None:
    with pytest.raises(LorascopeError):
        LLAMAFACTORY.read(text, "file.yaml")


def test_the_command_says_the_same() -> None:
    assert (
        lorascope.plan(sample("llama"), "qv").resolution.trainable
        == asked(sample("llama"), "lora_target: q_proj, v_proj\n").resolution.trainable
    )


_SFT = "model_name_or_path: a/model\nfinetuning_type: lora\nstage: sft\ndataset: demo\ntemplate: default\noutput_dir: out\n"


def test_all_takes_numbers_for_names_and_one_finding_says_so(tmp_path: Path) -> None:
    """On every built-in model with such layers; the advice is followed, and the numbers are gone."""
    found = []
    file = tmp_path / "train.yaml"
    for model_type, heads in builtin_models().items():
        model = sample(model_type, heads[0])
        linear = [module.name for module in model.modules if "Linear" in module.class_name]
        if model_type in THINKERS or not any(name.rpartition(".")[2].isdecimal() for name in linear):
            continue
        file.write_text(f"{_SFT}lora_target: all\n", encoding="utf-8")
        check = ls.check(model, file, trainer="llamafactory")
        told = [one for one in check.findings if one.code == "digit-name"]
        if not told:
            continue  # LLaMA-Factory leaves those layers out
        (finding,) = told
        assert not [one for one in check.findings if one.code in ("unsupported", "covered")]
        names = finding.fix.removeprefix("Set ")
        file.write_text(f"{_SFT}{names}\n", encoding="utf-8")
        mended = ls.check(model, file, trainer="llamafactory")
        assert not [one for one in mended.findings if one.code == "digit-name"], model_type
        assert mended.resolution.adapted, (model_type, mended.resolution.refusal)
        found.append(model_type)
    assert "gemma3n" in found and len(found) >= 5, found


@pytest.mark.parametrize(
    ("given", "start"),
    [("pissa_init: true", "pissa_niter_16"), ("pissa_init: true\npissa_iter: -1", "pissa"), ("", True)],
)
def test_the_initialization_reaches_peft(given: str, start: object, tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(f"{_SFT}lora_target: q_proj,v_proj\n{given}\n", encoding="utf-8")
    check = ls.check(sample("llama"), file, trainer="llamafactory")
    assert check.config is not None and check.config.init_lora_weights == start
    assert any(one.code == "initialization" for one in check.findings) is (start is not True)
