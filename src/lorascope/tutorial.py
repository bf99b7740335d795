"""The two functions that tutorials on target modules write by hand, for any architecture."""

from __future__ import annotations

from typing import Any

from lorascope.errors import LorascopeError
from lorascope.inspecting import inspect
from lorascope.model.types import ModelMap, Weight
from lorascope.peft_rules.lora_config import peft_arguments
from lorascope.plans.map_gaps import map_gaps, warn_of_gaps
from lorascope.plans.planner import DEFAULT_DROPOUT, option_faults, plan_with
from lorascope.plans.rules import parse_rule, select
from lorascope.plans.types import Options


def list_trainable_modules(model_name: Any) -> dict[str, list[str]]:
    """Prints a model's figures, and returns the names of what makes its queries and values, and of its FFN.

    Args:
        model_name: Whatever `lorascope.inspect` takes: a model type, a Hub id, a folder, a module.

    Raises:
        LorascopeError: As `lorascope.inspect`.
    """
    model = inspect(model_name)
    attention = [weight.name for weight in _selected(model, "attention.q,v")]
    ffn = [weight.name for weight in _selected(model, "ffn")]
    dimensions = model.dimensions
    for gap in map_gaps(model):
        print(f"{gap.severity}: {gap.message} {gap.fix}\n")
    print(f"Model: {model.model}")
    print(f"Hidden size: {dimensions.hidden_size}")
    print(f"Intermediate size: {dimensions.intermediate_size}")
    print(f"Num layers: {dimensions.layers}")
    print(f"Num attention heads: {dimensions.attention_heads}")
    print(f"\nAttention Q/V modules found: {len(attention)}")
    print(f"FFN modules found: {len(ffn)}")
    return {"attention": attention, "ffn": ffn}


def create_attention_lora_config(rank: int = 8, alpha: float = 16, model: Any = None) -> dict[str, Any]:
    """An attention-only configuration as a dictionary: queries and values at one rank.

    Args:
        rank: The rank.
        alpha: The alpha.
        model: Whatever `lorascope.inspect` takes. Without it the names are those of LLaMA and its many relatives; with
            it they are the model's own, and whatever else PEFT needs to adapt exactly those comes along.

    Returns:
        `target_modules`, `rank`, `lora_alpha`, `lora_dropout`, `bias` and `task_type`. Only the key `rank` is not
        PEFT's own: it calls it `r`.

    Raises:
        LorascopeError: As `lorascope.inspect` and `lorascope.plan`.
    """
    options = Options(rank=rank, alpha=alpha)
    for fault in option_faults(options):
        raise fault
    if model is None:
        return {
            "target_modules": ["q_proj", "v_proj"],
            "rank": rank,
            "lora_alpha": alpha,
            "lora_dropout": DEFAULT_DROPOUT,
            "bias": "none",
            "task_type": "CAUSAL_LM",
        }
    given = inspect(model)
    warn_of_gaps(given)
    arguments = peft_arguments(plan_with(given, ["attention.q,v"], options).config)
    arguments["rank"] = arguments.pop("r")
    arguments.setdefault("task_type", None)
    return arguments


def _selected(model: ModelMap, text: str) -> tuple[Weight, ...]:
    try:
        return select(model, parse_rule(text))
    except LorascopeError:
        return ()
