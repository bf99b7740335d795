"""Aim LoRA on purpose: see a model's weights by role, plan adapters in one line, get the exact configuration.

Every public name is imported when it is first used, so that `import lorascope` costs next to nothing and never loads
torch, transformers or peft.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

# As `typing` has it, which would take longer to load than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lorascope.advising.recommending import recommend
    from lorascope.checking import check
    from lorascope.costing.budgets import fitted_plan
    from lorascope.costing.comparing import compare
    from lorascope.costing.memory import training_memory
    from lorascope.costing.training import Training
    from lorascope.errors import LorascopeError
    from lorascope.inspecting import inspect
    from lorascope.planning import plan
    from lorascope.proving import prove
    from lorascope.records import AdapterConfig, ModelMap, Plan, Resolution, Role, Rule, Target, Weight
    from lorascope.saving import load_plan, save_map, save_plan
    from lorascope.sources.gallery import gallery
    from lorascope.tutorial import create_attention_lora_config, list_trainable_modules
    from lorascope.verifying import verify

_ROOMS = {
    "advising.recommending": ("recommend",),
    "checking": ("check",),
    "costing.budgets": ("fitted_plan",),
    "costing.comparing": ("compare",),
    "costing.memory": ("training_memory",),
    "costing.training": ("Training",),
    "errors": ("LorascopeError",),
    "inspecting": ("inspect",),
    "planning": ("plan",),
    "proving": ("prove",),
    "records": ("AdapterConfig", "ModelMap", "Plan", "Resolution", "Role", "Rule", "Target", "Weight"),
    "saving": ("load_plan", "save_map", "save_plan"),
    "sources.gallery": ("gallery",),
    "tutorial": ("create_attention_lora_config", "list_trainable_modules"),
    "verifying": ("verify",),
}
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
    "check",
    "compare",
    "create_attention_lora_config",
    "fitted_plan",
    "gallery",
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
