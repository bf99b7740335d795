"""Tensors of a saved adapter, found once per plan."""

from __future__ import annotations

from lorascope.peft_rules.state_dict import SavedTensor, saved_tensors
from lorascope.plans.types import Plan

# Those of the last plan: its file and its memory are estimated one after the other.
_last: list[tuple[Plan, tuple[SavedTensor, ...]]] = []


def adapter_tensors(plan: Plan) -> tuple[SavedTensor, ...]:
    """Tensors that PEFT saves of a plan's adapter."""
    if not _last or _last[0][0] is not plan:
        tensors = saved_tensors(plan.model, plan.config, plan.resolution).tensors
        _last[:] = [(plan, tuple(tensors.values()))]
    return _last[0][1]
