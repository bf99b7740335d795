"""Compares a plan with the installed PEFT, weight by weight."""

from __future__ import annotations

import contextlib
import time
import warnings
from typing import TYPE_CHECKING, Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.foreign_text import one_line
from lorascope.model.types import ModelMap
from lorascope.peft_rules.lora_config import to_peft
from lorascope.plans.arguments import require_plan
from lorascope.plans.types import Plan
from lorascope.sandbox.watchdog import OverrunError, Watchdog
from lorascope.sources.modules.module_tree import module_tree, named_parameters
from lorascope.sources.modules.python_objects import is_module, name_of_class, object_faults, unwrapped
from lorascope.sources.source_kinds import names_builtin_model

if TYPE_CHECKING:
    from torch import nn

# The largest models take PEFT a minute.
_SECONDS = 600


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """What the installed PEFT did with a plan's configuration.

    Attributes:
        peft: Its version.
        weights: How many weights it adapted.
        trainable: How many parameters it left trainable.
        differences: Every weight or count that is not the plan's, each in a sentence; empty if it is exact.
    """

    peft: str
    weights: int
    trainable: int
    differences: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Nothing differs."""
        return not self.differences


def prove(plan: Plan, module: nn.Module) -> Proof:
    """Run `peft.get_peft_model` with the plan's configuration and compare.

    Args:
        plan: The plan.
        module: The model that the plan was made for, on any device. PEFT changes it: give a copy, or one on the meta
            device (`lorascope.sources.transformers.meta_model.build`).

    Raises:
        LorascopeError: peft is not installed, or cannot adapt the module.
    """
    require_plan(plan, "prove")
    for fault, hint in object_faults(module):
        raise LorascopeError(fault, hint=hint)
    if not is_module(module):
        raise LorascopeError(
            f"prove runs PEFT on a module, not on a {name_of_class(type(module))}",
            hint="Give the model that the plan was made for, or build it: lorascope.plans.prove.rebuild(plan.model, SOURCE).",
        )
    module, _ = unwrapped(module)
    module_tree(module)  # what PEFT could not walk is told before it is run
    config = to_peft(plan.config)
    import peft
    import torch

    from lorascope.sandbox.torch_modes import TorchModes

    until = time.monotonic() + _SECONDS
    watchdog = Watchdog(lambda: f"it takes more than {_SECONDS} seconds" if time.monotonic() > until else "")
    before = TorchModes()
    try:
        # Adapters are made where torch makes tensors: on the meta device they cost nothing.
        on_meta = any(parameter.is_meta for _, parameter in named_parameters(module))
        with watchdog, warnings.catch_warnings(), torch.device("meta") if on_meta else contextlib.nullcontext():
            warnings.simplefilter("ignore")
            wrapped = peft.get_peft_model(module, config)
    except KeyboardInterrupt:
        raise
    except OverrunError:
        raise LorascopeError(
            f"PEFT was stopped: {watchdog.reason}", where=name_of_class(type(module)), hint="Leave --prove out."
        ) from None
    except BaseException as error:  # whatever PEFT or the module raises is the finding
        return Proof(peft.__version__, 0, 0, (one_line(f"PEFT raises {type(error).__name__}: {error}"),))
    finally:
        before.restore()
    return _proof(plan, wrapped, peft.__version__)


def _proof(plan: Plan, wrapped: nn.Module, release: str) -> Proof:
    adapted = {name: (rank, float(alpha)) for name, (rank, alpha, _) in adapted_weights(wrapped).items()}
    planned = {target.adapted.name: (target.rank, float(target.alpha)) for target in plan.targets}
    differences = [
        f"{name}: PEFT gives (rank, alpha) {adapted.get(name)}, the plan {planned.get(name)}"
        for name in sorted(adapted.keys() | planned.keys())
        if adapted.get(name) != planned.get(name)
    ]
    trainable = sum(parameter.numel() for parameter in wrapped.parameters() if parameter.requires_grad)
    if trainable != plan.resolution.trainable:
        differences.append(f"PEFT trains {trainable} parameters, the plan counts {plan.resolution.trainable}")
    return Proof(release, len(adapted), trainable, tuple(differences))


def adapted_weights(wrapped: nn.Module, adapter: str = "default") -> dict[str, tuple[int, float, float]]:
    """Adapted weights of a PEFT model: name to (rank, alpha, scale).

    PEFT nests one wrapper per parameter around the module that owns them, and wraps the output projection inside of a
    MultiheadAttention by itself: the former get the parameter's name, the latter is part of its attention.
    """
    from peft.tuners.lora import LoraLayer

    adapted: dict[str, tuple[int, float, float]] = {}
    inner: set[str] = set()
    for path, module in wrapped.named_modules():
        if path in inner or not isinstance(module, LoraLayer) or adapter not in module.scaling:
            continue
        kind = type(module).__name__
        if kind == "MultiheadAttention":
            inner.add(f"{path}.base_layer.out_proj")
        name = _base_name(path, adapter)
        if kind == "ParamWrapper":
            name = f"{name}.{module.parameter_name}"
        sizes: tuple[Any, ...] = (module.r[adapter], module.lora_alpha[adapter], module.scaling[adapter])
        adapted.setdefault(name, sizes)  # a copy that modules_to_save made comes second
    return adapted


def _base_name(path: str, adapter: str) -> str:
    words = path.removeprefix("base_model.model.").replace(f".modules_to_save.{adapter}", "").split(".")
    return ".".join(word for word in words if word not in ("base_layer", "original_module"))


def rebuild(model: ModelMap, source: str, *, trust_remote_code: bool = False) -> nn.Module:
    """Build a map's module again from its source, on the meta device.

    Raises:
        LorascopeError: The source has no configuration to build from, its library is not installed, or that library now
            builds something else.
    """
    from lorascope.sources.diffusers.meta_model import build_diffusers, diffusers_config
    from lorascope.sources.transformers.config import config_files, configuration
    from lorascope.sources.transformers.meta_model import build_for_head, map_module

    library = "transformers"
    files = None if names_builtin_model(source) else config_files(source)
    if files is not None and (denoiser := diffusers_config(files, source)) is not None:
        library = "diffusers"
        module = build_diffusers(denoiser)
    else:
        config = configuration(source, trust_remote_code=trust_remote_code, files=files)
        head = None if model.head == "unknown" else model.head
        module, _ = build_for_head(config, head, trust_remote_code=trust_remote_code)
    if _tree(map_module(module)) != _tree(model):
        raise LorascopeError(
            f"{library} builds another {model.architecture} from it than the map's",
            where=source,
            hint=f"Plan with --source config, which maps what {library} builds.",
        )
    return module


def _tree(model: ModelMap) -> list[tuple[object, ...]]:
    """What PEFT sees of a module tree."""
    return [(module.name, module.kind, module.parameters, module.groups) for module in model.modules]
