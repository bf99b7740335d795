"""The settings beside the targets, what is saved, and what other releases make of all of it, with PEFT's word for each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers import peft_models
from tests.helpers.findings import Example, check_example, codes, looked, on_builtin, on_tiny, told

STACKS = ["experts.gate_up_proj", "experts.down_proj"]
QUERY = {"target_modules": ["q_proj"]}

EXAMPLES = {
    "dropout on experts": Example(
        "mixtral",
        {**QUERY, "target_parameters": STACKS, "lora_dropout": 0.05},
        "parameters-options",
        "error",
        ("lora_dropout=0.05", "experts.gate_up_proj"),
        ("lora_dropout=0.0",),
        {"lora_dropout": 0.0},
    ),
    "everything at once": Example(
        "mixtral",
        {**QUERY, "target_parameters": STACKS, "lora_dropout": 0.05, "use_dora": True, "fan_in_fan_out": True},
        "parameters-options",
        "error",
        ("lora_dropout=0.05 and use_dora=True and fan_in_fan_out=True",),
        ("lora_dropout=0.0, use_dora=False, fan_in_fan_out=False",),
        {"lora_dropout": 0.0, "use_dora": False, "fan_in_fan_out": False},
    ),
    "dropout on what the rewrite makes parameters": Example(
        "mixtral",
        {"target_modules": ["q_proj", "w1", "w2", "w3"], "lora_dropout": 0.05},
        "parameters-options",
        "error",
        ("rewrite", '"w1", "w2", "w3"'),
        ("lora_dropout=0.0", 'take "w1", "w2", "w3" out'),
        {"target_modules": ["q_proj"]},
    ),
    "a regular expression in an exclusion's list": Example(
        "llama",
        {**QUERY, "exclude_modules": [".*layers.0.*"]},
        "exclude-unmatched",
        "warning",
        ("never regular expressions",),
        ('exclude_modules=".*layers.0.*"', "takes out 1"),
        {"exclude_modules": ".*layers.0.*"},
    ),
    "a layer in an exclusion's list": Example(
        "llama",
        {**QUERY, "exclude_modules": ["layers.0"]},
        "exclude-unmatched",
        "warning",
        ("not the modules within",),
        ('exclude_modules="(.*[.])?layers[.]0[.].*"',),
        {"exclude_modules": "(.*[.])?layers[.]0[.].*"},
    ),
    "a tower beside an exclusion that works": Example(
        "llava",
        {"target_modules": ["q_proj", "k_proj"], "exclude_modules": ["vision_tower", "k_proj"]},
        "exclude-unmatched",
        "warning",
        ('"vision_tower" excludes no target',),
        ('"(.*[.])?k_proj|(.*[.])?vision_tower[.].*"',),
        {"exclude_modules": "(.*[.])?k_proj|(.*[.])?vision_tower[.].*"},
    ),
    "a part of a name as a text": Example(
        "llava",
        {**QUERY, "exclude_modules": "vision_tower"},
        "exclude-unmatched",
        "warning",
        ("whole name",),
        ('"(.*[.])?vision_tower[.].*"',),
        {"exclude_modules": "(.*[.])?vision_tower[.].*"},
    ),
    "a name of no module": Example(
        "llama",
        {**QUERY, "exclude_modules": ["q_prj"]},
        "exclude-unmatched",
        "warning",
        ("no such module",),
        ('"q_proj"',),
        {"exclude_modules": None},
    ),
    "what is no target anyway": Example(
        "llama",
        {**QUERY, "exclude_modules": ["lm_head"]},
        "exclude-unmatched",
        "warning",
        ("not a target anyway",),
        ("Take it out",),
        {"exclude_modules": None},
    ),
    "an exclusion of parameters": Example(
        "mixtral",
        {**QUERY, "target_parameters": ["experts.down_proj"], "exclude_modules": r".*layers\.0\..*"},
        "exclude-unmatched",
        "warning",
        ("does not apply to parameters", "layers.0.mlp.experts.down_proj"),
        ("with its layer",),
        {"target_parameters": ["layers.1.mlp.experts.down_proj"]},
    ),
    "a task type of no name": Example(
        "llama",
        {**QUERY, "task_type": "CUASAL_LM"},
        "task-type",
        "error",
        ("CUASAL_LM",),
        ('"CAUSAL_LM"',),
        {"task_type": "CAUSAL_LM"},
    ),
    "a task type that the class cannot": Example(
        "bert-classifier",
        {"target_modules": ["query"], "task_type": "CAUSAL_LM"},
        "task-type",
        "error",
        ("prepare_inputs_for_generation",),
        ('"SEQ_CLS"',),
        {"task_type": "SEQ_CLS"},
    ),
    "a new head without its task type": Example(
        "llama-classifier",
        QUERY,
        "task-type",
        "warning",
        ("score", "random", "not saved"),
        ('task_type="SEQ_CLS"', 'modules_to_save=["score"]'),
        {"task_type": "SEQ_CLS"},
    ),
    "a new head of tokens": Example(
        "bert-tokens",
        {"target_modules": ["query"]},
        "task-type",
        "warning",
        ("classifier",),
        ('task_type="TOKEN_CLS"',),
        {"task_type": "TOKEN_CLS"},
    ),
    "biases of no name": Example(
        "llama", {**QUERY, "bias": "None"}, "bias", "error", ("None",), ('bias="none"',), {"bias": "none"}
    ),
    "biases that are not there": Example(
        "llama", {**QUERY, "bias": "lora_only"}, "bias", "note", ("trains nothing",), ('bias="none"',)
    ),
    "biases that are": Example("bert", {"target_modules": ["query"], "bias": "all"}, "bias", "note", ("switched off",)),
    "a bias beside none": Example(
        "llama",
        {**QUERY, "lora_bias": True},
        "bias",
        "warning",
        ("cannot be merged",),
        ("lora_bias=False",),
        {"lora_bias": False},
    ),
    "a bias as an expert": Example(
        "gpt_oss",
        {**QUERY, "target_parameters": ["gate_up_proj_bias"]},
        "bias",
        "warning",
        ("as if it were a weight",),
        ("the full name",),
        {"target_parameters": ["gate_up_proj"]},
    ),
    "DoRA with a bias": Example(
        "llama",
        {**QUERY, "use_dora": True, "lora_bias": True},
        "dora",
        "error",
        ("exclude each other",),
        ("use_dora",),
        {"lora_bias": False},
    ),
    "DoRA on torch's own attention": Example(
        "siglip",
        {"target_modules": ["attention"], "use_dora": True},
        "dora",
        "error",
        ("MultiheadAttention",),
        ("use_dora=False",),
        {"use_dora": False},
    ),
    "dropout that is no probability": Example(
        "llama", {**QUERY, "lora_dropout": 1.5}, "dropout", "error", ("1.5",), ("0.05",), {"lora_dropout": 0.05}
    ),
    "a saved module that is not there": Example(
        "gpt2",
        {"target_modules": ["c_attn"], "modules_to_save": ["classifier", "embed_tokens"]},
        "saved-unmatched",
        "warning",
        ('"classifier"', '"embed_tokens"'),
        ("called lm_head", '"wte"'),
        {"modules_to_save": ["wte"]},
    ),
    "a saved module that takes its targets": Example(
        "llama",
        {"target_modules": ["q_proj", "up_proj"], "modules_to_save": ["self_attn"]},
        "saved-shadows",
        "warning",
        ("takes 3 targets away",),
        ('Take "self_attn" out',),
        {"modules_to_save": None},
    ),
    "a head that is saved and targeted": Example(
        "llama-classifier",
        {"target_modules": ["q_proj", "score"], "task_type": "SEQ_CLS"},
        "saved-shadows",
        "warning",
        ("score",),
        (),
        {"target_modules": ["q_proj"]},
    ),
    "a saved module that carries an adapter": Example(
        "llama",
        {"target_modules": ["q_proj"], "modules_to_save": ["_proj"]},
        "saved-shadows",
        "error",
        ("already carries an adapter",),
        ("Take it out",),
        {"modules_to_save": None},
    ),
    "a saved list": Example(
        "llama",
        {"target_modules": ["lm_head"], "modules_to_save": ["layers"]},
        "saved",
        "error",
        ("ModuleList",),
        (),
        {"modules_to_save": None},
    ),
    "the end of other names": Example(
        "llama",
        {**QUERY, "modules_to_save": ["norm"]},
        "saved-loose",
        "warning",
        ("input_layernorm",),
        ('"model.norm"',),
        {"modules_to_save": ["model.norm"]},
    ),
    "saved within saved": Example(
        "llama",
        {"target_modules": ["q_proj"], "modules_to_save": ["mlp", "up_proj"]},
        "saved-nested",
        "warning",
        ("up_proj",),
        ("outermost",),
        {"modules_to_save": ["mlp"]},
    ),
    "a large copy": Example(
        "llama",
        {**QUERY, "modules_to_save": ["embed_tokens", "lm_head"]},
        "saved-copy",
        "warning",
        ("2,048 parameters",),
        ("trainable_token_indices",),
        {"modules_to_save": ["model.norm"]},
    ),
    "a small copy": Example(
        "llama", {**QUERY, "modules_to_save": ["model.norm"]}, "saved-copy", "note", ("16 parameters",)
    ),
    "an old release": Example(
        "llama-bare",
        {**QUERY, "layers_to_transform": [0], "layers_pattern": "layers"},
        "version-dependent",
        "note",
        ("PEFT 0.18.1 to 0.20.0 refuse it",),
        ("peft==0.21.2",),
    ),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_a_mistake_is_told_and_its_fix_helps_by_peft_itself(example: Example) -> None:
    check_example(example)


def test_every_code_of_the_rooms_has_its_mistake() -> None:
    assert len(EXAMPLES) == 32
    assert {example.code for example in EXAMPLES.values()} == {
        *("parameters-options", "exclude-unmatched", "task-type", "bias", "dora", "dropout", "version-dependent"),
        *("saved", "saved-unmatched", "saved-shadows", "saved-loose", "saved-nested", "saved-copy"),
    }


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("llama", {**QUERY, "task_type": "CAUSAL_LM", "lora_dropout": 0.1}),
        ("llama", {**QUERY, "exclude_modules": r".*layers\.0\..*"}),
        ("llama", {"target_modules": "all-linear", "exclude_modules": ["up_proj", "k_proj"]}),
        ("mixtral", {**QUERY, "target_parameters": STACKS, "exclude_modules": r".*layers\.0\.self_attn.*"}),
        ("llama-classifier", {**QUERY, "task_type": "SEQ_CLS"}),
        ("llama-classifier", {**QUERY, "modules_to_save": ["score"], "exclude_modules": None}),
        ("bert-tokens", {"target_modules": ["query"], "task_type": "TOKEN_CLS"}),
        ("bert", {"target_modules": ["query"], "lora_bias": True}),
        ("llama", {**QUERY, "use_dora": True}),
        ("t5", {"target_modules": ["q"], "task_type": "SEQ_2_SEQ_LM"}),
    ],
)
def test_what_is_right_is_not_told(model: str, arguments: dict[str, Any]) -> None:
    wrong = {example.code for example in EXAMPLES.values()} - {"saved-copy", "version-dependent"}
    assert not wrong & set(codes(on_tiny(model, **arguments)))


def test_a_head_that_peft_does_not_know_is_to_be_named() -> None:
    """BART's classification_head ends in neither classifier nor score."""
    (finding,) = told(
        on_builtin("bart", "sequence-classification", target_modules=["q_proj"], task_type="SEQ_CLS"), "task-type"
    )
    assert 'modules_to_save=["classification_head"]' in finding.fix
    named = {"target_modules": ["q_proj"], "task_type": "SEQ_CLS", "modules_to_save": ["classification_head"]}
    assert not told(on_builtin("bart", "sequence-classification", **named), "task-type")


def test_a_part_of_the_task_types_own_head_is_a_note() -> None:
    found = on_builtin("distilbert", "sequence-classification", target_modules=["q_lin"], task_type="SEQ_CLS")
    assert [finding.severity for finding in told(found, "saved-loose")] == ["note"]


def test_another_release_is_told_which_to_train_with() -> None:
    arguments = {"target_modules": "all-linear"}
    found = looked(peft_models.mapped("mixtral"), arguments, "0.19.1")
    assert "refused" in codes(found, "error")
    assert any("peft==0.21.2" in finding.fix for finding in told(found, "version-dependent"))
    assert not told(on_tiny("llama", target_modules=["q_proj"]), "version-dependent")
