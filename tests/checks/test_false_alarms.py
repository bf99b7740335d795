"""What PEFT and users do on purpose is no finding; the same names are one where nothing explains them."""

from __future__ import annotations

from typing import Any

import pytest

import lorascope as ls
from lorascope.sources.builtin import builtin_models
from tests.helpers.samples import sample

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# (model type, head, settings)
RIGHT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "an exclusion takes all of an entry": (
        "llama",
        "causal-lm",
        {"target_modules": ATTENTION, "exclude_modules": ["k_proj"]},
    ),
    "an exclusion takes some names of all-linear": (
        "qwen2_5_vl",
        "image-text-to-text",
        {"target_modules": "all-linear", "exclude_modules": ".*visual.*"},
    ),
    "the head that the task saves is one of all-linear": (
        "roberta",
        "sequence-classification",
        {"target_modules": "all-linear", "task_type": "SEQ_CLS"},
    ),
    "PEFT saves two names of heads": (
        "roberta",
        "sequence-classification",
        {"target_modules": ["query"], "task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score"]},
    ),
    "PEFT saves two names of heads, and the other is there": (
        "llama",
        "sequence-classification",
        {"target_modules": ["q_proj"], "task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score"]},
    ),
    "a router that is named": ("qwen3_moe", "causal-lm", {"target_modules": ["q_proj", "gate"], "lora_dropout": 0}),
}
# The same names where nothing but a mistake explains them.
WRONG: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "no such module": ("llama", "causal-lm", {"target_modules": [*ATTENTION, "kproj"]}, "no-match"),
    "no such module beside an exclusion": (
        "llama",
        "causal-lm",
        {"target_modules": [*ATTENTION, "kproj"], "exclude_modules": ["k_proj"]},
        "no-match",
    ),
    "the names of heads without the task": (
        "llama",
        "causal-lm",
        {"target_modules": ["q_proj"], "modules_to_save": ["classifier", "score"]},
        "saved-unmatched",
    ),
    "another name beside those of heads": (
        "roberta",
        "sequence-classification",
        {"target_modules": ["query"], "task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score", "lm_head"]},
        "saved-unmatched",
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_meant_is_not_reported(name: str) -> None:
    model_type, head, settings = RIGHT[name]
    check = ls.check(sample(model_type, head), {"peft_type": "LORA", **settings})
    assert not check.matters, [str(finding) for finding in check.findings]
    assert check.resolution.adapted


@pytest.mark.parametrize("name", WRONG)
def test_the_same_without_a_reason_is_reported(name: str) -> None:
    model_type, head, settings, code = WRONG[name]
    check = ls.check(sample(model_type, head), {"peft_type": "LORA", **settings})
    assert code in [finding.code for finding in check.findings if finding.severity != "note"]


@pytest.mark.parametrize(
    ("model_type", "head", "names", "said"),
    [
        ("bert", "sequence-classification", ["key", "query", "dense"], "The pooler is adapted"),
        (
            "distilbert",
            "sequence-classification",
            ["q_lin", "pre_classifier"],
            "The hidden layer of the head is adapted",
        ),
        ("llama", "causal-lm", ["q_proj", "lm_head"], "The output embedding (the head) is adapted"),
        ("bert", "masked-lm", ["query", "decoder"], "The output embedding (the head) is adapted"),
    ],
)
def test_parts_of_a_head_have_their_own_names(model_type: str, head: str, names: list[str], said: str) -> None:
    check = ls.check(sample(model_type, head), {"peft_type": "LORA", "target_modules": names})
    (finding,) = [finding for finding in check.findings if finding.code == "head"]
    assert finding.message.startswith(said)


def test_experts_that_are_nearly_all_of_the_adapter_are_a_warning_with_the_number_first() -> None:
    seven = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
    check = ls.check(sample("qwen3_moe"), {"peft_type": "LORA", "target_modules": seven, "r": 16})
    (finding,) = [finding for finding in check.findings if finding.code == "moe-rewrite"]
    assert finding.severity == "warning"
    assert finding.message.startswith(
        "490,733,568 of 495,648,768 trainable parameters are in the experts. PEFT rewrites"
    )
    experts = sum(one.trainable for one in check.resolution.adapted if ".experts." in one.name)
    assert (experts, check.resolution.trainable) == (490_733_568, 495_648_768)
    alone = ls.check(sample("mixtral"), {"peft_type": "LORA", "target_modules": ["w1", "w2", "w3"], "lora_dropout": 0})
    assert [one.severity for one in alone.findings if one.code == "moe-rewrite"] == ["note"]


def test_the_softmax_attention_of_a_hybrid_is_a_choice() -> None:
    """Linear attention that q, k, v and o leave out is a note, on every hybrid; with a wrong name it stays an error."""
    noted = []
    for model_type, heads in builtin_models().items():
        model = sample(model_type, heads[0])
        variants = {weight.role.variant for weight in model.weights if weight.role.block == "attention"}
        own = {weight.name.rpartition(".")[2] for weight in model.weights if weight.role.variant == "self"}
        if not {"linear", "self"} <= variants or not set(ATTENTION) <= own or "kv_b_proj" in own:
            continue
        findings = ls.check(model, *ATTENTION).findings
        assert [finding.code for finding in findings if finding.code == "left-out" and finding.severity != "note"] == []
        noted.append(model_type)
    assert len(noted) >= 8, noted
