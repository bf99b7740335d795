"""Aim LoRA on purpose: see a model's weights by role, plan adapters in one line, get the exact configuration.

Every public name is imported when it is first used, so that `import lorascope` costs next to nothing and never loads
torch, transformers or peft.
"""

from __future__ import annotations

import importlib

from lorascope._version import __version__ as __version__
from lorascope.texts import REPORTS

# As `typing` has it, which would take longer to load than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lorascope.advice.recommend import recommend
    from lorascope.advice.types import Recommendation
    from lorascope.checks.check import check
    from lorascope.checks.types import Check
    from lorascope.costs.budget import Budget, BudgetedPlan
    from lorascope.costs.compare import Comparison, compare
    from lorascope.costs.memory import Memory, training_memory
    from lorascope.costs.training_run import Training
    from lorascope.errors import LorascopeError
    from lorascope.findings import Finding
    from lorascope.inspecting import inspect
    from lorascope.model.types import Dimensions, ModelMap, Module, Role, Trace, Weight
    from lorascope.peft_rules.diagnostics import Diagnostic
    from lorascope.peft_rules.types import Adapted, AdapterConfig, Resolution
    from lorascope.plan_api import plan
    from lorascope.plans.files import load_plan, save_map, save_plan
    from lorascope.plans.prove import Proof, prove
    from lorascope.plans.types import LeftOut, Options, Plan, Rule, Target
    from lorascope.plans.verify import verify
    from lorascope.servers.types import Serving
    from lorascope.sources.builtin import builtin_models
    from lorascope.trainers.exports import export
    from lorascope.tutorial import create_attention_lora_config, list_trainable_modules

_ROOMS = {
    "advice.recommend": ("recommend",),
    "advice.types": ("Recommendation",),
    "checks.check": ("check",),
    "checks.types": ("Check",),
    "costs.budget": (
        "Budget",
        "BudgetedPlan",
    ),
    "costs.compare": (
        "Comparison",
        "compare",
    ),
    "costs.memory": (
        "Memory",
        "training_memory",
    ),
    "costs.training_run": ("Training",),
    "errors": ("LorascopeError",),
    "findings": ("Finding",),
    "inspecting": ("inspect",),
    "model.types": (
        "Dimensions",
        "Module",
        "ModelMap",
        "Role",
        "Trace",
        "Weight",
    ),
    "peft_rules.diagnostics": ("Diagnostic",),
    "peft_rules.types": (
        "Adapted",
        "AdapterConfig",
        "Resolution",
    ),
    "plan_api": ("plan",),
    "plans.files": (
        "load_plan",
        "save_map",
        "save_plan",
    ),
    "plans.prove": (
        "Proof",
        "prove",
    ),
    "plans.types": (
        "LeftOut",
        "Options",
        "Plan",
        "Rule",
        "Target",
    ),
    "plans.verify": ("verify",),
    "servers.types": ("Serving",),
    "sources.builtin": ("builtin_models",),
    "trainers.exports": ("export",),
    "tutorial": (
        "create_attention_lora_config",
        "list_trainable_modules",
    ),
}
REPORTS.update(
    ModelMap="lorascope.reports.model.map_text",
    Plan="lorascope.reports.plan.plan_text",
    BudgetedPlan="lorascope.reports.cost.budgeted_plan_text",
    Comparison="lorascope.reports.cost.comparison_text",
    Check="lorascope.reports.check.check_text",
    Recommendation="lorascope.reports.advice.advice_text",
)
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Adapted",
    "AdapterConfig",
    "Budget",
    "BudgetedPlan",
    "Check",
    "Comparison",
    "Diagnostic",
    "Dimensions",
    "Finding",
    "LeftOut",
    "LorascopeError",
    "Memory",
    "ModelMap",
    "Module",
    "Options",
    "Plan",
    "Proof",
    "Recommendation",
    "Resolution",
    "Role",
    "Rule",
    "Serving",
    "Target",
    "Trace",
    "Training",
    "Weight",
    "builtin_models",
    "check",
    "compare",
    "create_attention_lora_config",
    "export",
    "inspect",
    "list_trainable_modules",
    "load_plan",
    "plan",
    "prove",
    "recommend",
    "save_map",
    "save_plan",
    "training_memory",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
