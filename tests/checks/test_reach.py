"""What is adapted beside what is meant, what is left out of it, and what the rewrite for fused experts does to both."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from lorascope.model.types import Role, Trace
from tests.helpers import peft_models
from tests.helpers.findings import Example, check_example, codes, configured, looked, on_builtin, on_tiny, told
from tests.helpers.oracle import peft_kwargs, peft_truth
from tests.helpers.samples import sample

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LLAMA4 = "llama4_text"

EXAMPLES = {
    "a tower beside the language model": Example(
        "llava",
        {"target_modules": SEVEN},
        "outside",
        "warning",
        ("6 weights of the vision tower (attention)", "model.vision_tower"),
        ('exclude_modules="model[.]vision_tower[.].*"',),
        {"exclude_modules": "model[.]vision_tower[.].*"},
    ),
    "a tower and a connector": Example(
        "qwen2_vl",
        {"target_modules": "all-linear"},
        "outside",
        "warning",
        ("vision tower", "connector"),
        ('exclude_modules="model[.]visual[.].*"',),
        {"exclude_modules": "model[.]visual[.].*"},
    ),
    "a tower beside exclusions": Example(
        "llava",
        {"target_modules": "all-linear", "exclude_modules": ["o_proj"]},
        "outside",
        "warning",
        ("vision tower",),
        ('exclude_modules="(.*[.])?o_proj|model[.]vision_tower[.].*|model[.]multi_modal_projector[.].*"',),
        {"exclude_modules": "(.*[.])?o_proj|model[.]vision_tower[.].*|model[.]multi_modal_projector[.].*"},
    ),
    "a tower that is named": Example(
        "llava", {"target_modules": r".*vision_tower.*q_proj"}, "outside", "note", ("vision tower",)
    ),
    "a convolution": Example(
        "qwen2_vl",
        {"target_modules": ["q_proj", "proj"]},
        "outside",
        "warning",
        ("not linear (Conv3d)",),
        ("exclude_modules",),
        {"target_modules": ["q_proj", "attn.proj"]},
    ),
    "a router under all-linear": Example(
        "qwen3_moe",
        {"target_modules": "all-linear"},
        "router",
        "warning",
        ("2 routers",),
        ("target_modules=", "target_parameters="),
        {
            "target_modules": ["k_proj", "o_proj", "q_proj", "v_proj"],
            "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        },
    ),
    "the head of a language model": Example(
        "llama",
        {"target_modules": ["q_proj", "lm_head", "embed_tokens"]},
        "head",
        "note",
        ("The input embedding and output embedding",),
        ("exclude_modules",),
        {"target_modules": ["q_proj"]},
    ),
    "the head of a classifier": Example(
        "llama-classifier",
        {"target_modules": "all-linear"},
        "head",
        "warning",
        ("classifier", "new and random"),
        ('task_type="SEQ_CLS"',),
        {"task_type": "SEQ_CLS"},
    ),
    "a tied head": Example(
        "llama-tied",
        {"target_modules": ["q_proj", "lm_head"]},
        "tied",
        "warning",
        ("lm_head", "model.embed_tokens"),
        ('exclude_modules=["lm_head"]', "do not merge"),
        {"exclude_modules": ["lm_head"]},
    ),
    "a tied embedding that is copied": Example(
        "llama-tied",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        "tied",
        "warning",
        ("copies model.embed_tokens", "shares its tensor with lm_head: only the copy"),
        ("tie_word_embeddings",),
        {"modules_to_save": None},
    ),
    "both ends of a tie": Example(
        "llama-tied",
        {"target_modules": ["embed_tokens", "lm_head"]},
        "tied",
        "warning",
        ("an adapter each",),
        ("Do not merge",),
    ),
    "a dead projection": Example(
        "plain",
        {"target_modules": "all-linear"},
        "dead-or-crashing",
        "error",
        ("encoder.layers.{0-1}.self_attn.out_proj", "never calls it"),
        ("exclude_modules",),
        {"target_modules": ["linear1", "linear2"]},
    ),
    "a convolution with groups": Example(
        "plain",
        {"target_modules": ["grouped"], "r": 8},
        "unmergeable",
        "note",
        ("cannot be merged",),
        ("Do not merge",),
    ),
    "experts beside a shared one": Example(
        "qwen3_next",
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
        "left-out",
        "note",
        ("linear attention", "of the attention"),
        ('"in_proj_qkvz"',),
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkvz", "out_proj"]},
    ),
    "experts under all-linear": Example(
        "gpt_oss",
        {"target_modules": "all-linear"},
        "left-out",
        "warning",
        ("routed experts", "100 % of the FFN"),
        ('target_parameters=["down_proj", "gate_up_proj"]',),
        {"target_parameters": ["down_proj", "gate_up_proj"]},
    ),
    "shared experts that the rewrite takes": Example(
        "deepseek_v3",
        {"target_modules": ["q_b_proj", "mlp.shared_experts.down_proj"]},
        "moe-rewrite",
        "warning",
        (
            "mlp.shared_experts.down_proj into down_proj",
            "Named but not adapted: 2 weights",
            "Adapted instead: 2 stacks",
        ),
        ('target_parameters=["shared_experts.down_proj.weight"]',),
        {"target_modules": ["q_b_proj"], "target_parameters": ["shared_experts.down_proj.weight"]},
    ),
    "a layer that the rewrite forgets": Example(
        "qwen3_moe",
        {"target_modules": r".*layers\.1\.self_attn\.q_proj"},
        "moe-rewrite",
        "warning",
        ("keeps only the last words", "Adapted but not named: 2 weights"),
        ("list of the names",),
        {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    ),
    "experts by their old names": Example(
        "mixtral",
        {"target_modules": ["w1", "w2", "w3"]},
        "moe-rewrite",
        "note",
        ("w1 and w3 into gate_up_proj", "at rank 16 per expert, not 8"),
        ("Nothing to do",),
    ),
    "one half of a fused matrix": Example(
        "qwen3_moe",
        {"target_modules": ["gate_proj"]},
        "moe-rewrite",
        "error",
        ("up_proj",),
        ('target_parameters=["down_proj", "gate_up_proj"]',),
        {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj"]},
    ),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_a_mistake_is_told_and_its_fix_helps_by_peft_itself(example: Example) -> None:
    check_example(example)


def test_every_code_of_the_rooms_has_its_mistake() -> None:
    assert len(EXAMPLES) == 19
    assert {example.code for example in EXAMPLES.values()} == {
        *("outside", "router", "head", "tied", "dead-or-crashing", "unmergeable", "left-out", "moe-rewrite")
    }


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("llama", {"target_modules": "all-linear"}),
        ("llava", {"target_modules": SEVEN, "exclude_modules": ".*vision_tower.*"}),
        ("llama-tied", {"target_modules": SEVEN}),
        ("llama-classifier", {"target_modules": "all-linear", "task_type": "SEQ_CLS"}),
        ("mixtral", {"target_modules": SEVEN[:4], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}),
        ("mixtral", {"target_modules": ["q_proj"], "layers_to_transform": [0]}),
        ("llama", {"target_modules": [f"model.layers.0.self_attn.{part}_proj" for part in "qkvo"]}),
        ("llama", {"target_modules": SEVEN, "exclude_modules": ["k_proj"]}),
        ("gpt2", {"target_modules": ["c_attn"]}),
    ],
)
def test_what_is_right_is_not_told(model: str, arguments: dict[str, Any]) -> None:
    wrong = {example.code for example in EXAMPLES.values()}
    assert not wrong & set(codes(on_tiny(model, **arguments)))


EXCLUDING = [
    ("llava", {"target_modules": SEVEN}),
    ("llava", {"target_modules": "all-linear"}),
    ("llava", {"target_modules": "all-linear", "exclude_modules": ["o_proj"]}),
    ("llava", {"target_modules": "all-linear", "exclude_modules": r".*o_proj"}),
    ("qwen2_vl", {"target_modules": "all-linear"}),
    ("qwen2_vl", {"target_modules": ["q_proj", "qkv", "proj"]}),
    ("llama-tied", {"target_modules": ["q_proj", "lm_head"]}),
    ("llama", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
]


def test_the_exclusions_that_are_given_leave_out_what_they_say_and_nothing_else() -> None:
    """With PEFT: each `exclude_modules` of a fix takes away some weights of the finding's kind, and no others change."""
    tried = 0
    for model, arguments in EXCLUDING:
        before, _ = peft_truth(peft_models.build(model), peft_kwargs(configured(arguments)))
        fixes = {f.fix for f in on_tiny(model, **arguments) if f.code in ("outside", "head", "tied")}
        for fix in fixes:
            match = re.search(r'exclude_modules=("[^"]+"|\[[^\]]+\])', fix)
            assert match, fix
            value: Any = match[1].strip('"') if match[1].startswith('"') else re.findall(r'"([^"]+)"', match[1])
            after, _ = peft_truth(
                peft_models.build(model), peft_kwargs(configured({**arguments, "exclude_modules": value}))
            )
            gone = before.keys() - after.keys()
            assert gone
            assert after.keys() <= before.keys()
            assert all(after[name] == before[name] for name in after)
            roles = {
                peft_models.mapped(model).weight_by_name[n].role
                for n in gone
                if n in peft_models.mapped(model).weight_by_name
            }
            assert all(role.component != "text" or role.block in ("head", "embedding") for role in roles)
            left = [
                peft_models.mapped(model).weight_by_name[name].role.component for name in after if "patch" not in name
            ]
            assert set(left) == {"text"}
            tried += 1
    assert tried >= 8


