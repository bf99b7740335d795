"""Where the releases are said to agree, their resolutions are the same."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings

from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.peft_rules.agreement import releases_agree
from lorascope.peft_rules.releases import NEWEST, SUPPORTED_PEFT
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plan_api import plan
from lorascope.plans.recipes import RECIPES
from lorascope.sources.builtin import builtin_models, load_builtin
from tests.helpers.random_configs import configurations
from tests.helpers.samples import sample


def results(model: ModelMap, config: AdapterConfig) -> list[tuple[object, ...]]:
    """What each supported release does, the newest first; nothing where that one refuses."""
    found: list[tuple[object, ...]] = []
    for release in (NEWEST, *SUPPORTED_PEFT[:-1]):
        resolution = resolve(model, config, release)
        found.append((resolution.adapted, resolution.trainable, resolution.saved))
        if not found[0][0]:
            return []
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"layers_to_transform": (0,)},
        {"layers_pattern": "h"},
        {"bias": "all"},
        {"target_modules": None},
        {"task_type": "SEQ_2_SEQ_LM"},
        {"init_lora_weights": "mica"},
        {"velora_config": {}},
        {"lora_bias": True},
    ],
    ids=str,
)
def test_what_may_differ(fields: dict[str, Any]) -> None:
    config = AdapterConfig(target_modules=("q_proj",))
    assert releases_agree(sample("llama"), config)
    assert not releases_agree(sample("llama"), dataclasses.replace(config, **fields))


def test_models_whose_rules_changed() -> None:
    text, names = AdapterConfig(target_modules=".*q_proj"), AdapterConfig(target_modules=("q_proj",))
    assert releases_agree(sample("mixtral"), names)
    assert not releases_agree(sample("mixtral"), text)
    assert not releases_agree(sample("nemotron_h"), names)


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2", "bert", "deepseek_v3"])
def test_random_configurations(name: str) -> None:
    model = sample(name)
    agreed: Counter[bool] = Counter()

    @settings(max_examples=80, deadline=None, derandomize=True, database=None)
    @given(configurations(model))
    def each(config: AdapterConfig) -> None:
        config = dataclasses.replace(config, layers_to_transform=None, layers_pattern=None, bias="none")
        if not releases_agree(model, config):
            return
        found = results(model, config)
        agreed[bool(found)] += 1
        assert len(set(map(str, found))) <= 1

    each()
    assert agreed[True] > 10


@pytest.mark.slow
def test_every_plan_of_the_built_in_models() -> None:
    agreed = 0
    for name, heads in builtin_models().items():
        model = load_builtin(name, heads[0])
        for recipe in RECIPES:
            try:
                config = plan(model, recipe).config
            except LorascopeError:
                continue
            if releases_agree(model, config):
                agreed += 1
                assert len(set(results(model, config))) == 1, (name, recipe)
    assert agreed > 1800
