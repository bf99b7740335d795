"""Each step of a ladder is sketched as the plan of that step turns out."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from lorascope.costs.rank_search import ScaledRanks
from lorascope.errors import LorascopeError
from tests.helpers.samples import sample

MODELS = (
    ("llama", ""),
    ("gpt2", ""),
    ("mixtral", ""),
    ("deepseek_v3", ""),
    ("t5", ""),
    ("bert", "masked-lm"),
    ("bart", "sequence-classification"),
    ("llava", ""),
    ("mamba2", ""),
)
SIDES: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    *(((name,), {}) for name in ("qv", "qv+ffn", "attention", "ffn", "all")),
    (("attention.q=8", "attention.v=3", "ffn"), {}),
    (("attention.q=16", "attention.v=8/4"), {"bias": "all"}),
    (("attention",), {"dora": True}),
    (("qv", "attention.o=4"), {"scale": 2.0}),
    (("embedding.token=8", "head=8"), {}),
)


def test_a_sketch_is_the_plan() -> None:
    counts = {"same": 0, "none": 0}
    for (model_type, head), (texts, options) in itertools.product(MODELS, SIDES):
        ladder = ScaledRanks(sample(model_type, head), texts, options)
        try:
            first = ladder.first
        except LorascopeError:
            counts["none"] += 1
            continue
        for step in (1, 7, 20):
            made, sketch = ladder.plan(step), ladder.sketch(step)
            assert made.targets == sketch.targets
            said = dataclasses.replace(sketch.resolution, warnings=made.resolution.warnings)
            assert made.resolution == said
            counts["same"] += 1
        assert first.resolution.trainable == ladder.sketch(1).resolution.trainable
    assert counts == {"same": 246, "none": 8}


@pytest.mark.parametrize(
    ("texts", "step", "rules"),
    [
        (("qv",), 5, ["attention.q,v=5"]),
        (("qv+ffn",), 5, ["attention.q,v=5", "ffn=2"]),
        (("attention.q=16", "attention.v=8", "ffn"), 5, ["attention.q=5", "attention.v=2", "ffn=2"]),
        (("attention.q=6", "attention.v=4/8"), 3, ["attention.q=3", "attention.v=2/8"]),
        (("attention.q", "attention.v=4"), 6, ["attention.q", "attention.v=3"]),
        (("qv", "ffn.down=2"), 1, ["attention.q,v=1", "ffn.down=1"]),
    ],
)
def test_ranks_keep_their_ratio(texts: tuple[str, ...], step: int, rules: list[str]) -> None:
    assert [str(rule) for rule in ScaledRanks(sample("llama"), texts).plan(step).rules] == rules


def test_the_highest_step_gives_no_weight_more_rank_than_its_smaller_side() -> None:
    llama = ScaledRanks(sample("llama"), ("attention.q=8", "attention.v=4"))
    ranks, more = llama.ranks(llama.highest), llama.ranks(llama.highest + 1)
    sides = {t.weight.name: min(t.weight.shape) for t in llama.first.targets}
    assert all(ranks[name] <= side for name, side in sides.items())
    assert more[llama.narrowest] > sides[llama.narrowest]
