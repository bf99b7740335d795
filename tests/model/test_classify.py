"""The engine on small hand-made module trees that no model type names."""

from __future__ import annotations

import pytest

from lorascope.model import lexicon
from lorascope.model.classify import assemble, classify
from lorascope.model.role_names import parse_role, role_of_name
from lorascope.model.types import Kind, Module
from lorascope.plans.rules import FACT_OF


def _linear(name: str, out: int = 8, into: int = 8) -> Module:
    return Module(name, "Linear", "linear", (("weight", (out, into)),))


def _roles(*modules: Module, model_type: str = "never_seen") -> dict[str, str]:
    weights = classify(modules, model_type=model_type)
    return {weight.name: f"{'guess ' if weight.guess else ''}{weight.role}" for weight in weights}


def test_a_model_type_that_nobody_has_seen_is_read_by_its_names() -> None:
    layer = "model.layers.0"
    assert _roles(
        Module("model.embed_tokens", "Embedding", "embedding", (("weight", (100, 8)),)),
        *(_linear(f"{layer}.self_attn.{leaf}") for leaf in ("q_proj", "k_proj", "v_proj", "o_proj")),
        *(_linear(f"{layer}.mlp.{leaf}") for leaf in ("gate_proj", "up_proj", "down_proj")),
        Module(f"{layer}.input_layernorm", "RMSNorm", "other", (("weight", (8,)),)),
        _linear("lm_head", 100),
    ) == {
        "model.embed_tokens": "text.embedding.token",
        f"{layer}.self_attn.q_proj": "text.attention.self.q",
        f"{layer}.self_attn.k_proj": "text.attention.self.k",
        f"{layer}.self_attn.v_proj": "text.attention.self.v",
        f"{layer}.self_attn.o_proj": "text.attention.self.o",
        f"{layer}.mlp.gate_proj": "text.ffn.dense.gate",
        f"{layer}.mlp.up_proj": "text.ffn.dense.up",
        f"{layer}.mlp.down_proj": "text.ffn.dense.down",
        "lm_head": "text.head.lm",
    }


def test_a_name_that_no_row_knows_is_a_guess() -> None:
    assert _roles(_linear("model.layers.0.zorp"), _linear("model.layers.0.self_attn.frob")) == {
        "model.layers.0.zorp": "guess text.other",
        "model.layers.0.self_attn.frob": "guess text.other",
    }


def test_what_is_known_to_be_no_block_is_no_guess() -> None:
    roles = _roles(
        _linear("model.layers.0.laurel.linear_left"),
        Module("model.layers.0.mixer", "Mixer", "other", (("A_log", (8, 4)), ("D", (8,)))),
    )
    assert roles == {"model.layers.0.laurel.linear_left": "text.other", "model.layers.0.mixer.A_log": "text.other"}


def test_members_of_a_sequential_ffn_go_by_their_order() -> None:
    roles = _roles(_linear("h.0.ffn.0", 32), _linear("h.0.ffn.2", 8, 32), _linear("h.1.ffn.0"))
    assert roles == {
        "h.0.ffn.0": "text.ffn.dense.up",
        "h.0.ffn.2": "text.ffn.dense.down",
        "h.1.ffn.0": "guess text.other",
    }


def test_two_numbered_linear_layers_are_an_mlp_everywhere() -> None:
    roles = _roles(_linear("model.layers.0.thing.linear_1"), _linear("model.layers.0.thing.linear_2"))
    assert list(roles.values()) == ["text.ffn.dense.up", "text.ffn.dense.down"]


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["projector"], ["embedding.projection"]),
        (["projector.anything"], ["embedding.projection"]),
        (["projector.in_proj", "projector.out_proj"], ["ffn.dense.up", "ffn.dense.down"]),
        (["visual.merger.mlp.0", "visual.merger.mlp.2"], ["ffn.dense.up", "ffn.dense.down"]),
        (
            ["projector.linear_1", "projector.linear_2", "projector.last"],
            ["ffn.dense.up", "ffn.dense.down", "embedding.projection"],
        ),
    ],
)
def test_linear_layers_of_a_connector_go_by_their_number(names: list[str], parts: list[str]) -> None:
    assert list(_roles(*map(_linear, names)).values()) == [f"connector.{part}" for part in parts]


