"""A plan and its parts: rules, options, targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap, Weight
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.types import Adapted, AdapterConfig, Resolution
from lorascope.texts import text_of

if TYPE_CHECKING:
    from peft import LoraConfig


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One line of a plan: weights, layers, rank and alpha.

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
class Options:
    """Settings of a whole plan.

    Attributes:
        recipe: Names of the recipes that the rules come from, joined by `+`; set by the planner.
        rank: Rank of rules that name none.
        alpha: Alpha of rules that name none, the same for every rank; None where `scale` decides. The default is 16.
        scale: Effective scale of every weight whatever its rank; None where `alpha` decides.
        dropout: Dropout on the adapters' inputs. None stands for 0.05, or 0 where PEFT cannot apply any; a plan has the
            number.
        bias: Which biases are trained: `none`, `all` or `lora_only`.
        rslora: Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA, arXiv 2312.03732).
        dora: Train a magnitude per output too (DoRA, arXiv 2402.09353).
        layers: Layers of rules that name none.
        exclude: Selectors whose weights are taken out at the end.
    """

    recipe: str = ""
    rank: int = 8
    alpha: float | None = None
    scale: float | None = None
    dropout: float | None = None
    bias: str = "none"
    rslora: bool = False
    dora: bool = False
    layers: str = ""
    exclude: tuple[Rule, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """The rank and alpha that a rule gives a weight.

    Attributes:
        weight: What is to be adapted.
        rank: Its rank, per expert where several are stacked in it.
        alpha: Its alpha.
        rule: Index of the rule, in `Plan.rules`.
    """

    weight: Weight
    rank: int
    alpha: float
    rule: int


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """An assignment, with the adapter that PEFT makes of it.

    Attributes:
        weight: What is adapted.
        rank: Its rank, per expert where several are stacked in it.
        alpha: Its alpha.
        rule: Index of the rule that chose it, in `Plan.rules`.
        adapted: PEFT's name for it, its scale and its trainable parameters.
    """

    weight: Weight
    rank: int
    alpha: float
    rule: int
    adapted: Adapted

    @property
    def as_parameter(self) -> bool:
        """PEFT adapts it through `target_parameters`."""
        return self.weight.kind == "parameter" or self.adapted.name != self.weight.name


@dataclasses.dataclass(frozen=True, slots=True)
class LeftOut:
    """Weights of a planned block that the plan leaves out.

    Attributes:
        block: The block; with its component, unless that is the language model.
        weights: The weights, in the map's order.
        parameters: Their parameters.
        share: Their part of the block's parameters, from 0 to 1.
    """

    block: str
    weights: tuple[Weight, ...]
    parameters: int
    share: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """The targets of a model, their configuration, and notes on both.

    Attributes:
        model: The map that it was made for.
        rules: The rules, in order; a later one wins, weight by weight.
        options: Settings of the whole plan.
        targets: What is adapted, in the map's order.
        config: The adapter configuration that adapts exactly the targets.
        resolution: What PEFT does with that configuration.
        releases: The supported releases of PEFT that take it, oldest first.
        unreachable: Weights that the rules select and PEFT cannot adapt, with the reason.
        left_out: Weights of the planned blocks that are not planned, block by block.
        notes: Side effects, omissions and costs, the most consequential first.
    """

    model: ModelMap
    rules: tuple[Rule, ...]
    options: Options
    targets: tuple[Target, ...]
    config: AdapterConfig
    resolution: Resolution
    releases: tuple[str, ...]
    unreachable: tuple[tuple[Weight, Diagnostic], ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[Diagnostic, ...] = ()

    def __str__(self) -> str:
        return text_of(self)

    def to_peft(self) -> LoraConfig:
        """The plan as a `peft.LoraConfig`. Needs peft. Warns if the map does not show the whole model."""
        from lorascope.peft_rules.lora_config import to_peft
        from lorascope.plans.map_gaps import warn_of_gaps

        warn_of_gaps(self.model)
        return to_peft(self.config)
