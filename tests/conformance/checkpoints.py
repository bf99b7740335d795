"""One architecture's checkpoint: saved by transformers, read by its headers, compared with the model that wrote it.

Used by the conformance tests and by the tool that writes `docs/checkpoints.md`, so that both say the same.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from architectures import Entry
from measure import RULES, measure_plans
from shrinking import shrunk

from lorascope.inspecting import inspect
from lorascope.records import ModelMap
from lorascope.sources.folders import open_folder
from lorascope.sources.mapping import map_checkpoint
from lorascope.sources.quantisation import unpack
from lorascope.sources.safetensors import open_checkpoint
from lorascope.sources.skeleton import map_module

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
REASONS: dict[tuple[str, str], str] = {
    ("causal-lm", "gemma4_assistant"): (
        "transformers refuses to save its configuration: all of its layers would have to share keys and values"
    ),
}


def measure_checkpoint(entry: Entry) -> dict[str, Any]:
    """What came of one architecture.

    Returns:
        `tensors` in the file and `weights` in the map; which fields of the map `differ`; whether the names without the base
        model's prefix, as checkpoints of base models have them, give the same map (`bare`: yes, no, or none where there is
        no such prefix); and for each of `PLANS` what PEFT made of it on the model that transformers loads from the
        same files (`plans`). Or `unsaved`: what transformers raises when it saves the model.
    """
    with tempfile.TemporaryDirectory(prefix="lorascope-") as name:
        folder = Path(name)
        model = _built(entry)
        try:
            model.save_pretrained(folder)
        except Exception as error:  # a configuration's own validation
            return {"unsaved": type(error).__name__}
        ours, real = inspect(folder), map_module(model)
        found = {"tensors": len(open_checkpoint(open_folder(folder)).tensors), "weights": len(ours.weights)}
        differ = [field for field in FIELDS if comparable(ours, field) != comparable(real, field)]
        differ += ["unexplained"] if ours.unexplained else []
        differ += ["basis"] if (ours.source, ours.basis) != ("headers", "code") else []
        loaded = type(model).from_pretrained(folder)
        rules = {plan: RULES[plan] for plan in PLANS}
        outcomes = measure_plans(loaded, ours, rules=rules)
        return {
            **found,
            "differ": differ,
            "bare": _bare(ours, folder, model.base_model_prefix),
            "plans": {
                o.what: [o.verdict, o.weights if o.verdict == "exact" else o.reason.splitlines()[0]] for o in outcomes
            },
        }


def comparable(model: ModelMap, field: str) -> Any:
    """A field of a map without what only one of the two sources can say: which activation function was chosen."""
    value = getattr(model, field)
    if field == "modules":
        return [dataclasses.replace(m, class_name=m.class_name if m.parameters else "") for m in value]
    return value


def _built(entry: Entry) -> Any:
    """The entry's model, small and with real tensors."""
    import transformers

    config = shrunk(entry)
    cls = getattr(transformers, entry.architecture)
    if cls.config_class is not None and cls.config_class is config.sub_configs.get("text_config"):
        config = config.get_text_config()
    return cls(config)


def _bare(ours: ModelMap, folder: Path, prefix: str) -> str:
    checkpoint = open_checkpoint(open_folder(folder))
    stored = unpack(checkpoint)
    bare = {name.removeprefix(f"{prefix}."): tensor for name, tensor in stored.items()}
    if not prefix or len(bare) < len(stored) or bare.keys() == stored.keys():
        return "none"
    again = map_checkpoint(bare, checkpoint.config, model=ours.model)
    same = all(getattr(again, field) == getattr(ours, field) for field in FIELDS) and not again.unexplained
    return "yes" if same else "no"
