"""Estimates at growing ranks equal the plans themselves."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from lorascope.costs.rank_search import ScaledRanks
from lorascope.errors import LorascopeError
from lorascope.plans.types import Options
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
RULES: tuple[tuple[tuple[str, ...], Options], ...] = (
    *(((name,), Options()) for name in ("qv", "qv+ffn", "attention", "ffn", "all")),
    (("attention.q=8", "attention.v=3", "ffn"), Options()),
    (("attention.q=16", "attention.v=8/4"), Options(bias="all")),
    (("attention",), Options(dora=True)),
    (("qv", "attention.o=4"), Options(scale=2.0)),
    (("embedding.token=8", "head=8"), Options()),
)


def test_an_estimate_is_the_plan() -> None:
    counts = {"same": 0, "none": 0}
    for (model_type, head), (texts, options) in itertools.product(MODELS, RULES):
        ranks = ScaledRanks(sample(model_type, head), texts, options)
        try:
            first = ranks.smallest
        except LorascopeError:
            counts["none"] += 1
            continue
        for max_rank in (1, 7, 20):
            made, estimate = ranks.plan(max_rank), ranks.estimate(max_rank)
            assert made.targets == estimate.targets
            assert made.resolution == dataclasses.replace(estimate.resolution, warnings=made.resolution.warnings)
            counts["same"] += 1
        assert first.resolution.trainable == ranks.estimate(1).resolution.trainable
    assert counts == {"same": 246, "none": 8}


@pytest.mark.parametrize(
    ("texts", "max_rank", "rules"),
    [
        (("qv",), 5, ["attention.q,v=5"]),
        (("qv+ffn",), 5, ["attention.q,v=5", "ffn=2"]),
        (("attention.q=16", "attention.v=8", "ffn"), 5, ["attention.q=5", "attention.v=2", "ffn=2"]),
        (("attention.q=6", "attention.v=4/8"), 3, ["attention.q=3", "attention.v=2/8"]),
        (("attention.q", "attention.v=4"), 6, ["attention.q", "attention.v=3"]),
        (("qv", "ffn.down=2"), 1, ["attention.q,v=1", "ffn.down=1"]),
    ],
)
def test_ranks_keep_their_ratio(texts: tuple[str, ...], max_rank: int, rules: list[str]) -> None:
    assert [str(rule) for rule in ScaledRanks(sample("llama"), texts).plan(max_rank).rules] == rules


def test_no_rank_exceeds_a_smaller_dimension() -> None:
    llama = ScaledRanks(sample("llama"), ("attention.q=8", "attention.v=4"))
    ranks, more = llama.ranks(llama.rank_limit), llama.ranks(llama.rank_limit + 1)
    limits = {t.weight.name: min(t.weight.shape) for t in llama.smallest.targets}
    assert all(ranks[name] <= limit for name, limit in limits.items())
    assert more[llama.limiting_weight] > limits[llama.limiting_weight]
