"""Memory at the peak of a training step, by part.

The figures are compared with measurements in `benchmarks/memory.py` and `docs/memory.md`.
"""

from __future__ import annotations

import math

from lorascope import light_dataclasses as dataclasses
from lorascope.costs.activations import ADAPTER_WIDTH
from lorascope.costs.memory_estimate import MemoryEstimate
from lorascope.costs.memory_notes import memory_formulas, memory_notes
from lorascope.costs.optimizer_state import optimizer_bytes
from lorascope.costs.training_run import Training
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.plans.arguments import require_kinds, require_plan
from lorascope.plans.types import Plan

# Workspace of cuBLAS, which torch allocates: 8 MiB on most devices, 32 MiB on Hopper (torch's notes on CUDA semantics,
# CUBLAS_WORKSPACE_CONFIG).
_CUBLAS = 32 * 2**20
PARTS = ("weights", "adapters", "gradients", "optimizer states", "activations", "logits", "workspace")


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryPart:
    """One part of the memory.

    Attributes:
        name: See `PARTS`.
        size: Bytes at the peak.
        formula: Their origin, with figures.
    """

    name: str
    size: int
    formula: str


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a training step.

    Attributes:
        parts: All of it, in the order of `PARTS`.
        notes: What is uncertain, and what is left out.
        moment: The moment of the peak.
    """

    parts: tuple[MemoryPart, ...]
    notes: tuple[Diagnostic, ...] = ()
    moment: str = ""

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(part.size for part in self.parts)


def training_memory(plan: Plan, training: Training) -> Memory:
    """Memory at the peak of a training step.

    The first step, in which the optimizer makes its states, is left out.

    Args:
        plan: The plan.
        training: Settings of the training.
    """
    require_plan(plan, "training_memory")
    require_kinds("training_memory", training=(training, (Training,), "a Training"))
    estimate = MemoryEstimate(plan, training)
    peak = max(estimate.moments(), key=lambda moment: moment.size)
    library = _CUBLAS if training.device == "cuda" else 0
    sizes = {
        "weights": estimate.base.size,
        "adapters": sum(math.prod(shape) * width for shape, width in estimate.trained if width == ADAPTER_WIDTH),
        "gradients": peak.gradients,
        "optimizer states": optimizer_bytes(training.optimizer, estimate.trained),
        "activations": peak.activations,
        "logits": peak.logits,
        "workspace": peak.workspace + library,
    }
    formulas = memory_formulas(estimate, peak, library)
    parts = tuple(MemoryPart(name, sizes[name], formulas[name]) for name in PARTS)
    return Memory(parts, memory_notes(estimate, peak), peak.name)
