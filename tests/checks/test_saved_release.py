"""Adapters of fused experts saved by a PEFT that read their factors the other way round."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lorascope as ls
from lorascope.peft_rules.state_dict import saved_tensors
from lorascope.plans.verify import adapter_config, verify
from tests.helpers.samples import sample
from tests.helpers.sparse_checkpoints import write_file

_EXPERTS = {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], "r": 8}
# Whether the experts of each are stored transposed, which both releases read alike.
MODELS = {"mixtral": False, "qwen3_moe": False, "deepseek_v3": False, "gpt_oss": True}


def saved(model: ls.ModelMap, release: str, folder: Path) -> Path:
    """An adapter as that release saves it: the headers of its tensors."""
    config = adapter_config(_EXPERTS)
    tensors = saved_tensors(model, config, verify(model, config, peft=release), release).tensors
    content = {"peft_type": "LORA", "peft_version": release, **_EXPERTS}
    (folder / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    write_file(folder / "adapter_model.safetensors", {name: ("BF16", one.shape) for name, one in tensors.items()})
    return folder


@pytest.mark.parametrize(("by", "read", "advised"), [("0.18.1", "0.21.2", "0.18.1"), ("0.21.2", "0.18.1", "0.21.2")])
@pytest.mark.parametrize("name", MODELS)
def test_the_release_is_the_cause(name: str, by: str, read: str, advised: str, tmp_path: Path) -> None:
    model = sample(name)
    adapter = saved(model, by, tmp_path)
    found = [one for one in ls.check(model, adapter, peft=read).findings if one.code == "tensor-shape"]
    if MODELS[name]:
        assert found == []
    else:
        (finding,) = found
        assert f"PEFT {by} saves these sizes" in finding.message
        assert finding.fix.startswith(f"Load it with peft=={advised}")
    # The advice works.
    assert not ls.check(model, adapter, peft=advised).matters


def test_the_sizes_of_0_18_1(tmp_path: Path) -> None:
    """Read off a file that PEFT 0.18.1 saved of experts of (4, 32, 16): A (32, 32), B (16, 32)."""
    model = sample("mixtral")
    config = adapter_config(_EXPERTS)
    shapes = {
        release: saved_tensors(model, config, verify(model, config, peft=release), release).tensors
        for release in ("0.18.1", "0.19.1")
    }
    stem = "base_model.model.model.layers.0.mlp.experts"
    # down_proj is (8, 4096, 14336).
    assert shapes["0.18.1"][f"{stem}.lora_A.weight"].shape == (64, 4096)
    assert shapes["0.18.1"][f"{stem}.lora_B.weight"].shape == (14336, 64)
    assert shapes["0.19.1"][f"{stem}.lora_A.weight"].shape == (64, 14336)
    assert shapes["0.19.1"][f"{stem}.lora_B.weight"].shape == (4096, 64)
