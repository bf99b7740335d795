"""From what single uses show to one role of a weight, or to none."""

from __future__ import annotations

import itertools

import pytest

from lorascope.tracing.classify.aggregate import aggregate, part_of
from lorascope.tracing.classify.annotations import Annotation


def annotation(text: str, why: str = "seen", node: int = 0) -> Annotation:
    block, variant, part = (*text.split("."), "", "")[:3]
    return Annotation("w", node, block, variant, part, why)


def role_text(*texts: str) -> str:
    """The role that uses with these roles come to, as `block.variant.part` with empty facts."""
    found = aggregate({"w": [annotation(text) for text in texts]})["w"]
    return ".".join((found.block, found.variant, found.part))


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        ("", ""),
        ("q", "q"),
        ("q k", "qk"),
        ("k v", "kv"),
        ("q v", "qv"),
        ("q k v", "qkv"),
        ("q k v o", "qkvo"),
        ("q gate", "q_gate"),
        ("q k v gate", "qkv_gate"),
        ("q_a", "q_a"),
        ("q_b q", "q_b"),
        ("k_a v_a", "kv_a"),
        ("k_a v_a k", "kv_a"),  # rotated keys come straight from the first half
        ("k_b k v_b v", "kv_b"),
        ("q_a k_a v_a", "qkv_a"),
        ("o o_a", "o_a"),
        ("o o_b", "o_b"),
        ("gate gate_a", "gate_a"),
        ("gate gate_b", "gate_b"),
        ("q_a gate_a", "q_a"),  # the field has no word for the gate's share of a first half
        ("q_b gate_b", "q_gate"),
        ("position", "position"),
        ("k position", "k"),  # the weight of the keys projects the positions too
        ("bias", "bias"),
    ],
)
def test_parts_of_one_weight_of_an_attention(parts: str, joined: str) -> None:
    for order in itertools.permutations(parts.split()):
        assert part_of(order, "attention") == joined


@pytest.mark.parametrize("parts", ["q o", "v o", "o gate", "q bias"])
def test_parts_that_no_weight_can_have_together(parts: str) -> None:
    assert part_of(parts.split(), "attention") is None


@pytest.mark.parametrize(
    ("parts", "joined"),
    [("up", "up"), ("up gate", "gate_up"), ("gate_up up", None), ("up down", None), ("", "")],
)
def test_parts_of_one_weight_of_a_feed_forward(parts: str, joined: str | None) -> None:
    assert part_of(parts.split(), "ffn") == joined


@pytest.mark.parametrize("block", ["indexer", "mixer", "embedding"])
def test_blocks_whose_parts_are_no_contradiction(block: str) -> None:
    assert part_of(["one", "two"], block) == ""
    assert part_of(["one", ""], block) == "one"


def test_equal_uses_are_one_role_with_their_number_in_the_evidence() -> None:
    found = aggregate(
        {
            "w": [
                annotation("router", "it decides", 1),
                annotation("router", "it decides", 2),
                annotation("router", "once"),
            ]
        }
    )
    assert found["w"].why == "it decides (2 times); once"
    assert (found["w"].block, found["w"].ambiguity) == ("router", "")


def test_parts_of_several_uses_are_joined() -> None:
    assert role_text("attention.self.q", "attention.self.k", "attention.self.v") == "attention.self.qkv"


def test_a_variant_that_differs_from_use_to_use_is_left_open() -> None:
    assert role_text("attention.self.q", "attention.cross.q") == "attention..q"
    assert role_text("ffn.dense.up", "ffn.expert.up") == "ffn..up"
    assert role_text("attention..q", "attention.self.q") == "attention.self.q"


def test_different_blocks_are_a_contradiction() -> None:
    found = aggregate({"w": [annotation("attention.self.q"), annotation("ffn.dense.up")]})["w"]
    assert (found.block, found.variant, found.part) == ("", "", "")
    assert found.ambiguity == "its uses belong to different blocks: attention, ffn"
    assert found.why == "seen (2 times)"


def test_parts_that_exclude_each_other_are_a_contradiction() -> None:
    found = aggregate({"w": [annotation("attention.self.q"), annotation("attention.self.o")]})["w"]
    assert (found.block, found.ambiguity) == ("", "its uses show different parts: o, q")


def test_a_table_at_both_ends_is_an_embedding() -> None:
    assert role_text("embedding..token", "head..lm") == "embedding..token"


def test_being_data_besides_says_nothing() -> None:
    assert role_text("other", "ffn.dense.up") == "ffn.dense.up"
    assert role_text("other", "other") == "other.."


def test_weights_without_claims_have_no_role() -> None:
    assert aggregate({"w": []}) == {}
    assert aggregate({}) == {}


def test_every_subset_of_queries_keys_values_and_output_is_spelled_in_their_order_or_refused() -> None:
    seen = set()
    for size in range(1, 5):
        for letters in itertools.combinations("qkvo", size):
            joined = part_of(letters, "attention")
            seen.add(joined)
            assert joined == ("".join(letters) if "o" not in letters or size in (1, 4) else None)
    assert seen == {"q", "k", "v", "o", "qk", "qv", "kv", "qkv", "qkvo", None}
