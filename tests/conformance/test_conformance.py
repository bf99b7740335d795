"""Real PEFT, on the meta device, adapts exactly the plan's weights: every architecture, every recipe, two odd rules."""

from __future__ import annotations

from collections import Counter

import architectures
import pytest
from measure import PASTED, RULES, measure_pasted, measure_plans

pytestmark = pytest.mark.slow

ENTRIES = [*architectures.entries(), *architectures.layouts()]
# Why a plan may be refused: each is something that PEFT, or the model, really does not have.
TRUE_REASONS = (
    "selects nothing in",
    "get_input_embeddings() is not implemented",
    "PEFT takes the first dimension of a 3-D parameter for experts",
)


def test_every_promised_architecture_is_here() -> None:
    heads = Counter(entry.head for entry in architectures.entries())
    assert heads == {"causal-lm": 189, "image-text-to-text": 97, "seq2seq-lm": 37, "masked-lm": 51}
    assert len(list(architectures.layouts())) == 12
    assert len(RULES) == 7
    assert len({(entry.head, entry.label) for entry in ENTRIES}) == len(ENTRIES) == 386


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.head}-{entry.label}")
def test_plans_are_exact(entry: architectures.Entry) -> None:
    outcomes = list(measure_plans(entry))
    assert [outcome.what for outcome in outcomes] == list(RULES)
    different = [f"{outcome.what}: {outcome.reason}" for outcome in outcomes if outcome.verdict == "different"]
    assert not different
    for outcome in outcomes:
        if outcome.verdict == "refused":
            assert any(reason in outcome.reason for reason in TRUE_REASONS), outcome


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.head}-{entry.label}")
def test_pasted_lists_do_what_the_rules_say(entry: architectures.Entry) -> None:
    results = list(measure_pasted(entry))
    assert [result.what for result in results] == list(PASTED)
    assert all(result.agrees for result in results), [result for result in results if not result.agrees]
