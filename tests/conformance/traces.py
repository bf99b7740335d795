"""One architecture traced at full depth on the meta device: what dataflow says of every weight, beside its name.

Used by the conformance tests, the benchmark and the tool that writes `docs/traced-roles.md`, so that all say the same.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

from architectures import Entry

from lorascope.model.types import ModelMap, Trace
from lorascope.names import template
from lorascope.sources.transformers.meta_model import build, map_module
from lorascope.tracing.traced_map import trace_roles
from tests.conformance.decisions import core

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

# Name and dataflow say the same; they agree, but dataflow leaves a fact open; the rest as in `Trace`.
STATES = ("agree", "open", "ambiguous", "unexecuted", "disagree")


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
        How many `weights` it has; on how many dataflow and names `agree`, and of how many of them dataflow leaves a fact
        `open` that the name states; the folded names, with their role and number, that are `ambiguous`, and that are
        `unexecuted` as no call reached them; those that `disagree`, with both roles; for each of the `parts` that adapters
        are put on, the number of its weights in each of `STATES`; and the `notes` on calls that ended early.
    """
    model = trace(entry)
    parts: dict[str, Counter[str]] = {}
    states: Counter[str] = Counter()
    names: dict[str, Counter[str]] = {"ambiguous": Counter(), "unexecuted": Counter()}
    disagree: Counter[tuple[str, str, str]] = Counter()
    for one in model.traces:
        state = state_of(one)
        states[state] += 1
        if state in names:
            names[state][f"{template(one.weight)} ({one.named})"] += 1
        if state == "disagree":
            disagree[template(one.weight), str(one.named), str(one.flow)] += 1
        if part := core(str(one.named)):
            parts.setdefault(part, Counter())[state] += 1
    return {
        "weights": len(model.traces),
        "agree": states["agree"] + states["open"],
        "open": states["open"],
        **{state: dict(sorted(found.items())) for state, found in names.items()},
        "disagree": [[*case, number] for case, number in sorted(disagree.items())],
        "parts": {part: [found[state] for state in STATES] for part, found in sorted(parts.items())},
        "notes": [note for note in model.notes if note.startswith("A call ")],
    }


def state_of(one: Trace) -> str:
    """Which of `STATES` a weight is in. A component that dataflow took from the call it ran in is no open fact."""
    if one.flow is None:
        return one.status
    if one.disagrees:
        return "disagree"
    same = all(getattr(one.flow, fact) == getattr(one.named, fact) for fact in ("block", "variant", "part"))
    return "agree" if same else "open"
