"""A recommendation and its parts."""

from __future__ import annotations

from lorascope import light_dataclasses as dataclasses
from lorascope.advice.evidence import Claim, Record, Strength
from lorascope.advice.tasks import Task
from lorascope.model.types import ModelMap
from lorascope.plans.types import Plan
from lorascope.texts import text_of


@dataclasses.dataclass(frozen=True, slots=True)
class Ground:
    """A claim that a choice rests on, with its strength and records."""

    claim: Claim
    strength: Strength
    supporting: tuple[Record, ...]
    contradicting: tuple[Record, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Alternative:
    """Another plan, and its cost on this model.

    Attributes:
        rules: The recipe and rules.
        rank: The plan's rank with them.
        exclude: Selectors that are taken out.
        trainable: All trainable parameters; None where there is no such plan.
        ratio: These by those of the recommended plan; None where either has none.
        note: Further facts, or empty.
        refusal: Why there is no such plan, or empty.
        grounds: Claims on it.
    """

    rules: tuple[str, ...]
    rank: int
    exclude: tuple[str, ...]
    trainable: int | None
    ratio: float | None
    note: str = ""
    refusal: str = ""
    grounds: tuple[Ground, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """One choice of a recommendation.

    Attributes:
        name: `targets`, `rank`, `experts`, `alpha`, `learning_rate`, `first_rate`, `batch`, `dropout`.
        value: The choice, in words.
        reason: Why, in one sentence.
        strength: Strength of the weakest claim that it rests on.
        grounds: The claims, with their records.
        alternatives: Other choices, with their cost.
        note: Why the value is not the usual one, or empty.
    """

    name: str
    value: str
    reason: str
    strength: Strength
    grounds: tuple[Ground, ...]
    alternatives: tuple[Alternative, ...] = ()
    note: str = ""

    @property
    def supporting(self) -> tuple[Record, ...]:
        """Records that support its claims, each once."""
        return tuple({record.id: record for ground in self.grounds for record in ground.supporting}.values())

    @property
    def contradicting(self) -> tuple[Record, ...]:
        """Records that contradict its claims, each once."""
        return tuple({record.id: record for ground in self.grounds for record in ground.contradicting}.values())


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """Recommended plan and settings for a model and a task.

    Attributes:
        model: The map.
        task: The task.
        rules: The recipe and rules of the plan.
        rank: Its rank.
        alpha: Its alpha, the same for every weight.
        plan: The plan.
        command: The command line that makes it.
        choices: Every choice, with its reason.
        warnings: Omissions and unexpected costs, with figures.
        notes: Further facts.
        unknown: Open questions.
    """

    model: ModelMap
    task: Task
    rules: tuple[str, ...]
    rank: int
    alpha: int
    plan: Plan
    command: str
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        return text_of(self)


@dataclasses.dataclass(frozen=True, slots=True)
class RecipeEvidence:
    """Claims that, where true, support or contradict a recipe."""

    name: str
    purpose: str
    pro: tuple[Ground, ...]
    contra: tuple[Ground, ...]
