"""The two functions of the tutorial, for LLaMA's names and for everybody else's."""

from __future__ import annotations

from typing import Any

import pytest

import lorascope as ls
from tests.helpers.samples import fails, sample

LAYERS = range(32)


def test_llama_as_the_tutorial_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = ls.list_trainable_modules("llama")
    assert capsys.readouterr().out == (
        "Model: llama\n"
        "Hidden size: 4096\n"
        "Intermediate size: 11008\n"
        "Num layers: 32\n"
        "Num attention heads: 32\n"
        "\n"
        "Attention Q/V modules found: 64\n"
        "FFN modules found: 96\n"
    )
    assert found == {
        "attention": [f"model.layers.{n}.self_attn.{part}_proj" for n in LAYERS for part in "qv"],
        "ffn": [f"model.layers.{n}.mlp.{part}_proj" for n in LAYERS for part in ("gate", "up", "down")],
    }


@pytest.mark.parametrize(
    ("model", "printed", "attention", "ffn"),
    [
        (
            "gpt2",
            ["gpt2", "768", "3072", "12", "12", "12", "24"],
            ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"],
            ["transformer.h.0.mlp.c_fc", "transformer.h.0.mlp.c_proj"],
        ),
        (
            "mixtral",
            ["mixtral", "4096", "14336", "32", "32", "64", "64"],
            ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"],
            ["model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.down_proj"],
        ),
        (
            "bert",
            ["bert", "768", "3072", "12", "12", "24", "24"],
            ["bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.0.attention.self.value"],
            ["bert.encoder.layer.0.intermediate.dense", "bert.encoder.layer.0.output.dense"],
        ),
    ],
)
def test_other_architectures(
    model: str, printed: list[str], attention: list[str], ffn: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = ls.list_trainable_modules(model)
    lines = [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines() if line]
    assert lines == printed
    assert found["attention"][:2] == attention
    assert found["ffn"][:2] == ffn
    assert [str(len(found["attention"])), str(len(found["ffn"]))] == printed[-2:]


def test_without_attention_the_list_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert ls.list_trainable_modules("mamba") == {"attention": [], "ffn": []}
    assert "Attention Q/V modules found: 0\nFFN modules found: 0\n" in capsys.readouterr().out


def test_any_source_will_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(ls.list_trainable_modules(sample("llama"))["attention"]) == 64
    assert "Model: llama" in capsys.readouterr().out


def test_an_unknown_model(capsys: pytest.CaptureFixture[str]) -> None:
    with fails('"lama" is not a built-in model', 'Did you mean "llama"'):
        ls.list_trainable_modules("lama")
    assert capsys.readouterr().out == ""


def test_the_documented_dictionary() -> None:
    assert ls.create_attention_lora_config() == {
        "target_modules": ["q_proj", "v_proj"],
        "rank": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
    made = ls.create_attention_lora_config(rank=4, alpha=32)
    assert (made["rank"], made["lora_alpha"]) == (4, 32)


@pytest.mark.parametrize(
    ("model", "differing"),
    [
        ("llama", {}),
        ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
        ("bert", {"target_modules": ["query", "value"], "task_type": None}),
        ("t5", {"target_modules": ["q", "v"], "task_type": "SEQ_2_SEQ_LM"}),
        ("llava", {"exclude_modules": r"model\.vision_tower\..*"}),
    ],
)
def test_with_a_model_the_names_are_its_own(model: str, differing: dict[str, Any]) -> None:
    assert ls.create_attention_lora_config(model=model) == ls.create_attention_lora_config() | differing


@pytest.mark.parametrize("model", [None, "llama"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"rank": 0}, "rank 0 is not a whole number from 1"), ({"alpha": 0}, "alpha 0 is not a number above 0")],
    ids=str,
)
def test_bad_numbers_are_refused_with_and_without_a_model(
    model: str | None, arguments: dict[str, Any], said: str
) -> None:
    with fails(said):
        ls.create_attention_lora_config(**arguments, model=model)


def test_a_model_without_attention() -> None:
    with fails("selects nothing in mamba", "mixer"):
        ls.create_attention_lora_config(model="mamba")
