"""The rule language, and what its selectors find."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorascope.model.types import Role, Weight
from lorascope.plans.rules import (
    BLOCKS,
    COMPONENTS,
    CONTENTS,
    FACT_OF,
    PARTS,
    STACKS,
    VARIANTS,
    own_components,
    parse_rule,
    select,
)
from lorascope.plans.types import Rule
from tests.helpers.samples import fails, sample

FACTS = {"component": COMPONENTS, "stack": STACKS, "block": BLOCKS, "variant": VARIANTS, "part": PARTS}

BOUNDS = st.one_of(st.just(""), st.integers(-99, 99).map(str))
SLICES = st.builds(
    lambda first, last, step: f"{first}:{last}{step}",
    BOUNDS,
    BOUNDS,
    st.one_of(st.just(""), st.integers(-9, 9).filter(bool).map(lambda step: f":{step}")),
)
LAYERS = st.lists(st.one_of(st.integers(-99, 99).map(str), SLICES), max_size=3).map(",".join)
ALPHAS = st.one_of(st.integers(1, 999_999_999).map(float), st.decimals("0.000000001", "999999999", places=9).map(float))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    kinds = draw(st.lists(st.sampled_from(sorted(FACTS)), unique=True, min_size=1))
    facts = [draw(st.lists(st.sampled_from(FACTS[kind]), min_size=1, max_size=3)) for kind in kinds]
    rank = draw(st.one_of(st.none(), st.integers(1, 999_999)))
    alpha = None if rank is None else draw(st.one_of(st.none(), ALPHAS))
    return Rule(tuple(map(tuple, facts)), draw(LAYERS), rank, alpha)


@settings(derandomize=True, max_examples=500)
@given(rules())
def test_a_rule_survives_its_text(rule: Rule) -> None:
    assert parse_rule(str(rule)) == rule


@settings(derandomize=True, max_examples=500)
@given(st.text("attenionfqv.,[]=/-:0189 é٣", max_size=20))
def test_any_text_is_a_rule_or_a_clear_error(text: str) -> None:
    try:
        rule = parse_rule(text)
    except ValueError as error:
        assert "Write SELECTOR[LAYERS]=RANK/ALPHA" in str(error)
    else:
        assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("attention", Rule((("attention",),))),
        ("attention.q,v=8", Rule((("attention",), ("q", "v")), "", 8)),
        ("q,v.attention=8", Rule((("q", "v"), ("attention",)), "", 8)),
        ("ffn[-8:]=4/16", Rule((("ffn",),), "-8:", 4, 16.0)),
        (" ffn [ 0:4 , -1 ] = 4 / 0.5 ", Rule((("ffn",),), "0:4,-1", 4, 0.5)),
        ("vision.attention.q[::2]", Rule((("vision",), ("attention",), ("q",)), "::2")),
        ("decoder.cross=2", Rule((("decoder",), ("cross",)), "", 2)),
    ],
)
def test_parse_rule(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


def test_the_words_of_the_facts_are_disjoint() -> None:
    for (name, words), (other, others) in itertools.combinations(FACTS.items(), 2):
        assert not set(words) & set(others), f"{name} and {other}"
    for name, words in FACTS.items():
        assert len(set(words)) == len(words), name
    assert set(FACT_OF) == {word for words in FACTS.values() for word in words}
    assert not [word for word in FACT_OF if not word.isidentifier()]  # nothing that the rule language means otherwise


def test_fused_parts_hold_parts() -> None:
    for part, pieces in CONTENTS.items():
        assert FACT_OF[part] == "part"
        assert pieces
        assert all(FACT_OF[piece] == "part" and piece not in CONTENTS for piece in pieces)


@pytest.mark.parametrize(
    ("model", "text", "leaves"),
    [
        ("llama", "attention.q,v", {"q_proj", "v_proj"}),
        ("llama", "q", {"q_proj"}),
        ("llama", "ffn", {"gate_proj", "up_proj", "down_proj"}),
        ("gpt2", "attention.q", {"c_attn"}),
        ("gpt2", "attention.qkv", {"c_attn"}),
        ("gpt2", "attention.o", {"c_proj"}),
        ("deepseek_v3", "attention.q", {"q_a_proj", "q_b_proj"}),
        ("deepseek_v3", "attention.v", {"kv_a_proj_with_mqa", "kv_b_proj"}),
        ("deepseek_v3", "attention.q_b", {"q_b_proj"}),
        ("mixtral", "ffn.up", {"gate_up_proj"}),
        ("mixtral", "ffn.expert", {"gate_up_proj", "down_proj"}),
        ("mixtral", "router", {"gate"}),
        ("qwen2_moe", "ffn.dense", None),
        ("qwen2_moe", "ffn.shared", {"gate_proj", "up_proj", "down_proj"}),
        ("phi3", "attention.k", {"qkv_proj"}),
        ("phi3", "ffn.gate", {"gate_up_proj"}),
    ],
)
def test_a_part_selects_what_holds_it(model: str, text: str, leaves: set[str] | None) -> None:
    if leaves is None:
        with fails(f"rule '{text}': selects nothing in {model}", "ffn.expert.down,gate_up", "ffn.shared.down,gate,up"):
            select(sample(model), parse_rule(text))
        return
    found = select(sample(model), parse_rule(text))
    assert {weight.name.removesuffix(".weight").rpartition(".")[2] for weight in found} == leaves


def test_towers_are_selected_only_when_named() -> None:
    model = sample("llava")
    assert own_components(model) == {"text"}
    everything = select(model, parse_rule("attention,ffn"))
    assert {weight.role.component for weight in everything} == {"text"}
    towers = select(model, parse_rule("vision,connector.attention,ffn"))
    assert {weight.role.component for weight in towers} == {"vision", "connector"}
    both = select(model, parse_rule("text,vision.attention.q"))
    assert {weight.role.component for weight in both} == {"text", "vision"}


@pytest.mark.parametrize(
    ("components", "own"),
    [
        # Component to its blocks, largest first.
        ({"vision": "attention", "audio": "ffn"}, "vision"),
        ({"diffusion": "attention", "codec": "attention", "connector": "ffn"}, "diffusion"),
        ({"audio": "attention", "text": "ffn"}, "text"),
        # The prediction network of a transducer embeds tokens and no more.
        ({"audio": "attention", "text": "embedding"}, "audio"),
        ({"connector": "attention"}, "connector"),
    ],
)
def test_without_a_text_model_a_selector_means_the_largest_component(components: dict[str, str], own: str) -> None:
    weights = tuple(
        Weight(f"{component}.{n}", f"{component}.{n}", "linear", (64 - n, 8), Role(component, "", block, "", ""))
        for n, (component, block) in enumerate(components.items())
    )
    model = dataclasses.replace(sample("llava"), weights=weights)
    assert own_components(model) == {own}


def test_recipes_leave_out_what_conditions_and_embeds() -> None:
    blocks = ("attention", "ffn", "mixer", "modulation", "embedding", "head", "other", "router")
    weights = tuple(
        Weight(
            block, block, "linear", (8, 8), Role("diffusion", "", block, "", "merger" if block == "embedding" else "")
        )
        for block in blocks
    )
    model = dataclasses.replace(sample("llava"), weights=weights)
    assert [weight.name for weight in select(model, parse_rule("attention,ffn,mixer"))] == ["attention", "ffn", "mixer"]
    assert [weight.name for weight in select(model, parse_rule("embedding.merger"))] == ["embedding"]
    assert [weight.name for weight in select(model, parse_rule("modulation"))] == ["modulation"]


def test_both_stacks_of_an_encoder_decoder_are_its_own() -> None:
    found = select(sample("t5"), parse_rule("attention.q"))
    assert {weight.role.stack for weight in found} == {"encoder", "decoder"}
    cross = select(sample("t5"), parse_rule("decoder.cross.k"))
    assert {weight.name for weight in cross} == {f"decoder.block.{n}.layer.1.EncDecAttention.k" for n in range(6)}


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ("0", [0]),
        ("-1", [31]),
        ("-32", [0]),
        ("0,3,3", [0, 3]),
        ("3,0", [0, 3]),
        (":2", [0, 1]),
        ("-2:", [30, 31]),
        ("28::2", [28, 30]),
        ("::8", [0, 8, 16, 24]),
        ("31:28:-1", [29, 30, 31]),
        (":", list(range(32))),
        ("0:1,-1", [0, 31]),
        ("30:99", [30, 31]),
    ],
)
def test_layers_are_pythons(layers: str, found: list[int]) -> None:
    chosen = select(sample("llama"), parse_rule(f"attention.q[{layers}]"))
    assert [weight.layer for weight in chosen] == found


def test_layers_count_within_each_tower() -> None:
    model = sample("llava")
    chosen = select(model, parse_rule("text,vision.attention.q[-1]"))
    assert {weight.role.component: weight.layer for weight in chosen} == {"vision": 23, "text": 31}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ffn[32]", ["there is no layer 32: text has 32 layers, 0 to 31", "[-1] is the last layer"]),
        ("ffn[-33]", ["there is no layer -33: text has 32 layers, 0 to 31"]),
        ("ffn[40:]", ["none of its weights lies in layers 40:", "They lie in layers 0-31"]),
        ("ffn[5:5]", ["selects nothing in llama", "They lie in layers 0-31"]),
        ("embedding[0]", ["selects nothing in llama", "leave out the brackets"]),
        ("vision", ["selects nothing in llama", "attention.self.k,o,q,v"]),
        ("attention.cross.q", ["selects nothing in llama", "Selectors that match: attention.self.k,o,q,v"]),
        ("mixer", ["selects nothing in llama", "ffn.dense.down,gate,up"]),
        ("encoder", ["selects nothing in llama", "attention.self"]),
    ],
)
def test_nothing_found_says_what_there_is(text: str, said: list[str]) -> None:
    with fails(f"rule '{text}'", *said):
        select(sample("llama"), parse_rule(text))


def test_the_nearest_selectors_come_first() -> None:
    with fails("Selectors that match: vision.ffn.dense.down,up ffn.dense.down,gate,up"):
        select(sample("llava"), parse_rule("vision.ffn.gate.cross"))
    with fails("ffn.expert.down,gate_up ffn.shared.down,gate,up"):
        select(sample("qwen2_moe"), parse_rule("ffn.dense.gate"))


@pytest.mark.parametrize("text", ["", "[3]", "=8", "ffn]3[", "ffn[0][1]", "a/b", None, 5, b"ffn"])
def test_what_is_no_rule_is_shown_with_the_form(text: object) -> None:
    with fails(f"{text!r} is not a rule", "Write SELECTOR[LAYERS]=RANK/ALPHA"):
        parse_rule(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("attenton", ["unknown word 'attenton' in a selector. Did you mean \"attention\"?"]),
        ("Attention.Q", ["unknown word 'Attention' in a selector", "unknown word 'Q' in a selector"]),
        ("q_proj", ["'q_proj' is a module name; its usual role is attention.q", "lorascope check MODEL q_proj"]),
        ("attention..q", ["unknown word '' in a selector"]),
        ("attention.q,", ["unknown word '' in a selector"]),
        ("attention.q.v", ["the part is given twice; join alternatives by commas"]),
        ("attention.ffn", ["the block is given twice"]),
        ("attention,q", ["'attention,q' mixes block and part"]),
        ("ffn[]", ["layers '' is neither a number nor a slice"]),
        ("ffn[1:2:0]", ["layers '1:2:0' is neither a number nor a slice"]),
        ("ffn[a,9999999]", ["layers 'a'", "layers '9999999'"]),
        ("ffn[٣]", ["layers '٣'"]),
        ("ffn=", ["rank '' is not a whole number from 1"]),
        ("ffn=0", ["rank '0' is not a whole number from 1"]),
        ("ffn=-8", ["rank '-8' is not a whole number from 1"]),
        ("ffn=2.5", ["rank '2.5' is not a whole number from 1"]),
        ("ffn=٨", ["rank '٨' is not a whole number from 1"]),
        ("ffn=8/0", ["alpha '0' is not a number above 0"]),
        ("ffn=8/nan", ["alpha 'nan' is not a number above 0"]),
        ("ffn=8/-1", ["alpha '-1' is not a number above 0"]),
        ("ffn=8/1e5", ["alpha '1e5' is not a number above 0"]),
        (
            "atention.foo.q.v[x]=0/0",
            ["'atention'", "'foo'", "the part is given twice", "layers 'x'", "rank '0'", "alpha '0'", "6 faults"],
        ),
    ],
)
def test_every_fault_of_a_rule_at_once(text: str, faults: list[str]) -> None:
    with fails(f"rule '{text}'", "Write SELECTOR[LAYERS]=RANK/ALPHA", *faults) as caught:
        parse_rule(text)
    shown = [fault for fault in caught.value.faults if any(part in fault for part in faults)]
    assert len(shown) == len(caught.value.faults)  # nothing else is said
