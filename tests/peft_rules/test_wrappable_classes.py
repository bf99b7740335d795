"""Whether PEFT can wrap a model at all: every class that transformers exports, against PEFT itself.

PEFT asks a model for its input embeddings where the class ties weights by a dictionary, and many classes cannot give any.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import layout_variations
import pytest
from architectures import Entry
from torch import nn

from lorascope.model.types import ModelMap
from lorascope.sources.checkpoint.layout_table import facts_under, layout
from lorascope.sources.transformers.meta_model import build, map_module
from tests.helpers.few_layers import _shrink


def built(name: str, model_type: str) -> tuple[Any, nn.Module] | None:
    """A class with few layers, or with its defaults; None where it has no usable defaults or lacks a library."""
    for change in (_shrink, lambda config: None):
        try:
            config = Entry("unknown", model_type, name).config()
            change(config)
            return config, build(config, architecture=name)
        except Exception:  # whatever a class has against its defaults
            continue
    return None


def classes() -> Iterator[tuple[str, Any, nn.Module]]:
    seen: set[str] = set()
    for model_type, name in layout_variations._classes():
        if name not in seen:
            seen.add(name)
            made = built(name, model_type)
            if made is not None:
                yield name, *made


def raises_for_any_adapter(module: nn.Module) -> bool | None:
    """PEFT raises for an adapter on one plain linear layer; None where the model has none."""
    import peft
    import torch

    linear = next((name for name, inner in module.named_modules() if name and type(inner) is nn.Linear), None)
    if linear is None:
        return None
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            peft.get_peft_model(module, peft.LoraConfig(target_modules=[linear], r=2))
    except Exception:  # whatever it is
        return True
    return False


@pytest.mark.slow
def test_peft_wraps_every_class_that_the_map_does_not_refuse() -> None:
    """1,618 classes with linear layers: about 285 give no input embeddings, of which PEFT asks 15, and raises."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, config, module in classes():
        model: ModelMap = map_module(module)
        gives = _gives_embeddings(module)
        row = layout(name)
        raised = raises_for_any_adapter(module)
        if raised is None:
            continue
        counts["wrapped" if not raised else "refused"] += 1
        counts["wrapped without embeddings"] += not raised and not gives
        if raised != bool(model.refusal):
            wrong.append(f"{name}: PEFT raises: {raised}, the map says {model.refusal!r}")
        if row is not None and row.model is not None:
            counts["in the table"] += 1
            told = facts_under(row.model, config.to_dict()).refusal
            if raised != bool(told):
                wrong.append(f"{name}: PEFT raises: {raised}, the table says {told!r}")
    assert wrong == []
    assert counts["wrapped"] >= 1590
    assert counts["wrapped without embeddings"] >= 260
    assert counts["refused"] == 15
    assert counts["in the table"] >= 1500


def _gives_embeddings(module: nn.Module) -> bool:
    try:
        return module.get_input_embeddings() is not None  # type: ignore[operator]
    except Exception:  # not implemented, or whatever a class raises
        return False
