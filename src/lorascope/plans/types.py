"""A plan and what it is made of: rules, options and targets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from lorascope.model.types import ModelMap, Weight
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.texts import text_of

if TYPE_CHECKING:
    from peft import LoraConfig


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One line of a plan: which weights, in which layers, at what rank and alpha.

    Attributes:
        facts: Alternatives per fact, all of which must hold: `attention.q,v` is `(("attention",), ("q", "v"))`.
        layers: Layer numbers and slices as the user wrote them (`-8:`, `0,3`), or empty for all layers.
        rank: The rank, or None for the plan's default.
        alpha: The alpha, or None for the plan's policy.
    """

    facts: tuple[tuple[str, ...], ...]
    layers: str = ""
    rank: int | None = None
    alpha: float | None = None

    def __str__(self) -> str:
        size = "" if self.rank is None else f"={self.rank}"
        # Digits rather than an exponent: what the rule language reads back.
        alpha = "" if self.alpha is None else "/" + f"{self.alpha:.9f}".rstrip("0").rstrip(".")
        return self.selector + size + alpha

    @property
    def selector(self) -> str:
        """The rule without its rank and alpha."""
        return ".".join(",".join(values) for values in self.facts) + (f"[{self.layers}]" if self.layers else "")


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A weight with the rank (per expert) and alpha that a plan gives it.

    Attributes:
        weight: What is adapted.
        rank: Its rank.
        alpha: Its alpha.
        rule: Index of the rule that chose it, in `Plan.rules`.
    """

    weight: Weight
    rank: int
    alpha: float
    rule: int


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What holds for a plan as a whole.

    Attributes:
        recipe: Name of the recipe that the rules come from, or empty.
        rank: Rank of rules that name none.
        alpha: The alpha of rules that name none, the same for every rank; None where `scale` decides.
        scale: The effective scale that every weight gets whatever its rank; None where `alpha` decides.
        dropout: Dropout on the adapters' inputs.
        bias: Which biases are trained: `none`, `all` or `lora_only`.
        rslora: Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA, arXiv 2312.03732).
        dora: Train a magnitude per output beside the product (DoRA, arXiv 2402.09353).
        layers: Layers of rules that name none.
        exclude: Selectors whose weights are taken out at the end.
    """

    recipe: str = ""
    rank: int = 8
    alpha: float | None = 16
    scale: float | None = None
    dropout: float = 0.05
    bias: str = "none"
    rslora: bool = False
    dora: bool = False
    layers: str = ""
    exclude: tuple[Rule, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """The targets of a model, the rules that chose them, and what must be said about them.

    Attributes:
        model: The map that it was made for.
        rules: The rules, in order; a later one wins, weight by weight.
        options: What holds for all of it.
        targets: What is adapted, in the map's order.
        config: The adapter configuration that adapts exactly them.
        resolution: What PEFT does with that configuration.
        unreachable: Weights that the rules select and PEFT cannot adapt, with the reason.
        notes: What else the reader should know.
    """

    model: ModelMap
    rules: tuple[Rule, ...]
    options: Options
    targets: tuple[Target, ...]
    config: AdapterConfig
    resolution: Resolution
    unreachable: tuple[tuple[Weight, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return text_of(self)

    def to_peft(self) -> LoraConfig:
        """The plan as a `peft.LoraConfig`. Needs peft."""
        from lorascope.peft_rules.lora_config import to_peft

        return to_peft(self.config)