def test_three_unknown_linear_layers_of_a_connector_are_guesses() -> None:
    assert set(_roles(*(_linear(f"projector.{leaf}") for leaf in "abc")).values()) == {"guess connector.other"}


def test_layers_of_linear_attention_are_told_by_what_stands_beside_them() -> None:
    leaves = ("q_proj", "k_proj", "v_proj", "o_proj")
    roles = _roles(
        *(_linear(f"layers.{layer}.self_attn.{leaf}") for layer in (0, 1) for leaf in leaves),
        Module("layers.1.self_attn.forget_gate", "ForgetGate", "other"),
        _linear("layers.1.self_attn.forget_gate.f_proj"),
        _linear("layers.1.mlp.up_proj"),
    )
    assert roles["layers.0.self_attn.q_proj"] == "text.attention.self.q"
    assert roles["layers.1.self_attn.q_proj"] == "text.attention.linear.q"
    assert roles["layers.1.self_attn.forget_gate.f_proj"] == "text.attention.linear.decay"
    assert roles["layers.1.mlp.up_proj"] == "text.ffn.dense.up"


@pytest.mark.parametrize(
    ("q", "k", "v", "part"),
    [
        (16, 4, 4, "q_gate"),  # twice the rows that the output reads
        (8, 4, 4, "q"),
        (16, 16, 8, "q"),  # larger heads for queries and keys
    ],
)
def test_queries_with_twice_the_rows_give_the_gate_too(q: int, k: int, v: int, part: str) -> None:
    attention = "layers.0.self_attn"
    roles = _roles(
        _linear(f"{attention}.q_proj", q),
        _linear(f"{attention}.k_proj", k),
        _linear(f"{attention}.v_proj", v),
        _linear(f"{attention}.o_proj", 8, 8),
    )
    assert roles[f"{attention}.q_proj"] == f"text.attention.self.{part}"


def test_a_stack_of_matrices_in_an_ffn_is_experts() -> None:
    stack = Module("layers.0.mlp", "Experts", "other", (("up_proj", (4, 16, 8)), ("down_proj", (4, 8, 16))))
    assert list(_roles(stack).values()) == ["text.ffn.expert.up", "text.ffn.expert.down"]
    transposed = Module("layers.0.mlp", "Experts", "other", (("up_proj", (4, 8, 16)),), transposed=True)
    assert classify([transposed])[0].shape == (4, 16, 8)


def test_experts_and_cross_attention_hold_for_what_is_inside_them() -> None:
    roles = _roles(
        _linear("layers.0.experts.3.mlp.up_proj"),
        _linear("layers.0.crossattention.self.query"),
        _linear("layers.0.crossattention.output.dense"),
        _linear("layers.0.attention.output.dense"),
        _linear("layers.0.output.dense"),
    )
    assert list(roles.values()) == [
        "text.ffn.expert.up",
        "text.attention.cross.q",
        "text.attention.cross.o",
        "text.attention.self.o",
        "text.ffn.dense.down",
    ]


def test_stacks_are_said_only_where_a_component_has_two() -> None:
    both = [_linear(f"model.{stack}.layers.0.self_attn.q_proj") for stack in ("encoder", "decoder")]
    head = _linear("model.decoder.lm_head")
    assert list(_roles(*both, head).values()) == [
        "text.encoder.attention.self.q",
        "text.decoder.attention.self.q",
        "text.head.lm",
    ]
    assert list(_roles(both[0]).values()) == ["text.attention.self.q"]
    codec = [_linear(f"vqmodel.{stack}.mid.attn_1.q") for stack in ("encoder", "decoder")]
    assert set(_roles(*codec).values()) == {"codec.attention.self.q"}


