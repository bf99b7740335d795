"""`layers_to_transform` and `layers_pattern`: what they drop, pass over and hit, with PEFT's word for each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.findings import Example, check_example, codes, on_tiny, told

FULL = [f"model.layers.{layer}.self_attn.{part}_proj" for layer in range(3) for part in "qkvo"]
MORE = [f"model.layers.{layer}.mlp.{part}_proj" for layer in range(3) for part in ("gate", "up", "down")]
STACKS = ["experts.down_proj"]

EXAMPLES = {
    "a layer too far": Example(
        "llama",
        {"target_modules": ["q_proj"], "layers_to_transform": [2, 3]},
        "layers-absent",
        "warning",
        ("layer 3", "layers 0-2", "silently"),
        ("0-2", "counted from 0"),
        {"layers_to_transform": [2]},
    ),
    "no layer at all": Example(
        "llama",
        {"target_modules": ["q_proj"], "layers_to_transform": [40]},
        "layers-absent",
        "error",
        ("Nothing is left",),
        ("0-2",),
        {"layers_to_transform": [0]},
    ),
    "layers from the end": Example(
        "llama",
        {"target_modules": ["q_proj"], "layers_to_transform": [-1]},
        "layers-absent",
        "error",
        ("layer -1",),
        ("-1 is 2",),
        {"layers_to_transform": [2]},
    ),
    "a bare model": Example(
        "llama-bare",
        {"target_modules": ["q_proj"], "layers_to_transform": [0]},
        "layers-dropped",
        "error",
        ("no layer number", "3 modules"),
        ('layers_pattern="layers"',),
        {"layers_pattern": "layers"},
    ),
    "what lies in no layer": Example(
        "llama",
        {"target_modules": ["q_proj", "embed_tokens"], "layers_to_transform": [0]},
        "layers-dropped",
        "warning",
        ("model.embed_tokens", "no layer"),
        ('"model.embed_tokens"',),
        {"target_modules": ["q_proj", "model.embed_tokens"]},
    ),
    "full names": Example(
        "llama",
        {"target_modules": FULL, "layers_to_transform": [0]},
        "layers-ignored",
        "warning",
        ("full names",),
        (),
        {"layers_to_transform": None},
    ),
    "a full name outside of the layers": Example(
        "llama",
        {"target_modules": ["q_proj", "lm_head"], "layers_to_transform": [0]},
        "layers-ignored",
        "note",
        ("lm_head",),
    ),
    "parameters": Example(
        "mixtral",
        {"target_modules": ["q_proj"], "target_parameters": STACKS, "layers_to_transform": [1]},
        "layers-ignored",
        "warning",
        ("does not apply to parameters", "layers.0.mlp.experts.down_proj"),
        ('"layers.1.mlp.experts.down_proj"',),
        {"target_parameters": ["layers.1.mlp.experts.down_proj"]},
    ),
    "a tower beside": Example(
        "llava",
        {"target_modules": ["q_proj"], "layers_to_transform": [0]},
        "layers-towers",
        "warning",
        ("vision", "text"),
        ("see outside",),
        {"exclude_modules": ".*vision_tower.*"},
    ),
    "two stacks": Example(
        "t5", {"target_modules": ["q"], "layers_to_transform": [0]}, "layers-towers", "note", ("encoder", "decoder")
    ),
    "layers with a string": Example(
        "llama",
        {"target_modules": r".*\.(q|v)_proj", "layers_to_transform": [0]},
        "layers-with-string",
        "error",
        ("Give a list",),
        ('target_modules=["q_proj", "v_proj"]',),
        {"target_modules": ["q_proj", "v_proj"]},
    ),
    "layers with all-linear": Example(
        "llama",
        {"target_modules": "all-linear", "layers_to_transform": [0]},
        "layers-with-string",
        "error",
        (),
        ('"q_proj"',),
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]},
    ),
    "a pattern without layers": Example(
        "llama",
        {"target_modules": ["q_proj"], "layers_pattern": "layers"},
        "layers-pattern",
        "error",
        ("needs layers_to_transform",),
        ("layers_to_transform",),
        {"layers_to_transform": [0]},
    ),
    "a pattern that finds another number": Example(
        "t5",
        {"target_modules": ["q"], "layers_to_transform": [0], "layers_pattern": ["layer"]},
        "layers-pattern",
        "warning",
        ("wrong layer index", "finds 0 where the layer is 1"),
        ("layers_pattern",),
        {"layers_pattern": ["block"]},
    ),
    "a list that PEFT shortens": Example(
        "llama",
        {"target_modules": FULL + MORE, "layers_to_transform": [0]},
        "condensed",
        "warning",
        ("shortens",),
        ("Leave layers_to_transform out",),
        {"layers_to_transform": None},
    ),
    "a long list": Example("llama", {"target_modules": FULL + MORE}, "condensed", "note", ("21 names",)),
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_a_mistake_is_told_and_its_fix_helps_by_peft_itself(example: Example) -> None:
    check_example(example)


def test_every_code_of_the_room_has_its_mistake() -> None:
    assert len(EXAMPLES) == 16
    assert {example.code for example in EXAMPLES.values()} == {
        *("layers-absent", "layers-dropped", "layers-ignored", "layers-towers", "layers-with-string", "layers-pattern"),
        "condensed",
    }


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("llama", {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [0, 2]}),
        ("llama", {"target_modules": ["q_proj"], "layers_to_transform": 1}),
        ("llama", {"target_modules": ["q_proj"], "layers_to_transform": []}),
        ("llama-bare", {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"}),
        (
            "mixtral",
            {"target_modules": [], "target_parameters": ["layers.1.mlp.experts.down_proj"], "layers_to_transform": [1]},
        ),
        # Who spells the layer of a parameter means that one.
        (
            "mixtral",
            {
                "target_modules": ["q_proj"],
                "target_parameters": ["layers.0.mlp.experts.down_proj"],
                "layers_to_transform": [1],
            },
        ),
        ("llava", {"target_modules": ["q_proj"], "layers_to_transform": [0], "exclude_modules": ".*vision_tower.*"}),
        ("llama", {"target_modules": FULL}),
    ],
)
def test_what_is_right_is_not_told(model: str, arguments: dict[str, Any]) -> None:
    assert not {example.code for example in EXAMPLES.values()} & set(codes(on_tiny(model, **arguments)))


def test_a_head_that_an_entry_catches_beside_layers_is_not_told() -> None:
    """`out_proj` is meant of the attention; that the classifier's lies in no layer harms no one."""
    assert not told(on_tiny("bart", target_modules=["out_proj"], layers_to_transform=[0]), "layers-dropped")
