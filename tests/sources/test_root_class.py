"""Classes of files whose configuration names none: the one that has their tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from architectures import mend_torchvision

from lorascope.inspecting import inspect
from lorascope.sources.transformers.meta_model import map_module
from tests.conformance.released import saved_tensors
from tests.helpers.sparse_checkpoints import write_checkpoint

WHISPER = {"d_model": 96, "encoder_layers": 2, "decoder_layers": 8, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
# The class that saves the file, its configuration, and the class that it is read as.
CASES = {
    "an encoder that the first class of the type lacks": ("WhisperForConditionalGeneration", WHISPER, "WhisperModel"),
    "the same without a head": ("WhisperModel", WHISPER, "WhisperModel"),
    "names that a conversion renames": ("SwinModel", {"embed_dim": 12}, "SwinModel"),
    "a head that the first class of the type lacks": ("BertForPreTraining", {}, "BertForMaskedLM"),
}


@pytest.mark.parametrize(("saved", "values", "read"), CASES.values(), ids=CASES)
def test_a_file_without_a_class_is_read_as_one_that_has_its_tensors(
    saved: str, values: dict[str, Any], read: str, tmp_path: Path
) -> None:
    mend_torchvision()
    with torch.device("meta"):
        cls = getattr(transformers, saved)
        model = cls(cls.config_class(**values))
        expected = getattr(transformers, read)(model.config)
    config = {name: value for name, value in model.config.to_dict().items() if name != "architectures"}
    found = inspect(write_checkpoint(tmp_path, saved_tensors(model), config=config), read="headers")
    assert (found.architecture, found.unexplained, found.missing) == (read, (), ())
    assert found.weights == map_module(expected).weights
    assert any(f"read as {read}" in note for note in found.notes)


@pytest.mark.parametrize("name", ["ConvNextModel", "ConvNextV2Model"])
def test_a_kernel_is_no_norm_where_a_slot_may_hold_either(name: str, tmp_path: Path) -> None:
    mend_torchvision()
    with torch.device("meta"):
        cls = getattr(transformers, name)
        model = cls(cls.config_class(hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1]))
    config = {**model.config.to_dict(), "architectures": [name]}
    found = inspect(write_checkpoint(tmp_path, saved_tensors(model), config=config), read="headers")
    kinds = {module.name: module.kind for module in map_module(model).modules}
    assert {module.name: module.kind for module in found.modules} == kinds
    assert sum("downsampling" in name and kind == "conv" for name, kind in kinds.items()) == 3
