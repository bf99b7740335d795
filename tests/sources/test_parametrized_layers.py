"""Layers with weight normalization: what headers say of them is what the model has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from architectures import mend_torchvision

from lorascope.inspecting import inspect
from lorascope.model.json import map_from_json, map_to_json
from lorascope.sources.transformers.meta_model import map_module
from tests.conformance.released import saved_tensors
from tests.helpers.sparse_checkpoints import write_checkpoint


@pytest.mark.parametrize("name", ["Wav2Vec2Model", "HubertModel", "WavLMModel", "VitsModel", "EncodecModel"])
def test_a_computed_weight_has_its_shape_and_is_saved(name: str, tmp_path: Path) -> None:
    mend_torchvision()
    with torch.device("meta"):
        cls = getattr(transformers, name)
        model = cls(cls.config_class())
    config = {**model.config.to_dict(), "architectures": [name]}
    found = inspect(write_checkpoint(tmp_path, saved_tensors(model), config=config), read="headers")
    computed = {
        module.name: (module.computed, module.traits) for module in map_module(model).modules if module.computed
    }
    assert computed
    assert {module.name: (module.computed, module.traits) for module in found.modules if module.computed} == computed
    assert map_from_json(map_to_json(found)) == found
