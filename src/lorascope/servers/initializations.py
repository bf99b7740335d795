"""Initializations that change the base weights, which a server does not repeat."""

from __future__ import annotations

# These change nothing but the factors, which the file holds (vLLM 0.33.0, lora/peft_helper.py; PEFT 0.21.2,
# tuners/lora/layer.py).
_HARMLESS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})
_LONGEST = 40


def changes_base(start: object) -> bool:
    """The value of `init_lora_weights` changes the base weights too: pissa, olora, corda, loftq."""
    return isinstance(start, str) and start.lower() not in _HARMLESS


def describe_start(start: object) -> str:
    """The setting, why it matters to a server, and what to do."""
    return (
        f"init_lora_weights={str(start)[:_LONGEST]!r}, which changes the base weights too: the served model lacks the change. "
        "Convert the adapter with PEFT (path_initial_model_for_weight_conversion), or serve the changed model"
    )