@pytest.mark.parametrize(
    ("model", "arguments", "share"),
    [
        (LLAMA4, {"target_modules": SEVEN}, "94.1 % of the FFN"),
        ("qwen2_moe", {"target_modules": SEVEN}, "93.8 % of the FFN"),
        ("granitemoe", {"target_modules": "all-linear"}, "100 % of the FFN"),
        ("phimoe", {"target_modules": "all-linear"}, "100 % of the FFN"),
        ("qwen3_next", {"target_modules": SEVEN}, "of the attention"),
    ],
)
def test_how_much_is_left_out(model: str, arguments: dict[str, Any], share: str) -> None:
    found = [finding for finding in told(on_builtin(model, **arguments), "left-out") if finding.severity == "warning"]
    assert any(share in finding.message for finding in found), found


def test_names_that_tell_one_from_another_are_taken_at_their_word() -> None:
    """`shared_expert.down_proj` is no list that was pasted."""
    found = told(on_builtin(LLAMA4, target_modules=["shared_expert.down_proj", "q_proj"]), "left-out")
    assert {finding.severity for finding in found} == {"note"}


def test_the_rewrite_is_told_once() -> None:
    """What it takes away is no second finding."""
    found = on_tiny("deepseek_v3", target_modules="all-linear")
    assert len(told(found, "moe-rewrite")) == 1
    assert not told(found, "left-out")


