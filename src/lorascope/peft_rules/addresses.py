"""Names under which PEFT reaches the weights of a map."""

from __future__ import annotations

from lorascope.model.types import ModelMap, Weight
from lorascope.peft_rules.releases import NEWEST, release_of


def as_parameter(model: ModelMap, weight: Weight, peft: str = NEWEST) -> bool:
    """PEFT can only reach this weight through `target_parameters`.

    That is so for bare parameters, and for linear layers whose name PEFT would rewrite into that of fused experts
    (peft issue 3711), which it does since 0.19.
    """
    if weight.kind == "linear":
        if not model.moe_conversion:
            return False
        from lorascope.peft_rules.moe_rewrite import rewritten_name  # matches names, which takes longer to load

        return rewritten_name(model, weight.name, release_of(peft)) != ""
    return weight.kind == "parameter"


def peft_name(model: ModelMap, weight: Weight, peft: str = NEWEST) -> str:
    """The name that PEFT matches: `….weight` for linear layers reached as parameters."""
    return f"{weight.name}.weight" if weight.kind == "linear" and as_parameter(model, weight, peft) else weight.name


def weight_of(model: ModelMap, name: str) -> Weight | None:
    """The weight of a name, the inverse of `peft_name`; None without one."""
    return model.weight_by_name.get(name) or model.weight_by_name.get(name.removesuffix(".weight"))
