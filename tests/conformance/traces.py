"""One architecture traced at full depth on the meta device: what dataflow says of every weight, beside its name.

Used by the conformance tests, the benchmark and the tool that writes `docs/traced-roles.md`, so that all say the same.
"""

from __future__ import annotations

import functools
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from architectures import Entry

from lorascope.folding import template
from lorascope.records import ModelMap
from lorascope.sources.skeleton import build, map_module
from lorascope.tracing.tracer import trace_roles

_GLM = {
    "text_config.head_dim": 128,
    "text_config.rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [8, 12, 12],
    },
}
_SIGLIP = {"image_size": 896, "patch_size": 14}
# What default configurations lack to be run, from released models; some of it changes shapes.
_TO_RUN: dict[tuple[str, str], dict[str, Any]] = {
    ("dbrx", ""): {"attn_config.clip_qkv": 8},
    ("deepseek_ocr2", ""): {
        "text_config.num_experts_per_tok": 6,
        "vision_config.encoder_config.hidden_size": 896,
        "vision_config.encoder_config.intermediate_size": 4864,
        "vision_config.encoder_config.num_attention_heads": 14,
        "vision_config.encoder_config.num_key_value_heads": 2,
    },
    ("deepseek_v2", ""): {"num_experts_per_tok": 6},
    ("deepseek_v2", "lite"): {"num_experts_per_tok": 6},
    ("falcon", "new-decoder"): {"hidden_size": 8192, "num_attention_heads": 128},
    ("gemma3", ""): {f"vision_config.{key}": value for key, value in _SIGLIP.items()},
    ("glm46v", ""): _GLM,
    ("glm4v", ""): _GLM,
    ("glm4v_moe", ""): _GLM,
    ("glmga", ""): _GLM,
    ("granite4_vision", ""): {
        "vision_config.image_size": 384,
        "vision_config.patch_size": 16,
        "image_grid_pinpoints": [[384, 768]],
    },
    ("granite_speech", ""): {"projector_config.encoder_hidden_size": 1024},
    ("granite_speech_plus", ""): {"projector_config.encoder_hidden_size": 1024},
    ("hunyuan_vl", ""): {
        "text_config.rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [16, 16, 16, 16],
        }
    },
    ("llama4", ""): {"vision_config.hidden_size": 1408},
    ("qwen3_omni_moe_thinker", ""): {"text_config.head_dim": 128},
    ("shieldgemma2", ""): {f"vision_config.{key}": value for key, value in _SIGLIP.items()},
    ("step3p7", ""): {"text_config.sliding_window": 512},
    ("t5gemma2", ""): {f"encoder.vision_config.{key}": value for key, value in _SIGLIP.items()},
}
DECIDED = Path(__file__).parents[1] / "expectations" / "traced_roles.tsv"


class Case(NamedTuple):
    """A disagreement that was looked up in the modeling code: which weights, what each side says, who is right, and why."""

    model_types: str
    pattern: str
    named: str
    flow: str
    right: str
    reason: str


@cache
def cases() -> tuple[Case, ...]:
    """The decided disagreements, in order."""
    return tuple(Case(*line.split("\t")) for line in DECIDED.read_text(encoding="utf-8").splitlines()[1:])


def runnable(entry: Entry) -> Any:
    """The model of an entry on the meta device, with a configuration that its code can be run with."""
    config = entry.config()
    for key, value in _TO_RUN.get((entry.model_type, entry.layout), {}).items():
        *owners, name = key.split(".")
        setattr(functools.reduce(getattr, owners, config), name, value)
    return build(config, architecture=entry.architecture)


def trace(entry: Entry) -> ModelMap:
    """The traced map of an entry."""
    module = runnable(entry)
    return trace_roles(module, map_module(module, model=entry.label, head=entry.head))


def measure_traces(entry: Entry) -> dict[str, Any]:
    """What came of one architecture.

    Returns:
        How many `weights` it has, on how many dataflow and names `agree`, how many no call reached (`unexecuted`), and
        the folded names with their number that are `ambiguous`, and that `disagree` (with both roles); the `notes` on
        calls that ended early.
    """
    model = trace(entry)
    states = Counter(t.status if not t.disagrees else "disagrees" for t in model.traces)
    ambiguous = Counter(f"{template(t.weight)} ({t.named})" for t in model.traces if t.status == "ambiguous")
    disagree = Counter((template(t.weight), str(t.named), str(t.flow)) for t in model.traces if t.disagrees)
    return {
        "weights": len(model.traces),
        "agree": states["executed"],
        "unexecuted": states["unexecuted"],
        "ambiguous": dict(sorted(ambiguous.items())),
        "disagree": [[*case, number] for case, number in sorted(disagree.items())],
        "notes": list(model.notes),
    }
