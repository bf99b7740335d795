"""Shared tensors by names alone, against what transformers itself ties."""

from __future__ import annotations

import pytest

from lorascope.sources.checkpoint.layout import ModelLayout
from lorascope.sources.checkpoint.ties import shared_blocks, tie_groups, tied_parameters


def pairs(architecture: str, names: list[str], **config: object) -> dict[str, str]:
    return tied_parameters(ModelLayout(architecture, config).parts, names)


def test_whichever_of_two_is_there() -> None:
    expected = {"lm_head.weight": "model.embed_tokens.weight"}
    for names in (["lm_head.weight"], ["model.embed_tokens.weight"], ["lm_head.weight", "model.embed_tokens.weight"]):
        assert pairs("LlamaForCausalLM", names, model_type="llama", tie_word_embeddings=True) == expected
        assert pairs("LlamaForCausalLM", names, model_type="llama", tie_word_embeddings=False) == {}
    assert pairs("LlamaForCausalLM", ["model.norm.weight"], model_type="llama", tie_word_embeddings=True) == {}


def test_the_class_decides_where_the_configuration_is_silent() -> None:
    assert pairs("GPT2LMHeadModel", ["transformer.wte.weight"], model_type="gpt2") != {}
    assert pairs("LlamaForCausalLM", ["lm_head.weight"], model_type="llama") == {}


def test_whole_stacks() -> None:
    names = ["model.decoder.layers.0.mlp.down_proj.weight", "model.decoder.layers.0.experts.down_proj"]
    found = pairs("DiffusionGemmaForBlockDiffusion", names, model_type="diffusion_gemma", tie_word_embeddings=True)
    assert found["model.encoder.language_model.layers.0.mlp.down_proj.weight"] == names[0]


PARTS = ModelLayout("Zamba2ForCausalLM", {"model_type": "zamba2"}).parts


@pytest.mark.parametrize(
    ("held", "expected"),
    [([2], {4: 2, 6: 2}), ([2, 4], {6: 2, 8: 4, 10: 2})],
    ids=["one block", "two that take turns"],
)
def test_blocks_that_layers_share(held: list[int], expected: dict[int, int]) -> None:
    names = [f"model.layers.{number}.shared_transformer.up.weight" for number in held]
    found = shared_blocks(PARTS, [f"model.layers.{number}.shared_transformer.*" for number in expected], names)
    assert found == {
        f"model.layers.{number}.shared_transformer.up.weight": f"model.layers.{giver}.shared_transformer.up.weight"
        for number, giver in expected.items()
    }


def test_nothing_is_shared_that_no_layer_holds_or_no_class_shares() -> None:
    lacking = ["model.layers.3.shared_transformer.*", "lm_head.*"]
    assert shared_blocks(PARTS, lacking, ["model.layers.0.attention.weight"]) == {}
    assert shared_blocks(PARTS, ["model.layers.3.mlp.*"], ["model.layers.0.mlp.up.weight"]) == {}
    whole = ModelLayout("LlamaForCausalLM", {"model_type": "llama"})
    assert shared_blocks(whole.parts, lacking, ["model.layers.0.shared_transformer.up.weight"]) == {}


def test_groups_follow_the_order_of_the_parameters() -> None:
    found = tie_groups({"c": "a", "d": "b", "e": "c"}, ["a", "b", "c", "d", "e", "f"])
    assert found == (("a", "c", "e"), ("b", "d"))
    assert tie_groups({"x": "y"}, ["y"]) == ()
