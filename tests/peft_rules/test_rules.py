"""The rules by themselves: lookups against the loops that they replace, versions, and speed."""

from __future__ import annotations

import re
import subprocess
import sys

import peft
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.tuners_utils import _find_minimal_target_modules
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_DEFAULTS
from peft.utils.other import get_pattern_key

from lorascope.errors import LorascopeError
from lorascope.model.types import Dimensions, ModelMap, Module
from lorascope.peft_rules.matchers import CONDENSED_FROM, NameSet, condensed_targets, default_targets
from lorascope.peft_rules.rank_pattern import PatternTable
from lorascope.peft_rules.releases import release_of
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig
from tests.helpers import peft_models
from tests.helpers.work import calls_at_most

PART = st.sampled_from(["a", "b", "q_proj", "qxproj", "0", "1", "layers", "x-y"])
NAME = st.lists(PART, min_size=1, max_size=4).map(".".join)
KEY = st.one_of(
    NAME,
    NAME.map(lambda name: f"^{re.escape(name)}$"),
    NAME.map(lambda name: f"^{name}"),
    NAME.map(lambda name: name.replace("_", ".")),
    st.sampled_from([".*proj", "(a|b)", "a|b", "q.proj", ".", "..", "[ab]", "layers.\\d", ".*", "x$"]),
)


@settings(derandomize=True, database=None, deadline=None, max_examples=600)
@given(st.lists(KEY, max_size=6, unique=True), NAME)
def test_keys_are_looked_up_as_peft_tries_them(keys: list[str], name: str) -> None:
    table = PatternTable({key: place for place, key in enumerate(keys, 1)})
    theirs = get_pattern_key(keys, name)
    assert table.value(name, 0) == {key: place for place, key in enumerate(keys, 1)}.get(theirs, 0)
    assert table.unmatched([name]) == sorted(key for key in keys if not re.match(rf"(.*\.)?({key})$", name))


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(st.lists(st.one_of(NAME, st.sampled_from(["", ".a", "a.", "proj"])), max_size=5), NAME)
def test_entries_are_looked_up_as_peft_tries_them(entries: list[str], name: str) -> None:
    theirs = name in entries or any(name.endswith(f".{entry}") for entry in entries)
    assert NameSet(entries).has(name) == theirs
    assert bool(NameSet(entries).hits(name)) == theirs


LONG_NAME = st.lists(st.sampled_from([*"abcdefgh", "0", "1"]), min_size=1, max_size=4).map(".".join)


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(st.sets(LONG_NAME, min_size=CONDENSED_FROM, max_size=40), st.sets(LONG_NAME, max_size=40))
@pytest.mark.slow
def test_long_lists_are_shortened_as_peft_does(targets: set[str], others: set[str]) -> None:
    names = ["", *sorted(targets | others)]
    suffixes = tuple(f".{target}" for target in targets)
    rest = [name for name in names if name not in targets and not name.endswith(suffixes)]
    theirs = _find_minimal_target_modules(targets, rest)
    expected = theirs if len(theirs) < len(targets) else targets
    assert condensed_targets(frozenset(targets), names) == expected


def test_defaults_are_those_of_the_installed_peft() -> None:
    release = release_of(peft.__version__)
    for model_type, row in PEFT_DEFAULTS.items():
        assert default_targets(model_type, release) == (row if isinstance(row, str) else frozenset(row)), model_type
    for model_type in ("gemma4", "nemotron_h", "no such type"):  # the first two came with 0.19 and 0.20
        assert (default_targets(model_type, release) is None) == (model_type not in PEFT_DEFAULTS), model_type
    assert len(PEFT_DEFAULTS) >= (39 if release >= (0, 19) else 38)


@pytest.mark.parametrize(
    ("version", "release"),
    [("0.21.2", (0, 21, 2)), ("0.18.1", (0, 18, 1)), ("0.20.1.dev0", (0, 20, 0)), ("0.21.0.dev0", (0, 20, 99))],
)
def test_versions(version: str, release: tuple[int, ...]) -> None:
    assert release_of(version) == release


@pytest.mark.parametrize("version", ["0.17.1", "newest", ""])
def test_unknown_versions(version: str) -> None:
    with pytest.raises(LorascopeError) as caught:
        resolve(peft_models.mapped("llama"), AdapterConfig(), version)
    assert "PEFT" in str(caught.value)


def test_no_torch_is_needed() -> None:
    code = (
        "import sys, lorascope.peft_rules.resolve, lorascope.peft_rules.adaptability; "
        "assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def large(layers: int) -> ModelMap:
    """A llama of many layers, 13 modules each."""
    square = (("weight", (4096, 4096)),)
    modules = [Module("model", "LlamaModel", "other"), Module("model.layers", "ModuleList", "other")]
    for layer in range(layers):
        start = f"model.layers.{layer}"
        others = ["", ".self_attn", ".mlp", ".mlp.act_fn", ".input_layernorm", ".post_attention_layernorm"]
        modules += [Module(start + other, "Block", "other") for other in others]
        linears = [f".self_attn.{part}_proj" for part in "qkvo"]
        linears += [f".mlp.{part}_proj" for part in ("gate", "up", "down")]
        modules += [Module(start + linear, "Linear", "linear", square) for linear in linears]
    return ModelMap("large", "llama", "Llama", "causal-lm", "test", {}, Dimensions(), tuple(modules), ())


# Calls for each module, where a name is one of two, all linear ones are meant, an expression, or a rank for each.
CALLS = {"list": 20, "all-linear": 80, "regex": 30, "a rank each": 120}


@pytest.mark.parametrize("kind", CALLS)
def test_work_is_linear_in_modules(kind: str) -> None:
    """Tens of calls for a module, in a model of 1,200 modules as in one of 12,000."""

    def config(model: ModelMap) -> AdapterConfig:
        names = [module.name for module in model.modules if module.kind == "linear"]
        if kind == "a rank each":
            ranks = {f"^{re.escape(name)}": 4 for name in names}
            return AdapterConfig(target_modules="all-linear", rank_pattern=ranks)
        return AdapterConfig(
            target_modules={"list": ("q_proj", "v_proj"), "all-linear": "all-linear", "regex": r".*\.[qv]_proj"}[kind]
        )

    small, big = large(93), large(930)
    assert len(small.modules) == 1211
    for model in (small, big):
        given = config(model)
        with calls_at_most(CALLS[kind] * len(model.modules)):
            assert resolve(model, given).refusal is None
