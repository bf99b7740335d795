"""Run by a Python that has torchtune: its functions on the meta device, beside what is said of them here.

Reads files of torchtune from a folder. Prints one JSON object: what each file's model adapts, and what each function builds.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[3] / folder) for folder in ("src", "tools", ".")]

import architectures  # noqa: E402

architectures.mend_torchvision()

import torch  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from torchtune import config  # noqa: E402
from torchtune.modules.peft import get_adapter_params  # noqa: E402

from lorascope.trainers.torchtune.builders import BUILDERS  # noqa: E402


def adapted_by(model: Any) -> dict[str, Any]:
    """torchtune's names of what has an adapter, with rank, scale, dropout and class, and the trainable parameters."""
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_a"):
            dropout = getattr(module.dropout, "p", 0.0)
            rank = module.lora_a.out_features
            scale = module.scaling if hasattr(module, "scaling") else module.alpha / module.rank
            found[name] = [rank, scale, dropout, type(module).__name__]
    return {"adapted": found, "trainable": sum(value.numel() for value in get_adapter_params(model).values())}


def of_file(file: Path) -> dict[str, Any]:
    cfg = OmegaConf.load(file)
    try:
        config.validate(cfg)
        with torch.device("meta"):
            return adapted_by(config.instantiate(cfg.model))
    except Exception as error:  # whatever it raises is the answer
        return {"error": f"{type(error).__name__}: {error}"}


def of_builder(path: str) -> dict[str, Any]:
    module, _, function = path.partition(".")
    build = getattr(importlib.import_module(f"torchtune.models.{module}"), function)
    parameters = inspect.signature(build).parameters
    attention = ["q_proj", "k_proj", "v_proj", "output_proj"]
    with torch.device("meta"):
        model = build(lora_attn_modules=attention, apply_lora_to_mlp=True)
    layer = {
        name.removeprefix("layers.0."): list(value.shape)
        for name, value in model.named_parameters()
        if name.startswith("layers.0.") and value.ndim == 2 and "lora" not in name
    }
    try:
        with torch.device("meta"):
            head = hasattr(build(lora_attn_modules=attention, apply_lora_to_output=True).output, "lora_a")
    except (TypeError, ValueError):
        head = False
    return {
        "layers": len(model.layers),
        "vocabulary": model.tok_embeddings.weight.shape[0],
        "layer": layer,
        "head": head,
        "defaults": {name: one.default for name, one in parameters.items() if one.default is not one.empty},
    }


def main() -> None:
    folder = Path(sys.argv[1])
    files = {file.name: of_file(file) for file in sorted(folder.glob("*.yaml"))}
    builders = {one.path: of_builder(one.path) for one in BUILDERS}
    Path(sys.argv[2]).write_text(json.dumps({"files": files, "builders": builders}), encoding="utf-8")


if __name__ == "__main__":
    main()
