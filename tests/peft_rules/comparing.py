"""One configuration, by the rules and by the installed PEFT."""

from __future__ import annotations

import functools

import peft
from oracle import peft_kwargs, peft_truth, restored
from peft_rules import zoo
from torch import nn

from lorascope.peft_rules.copying import ESTIMATED
from lorascope.peft_rules.resolving import resolve
from lorascope.records import AdapterConfig


@functools.cache
def _model(name: str) -> nn.Module:
    return zoo.build(name)


def compare(name: str, config: AdapterConfig) -> str:
    """Runs both on one pair and asserts that they agree; says how it went: refused, adapted or estimated."""
    ours = resolve(zoo.mapped(name), config, peft.__version__)
    refusal = ""
    with restored(_model(name)) as model:
        try:
            truth, trainable = peft_truth(model, peft_kwargs(config))
        except AssertionError:
            raise
        except Exception as error:  # PEFT raises whatever it likes
            refusal = f"{type(error).__name__}: {error}"
    if refusal:
        assert ours.error, f"only PEFT refuses {config}: {refusal}"
        assert not ours.adapted
        return "refused"
    assert not ours.error, f"PEFT takes {config}"
    assert {weight.name: (weight.rank, weight.alpha, weight.scale) for weight in ours.adapted} == truth, config
    if any(warning.message.startswith(ESTIMATED) for warning in ours.warnings):
        return "estimated"
    assert ours.trainable == trainable, config
    return "adapted"
