"""A small FLUX in folders as diffusers lays them out; diffusers itself is not needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.helpers.paths import ROOT
from tests.helpers.sparse_checkpoints import write_file

FLUX: dict[str, Any] = json.loads((ROOT / "tests/data/diffusers/flux.json").read_text(encoding="utf-8"))
PARTS = {
    "_class_name": "FluxPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def saved(folder: Path, name: str = "diffusion_pytorch_model.safetensors", **config: Any) -> Path:
    """A model's folder as diffusers lays it out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**FLUX["config"], **config}), encoding="utf-8")
    write_file(folder / name, {key: ("BF16", shape) for key, shape in FLUX["shapes"].items()})
    return folder


def pipeline(folder: Path, **parts: Any) -> Path:
    """A pipeline with its denoising model."""
    saved(folder / "transformer")
    (folder / "model_index.json").write_text(json.dumps({**PARTS, **parts}), encoding="utf-8")
    return folder