def test_tables_of_relative_positions_are_no_part_of_the_attention() -> None:
    table = Module("block.0.SelfAttention.relative_attention_bias", "Embedding", "embedding", (("weight", (32, 8)),))
    bare = Module("blocks.0.attn", "Attention", "other", (("rel_pos_h", (27, 64)),))
    assert set(_roles(table, bare).values()) == {"text.embedding.position"}


def test_only_pointwise_convolutions_are_weights() -> None:
    point = Module("layers.0.conv.up_conv", "Conv1d", "conv", (("weight", (16, 8, 1)),))
    wide = Module("layers.0.conv.depthwise", "Conv1d", "conv", (("weight", (16, 1, 31)),), groups=16)
    (weight,) = classify([point, wide])
    assert (weight.name, weight.kind, weight.shape) == ("layers.0.conv.up_conv", "conv", (16, 8))
    assert str(weight.role) == "audio.mixer.in"  # its convolutions reach over 31 frames, and it has no vocabulary


def test_multihead_attention_is_one_weight() -> None:
    attention = Module(
        "layers.0.self_attn", "MultiheadAttention", "multihead_attention", (("in_proj_weight", (24, 8)),)
    )
    pooling = Module("vision_model.head.attention", "MultiheadAttention", "multihead_attention", attention.parameters)
    assert _roles(attention, _linear("layers.0.self_attn.out_proj"), pooling) == {
        "layers.0.self_attn": "text.attention.self.qkvo",
        "vision_model.head.attention": "vision.attention.cross.qkvo",
    }


def test_conv1d_is_listed_as_out_by_in() -> None:
    (weight,) = classify([Module("h.3.mlp.c_fc", "Conv1D", "conv1d", (("weight", (8, 32)),))])
    assert (weight.shape, weight.layer, str(weight.role)) == ((32, 8), 3, "text.ffn.dense.up")


def test_an_exception_holds_for_its_model_type_alone() -> None:
    name = "rwkv.blocks.0.attention.key"
    assert _roles(_linear(name), model_type="rwkv") == {name: "text.mixer.k"}
    assert _roles(_linear(name)) == {name: "text.attention.self.k"}


def test_layers_are_counted_inside_blocks_only() -> None:
    weights = classify([_linear("model.layers.7.mlp.up_proj"), _linear("merger.mlp.0"), _linear("merger.mlp.2")])
    assert [weight.layer for weight in weights] == [7, None, None]


def test_a_weight_that_is_given_no_role_is_a_guess() -> None:
    (weight,) = assemble([_linear("zorp")], {})
    assert (str(weight.role), weight.guess) == ("text.other", True)


def test_a_role_survives_being_written() -> None:
    for text in (
        "vision.ffn.dense.up",
        "text.decoder.attention.cross.q",
        "text.other",
        "connector.embedding.projection",
    ):
        assert str(parse_role(text)) == text


def test_every_row_of_the_lexicon_speaks_the_vocabulary() -> None:
    texts = [
        *lexicon.BLOCKS.values(),
        *(text for text in lexicon.TAILS.values() if text != "{o}"),
        *lexicon.LEAVES.values(),
        *lexicon.BARE_LEAVES.values(),
        *lexicon.ROOT_LEAVES.values(),
        *(role.removesuffix(".*") for _, _, role, _ in lexicon.EXCEPTIONS),
        *(
            f"{block}.dense.{part}" if block == "ffn" else part
            for block in lexicon.PARTS
            for part in lexicon.PARTS[block].values()
        ),
        lexicon.ALONE,
        *lexicon.PAIR,
    ]
    assert {word for text in texts for word in text.split(".")} <= set(FACT_OF)
    assert {component for component, _ in lexicon.COMPONENTS} <= set(FACT_OF)


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_read_needs_no_module(kind: Kind) -> None:
    role, guess = role_of_name("vision_tower.blocks.#.attn.qkv", kind, "")
    assert (str(role), guess) == ("vision.attention.self.qkv", False)


def test_a_bridge_within_a_vision_model_is_no_connector() -> None:
    assert role_of_name("head.bridge_connector.convolution", "linear", "uvdoc")[0].component == "vision"
    assert role_of_name("head.bridge_connector.convolution", "linear", "")[0].component == "connector"
