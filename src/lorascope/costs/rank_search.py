"""Plans of one set of rules at growing ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from lorascope.peft_rules.types import Adapted
from lorascope.plans.planner import DEFAULT_RANK, alpha_of, means_recipe, plan_with, rules_at
from lorascope.plans.rules import parse_rule
from lorascope.plans.types import Options, Plan, Rule, Target


@dataclasses.dataclass(frozen=True)
class ScaledRanks:
    """Plans of some rules whose ranks grow together.

    At `max_rank` n the largest rank is n. The others keep their ratio to it, rounded down, and at least 1. Recipes, and
    rules without a rank, count as rank 8. Alphas stay as given.

    Attributes:
        model: The map.
        texts: Recipes and rules, as `plan` takes them.
        options: Settings of the plans; the rank is set here.
    """

    model: ModelMap
    texts: tuple[str, ...]
    options: Options = Options()

    @cached_property
    def smallest(self) -> Plan:
        """Plan at `max_rank` 1."""
        return self.plan(1)

    @cached_property
    def rank_limit(self) -> int:
        """Highest `max_rank` at which no target's rank exceeds its weight's smaller dimension.

        A higher rank adds parameters and no directions.
        """
        low, high = 1, 2
        while self._fits_shapes(high):
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits_shapes(middle) else (low, middle)
        return low

    @property
    def limiting_weight(self) -> str:
        """Weight whose smaller dimension sets the rank limit."""
        ranks = self.ranks(self.rank_limit + 1)
        for target in self.smallest.targets:
            if ranks[target.weight.name] > min(target.weight.shape[-2:]):
                return target.weight.name
        raise AssertionError("every plan has targets")

    def plan(self, max_rank: int) -> Plan:
        """Plan with this largest rank, compiled and checked.

        Raises:
            LorascopeError: As `plan_with` does.
        """
        options = dataclasses.replace(self.options, rank=self._scaled(DEFAULT_RANK, max_rank))
        return plan_with(self.model, self._texts(max_rank), options)

    def ranks(self, max_rank: int) -> dict[str, int]:
        """Rank of each target, by the weight's name."""
        rules = self._rules(max_rank)
        plain = self._scaled(DEFAULT_RANK, max_rank)
        return {target.weight.name: rules[target.rule].rank or plain for target in self.smallest.targets}

    def estimate(self, max_rank: int) -> Plan:
        """Targets and costs at a rank, without the slow compilation."""
        plain, rules, options = self._scaled(DEFAULT_RANK, max_rank), self._rules(max_rank), self.smallest.options
        sizes = []
        for rule in rules:
            rank = rule.rank or plain
            sizes.append((rank, alpha_of(rule, rank, options)))
        targets = tuple(self._resized(target, *sizes[target.rule]) for target in self.smallest.targets)
        smallest = self.smallest.resolution
        adapted = tuple(sorted((target.adapted for target in targets), key=lambda item: item.name))
        growth = sum(item.trainable for item in adapted) - sum(item.trainable for item in smallest.adapted)
        resolution = dataclasses.replace(smallest, adapted=adapted, trainable=smallest.trainable + growth)
        return dataclasses.replace(self.smallest, targets=targets, resolution=resolution)

    def _resized(self, target: Target, rank: int, alpha: float) -> Target:
        # Parameters grow with the rank, DoRA's magnitudes do not.
        adapted = target.adapted
        fixed = self._magnitudes.get(adapted.name, 0)
        trainable = fixed + (adapted.trainable - fixed) // adapted.rank * rank
        scale = alpha / (math.sqrt(rank) if self.smallest.options.rslora else rank)
        return Target(target.weight, rank, alpha, target.rule, Adapted(adapted.name, rank, alpha, scale, trainable))

    @cached_property
    def _magnitudes(self) -> dict[str, int]:
        """DoRA's magnitudes by the name of the adapted weight."""
        if not self.smallest.options.dora:
            return {}
        plain = plan_with(self.model, self._texts(1), dataclasses.replace(self.options, rank=1, dora=False))
        without = {item.name: item.trainable for item in plain.resolution.adapted}
        return {item.name: item.trainable - without[item.name] for item in self.smallest.resolution.adapted}

    def _fits_shapes(self, max_rank: int) -> bool:
        plain = self._scaled(DEFAULT_RANK, max_rank)
        rules = self._rules(max_rank)
        return all((rules[rule].rank or plain) <= limit for rule, limit in self._limits.items())

    @cached_property
    def _limits(self) -> dict[int, int]:
        """Smallest dimension of the weights of each rule, by the rule's index."""
        limits: dict[int, int] = {}
        for target in self.smallest.targets:
            limit = min(target.weight.shape[-2:])
            limits[target.rule] = min(limit, limits.get(target.rule, limit))
        return limits

    @cached_property
    def _parsed(self) -> tuple[Rule | None, ...]:
        """Each text as a rule; None for a recipe."""
        return tuple(None if means_recipe(text) else parse_rule(text) for text in self.texts)

    @cached_property
    def _given_max(self) -> int:
        """Largest rank as given."""
        return max(rule.rank if rule and rule.rank else DEFAULT_RANK for rule in self._parsed)

    def _scaled(self, rank: int, max_rank: int) -> int:
        return max(1, rank * max_rank // self._given_max)

    def _texts(self, max_rank: int) -> tuple[str, ...]:
        return tuple(
            str(dataclasses.replace(rule, rank=self._scaled(rule.rank, max_rank))) if rule and rule.rank else text
            for text, rule in zip(self.texts, self._parsed, strict=True)
        )

    def _rules(self, max_rank: int) -> Sequence[Rule]:
        return rules_at(self.model, self._texts(max_rank), self._scaled(DEFAULT_RANK, max_rank))
