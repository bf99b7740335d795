"""Entries of the targets: what they match, what was meant by those that match nothing, and PEFT's word for it."""

from __future__ import annotations

import pytest

from lorascope.checks.name_meanings import meanings_of
from tests.helpers.findings import Example, check_example, codes, on_builtin, on_tiny, told

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
QUERY = ".*[.]q_proj"

EXAMPLES = {
    "names of another family": Example(
        "gpt2",
        {"target_modules": SEVEN},
        "no-match",
        "error",
        (
            '"q_proj", "k_proj", "v_proj" match no module',
            "separate q_proj, k_proj and v_proj; this one fuses them into c_attn.",
            "gate",
        ),
        ('"c_attn"', '"attn.c_proj"', '"mlp.c_proj"', "Leave it out."),
        {"target_modules": ["c_attn", "attn.c_proj", "mlp.c_proj", "c_fc"]},
    ),
    "one of a fused matrix": Example(
        "falcon",
        {"target_modules": ["q_proj"]},
        "no-match",
        "error",
        ("query_key_value, together with the key and value",),
        ('"query_key_value"',),
        {"target_modules": ["query_key_value"]},
    ),
    "a fused name where there are three": Example(
        "llama",
        {"target_modules": ["c_attn", "o_proj"]},
        "no-match",
        "warning",
        ("ignores it silently", "separate: k_proj, q_proj and v_proj"),
        ('"k_proj", "q_proj", "v_proj"',),
        {"target_modules": ["k_proj", "q_proj", "v_proj", "o_proj"]},
    ),
    "experts that are parameters": Example(
        "gpt_oss",
        {"target_modules": SEVEN},
        "no-match",
        "warning",
        (
            '"gate_proj", "up_proj", "down_proj" match no module',
            "are the parameters down_proj and gate_up_proj (experts: 100 % of the FFN)",
        ),
        # One setting for all: two of them would take each other's place.
        ('target_parameters=["down_proj", "gate_up_proj"]', "lora_dropout=0"),
        {"target_modules": SEVEN[:4], "target_parameters": ["gate_up_proj", "down_proj"]},
    ),
    "a misspelt name": Example(
        "llama",
        {"target_modules": ["q_porj", "v_proj"]},
        "no-match",
        "warning",
        ('"q_porj"',),
        ('"q_proj"',),
        {"target_modules": ["q_proj", "v_proj"]},
    ),
    "upper case": Example(
        "llama",
        {"target_modules": ["Q_proj"]},
        "no-match",
        "error",
        ("case",),
        ('"q_proj"',),
        {"target_modules": ["q_proj"]},
    ),
    "the prefix of a saved adapter": Example(
        "llama",
        {"target_modules": ["base_model.model.model.layers.0.self_attn.q_proj"]},
        "no-match",
        "error",
        ("without base_model.model.",),
        ('"model.layers.0.self_attn.q_proj"',),
        {"target_modules": ["model.layers.0.self_attn.q_proj"]},
    ),
    "a tensor's name": Example(
        "llama",
        {"target_modules": ["q_proj.weight"]},
        "no-match",
        "error",
        ("not their tensors",),
        ('"q_proj"',),
        {"target_modules": ["q_proj"]},
    ),
    "a layer that is not there": Example(
        "llama",
        {"target_modules": ["model.layers.7.self_attn.q_proj", "v_proj"]},
        "no-match",
        "warning",
        ("no such layer", "0-2"),
        ("one of these numbers",),
        {"target_modules": ["model.layers.2.self_attn.q_proj", "v_proj"]},
    ),
    "another way to the same": Example(
        "llava",
        {"target_modules": ["model.layers.0.self_attn.q_proj"]},
        "no-match",
        "error",
        ("model.language_model.layers.0.self_attn.q_proj",),
        ('"layers.0.self_attn.q_proj"',),
        {"target_modules": ["layers.0.self_attn.q_proj"]},
    ),
    "all-linear in a list": Example(
        "llama",
        {"target_modules": ["all-linear", "q_proj"]},
        "no-match",
        "warning",
        ("only as a string",),
        ('target_modules="all-linear"', "covers the other entries"),
        {"target_modules": "all-linear"},
    ),
    "a regular expression in a list": Example(
        "llama",
        {"target_modules": [".*q_proj", "v_proj"]},
        "regex-in-list",
        "warning",
        ("never regular expressions", "3 modules"),
        ('"q_proj"',),
        {"target_modules": ["q_proj", "v_proj"]},
    ),
    "one that no ending can say": Example(
        "llama",
        {"target_modules": [r".*[.]1[.].*q_proj", "v_proj"]},
        "regex-in-list",
        "warning",
        ("1 module,",),
        ('target_modules=".*[.]1[.].*q_proj|(.*[.])?v_proj"',),
        {"target_modules": ".*[.]1[.].*q_proj|(.*[.])?v_proj"},
    ),
    "a wildcard in a list": Example(
        "llama",
        {"target_modules": ["*_proj"]},
        "regex-in-list",
        "error",
        ("21 modules",),
        ('"q_proj"',),
        {"target_modules": SEVEN},
    ),
    "a name that is no list": Example(
        "llama",
        {"target_modules": "q_proj"},
        "string-not-list",
        "error",
        ("regular expression for the whole name",),
        ('target_modules=["q_proj"]',),
        {"target_modules": ["q_proj"]},
    ),
    "names with commas": Example(
        "llama",
        {"target_modules": "q_proj, query"},
        "string-not-list",
        "error",
        ("q_proj, query",),
        ('target_modules=["q_proj", "query"]', 'But "query" is not a module of llama', '"q_proj"'),
        {"target_modules": ["q_proj"]},
    ),
    "parameters as a text": Example(
        "gpt_oss",
        {"target_modules": ["q_proj"], "target_parameters": "experts.down_proj"},
        "string-not-list",
        "error",
        ("list of names",),
        ('target_parameters=["down_proj"]',),
        {"target_parameters": ["down_proj"]},
    ),
    "a regular expression for a part of the name": Example(
        "llama",
        {"target_modules": "(q_proj|v_proj)"},
        "no-match",
        "error",
        ("no whole module name", "within the names of 6"),
        ('".*[.](q_proj|v_proj)"',),
        {"target_modules": ".*[.](q_proj|v_proj)"},
    ),
    "a parameter that is a module": Example(
        "gpt_oss",
        {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts"]},
        "no-match",
        "warning",
        ("is a module, not a parameter",),
        ('"down_proj", "gate_up_proj"',),
        {"target_parameters": ["down_proj", "gate_up_proj"]},
    ),
    "a linear layer among the parameters": Example(
        "llama",
        {"target_modules": ["q_proj"], "target_parameters": ["mlp.down_proj"]},
        "no-match",
        "warning",
        ("is a module",),
        ('"mlp.down_proj.weight"',),
        {"target_parameters": ["mlp.down_proj.weight"]},
    ),
    "a regular expression among the parameters": Example(
        "gpt_oss",
        {"target_modules": ["q_proj"], "target_parameters": [".*experts.down_proj"]},
        "regex-in-list",
        "warning",
        ("never regular expressions",),
        ('"down_proj"',),
        {"target_parameters": ["down_proj"]},
    ),
    "a block": Example(
        "llama",
        {"target_modules": ["q_proj", "mlp"]},
        "unsupported",
        "error",
        ("LlamaMLP", "3 modules", "PEFT raises"),
        ('"down_proj", "gate_proj", "up_proj"',),
        {"target_modules": ["q_proj", "down_proj", "gate_proj", "up_proj"]},
    ),
    "a norm": Example(
        "llama",
        {"target_modules": ["q_proj", "input_layernorm"]},
        "unsupported",
        "error",
        ("LlamaRMSNorm",),
        ('modules_to_save=["input_layernorm"]',),
        {"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm"]},
    ),
    "experts as a module": Example(
        "gpt_oss",
        {"target_modules": ["experts"]},
        "unsupported",
        "error",
        ("GptOssExperts",),
        ("target_parameters=",),
        {"target_modules": [], "target_parameters": ["gate_up_proj", "down_proj"]},
    ),
    "an expression for too much": Example(
        "llama",
        {"target_modules": ".*mlp.*"},
        "unsupported",
        "error",
        ("regular expression", "LlamaMLP"),
        ('"down_proj", "gate_proj", "up_proj"',),
        {"target_modules": ["down_proj", "gate_proj", "up_proj"]},
    ),
    "what the mamba kernels read": Example(
        "mamba",
        {"target_modules": "all-linear"},
        "unsupported",
        "error",
        ("out_proj",),
        ('exclude_modules=["out_proj"]',),
        {"exclude_modules": ["out_proj"]},
    ),
    "a number as a name": Example(
        "qwen2_vl",
        {"target_modules": ["q_proj", "0"]},
        "digit-name",
        "error",
        ('"0" is a number', "Qwen2VLDecoderLayer"),
        ('"model.visual.merger.mlp.0"',),
        {"target_modules": ["q_proj", "model.visual.merger.mlp.0"]},
    ),
    "a layer as a name": Example(
        "llama",
        {"target_modules": ["layers.1"]},
        "digit-name",
        "error",
        ("LlamaDecoderLayer",),
        ("layers_to_transform=[1]",),
        {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    ),
    "no targets where PEFT has a default": Example(
        "llama", {}, "default-targets", "note", ("q_proj", "v_proj"), (), {"target_modules": ["q_proj", "v_proj"]}
    ),
    "no targets beside parameters": Example(
        "llama",
        {"target_parameters": ["mlp.down_proj.weight"]},
        "default-targets",
        "warning",
        ("besides the target_parameters",),
        ("target_modules=[]",),
        {"target_modules": []},
    ),
    "no targets where the rewrite empties them": Example(
        "mixtral",
        {},
        "default-targets",
        "error",
        ("empty list",),
        ('"q_proj", "v_proj"',),
        {"target_modules": ["q_proj", "v_proj"]},
    ),
    "no targets and no default": Example(
        "gpt_oss",
        {},
        "default-targets",
        "error",
        ("no default",),
        ('"q_proj", "v_proj"',),
        {"target_modules": ["q_proj", "v_proj"]},
    ),
    "a layer as a module and as a parameter": Example(
        "llama",
        {"target_modules": ["down_proj"], "target_parameters": ["down_proj.weight"]},
        "twice",
        "error",
        ("mlp.down_proj",),
        ('"down_proj"',),
        {"target_modules": []},
    ),
    "an entry within another": Example(
        "llama",
        {"target_modules": ["q_proj", "model.layers.0.self_attn.q_proj"]},
        "covered",
        "note",
        ('"q_proj"', "model.layers.0.self_attn.q_proj"),
        (),
        {"target_modules": ["q_proj"]},
    ),
    "no regular expression": Example(
        "llama",
        {"target_modules": "*.q_proj"},
        "bad-pattern",
        "error",
        ("nothing to repeat",),
        (QUERY,),
        {"target_modules": QUERY},
    ),
    "no regular expression in an exclusion": Example(
        "llama",
        {"target_modules": ["q_proj"], "exclude_modules": "(q_proj"},
        "bad-pattern",
        "error",
        ("exclude_modules",),
        (),
        {"exclude_modules": None},
    ),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_a_mistake_is_told_and_its_fix_helps_by_peft_itself(example: Example) -> None:
    check_example(example)


def test_every_code_of_the_room_has_its_mistake() -> None:
    assert len(EXAMPLES) == 36
    assert {example.code for example in EXAMPLES.values()} == {
        *("no-match", "regex-in-list", "string-not-list", "unsupported", "digit-name"),
        *("default-targets", "twice", "covered", "bad-pattern"),
    }


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("llama", {"target_modules": SEVEN}),
        ("llama", {"target_modules": "all-linear"}),
        ("llama", {"target_modules": r".*\.(q|v)_proj"}),
        ("llama", {"target_modules": "lm_head"}),  # a whole name
        ("gpt2", {"target_modules": ["c_attn", "attn.c_proj"]}),
        ("qwen2_vl", {"target_modules": ["merger.mlp.0", "q_proj"]}),
        ("gpt_oss", {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.down_proj"]}),
        ("mixtral", {"target_modules": ["w1", "w2", "w3"]}),  # the rewrite knows them
        ("llama", {"target_modules": ["self_attn.q_proj", "mlp.up_proj"]}),
    ],
)
def test_what_is_right_is_not_told(model: str, arguments: dict[str, object]) -> None:
    wrong = {example.code for example in EXAMPLES.values()}
    assert not wrong & set(codes(on_tiny(model, **arguments)))


@pytest.mark.parametrize(
    ("model", "name", "there"),
    [
        ("bert", "q_proj", '"query"'),
        ("bert", "up_proj", '"intermediate.dense"'),
        ("bert", "down_proj", "lorascope plan bert ffn.down"),  # output.dense is the attention's output too
        ("t5", "q_proj", '"q"'),
        ("t5", "o_proj", '"o"'),
        ("bloom", "q_proj", '"query_key_value"'),
        ("bloom", "fc1", '"dense_h_to_4h"'),
        ("gpt2", "query_key_value", '"c_attn"'),
        ("llama", "w1", '"gate_proj"'),
        ("llama", "w2", '"down_proj"'),
        ("llama", "w3", '"up_proj"'),
        ("llama", "wq", '"q_proj"'),
        ("llama", "Wqkv", '"k_proj", "q_proj", "v_proj"'),
        ("llama", "query_key_value", '"k_proj", "q_proj", "v_proj"'),
        ("llama", "dense_4h_to_h", '"down_proj"'),
        ("llama", "embed_out", '"lm_head"'),
        ("llama", "wte", '"embed_tokens"'),
        ("phi3", "q_proj", '"qkv_proj"'),
        ("phi3", "gate_proj", '"gate_up_proj"'),
        ("mpt", "q_proj", '"Wqkv"'),
        ("falcon", "fc2", '"dense_4h_to_h"'),
        ("mixtral", "gate_proj", 'target_parameters=["gate_up_proj"]'),
        ("gpt_oss", "w2", 'target_parameters=["down_proj"]'),
    ],
)
def test_a_well_known_name_is_told_by_the_models_own(model: str, name: str, there: str) -> None:
    (finding,) = told(on_builtin(model, target_modules=[name]), "no-match")
    assert there in finding.fix, finding


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("q_proj", ("attention", "q")),
        ("model.layers.3.self_attn.out_proj", ("attention", "o")),
        ("mlp.c_proj", ("ffn", "down")),
        ("attn.c_proj", ("attention", "o")),
        ("attention.output.dense", ("attention", "o")),
        ("output.dense", ("ffn", "down")),
        ("gate", ("router", "")),
        ("experts", ("ffn", "")),
        ("lm_head", ("head", "lm")),
    ],
)
def test_meanings(name: str, meaning: tuple[str, str]) -> None:
    assert meaning in meanings_of(name)


@pytest.mark.parametrize("name", ["", "0", "nope", "weight", "..", "q proj"])
def test_what_nobody_knows_means_nothing(name: str) -> None:
    assert meanings_of(name) == ()


def test_a_name_without_any_likeness_gets_the_names_that_there_are() -> None:
    (finding,) = told(on_builtin("llama", target_modules=["q_proj", "zzz"]), "no-match")
    assert "q_proj, k_proj" in finding.fix
