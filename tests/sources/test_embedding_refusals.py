"""Whether PEFT asks a model for its input embeddings, and so cannot wrap one that has none to give."""

from __future__ import annotations

import collections
import itertools
import json
import signal
import warnings
from collections.abc import Iterator
from typing import Any

import peft
import pytest
import torch
import transformers
from architectures import Entry, entries, layouts
from torch import nn

from lorascope.plans.verify import verify
from lorascope.sources.checkpoint.layout import ModelLayout
from lorascope.sources.checkpoint.layout_table import facts_under, layout
from lorascope.sources.transformers.meta_model import build, embedding_names, map_module

# Classes of transformers 5.23 without a name for their input embeddings that can be built by themselves, and those of
# them that PEFT cannot wrap.
BUILT = 310
REFUSED = 15


class Asked(nn.Module):
    """A model of somebody's own, which has no input embeddings to give."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        for name, value in attributes.items():
            setattr(self, name, value)

    def get_input_embeddings(self) -> nn.Module | None:
        raise NotImplementedError


class Empty(Asked):
    """The same, which gives None."""

    def get_input_embeddings(self) -> nn.Module | None:
        return None


class Broken(Asked):
    """The same, with a mistake."""

    def get_input_embeddings(self) -> nn.Module | None:
        raise KeyError("embeddings")


def wrapped(model: nn.Module, target: str) -> str:
    """What PEFT raises for a model; empty if it takes it."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        try:
            peft.get_peft_model(model, peft.LoraConfig(target_modules=[target], r=1))
        except Exception as error:  # whatever it is
            return repr(error)
    return ""


class Tied(nn.Module):
    """A configuration, as far as PEFT asks."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.tie_word_embeddings = tied


@pytest.mark.parametrize("cls", [Asked, Empty, Broken])
@pytest.mark.parametrize(
    ("attributes", "refused"),
    [
        ({}, True),  # PEFT takes a model that does not say for one with gradient checkpointing
        ({"is_gradient_checkpointing": True}, True),
        ({"is_gradient_checkpointing": False}, False),
        ({"enable_input_require_grads": lambda: None}, False),
        ({"is_gradient_checkpointing": False, "_tied_weights_keys": None}, False),
        ({"is_gradient_checkpointing": False, "_tied_weights_keys": []}, False),
        ({"is_gradient_checkpointing": False, "_tied_weights_keys": {}}, True),
        ({"is_gradient_checkpointing": False, "_tied_weights_keys": {"a": "b"}, "config": Tied(True)}, True),
        ({"is_gradient_checkpointing": False, "_tied_weights_keys": {"a": "b"}, "config": Tied(False)}, False),
    ],
    ids=(f"attributes {number}-" for number in itertools.count()),
)
def test_models_of_ones_own(cls: type[Asked], attributes: dict[str, Any], refused: bool) -> None:
    told = embedding_names(cls(**attributes)).refusal
    assert bool(wrapped(cls(**attributes), "linear")) == bool(told) == refused
    assert bool(verify(map_module(cls(**attributes)), {"target_modules": ["linear"]}).refusal) == refused
    if refused:
        assert told.startswith(f"{cls.__name__}.get_input_embeddings() ")


def test_clip_has_adapters() -> None:
    model = map_module(build(transformers.CLIPConfig(), architecture="CLIPModel"))
    assert model.refusal == ""
    found = verify(model, {"target_modules": ["q_proj", "v_proj"], "r": 8})
    assert (len(found.adapted), found.trainable, found.refusal) == (48, 491_520, None)
    known = layout("CLIPModel")
    assert known is not None
    assert known.model is not None
    assert known.model.refusal == ""


def test_a_configuration_that_unties_is_not_asked() -> None:
    for tied, refused in ((True, True), (False, False), (None, True)):
        config = {"model_type": "flava"} | ({} if tied is None else {"tie_word_embeddings": tied})
        part = ModelLayout("FlavaForPreTraining", config).parts[0]
        assert bool(part.facts.refusal) == refused
        known = layout("FlavaForPreTraining")
        assert known is not None
        assert known.model is not None
        assert bool(facts_under(known.model, config).refusal) == refused


def recorded() -> Iterator[tuple[str, str, str]]:
    """(class, model type, recorded refusal) of every model of the table whose input embeddings have no name."""
    from lorascope.sources.checkpoint import layout_table

    for line in layout_table._text().splitlines():
        if line.startswith("classes\t"):
            _, key, row = line.split("\t")
            value = json.loads(row)
            facts = value.get("model") if isinstance(value, dict) else None
            if facts and "input" not in facts:
                yield key, facts.get("model_type", ""), facts.get("refusal", "")


def test_what_the_table_refuses() -> None:
    refused = [key for key, _, refusal in recorded() if refusal]
    assert REFUSED <= len(refused) <= REFUSED + 1  # a decoder that is a model only within others
    assert not any(name in refused for name in ("CLIPModel", "Wav2Vec2Model", "SamModel", "ConvNextModel"))


@pytest.mark.slow
def test_every_class_against_peft() -> None:
    """Each class that transformers builds by itself, as its default configuration says, tied and untied."""
    promised = {entry.architecture: entry for entry in (*entries(), *layouts())}
    counts: collections.Counter[str] = collections.Counter()

    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        for key, model_type, refusal in recorded():
            if "~" in key:
                continue
            signal.alarm(60)
            entry = promised.get(key) or Entry("unknown", model_type, key)
            try:
                model = build(entry.config(), architecture=key)
            except Exception:  # a part of others, or without usable defaults
                counts["not built"] += 1
                continue
            finally:
                signal.alarm(0)
            target = next(
                (
                    name
                    for name, module in model.named_modules()
                    if type(module) in (nn.Linear, nn.Embedding) or (type(module) is nn.Conv2d and module.groups == 1)
                    if name.rpartition(".")[2] != "out_proj"
                ),
                "",
            )
            if not target:
                counts["nothing to adapt"] += 1
                continue
            told = embedding_names(model).refusal
            assert told == refusal, key
            raised = wrapped(model, target)
            assert bool(raised) == bool(told), (key, raised)
            counts["refused" if told else "taken"] += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert counts["refused"] == REFUSED, counts
    assert counts["taken"] + counts["refused"] >= BUILT, counts
