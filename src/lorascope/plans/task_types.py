"""PEFT's task type for a model, and heads to train in full."""

from __future__ import annotations

from lorascope.model.types import ModelMap
from lorascope.peft_rules.modules_to_save import names_before_matching
from lorascope.plans.rules import own_components

_TASK_TYPES = {
    "causal-lm": "CAUSAL_LM",
    "image-text-to-text": "CAUSAL_LM",
    "seq2seq-lm": "SEQ_2_SEQ_LM",
    "sequence-classification": "SEQ_CLS",
}


def task_type(model: ModelMap) -> str | None:
    """PEFT's task type for the model; None where no wrapper fits."""
    wanted = _TASK_TYPES.get(model.head)
    generates = wanted in ("CAUSAL_LM", "SEQ_2_SEQ_LM")
    return None if generates and not model.prepares_generation else wanted


def unsaved_heads(model: ModelMap) -> tuple[str, ...]:
    """Outermost modules of a new head that PEFT does not save itself.

    With SEQ_CLS it does so for modules called classifier or score; elsewhere the head would stay random.
    """
    if model.head != "sequence-classification":
        return ()
    if any(name in model.module_by_name for name in names_before_matching(None, "SEQ_CLS")):
        return ()
    own = own_components(model)
    heads = [w for w in model.weights if w.role.block == "head" and w.role.component in own]
    others = [f"{weight.module}." for weight in model.weights if weight.role.block != "head"]
    modules: dict[str, None] = {}
    for head in heads:
        words = head.module.split(".")
        roots = (".".join(words[:end]) for end in range(1, len(words) + 1))
        modules[next((r for r in roots if not any(o.startswith(f"{r}.") for o in others)), head.module)] = None
    return tuple(modules)
