"""Task types that do not fit the model's head."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.checks.context import CheckContext
from lorascope.checks.rule import FindingRule, finds
from lorascope.findings import Finding
from lorascope.foreign_text import literal
from lorascope.peft_rules.reasons import WRAPPER_TOO_OLD
from lorascope.plans.task_types import task_type, unsaved_heads

TASK_TYPE = FindingRule(
    "task-type",
    "warning",
    "task_type does not fit the head, or is missing",
    "A new head trains in full and is saved only under the task type of its kind.",
)

_SAVING = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
_HEADS = ("classifier", "score", "qa_outputs")


@finds(TASK_TYPE)
def find_task_types(context: CheckContext) -> Iterator[Finding]:
    """Task types that PEFT refuses, or that leave a head random."""
    model, given = context.model, context.config.task_type
    if context.refused_as("task-type"):
        usual = task_type(model)
        fix = f"Set {context.setting('task_type', usual)}." if usual and usual != given else "Leave task_type out."
        if context.refusal and context.refusal.reason is WRAPPER_TOO_OLD:
            fix = "Update PEFT (pip install -U peft), or leave task_type out."
        yield TASK_TYPE.finding("task_type", context.refusal, fix, "error")
        return
    classifier = model.head == "sequence-classification"
    heads = [name for name in context.module_names if name in _HEADS]
    if given not in _SAVING and (classifier or heads) and context.sizes:
        if set(context.resolution.saved).isdisjoint(heads):
            yield _random_head(context, heads)
    elif given == "SEQ_CLS" and classifier and not heads and not context.resolution.saved:
        message = (
            f'task_type="{given}" trains a new head in full if it is called classifier or score, and '
            f"{model.architecture} has no such module: its head stays random."
        )
        fix = "Add the name of the head to modules_to_save."
        if unsaved_heads(model):
            fix = f"Set {context.setting('modules_to_save', unsaved_heads(model))} too."
        yield TASK_TYPE.finding("task_type", message, fix)


def _random_head(context: CheckContext, heads: list[str]) -> Finding:
    name = heads[0] if heads else "the head"
    trained = name in context.sizes or name in context.resolution.saved
    task = "TOKEN_CLS" if "classifier" in heads else "QUESTION_ANS"
    if context.model.head == "sequence-classification":
        task = "SEQ_CLS"
    state = "gets a low-rank adapter on random values" if trained else "keeps its random values"
    given = context.config.task_type
    setting = f"task_type is {literal(given, 200)}" if given else "task_type is missing"
    message = f"{setting}: {name}, which is new in {context.model.architecture}, {state} and is not saved in full."
    fix = f"Set {context.setting('task_type', task)}"
    fix += f", or {context.setting('modules_to_save', [name])}." if heads else "."
    return TASK_TYPE.finding("task_type", message, fix)
