"""A package that does not work is named, and no file is blamed for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from lorascope.errors import LorascopeError
from lorascope.inspecting import inspect

CLASHING = "operator torchvision::nms does not exist"


class Broken:
    """transformers' lists of classes where importing one fails."""

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> Any:
        try:
            raise RuntimeError(CLASHING)
        except RuntimeError as error:
            raise ModuleNotFoundError(f"Could not import module '{name}'. Are this object's…") from error


def test_a_configuration_is_not_blamed_for_a_broken_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}), encoding="utf-8")
    monkeypatch.setattr(transformers.models.auto.configuration_auto, "CONFIG_MAPPING", Broken())
    with pytest.raises(LorascopeError) as caught:
        inspect(str(file))
    said = str(caught.value)
    assert f"transformers {transformers.__version__} cannot load a configuration class: {CLASHING}" in said
    assert "torchvision must be of the same release as torch" in said
    assert "config.json" not in said