def test_a_router_that_crashes_is_an_error() -> None:
    found = on_builtin(LLAMA4, target_modules=["q_proj", "router"])
    assert codes(found, "error") == ["dead-or-crashing"]
    assert 'exclude_modules=["router"]' in told(found, "dead-or-crashing")[0].fix


# What the map itself leaves open.


def test_a_map_of_names_says_so() -> None:
    named = dataclasses.replace(sample("llama"), basis="names", model_type="unheard-of")
    (finding,) = told(looked(named, {"target_modules": ["q_proj"]}), "names-only")
    assert finding.severity == "note"
    assert "unheard-of" in finding.message
    assert not told(on_builtin("llama", target_modules=["q_proj"]), "names-only")


def test_a_doubt_of_the_trace_about_an_adapted_weight_is_a_note() -> None:
    model = sample("llama")
    weight = next(weight for weight in model.weights if weight.name.endswith("layers.0.self_attn.q_proj"))
    role = Role("text", "", "attention", "self", "k")
    trace = Trace(weight.name, weight.role, False, role, "executed", "its output is a key", "low", True)
    traced = dataclasses.replace(model, traces=(trace,))
    (finding,) = told(looked(traced, {"target_modules": ["q_proj"]}), "traced-doubt")
    assert "names and dataflow disagree" in finding.message
    assert not told(looked(traced, {"target_modules": ["v_proj"]}), "traced-doubt")


def test_what_a_quantized_model_needs_is_a_note() -> None:
    model = sample("llama")
    weights = tuple(
        dataclasses.replace(weight, quantization="gptq 4 bit") if weight.name.endswith("q_proj") else weight
        for weight in model.weights
    )
    quantized = dataclasses.replace(model, weights=weights)
    (finding,) = told(looked(quantized, {"target_modules": ["q_proj"]}), "quantized")
    assert "gptq 4 bit" in finding.message
    assert not told(looked(quantized, {"target_modules": ["v_proj"]}), "quantized")
