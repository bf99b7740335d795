"""One architecture's checkpoint: saved by transformers, read by its headers, compared with the model that wrote it.

Used by the conformance tests and by the tool that writes `docs/checkpoints.md`, so that both say the same.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from architectures import Entry

from lorascope.inspecting import inspect
from lorascope.model.types import ModelMap, Module
from lorascope.sources.checkpoint.quantization.unpack import unpack
from lorascope.sources.checkpoint.safetensors import open_checkpoint
from lorascope.sources.checkpoint.to_model_map import map_checkpoint
from lorascope.sources.files.folder import open_folder
from lorascope.sources.transformers.meta_model import map_module
from tests.conformance.verdicts import RULES, measure_plans, recorded
from tests.helpers.small_configs import small_model

# Everything of a map that both sources can know.
FIELDS = (
    "model_type",
    "architecture",
    "modules",
    "weights",
    "root_parameters",
    "ties",
    "figures",
    "moe_conversion",
    "input_embeddings",
    "output_embeddings",
    "prepares_generation",
    "refusal",
    "head",
)
PLANS = ("qv+ffn", "per-layer ranks")

# Why a map by headers differs from the model's, or there is none.
_TIMM = "a convolution's padding (its class) and groups are in neither names nor shapes; only of timm's vision tower"
_NORM = "Llama4TextL2Norm has no parameters, and the layers without it have the same names as those with it"
_CLIP = "clips with and without a log scale have the same parameters under the same names"
REASONS: dict[tuple[str, str], str] = {
    ("causal-lm", "gemma4_assistant"): (
        "transformers refuses to save its configuration: all of its layers would have to share keys and values"
    ),
    ("causal-lm", "gemma3n"): _TIMM,
    ("image-text-to-text", "gemma3n"): _TIMM,
    ("image-text-to-text", "fast_vlm"): _TIMM,
    ("causal-lm", "inkling2_text"): _CLIP,
    ("causal-lm", "inkling2_loop_text"): _CLIP,
    ("image-text-to-text", "inkling2"): _CLIP,
    ("image-text-to-text", "inkling2_loop"): _CLIP,
    ("causal-lm", "llama4"): _NORM,
    ("causal-lm", "llama4_text"): _NORM,
    ("image-text-to-text", "llama4"): _NORM,
    ("image-text-to-text", "shieldgemma2"): (
        "transformers saves it under names that it does not find again: loading leaves the language model as initialized"
    ),
    ("seq2seq-lm", "marian"): "its sinusoidal positions are not saved; the map says that they are missing",
}


def measure_checkpoint(entry: Entry) -> dict[str, Any]:
    """What came of one architecture.

    Returns:
        `tensors` in the file and `weights` in the map; which fields of the map `differ`; for each of `PLANS` what PEFT made
        of it on the model that transformers loads from the same files (`plans`); and whether the names without the base
        model's prefix, as checkpoints of base models have them, give the same map (`bare`: yes, no, none where there is no
        such prefix, or neither where transformers does not load them either). Or `unsaved`: what transformers raises when
        it saves the model.
    """
    with tempfile.TemporaryDirectory(prefix="lorascope-") as name:
        folder = Path(name)
        model = small_model(entry)
        try:
            model.save_pretrained(folder)
        except Exception as error:  # a configuration's own validation
            return {"unsaved": type(error).__name__}
        ours, real = inspect(folder), map_module(model)
        found = {"tensors": len(open_checkpoint(open_folder(folder)).tensors), "weights": len(ours.weights)}
        differ = [field for field in FIELDS if not _same(ours, real, field)]
        differ += [gap for gap in ("unexplained", "missing") if getattr(ours, gap)]
        differ += ["basis"] if (ours.source, ours.basis) != ("headers", "code") else []
        loaded = type(model).from_pretrained(folder)
        rules = {plan: RULES[plan] for plan in PLANS}
        named = dataclasses.replace(ours, model=entry.label)  # for messages: the folder is another each time
        plans = recorded(measure_plans(loaded, named, rules=rules), ())["plans"]
        return {
            **found,
            "differ": differ,
            "plans": plans,
            "bare": _bare((ours, real), folder, type(model)),  # which may rewrite the files
        }


def _same(one: ModelMap, other: ModelMap, field: str) -> bool:
    """Two maps agree in a field; which activation function was chosen, only the configuration says."""
    if field == "figures":  # their name in the recorded file
        return one.dimensions == other.dimensions
    if field != "modules":
        return bool(getattr(one, field) == getattr(other, field))
    return _named(one.modules) == _named(other.modules)


def _named(modules: Sequence[Module]) -> list[Module]:
    """What a checkpoint can say of modules: neither the class of a layer without weights, nor how one is at hand."""
    return [
        dataclasses.replace(m, class_name=m.class_name if m.parameters else "", computed=(), traits=()) for m in modules
    ]


def _bare(maps: Sequence[ModelMap], folder: Path, cls: type[Any]) -> str:
    checkpoint = open_checkpoint(open_folder(folder))
    stored = unpack(checkpoint)
    prefix = f"{cls.base_model_prefix}."
    bare = {name.removeprefix(prefix): tensor for name, tensor in stored.items()}
    if prefix == "." or len(bare) < len(stored) or bare.keys() == stored.keys():
        return "none"
    again = map_checkpoint(bare, checkpoint.config, model="")
    if not again.unexplained and any(all(_same(again, known, field) for field in FIELDS) for known in maps):
        return "yes"
    return "no" if _loads(folder, prefix, cls) else "neither"


def _loads(folder: Path, prefix: str, cls: type[Any]) -> bool:
    """transformers finds every parameter of the model in the files without the prefix."""
    from safetensors.torch import load_file, save_file

    for file in folder.glob("*.safetensors"):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    _, info = cls.from_pretrained(folder, output_loading_info=True)
    return not info["missing_keys"] and not info["unexpected_keys"]
