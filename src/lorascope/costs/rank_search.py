"""One set of rules at growing ranks: what each step of that ladder gives every target, and what it costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from lorascope.model.types import ModelMap
from lorascope.peft_rules.types import Adapted
from lorascope.plans.compiler import peft_name
from lorascope.plans.planner import DEFAULT_RANK, alpha_of, means_recipe, plan, rules_at
from lorascope.plans.rules import parse_rule
from lorascope.plans.types import Plan, Rule, Target


@dataclasses.dataclass(frozen=True)
class Ladder:
    """The plans of some rules as all their ranks grow together.

    On step n the largest rank is n, and the others keep their ratio to it, rounded down, and at least 1. Recipes, and
    rules that name no rank, count as rank 8. Alphas stay as they are asked for.

    Attributes:
        model: The map.
        texts: Recipes and rules, as `plan` takes them.
        options: The other options of `plan`, without `rank`.
    """

    model: ModelMap
    texts: tuple[str, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @cached_property
    def first(self) -> Plan:
        """The plan of step 1, the smallest there is."""
        return self.plan(1)

    @cached_property
    def highest(self) -> int:
        """The last step on which no target has a rank above the smaller side of its weight.

        More would add parameters and no directions.
        """
        low, high = 1, 2
        while self._within(high):
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._within(middle) else (low, middle)
        return low

    @property
    def narrowest(self) -> str:
        """The target that lets no rank grow beyond the highest step."""
        ranks = self.ranks(self.highest + 1)
        for target in self.first.targets:
            if ranks[target.weight.name] > min(target.weight.shape[-2:]):
                return target.weight.name
        raise AssertionError("every step has its targets")

    def plan(self, step: int) -> Plan:
        """The plan of a step, compiled and checked.

        Raises:
            LorascopeError: As `plan` does.
        """
        return plan(self.model, *self._texts(step), rank=self._scaled(DEFAULT_RANK, step), **self.options)

    def ranks(self, step: int) -> dict[str, int]:
        """The rank of every target on a step, by the weight's name."""
        rules = self._rules(step)
        plain = self._scaled(DEFAULT_RANK, step)
        return {target.weight.name: rules[target.rule].rank or plain for target in self.first.targets}

    def sketch(self, step: int) -> Plan:
        """The targets and the costs of a step without its configuration, which takes most of the time of a plan."""
        plain, rules, options = self._scaled(DEFAULT_RANK, step), self._rules(step), self.first.options
        sizes = []
        for rule in rules:
            rank = rule.rank or plain
            sizes.append((rank, alpha_of(rule, rank, options)))
        targets = tuple(Target(t.weight, *sizes[t.rule], t.rule) for t in self.first.targets)
        by_name = {name: sizes[at] for name, at in self._rule_of.items()}
        adapted = tuple(self._adapted(one, *by_name[one.name]) for one in self.first.resolution.adapted)
        more = sum(one.trainable for one in adapted) - sum(one.trainable for one in self.first.resolution.adapted)
        resolution = dataclasses.replace(
            self.first.resolution, adapted=adapted, trainable=self.first.resolution.trainable + more
        )
        return dataclasses.replace(self.first, targets=targets, resolution=resolution)

    def _adapted(self, one: Adapted, rank: int, alpha: float) -> Adapted:
        # What a rank costs; DoRA's magnitudes come once.
        once = self._magnitudes.get(one.name, 0)
        trainable = once + (one.trainable - once) // one.rank * rank
        scale = alpha / (math.sqrt(rank) if self.first.options.rslora else rank)
        return Adapted(one.name, rank, alpha, scale, trainable)

    @cached_property
    def _rule_of(self) -> dict[str, int]:
        """PEFT's name of each target to the rule that chose it."""
        return {peft_name(self.model, target.weight): target.rule for target in self.first.targets}

    @cached_property
    def _magnitudes(self) -> dict[str, int]:
        """What does not grow with the rank, by the name of what is adapted."""
        if not self.first.options.dora:
            return {}
        plain = plan(self.model, *self._texts(1), rank=1, **{**self.options, "dora": False})
        without = {one.name: one.trainable for one in plain.resolution.adapted}
        return {one.name: one.trainable - without[one.name] for one in self.first.resolution.adapted}

    def _within(self, step: int) -> bool:
        plain = self._scaled(DEFAULT_RANK, step)
        rules = self._rules(step)
        return all((rules[at].rank or plain) <= side for at, side in self._sides.items())

    @cached_property
    def _sides(self) -> dict[int, int]:
        """The smaller side of the narrowest weight that each rule gives its rank to."""
        sides: dict[int, int] = {}
        for target in self.first.targets:
            side = min(target.weight.shape[-2:])
            sides[target.rule] = min(side, sides.get(target.rule, side))
        return sides

    @cached_property
    def _own(self) -> tuple[Rule | None, ...]:
        """Each text as a rule, or None for a recipe."""
        return tuple(None if means_recipe(text) else parse_rule(text) for text in self.texts)

    @cached_property
    def _largest(self) -> int:
        """The largest rank that is asked for."""
        return max(rule.rank if rule and rule.rank else DEFAULT_RANK for rule in self._own)

    def _scaled(self, rank: int, step: int) -> int:
        return max(1, rank * step // self._largest)

    def _texts(self, step: int) -> tuple[str, ...]:
        return tuple(
            str(dataclasses.replace(rule, rank=self._scaled(rule.rank, step))) if rule and rule.rank else text
            for text, rule in zip(self.texts, self._own, strict=True)
        )

    def _rules(self, step: int) -> Sequence[Rule]:
        return rules_at(self.model, self._texts(step), self._scaled(DEFAULT_RANK, step))
