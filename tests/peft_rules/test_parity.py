"""`resolve` against the installed PEFT: random configurations on tiny real models.

Each model gets the same number of different configurations, drawn by hypothesis in a fixed order. Both must refuse, or
agree on every adapted weight, its rank, alpha and scale, and on the number of trainable parameters.
"""

from __future__ import annotations

import collections
import os

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from lorascope.peft_rules.types import AdapterConfig
from tests.helpers import peft_models
from tests.helpers.oracle import peft_truth, restored
from tests.helpers.peft_comparison import compare
from tests.helpers.random_configs import configurations

# Fewer with older releases, which `test_older_parity` runs this file with.
PER_MODEL = int(os.environ.get("LORASCOPE_PARITY_PER_MODEL", "100"))
# Where modules_to_save nests or matches PEFT's own names, `resolve` says that its count is an estimate.
MOST_ESTIMATES = 12

_MODELS = [pytest.param(name, marks=pytest.mark.slow) for name in peft_models.NAMES]


def test_enough_is_tried() -> None:
    assert len(peft_models.NAMES) == 22
    assert PER_MODEL in (40, 100)


@pytest.mark.parametrize("name", _MODELS)
def test_parity(name: str) -> None:
    results: collections.Counter[str] = collections.Counter()
    tried: set[str] = set()

    @settings(
        max_examples=PER_MODEL,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        config = data.draw(configurations(peft_models.mapped(name)))
        assume(repr(config) not in tried)  # hypothesis repeats itself
        results[compare(name, config)] += 1
        tried.add(repr(config))  # only what passed, so that a failure can be replayed

    run()
    assert len(tried) >= PER_MODEL
    assert results["adapted"] >= PER_MODEL // 10  # few on Mamba, where PEFT refuses most
    assert results["estimated"] <= MOST_ESTIMATES


@pytest.mark.parametrize("name", peft_models.NAMES)
def test_usual_configurations(name: str) -> None:
    """What people really write, on every model."""
    results = [
        compare(name, AdapterConfig(target_modules=targets, bias=bias, task_type=task))
        for targets in ("all-linear", ("q_proj", "v_proj"), None, r".*\.(q|k|v|o)(_proj)?", ("c_attn", "query", "q"))
        for bias in ("none", "all")
        for task in (None, "SEQ_CLS")
    ]
    assert len(results) == 20


def test_a_model_is_put_back_as_it_was() -> None:
    """The runs share a model; one that PEFT left changed would spoil all later ones."""
    model = peft_models.build("gpt2")
    before = [(name, id(module)) for name, module in model.named_modules()]
    with restored(model):
        peft_truth(model, {"target_modules": ["c_attn", "wte"], "modules_to_save": ["ln_f"], "bias": "all"})
    assert [(name, id(module)) for name, module in model.named_modules()] == before
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not hasattr(model, "peft_config")
