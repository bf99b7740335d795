"""What a model of the zoo is: how it is built, what it is called with, and what every weight of it does."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import nn

from lorascope.sources.transformers.meta_model import map_module

# Unlike each other, and unlike all their small multiples that models make of them: no shape gives a role away by chance.
HIDDEN, HEADS, HEAD, WIDE, VOCABULARY = 48, 4, 16, 112, 101
INNER = HEADS * HEAD
BATCH, LENGTH = 2, 11


@dataclasses.dataclass(frozen=True)
class Specimen:
    """One model of the zoo.

    Attributes:
        cls: Its class, built without arguments.
        calls: Makes the keyword arguments of one forward pass, with real numbers on the CPU.
        templates: Weight name, with `#` for numbers, to the role's text without its component (`lorascope.model.classify.parse_role` reads
            it with `text.` in front). Of several rows that
            fit a name the one with the fewest `#` counts. A text leaves open what it does not say (`mixer`); `a | b` is right either way; of `a + b` the
            weight does both at once, and whoever says only one of them is wrong.
        meta: Its forward pass runs on the meta device as it is, without anybody's help.
        unreached: Rows of `templates` whose weights the forward pass does not use.
        hostile: What its forward pass does that no tracing can follow; empty for an honest one.
    """

    cls: type[nn.Module]
    calls: Callable[[], dict[str, torch.Tensor]]
    templates: Mapping[str, str]
    meta: bool = True
    unreached: frozenset[str] = frozenset()
    hostile: str = ""

    @property
    def name(self) -> str:
        return self.cls.__name__

    def build(self, device: str = "cpu") -> nn.Module:
        """The model in eval mode, always with the same numbers."""
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.manual_seed(0)
            return self.cls().eval()

    def inputs(self) -> dict[str, torch.Tensor]:
        """The keyword arguments of one forward pass, always the same."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.calls()

    @cached_property
    def roles(self) -> dict[str, str]:
        """Weight name to role, for every weight that a row of `templates` speaks of."""
        return {name: self.templates[row] for name, row in self.rows.items() if row is not None}

    @cached_property
    def rows(self) -> dict[str, str | None]:
        """Weight name to the row of `templates` that speaks of it."""
        patterns = {
            row: re.compile(re.escape(row).replace(r"\#", "[0-9]+"))
            for row in sorted(self.templates, key=lambda row: row.count("#"))
        }
        names = [weight.name for weight in map_module(self.build("meta")).weights]
        return {
            name: next((row for row, pattern in patterns.items() if pattern.fullmatch(name)), None) for name in names
        }


ZOO: dict[str, Specimen] = {}


def tokens(name: str = "tokens") -> Callable[[], dict[str, torch.Tensor]]:
    """Calls with one batch of token ids."""
    return lambda: {name: torch.randint(0, VOCABULARY, (BATCH, LENGTH))}


def specimen(calls: Callable[[], dict[str, torch.Tensor]], templates: Mapping[str, str], **options: Any) -> Any:
    """Enters a class into the zoo; see `Specimen`."""

    def enter(cls: type[nn.Module]) -> type[nn.Module]:
        assert cls.__name__ not in ZOO
        ZOO[cls.__name__] = Specimen(cls, calls, dict(templates), **options)
        return cls

    return enter


def causal(length: int, device: torch.device) -> torch.Tensor:
    """(length, length), true where a query must not look."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
