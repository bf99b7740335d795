"""Plans over a wide choice of models, exported to a trainer or refused, for the tests of the trainers' rooms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lorascope.errors import LorascopeError
from lorascope.plan_api import plan
from lorascope.plans.types import Plan
from lorascope.trainers.exports import export, nearest_plan
from lorascope.trainers.protocol import Trainer
from tests.helpers.samples import fails, sample

MODELS = (
    ("llama", "causal-lm"),
    ("gpt2", "causal-lm"),
    ("gpt_neox", "causal-lm"),
    ("mixtral", "causal-lm"),
    ("qwen3_moe", "causal-lm"),
    ("gpt_oss", "causal-lm"),
    ("deepseek_v3", "causal-lm"),
    ("falcon_h1", "causal-lm"),
    ("mamba2", "causal-lm"),
    ("gemma3", "image-text-to-text"),
    ("gemma4", "image-text-to-text"),
    ("qwen2_vl", "image-text-to-text"),
    ("llava", "image-text-to-text"),
    ("idefics2", "image-text-to-text"),
    ("t5", "seq2seq-lm"),
    ("bert", "masked-lm"),
    ("llama", "sequence-classification"),
)
PLANS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("qv",), {}),
    (("attention",), {"rank": 4, "alpha": 6, "dropout": 0.1, "rslora": True}),
    (("attention", "ffn"), {}),
    (("attention.q,o[-2:]=16/32",), {"dora": True}),
    (("attention.v=4", "attention.q=8"), {}),
    (("attention.v",), {"bias": "all"}),
    (("attention.k",), {"scale": 0.3}),
    (("vision.attention",), {}),
    (("embedding.token", "head"), {}),
)


def messages(trainer: Trainer, made: Plan) -> list[str]:
    """What of a plan a trainer does not support, in sentences."""
    return [limit.message for limit in trainer.unsupported(made)]


def walked(
    trainer: Trainer, models: Iterable[tuple[str, str]], looked_at: Callable[[str], None]
) -> tuple[int, int, int]:
    """How many plans were written, how many refused, and to how many of those a near plan could be written.

    Args:
        trainer: It writes what it supports, and refuses the others with everything that it does not support.
        models: Type and head of each.
        looked_at: Called with every text that was written.
    """
    written = refused = near = 0
    for model_type, head in models:
        for rules, options in PLANS:
            try:
                made = plan(sample(model_type, head), *rules, **options)
            except LorascopeError:
                continue  # no such weights
            unsupported = messages(trainer, made)
            if not unsupported:
                looked_at(export(made, trainer.name))
                written += 1
                continue
            refused += 1
            with fails(*unsupported, f"export to {trainer.name}"):
                export(made, trainer.name)
            found = nearest_plan(made, trainer)
            if found is not None:
                near += 1
                looked_at(export(found[1], trainer.name))
    return written, refused, near
