"""What plans cost, as text for a terminal and as JSON: comparisons, budgets, memory by part."""

from __future__ import annotations

from typing import Any

from lorascope.costs.budget import BudgetedPlan
from lorascope.costs.compare import Compared, Comparison
from lorascope.costs.memory import Memory
from lorascope.costs.training_run import Training
from lorascope.foreign_text import one_line, shell_word, shown
from lorascope.reports.tables import bullets, bytes_text, percent, short, table
from lorascope.reports.terminal import dimensions_text, heading

Json = dict[str, Any]


def comparison_text(comparison: Comparison) -> str:
    """The sides as rows, and what they say."""
    blocks = list(dict.fromkeys(name for side in comparison.sides for name, _ in side.coverage))
    head = ("rules", "trainable", "share", "adapter file", "training memory", *blocks)
    rows = [_row(side, comparison, blocks) for side in comparison.sides]
    parts = [
        heading(comparison.model),
        dimensions_text(comparison.model.dimensions),
        training_text(comparison.training),
        "",
    ]
    parts.append(table(head, rows, right=range(1, len(head))))
    said = [f"{side.name}: {side.refusal}" for side in comparison.sides if side.plan is None]
    planned = [side for side in comparison.sides if side.plan is not None]
    notes = {
        side.name: [*(side.plan.notes if side.plan else ()), *(side.memory.notes if side.memory else ())]
        for side in planned
    }
    said += [note for note in notes[planned[0].name] if all(note in others for others in notes.values())]
    if any(note not in said for others in notes.values() for note in others):
        said.append(
            f"what is to be said of one side alone: lorascope plan {shell_word(comparison.model.model)} RULES --memory"
        )
    said.append("attention, ffn and mixer: the part of those parameters that lies in adapted weights")
    return shown("\n".join([*parts, "", bullets(said)]))


def training_text(training: Training) -> str:
    """How a training is run, in one line."""
    base = training.dtype if training.quantization == "none" else f"{training.quantization}, the rest {training.dtype}"
    kept = "gradient checkpointing" if training.checkpointing else "no checkpointing"
    return f"training: batch {training.batch} × {training.length} tokens, weights {base}, {training.optimizer}, {kept}"


def memory_text(memory: Memory, training: Training) -> str:
    """The memory of a training by part, with its formulas."""
    rows = [(part.name, bytes_text(part.size), part.formula) for part in memory.parts if part.size]
    rows.append(("at the peak", bytes_text(memory.total), ""))
    said = bullets(memory.notes)
    body = table(("part", "size", "formula"), rows, right=(1,))
    return shown("\n".join([training_text(training), body, *(["", said] if said else [])]))


def budget_text(fitted: BudgetedPlan) -> str:
    """What a budget pays for, what is left of it and what the next step would cost."""
    amount = bytes_text if fitted.budget.unit == "bytes" else short
    unit = "" if fitted.budget.unit == "bytes" else " trainable parameters"
    lines = [
        f"budget {one_line(fitted.budget.text)}: {amount(fitted.spent)} of {amount(fitted.most)}{unit} spent, "
        f"{amount(fitted.left)} left ({percent(fitted.left, fitted.most)})"
    ]
    if fitted.next_cost is None and not fitted.narrowest:
        lines.append(
            f"the task asks for no more than rank {fitted.step}: for more, write the rules instead of the task"
        )
    elif fitted.next_cost is None:
        lines.append(
            f"the ranks are as high as they can be: {one_line(fitted.narrowest)} would get more rank than its smaller side. "
            "Give it a rule of its own, or exclude it, to let the others grow"
        )
    else:
        over = fitted.next_cost - fitted.most
        lines.append(
            f"the next step up, rank {fitted.step + 1}, would take {amount(fitted.next_cost)}: {amount(over)} too many"
        )
    return shown("\n".join(lines))


def comparison_json(comparison: Comparison) -> Json:
    """The sides, `null` where there is no plan."""
    return {
        "training": training_json(comparison.training),
        "sides": [
            {
                "rules": side.name,
                "refusal": side.refusal or None,
                "trainable": side.plan.resolution.trainable if side.plan else None,
                "total": comparison.model.dimensions.parameters,
                "adapter_bytes": side.file_size if side.plan else None,
                "memory": memory_json(side.memory) if side.memory else None,
                "coverage": dict(side.coverage),
                "notes": list(side.plan.notes) if side.plan else [],
            }
            for side in comparison.sides
        ],
    }


def training_json(training: Training) -> Json:
    """How a training is run."""
    return {
        "batch": training.batch,
        "length": training.length,
        "dtype": training.dtype,
        "quantization": training.quantization,
        "optimizer": training.optimizer,
        "gradient_checkpointing": training.checkpointing,
    }


def memory_json(memory: Memory) -> Json:
    """Memory in bytes, by part."""
    return {
        "total": memory.total,
        "parts": [{"name": part.name, "bytes": part.size, "formula": part.formula} for part in memory.parts],
        "notes": list(memory.notes),
    }


def budget_json(fitted: BudgetedPlan) -> Json:
    """A budget, in its own unit."""
    return {
        "budget": fitted.budget.text,
        "unit": fitted.budget.unit,
        "most": fitted.most,
        "spent": fitted.spent,
        "left": fitted.left,
        "rank": fitted.step,
        "next": None if fitted.next_cost is None else {"rank": fitted.step + 1, "cost": fitted.next_cost},
        "narrowest": fitted.narrowest or None,
    }


def _row(side: Compared, comparison: Comparison, blocks: list[str]) -> tuple[str, ...]:
    if side.plan is None or side.memory is None:
        return (side.name, *["–"] * (4 + len(blocks)))
    trainable = side.plan.resolution.trainable
    covered = dict(side.coverage)
    return (
        side.name,
        f"{trainable:,}",
        percent(trainable, comparison.model.dimensions.parameters),
        bytes_text(side.file_size),
        bytes_text(side.memory.total),
        *(_covered(covered[name]) if name in covered else "–" for name in blocks),
    )


def _covered(part: float) -> str:
    """A part in percent, of which 0% and 100% are exact."""
    return f"{part:.0%}" if part in (0, 1) else f"{min(max(100 * part, 0.1), 99.9):.1f}%"
