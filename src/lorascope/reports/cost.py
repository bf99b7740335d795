"""Costs of plans as text and as JSON: comparisons, budgets, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lorascope.costs.budget import BudgetedPlan
from lorascope.costs.compare import Candidate, Comparison
from lorascope.costs.memory import Memory
from lorascope.costs.training_run import Training
from lorascope.foreign_text import one_line, shell_word, shown
from lorascope.number_text import bytes_column, bytes_text, count_text, percent, share_text
from lorascope.plans.map_gaps import GAP_CODES
from lorascope.reports.findings import gaps_json, gaps_text
from lorascope.reports.json import SCHEMA, model_json, notes_json
from lorascope.reports.model import dimensions_text, heading
from lorascope.reports.plan import plan_text
from lorascope.reports.tables import bullets, table

Json = dict[str, Any]


def comparison_text(comparison: Comparison) -> str:
    """Gaps of the map, one row per recipe, then refusals and shared notes."""
    planned = [candidate for candidate in comparison.candidates if candidate.plan is not None]
    blocks = list(dict.fromkeys(name for candidate in planned for name, _ in candidate.coverage))
    file_unit, files = bytes_column(candidate.file_size for candidate in planned)
    memory_unit, memories = bytes_column(candidate.memory.total for candidate in planned if candidate.memory)
    head = ("rules", "trainable", "share", f"adapter, {file_unit}", f"training, {memory_unit}", *blocks)
    sizes = {candidate.name: row for candidate, *row in zip(planned, files, memories, strict=True)}
    rows = [_row(candidate, comparison, sizes.get(candidate.name, ()), blocks) for candidate in comparison.candidates]
    parts = [
        *gaps_text(comparison.model),
        heading(comparison.model),
        dimensions_text(comparison.model.dimensions),
        training_text(comparison.training),
        "",
        table(head, rows, right=range(1, len(head))),
        "",
        bullets(_comparison_notes(comparison, planned)),
    ]
    return shown("\n".join(parts))


def _comparison_notes(comparison: Comparison, planned: list[Candidate]) -> Iterator[str]:
    yield from (f"{item.name}: {item.refusal}" for item in comparison.candidates if item.plan is None)
    notes = [[*(item.plan.notes if item.plan else ()), *(item.memory.notes if item.memory else ())] for item in planned]
    shared = [note for note in notes[0] if all(note in others for others in notes)]
    yield from (str(note) for note in shared if note.code not in GAP_CODES)
    if any(note not in shared for own in notes for note in own):
        yield f"Details for one recipe: lorascope plan {shell_word(comparison.model.model)} RECIPE --memory"
    yield "attention, ffn, mixer: the adapted share of their parameters."


def training_text(training: Training) -> str:
    """Settings of a training in one line."""
    base = training.dtype if training.quantization == "none" else f"{training.quantization}, rest {training.dtype}"
    checkpointing = "gradient checkpointing" if training.gradient_checkpointing else "no gradient checkpointing"
    return (
        f"training: batch {training.batch} × {training.seq_len} tokens, weights {base}, "
        f"{training.optimizer}, {checkpointing}"
    )


def memory_text(memory: Memory, training: Training) -> str:
    """Memory of a training by part, with formulas."""
    parts = [part for part in memory.parts if part.size]
    unit, sizes = bytes_column([*(part.size for part in parts), memory.total])
    formulas = [*(part.formula for part in parts), f"during {memory.moment}"]
    names = [*(part.name for part in parts), "peak"]
    body = table(("part", unit, "formula"), list(zip(names, sizes, formulas, strict=True)), right=(1,))
    notes = bullets(map(str, memory.notes))
    return shown("\n".join([training_text(training), body, *(["", notes] if notes else [])]))


def budgeted_plan_text(budgeted: BudgetedPlan) -> str:
    """The plan, and its use of the budget."""
    return f"{plan_text(budgeted.plan)}\n\n{budget_text(budgeted)}"


def budget_text(budgeted: BudgetedPlan) -> str:
    """Cost of a budgeted plan, and that of the next rank."""
    in_bytes = budgeted.budget.unit == "bytes"
    amount = bytes_text if in_bytes else count_text
    unit = "" if in_bytes else " trainable parameters"
    lines = [
        f"budget {one_line(budgeted.budget.text)}: {amount(budgeted.cost)} of {amount(budgeted.limit)}{unit} used, "
        f"{amount(budgeted.remaining)} left ({percent(budgeted.remaining, budgeted.limit)})",
        _next_rank_text(budgeted, bytes_text if in_bytes else lambda count: f"{count:,} parameters"),
    ]
    return shown("\n".join(lines))


def _next_rank_text(budgeted: BudgetedPlan, amount: Callable[[int], str]) -> str:
    ranks, rank = budgeted.ranks, budgeted.max_rank
    if budgeted.next_cost is not None:
        over = budgeted.next_cost - budgeted.limit
        return f"Rank {rank + 1} would need {amount(budgeted.next_cost)}, {amount(over)} over budget."
    if budgeted.limiting_weight:
        return (
            f"Rank limit reached: {one_line(budgeted.limiting_weight)} cannot exceed its smaller dimension. "
            "To let the others grow, give it a rule of its own or exclude it."
        )
    words = " ".join(map(shell_word, (ranks.model.model, *ranks.texts)))
    command = f"lorascope plan {words} --rank {min(4 * rank, ranks.rank_limit)}"
    return f"Rank stays at {rank}: no evidence that this task needs more. To go higher: {command}"


def comparison_json(comparison: Comparison) -> Json:
    """`compare --json`: every candidate, with `null` where there is no plan."""
    return {
        "schema": SCHEMA,
        "gaps": gaps_json(comparison.model),
        "model": model_json(comparison.model),
        "training": training_json(comparison.training),
        "candidates": [
            {
                "rules": candidate.name,
                "refusal": candidate.refusal or None,
                "trainable": candidate.plan.resolution.trainable if candidate.plan else None,
                "total": comparison.model.dimensions.parameters,
                "adapter_bytes": candidate.file_size if candidate.plan else None,
                "memory": memory_json(candidate.memory) if candidate.memory else None,
                "coverage": dict(candidate.coverage),
                "notes": notes_json(candidate.plan.notes) if candidate.plan else [],
            }
            for candidate in comparison.candidates
        ],
    }


def training_json(training: Training) -> Json:
    """Settings of a training."""
    return {
        "batch": training.batch,
        "seq_len": training.seq_len,
        "dtype": training.dtype,
        "quantization": training.quantization,
        "optimizer": training.optimizer,
        "gradient_checkpointing": training.gradient_checkpointing,
    }


def memory_json(memory: Memory) -> Json:
    """Memory in bytes, by part."""
    return {
        "total": memory.total,
        "parts": [{"name": part.name, "bytes": part.size, "formula": part.formula} for part in memory.parts],
        "notes": notes_json(memory.notes),
    }


def budget_json(budgeted: BudgetedPlan) -> Json:
    """A budget and its use, in its own unit."""
    next_rank = {"rank": budgeted.max_rank + 1, "cost": budgeted.next_cost}
    return {
        "budget": budgeted.budget.text,
        "unit": budgeted.budget.unit,
        "limit": budgeted.limit,
        "cost": budgeted.cost,
        "remaining": budgeted.remaining,
        "rank": budgeted.max_rank,
        "next": None if budgeted.next_cost is None else next_rank,
        "limiting_weight": budgeted.limiting_weight or None,
    }


def _row(candidate: Candidate, comparison: Comparison, sizes: Sequence[str], blocks: list[str]) -> tuple[str, ...]:
    if candidate.plan is None:
        return (candidate.name, *["–"] * (4 + len(blocks)))
    trainable = candidate.plan.resolution.trainable
    coverage = dict(candidate.coverage)
    return (
        candidate.name,
        f"{trainable:,}",
        percent(trainable, comparison.model.dimensions.parameters),
        *sizes,
        *(share_text(coverage[name]) if name in coverage else "–" for name in blocks),
    )
