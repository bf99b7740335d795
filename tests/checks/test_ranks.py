"""Ranks, alphas and their patterns, with PEFT's word for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import peft_models
from tests.helpers.findings import Example, check_example, codes, configured, on_tiny, told
from tests.helpers.oracle import peft_kwargs, peft_truth

FULL = "model.layers.0.self_attn.q_proj"

EXAMPLES = {
    "a rank of nothing": Example(
        "llama", {"target_modules": ["q_proj"], "r": 0}, "rank-invalid", "error", ("r is 0",), ("r=8",), {"r": 8}
    ),
    "a rank of 0 to switch off": Example(
        "llama",
        {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 0}},
        "rank-invalid",
        "error",
        ("does not switch an adapter off",),
        ('exclude_modules=["v_proj"]',),
        {"rank_pattern": {}, "exclude_modules": ["v_proj"]},
    ),
    "a rank of 0 for nothing": Example(
        "llama",
        {"target_modules": ["q_proj"], "rank_pattern": {"v_proj": 0}},
        "rank-invalid",
        "warning",
        ("would refuse it",),
        (),
        {"rank_pattern": {}},
    ),
    "a convolution with groups": Example(
        "plain",
        {"target_modules": ["grouped"], "r": 6},
        "rank-invalid",
        "error",
        ("4 groups",),
        ("multiple of 4",),
        {"r": 8},
    ),
    "a key with the wrapper's prefix": Example(
        "llama",
        {"target_modules": ["q_proj"], "rank_pattern": {f"base_model.model.{FULL}": 4}},
        "pattern-prefix",
        "warning",
        ("without base_model.model.",),
        (f'"{FULL}"',),
        {"rank_pattern": {FULL: 4}},
    ),
    "a key that stops too early": Example(
        "llama",
        {"target_modules": ["q_proj"], "rank_pattern": {"layers.0": 4}},
        "pattern-unmatched",
        "warning",
        ("must reach the end",),
        ('"layers.0[.].*"', "1 of the adapted"),
        {"rank_pattern": {"layers.0[.].*": 4}},
    ),
    "a key that starts within a word": Example(
        "llama",
        {"target_modules": ["q_proj", "k_proj"], "alpha_pattern": {"_proj": 4}},
        "pattern-unmatched",
        "warning",
        ("after a dot",),
        ('".*_proj"',),
        {"alpha_pattern": {".*_proj": 4}},
    ),
    "a key with a wildcard": Example(
        "llama",
        {"target_modules": ["q_proj"], "rank_pattern": {"model.layers.*.q_proj": 4, "layers.*q": 4}},
        "pattern-unmatched",
        "warning",
        ("layers.*q",),
        (),
        {"rank_pattern": {"model.layers.*.q_proj": 4}},
    ),
    "a key for what is no target": Example(
        "llama",
        {"target_modules": ["q_proj"], "rank_pattern": {"down_proj": 4}},
        "pattern-unmatched",
        "warning",
        ("which the targets do not",),
        ("Add that to the targets",),
        {"target_modules": ["q_proj", "down_proj"]},
    ),
    "a misspelt key": Example(
        "llama",
        {"target_modules": ["q_proj"], "rank_pattern": {"q_prj": 4}},
        "pattern-unmatched",
        "warning",
        ("none gets 4",),
        ('"q_proj"',),
        {"rank_pattern": {"q_proj": 4}},
    ),
    "a key that the rewrite takes the name from": Example(
        "mixtral",
        {"target_modules": ["w1", "w2", "w3"], "rank_pattern": {"w2": 4}},
        "pattern-unmatched",
        "warning",
        ("turns w2 into down_proj",),
        ('"down_proj"',),
        {"rank_pattern": {"down_proj": 4}},
    ),
    "a key that an earlier one hides": Example(
        "llama",
        {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 4, FULL: 16}},
        "pattern-shadowed",
        "warning",
        (f'"{FULL}" never counts', '"q_proj" stands', "they get 4 and not 16"),
        ("first",),
        {"rank_pattern": {r".*layers\.[12]\..*q_proj": 4, FULL: 16}},
    ),
    "keys that saving turns round": Example(
        "llama",
        {"target_modules": ["k_proj"], "rank_pattern": {"model.layers.0.self_attn.k_proj": 32, "k_proj": 8}},
        "pattern-shadowed",
        "warning",
        ("saving sorts them the other way round", "cannot be loaded"),
        ('"k_proj"',),
        {"rank_pattern": {"model.layers.0.self_attn.k_proj": 32}},
    ),
    "a warning of PEFT's that is wrong": Example(
        "gpt_oss",
        {"target_modules": [], "target_parameters": ["experts.down_proj"], "rank_pattern": {"experts.down_proj": 2}},
        "pattern-false-alarm",
        "note",
        ("It did not",),
    ),
    "a scale of nothing": Example(
        "llama",
        {"target_modules": ["q_proj"], "lora_alpha": 0},
        "scale",
        "error",
        ("by 0",),
        ("lora_alpha=8",),
        {"lora_alpha": 8},
    ),
    "the default alpha at a high rank": Example(
        "llama",
        {"target_modules": ["q_proj"], "r": 64},
        "scale",
        "note",
        ("0.125", "default alpha"),
        ("lora_alpha=64",),
    ),
    "scales far apart": Example(
        "llama",
        {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2}},
        "scale",
        "note",
        ("1 for", "4 for"),
        ("alpha_pattern",),
    ),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_a_mistake_is_told_and_its_fix_helps_by_peft_itself(example: Example) -> None:
    check_example(example)


def test_every_code_of_the_room_has_its_mistake() -> None:
    assert len(EXAMPLES) == 17
    assert {example.code for example in EXAMPLES.values()} == {
        *("rank-invalid", "pattern-prefix", "pattern-unmatched", "pattern-shadowed", "pattern-false-alarm", "scale")
    }


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("llama", {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 4}}),
        # An earlier key of the same rank hides nothing.
        ("llama", {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 4, FULL: 4}}),
        ("llama", {"target_modules": ["q_proj"], "rank_pattern": {f"^{FULL}": 16}, "alpha_pattern": {f"^{FULL}": 16}}),
        (
            "llama",
            {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 2}},
        ),
        ("gpt2", {"target_modules": ["c_attn"], "r": 64, "lora_alpha": 64}),
    ],
)
def test_what_is_right_is_not_told(model: str, arguments: dict[str, Any]) -> None:
    assert not {example.code for example in EXAMPLES.values()} & set(codes(on_tiny(model, **arguments)))


def test_sorted_keys_are_what_peft_saves_and_reads(tmp_path: Path) -> None:
    """The rank in memory, in the file and after reading it are PEFT's own."""
    import peft

    arguments = EXAMPLES["keys that saving turns round"].config
    config = peft.LoraConfig(**peft_kwargs(configured(arguments)))
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))["rank_pattern"]
    assert list(saved) == sorted(arguments["rank_pattern"])
    before, _ = peft_truth(peft_models.build("llama"), peft_kwargs(configured(arguments)))
    after, _ = peft_truth(peft_models.build("llama"), peft_kwargs(configured({**arguments, "rank_pattern": saved})))
    name = "model.layers.0.self_attn.k_proj"
    assert (before[name][0], after[name][0]) == (32, 8)
    (finding,) = told(on_tiny("llama", **{**arguments, "rank_pattern": saved}), "pattern-shadowed")
    assert "never counts" in finding.message
