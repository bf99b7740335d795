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
    from lorascope.checks.check import check
    from lorascope.costs.compare import compare
    from lorascope.costs.memory import training_memory
    from lorascope.costs.training_run import Training
    from lorascope.errors import LorascopeError
    from lorascope.inspecting import inspect
    from lorascope.model.types import ModelMap, Role, Weight
    from lorascope.peft_rules.types import AdapterConfig, Resolution
    from lorascope.plan_door import plan
    from lorascope.plans.files import load_plan, save_map, save_plan
    from lorascope.plans.prove import prove
    from lorascope.plans.types import Plan, Rule, Target
    from lorascope.plans.verify import verify
    from lorascope.sources.builtin import builtin_models
    from lorascope.tutorial import create_attention_lora_config, list_trainable_modules

_ROOMS = {
    "advice.recommend": ("recommend",),
    "checks.check": ("check",),
    "costs.compare": ("compare",),
    "costs.memory": ("training_memory",),
    "costs.training_run": ("Training",),
    "errors": ("LorascopeError",),
    "inspecting": ("inspect",),
    "plan_door": ("plan",),
    "plans.prove": ("prove",),
    "model.types": ("ModelMap", "Role", "Weight"),
    "peft_rules.types": ("AdapterConfig", "Resolution"),
    "plans.types": ("Plan", "Rule", "Target"),
    "plans.files": ("load_plan", "save_map", "save_plan"),
    "sources.builtin": ("builtin_models",),
    "tutorial": ("create_attention_lora_config", "list_trainable_modules"),
    "plans.verify": ("verify",),
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
    "AdapterConfig",
    "LorascopeError",
    "ModelMap",
    "Plan",
    "Resolution",
    "Role",
    "Rule",
    "Target",
    "Training",
    "Weight",
    "builtin_models",
    "check",
    "compare",
    "create_attention_lora_config",
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
