"""The trainers' options: tables of names, types and defaults, read in the manner of each kind of file."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lorascope.peft_rules.options import OPTIONS
from lorascope.peft_rules.types import AdapterConfig
from lorascope.trainers.axolotl import schema as axolotl
from lorascope.trainers.known_keys import known_keys
from lorascope.trainers.llamafactory import schema as llamafactory
from lorascope.trainers.mlx_lm import schema as mlx_lm
from lorascope.trainers.ms_swift import schema as ms_swift
from lorascope.trainers.options import Option, Schema, ValueType
from lorascope.trainers.torchtune import schema as torchtune
from lorascope.trainers.trl import schema as trl
from lorascope.trainers.unsloth import schema as unsloth
from lorascope.trainers.values import pydantic_values, word_values, yaml_values

SCHEMA = Schema(
    Option("rank", yaml_values.WHOLE, default=8, peft="r"),
    Option("targets", yaml_values.TEXT_OR_TEXTS, peft="target_modules", nullable=True),
    Option("bias", yaml_values.TEXT, default="none", peft="bias", choices=("none", "all")),
    Option("search", yaml_values.TRUTH),
)
WORDS = Schema(
    Option("rank", word_values.WHOLE, default=8, peft="r"),
    Option("targets", word_values.TEXTS, peft="target_modules"),
    Option("bias", word_values.TEXT, choices=("none", "all")),
    Option("search", word_values.TRUTH),
)
# Every trainer's options, with the list of keys of its own parser and what stands there before each.
SCHEMAS = [
    (axolotl.SCHEMA, "axolotl", ""),
    (llamafactory.SCHEMA, "llamafactory", ""),
    (mlx_lm.SCHEMA, "mlx_lm", ""),
    (mlx_lm.PARAMETERS, "mlx_lm", "lora_parameters."),
    (ms_swift.SCHEMA, "ms-swift-rlhf", ""),
    (torchtune.SCHEMA, "torchtune", "FUNCTION."),
    (trl.SCHEMA, "trl", ""),
    (unsloth.SCHEMA, "unsloth", ""),
    (unsloth.HANDED_ON, "unsloth", ""),
]


def test_options_are_read_and_other_keys_left_out() -> None:
    settings, faults = SCHEMA.read({"other": [], "search": True, "targets": None, "rank": 4, "bias": "all"})
    assert settings == {"rank": 4, "targets": None, "bias": "all", "search": True}
    assert faults == []
    assert list(settings) == ["rank", "targets", "bias", "search"]  # in the order of the schema


def test_every_fault_is_said() -> None:
    settings, faults = SCHEMA.read({"rank": 4.5, "targets": [1], "bias": "lora_only", "search": None})
    assert settings == {}
    assert faults == [
        "rank is 4.5, not a whole number",
        "targets is [1], not a string or a list of strings",
        "bias is 'lora_only', not one of none, all",
        "search is None, not true or false",
    ]
    assert SCHEMA.read({"rank": 2**63})[1] == ["rank has 9223372036854775808; numbers must be finite and below 2^63"]


def test_words_are_converted_as_argparse_does() -> None:
    settings, faults = WORDS.read_words({"rank": ["4"], "targets": ["q", "v"], "search": [], "bias": ["none"]})
    assert (settings, faults) == ({"rank": 4, "targets": ("q", "v"), "search": True, "bias": "none"}, [])
    assert WORDS.read_words({"rank": ["x"], "targets": [], "search": ["yes", "no"], "bias": ["q"]})[1] == [
        "--rank is 'x', not a whole number",
        "--targets has no value",
        "--bias is 'q', not one of none, all",
        "--search has 2 values ('yes no'), not one",
    ]


def test_options_set_arguments_of_peft_and_back() -> None:
    assert SCHEMA.defaults == {"rank": 8, "targets": None, "bias": "none", "search": None}
    arguments = SCHEMA.peft_arguments({**SCHEMA.defaults, "targets": ["q_proj"], "search": True})
    assert arguments == {"r": 8, "target_modules": ("q_proj",), "bias": "none"}
    assert SCHEMA.settings_of(AdapterConfig(**arguments)) == {"rank": 8, "targets": ("q_proj",), "bias": "none"}


REFUSED = "refused"


@pytest.mark.parametrize(
    ("type_", "value", "becomes"),
    [
        (yaml_values.WHOLE, True, REFUSED),
        (yaml_values.WHOLE, 8, 8),
        (yaml_values.WHOLE, 8.0, REFUSED),
        (yaml_values.NUMBER, False, REFUSED),
        (yaml_values.NUMBER, 1e-1, 0.1),
        (yaml_values.TRUTH, 1, REFUSED),
        (yaml_values.TEXTS, ["q", 1], REFUSED),
        (yaml_values.WHOLE_OR_WHOLES, [0, 1.0], REFUSED),
        (pydantic_values.WHOLE, " 4.0 ", 4),
        (pydantic_values.WHOLE, 4.5, REFUSED),
        (pydantic_values.WHOLE, True, 1),
        (pydantic_values.NUMBER, "1e-1", 0.1),
        (pydantic_values.NUMBER, 10**400, REFUSED),
        (pydantic_values.TRUTH, "Off", False),
        (pydantic_values.TRUTH, 2, REFUSED),
        (pydantic_values.SIZES, {"q": "4"}, {"q": 4}),
        (pydantic_values.SIZES, {"q": 0}, REFUSED),
        (pydantic_values.WHOLES, ["0", 1.0], [0, 1]),
        (word_values.WHOLE, "1.5", REFUSED),
        (word_values.NUMBER, "nan", REFUSED),
        (word_values.TRUTH, "T", True),
        (word_values.as_default(word_values.WHOLE, yaml_values.NUMBER), "4", 4),
        (word_values.as_default(word_values.WHOLE, yaml_values.NUMBER), 4.5, 4.5),
        (word_values.as_default(word_values.WHOLE, yaml_values.NUMBER), "4.5", REFUSED),
    ],
)
def test_values(type_: ValueType, value: Any, becomes: Any) -> None:
    try:
        converted = type_.convert(value)
    except ValueError:
        converted = REFUSED
    assert converted == becomes
    assert type(converted) is type(becomes)


def test_options_are_those_of_the_trainers_own_parsers() -> None:
    checked = 0
    for schema, keys, prefix in SCHEMAS:
        known = known_keys(keys)
        if prefix == "FUNCTION.":  # some of torchtune's functions have each
            known = frozenset(f"{prefix}{key.rpartition('.')[2]}" for key in known)
        names = {f"{prefix}{name}" for name in schema.options}
        assert names <= known, keys
        checked += len(names)
    assert checked == 122


def test_options_set_what_peft_has() -> None:
    fields = {field.name for field in dataclasses.fields(AdapterConfig)}
    checked = 0
    for schema, keys, _ in SCHEMAS:
        set_in_peft = [option.peft for option in schema.options.values() if option.peft]
        assert set(set_in_peft) <= fields | OPTIONS.keys(), keys
        assert len(set(set_in_peft)) == len(set_in_peft), keys
        checked += len(set_in_peft)
    assert checked == 56


def test_defaults_are_values_that_their_options_take() -> None:
    checked = 0
    for schema, keys, _ in SCHEMAS:
        for option in schema.options.values():
            if option.default is not None and keys not in ("ms-swift-rlhf",):
                assert option.convert(option.default) == option.default, (keys, option.name)
                checked += 1
    assert checked == 35
