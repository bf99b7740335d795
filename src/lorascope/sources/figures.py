"""A model's own numbers from its configuration, under whichever name that keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from lorascope.records import Figures, Weight

# Names under which configurations keep one figure, the most specific first.
NAMES: dict[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "d_model", "n_embd", "dim"),
    "intermediate_size": (
        "intermediate_size",
        "ffn_dim",
        "d_ff",
        "n_inner",
        "ffn_hidden_size",
        "decoder_ffn_dim",
        "encoder_ffn_dim",
        "dff",
        "dim_ff",
        "d_inner",
        "hidden_dim",
    ),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "decoder_layers"),
    "attention_heads": ("num_attention_heads", "n_head", "decoder_attention_heads"),
    "key_value_heads": ("num_key_value_heads", "num_kv_heads", "multi_query_group_num"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "active_experts": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "moe_topk",
        "top_k_experts",
        "moe_top_k",
        "moe_k",
        "top_k",
    ),
}


def read_figures(get: Callable[[str], Any], weights: Sequence[Weight], parameters: int) -> Figures:
    """The figures of a model.

    Args:
        get: The value of a name in the (text) configuration; anything but a whole number counts as absent.
        weights: The model's weights, for what configurations leave to the modeling code.
        parameters: Number of scalars in all parameters, shared ones counted once.
    """
    found: dict[str, int | None] = {}
    for figure, names in NAMES.items():
        values = (get(name) for name in names)
        found[figure] = next((int(v) for v in values if isinstance(v, int) and not isinstance(v, bool)), None)
    found["intermediate_size"] = found["intermediate_size"] or intermediate_size(weights)
    return Figures(**found, parameters=parameters)


def intermediate_size(weights: Sequence[Weight]) -> int | None:
    """The commonest width of dense feed-forward layers."""
    wide = (w for w in weights if w.role.variant == "dense" and w.role.component == "text" and len(w.shape) == 2)
    widths = Counter(weight.shape[0] for weight in wide if weight.role.part == "up")
    return widths.most_common(1)[0][0] if widths else None
