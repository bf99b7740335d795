"""Compilations of `rank_pattern` keys: one per key and verb, whatever the caches hold."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import pytest

import lorascope as ls
from lorascope.peft_rules import name_patterns
from tests.helpers.samples import sample

VERBS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "verify": ls.verify,
    "check": lambda model, config: ls.check(model, config).resolution,
}


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text given to `re.compile`, with a cache between verbs of 16 patterns instead of thousands."""
    texts: list[str] = []
    compile_pattern = re.compile

    def record(text: Any, *flags: Any) -> Any:
        texts.append(text)
        return compile_pattern(text, *flags)

    short = functools.lru_cache(maxsize=16)(name_patterns._short.__wrapped__)
    monkeypatch.setattr(name_patterns, "_short", short)
    monkeypatch.setattr(re, "compile", record)
    return texts


def config_with(count: int) -> dict[str, Any]:
    """Targets in 32 layers, and a regular expression for the rank of each of `count` layers."""
    ranks = {rf"model\.layers\.{layer}\.self_attn\.(q|v)_proj": layer % 7 + 1 for layer in range(count)}
    return {"target_modules": ["q_proj", "v_proj"], "rank_pattern": ranks}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_compiles_each_key_once(verb: str, compilations: list[str]) -> None:
    model = sample("mistral")
    counts = {}
    VERBS[verb](model, config_with(100))  # imports what it needs
    for count in (100, 200, 400):
        compilations.clear()
        name_patterns._short.cache_clear()
        config = config_with(count)
        resolution = VERBS[verb](model, config)
        ranks = {target.name: target.rank for target in resolution.adapted}
        assert len(ranks) == 64
        assert ranks == {
            f"model.layers.{layer}.self_attn.{leaf}_proj": layer % 7 + 1 for layer in range(32) for leaf in "qv"
        }
        tried = {rf"(.*\.)?({key})$" for key in config["rank_pattern"]}
        keys = [text for text in compilations if text in tried]
        assert len(keys) == len(set(keys)) == count
        counts[count] = len(compilations)
    # What else a verb compiles does not grow with the keys.
    assert counts[400] - counts[200] == 200
    assert counts[200] - counts[100] == 100


def test_a_table_compiles_each_key_once(compilations: list[str]) -> None:
    """Outside of a verb too, in as many tables as there are, and for every name."""
    from lorascope.peft_rules.rank_pattern import PatternTable

    keys = config_with(50)["rank_pattern"]
    table = PatternTable(keys)
    for _ in range(2):
        ranks = [table.value(f"model.layers.{layer}.self_attn.q_proj", 99) for layer in range(60)]
        assert ranks == [*keys.values(), *[99] * 10]
    assert len(compilations) == 50
