"""Recipes and rules compared on one model: what each adapts and costs."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.costs.adapter_file import adapter_file_size
from lorascope.costs.memory import Memory, training_memory
from lorascope.costs.training_run import Training
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap
from lorascope.plans.arguments import require_kinds, require_map, require_texts
from lorascope.plans.planner import DEFAULT_RANK, parse_exclusions, plan_with, raise_all
from lorascope.plans.recipes import RECIPES
from lorascope.plans.rules import MAIN_BLOCKS, covered_blocks
from lorascope.plans.types import Options, Plan
from lorascope.texts import text_of


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One recipe or set of rules in a comparison.

    Attributes:
        name: The recipe, or the rules.
        plan: Its plan; None where PEFT or the rules refuse it.
        refusal: Why there is no plan, or empty.
        file_size: Bytes of the saved adapter.
        memory: Memory of the training.
        coverage: Block (`attention`, `ffn`, `mixer`) to the adapted share of its parameters, from 0 to 1; only blocks
            that the model has.
    """

    name: str
    plan: Plan | None
    refusal: str = ""
    file_size: int = 0
    memory: Memory | None = None
    coverage: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Recipes and rules compared on one model.

    Attributes:
        model: The map.
        training: Settings of the training, the same for all.
        candidates: In the order given.
    """

    model: ModelMap
    training: Training
    candidates: tuple[Candidate, ...]

    def __str__(self) -> str:
        return text_of(self)


def compare(
    model: ModelMap,
    *rules: str | Sequence[str],
    training: Training | None = None,
    rank: int = DEFAULT_RANK,
    alpha: float | None = None,
    scale: float | None = None,
    dropout: float | None = None,
    bias: str = "none",
    rslora: bool = False,
    dora: bool = False,
    layers: str = "",
    exclude: str | Sequence[str] = (),
) -> Comparison:
    """Compare what recipes or rules adapt, and their cost.

    Args:
        model: The map.
        rules: A recipe, a rule, or a text of several rules for each plan; every recipe if there is none.
        training: Settings of the training; the defaults of `Training` if not given.
        rank: As in `plan`, and so are all that follow.
        alpha: One alpha for every weight.
        scale: Instead of alpha: one scale for every weight.
        dropout: Dropout on the adapters' inputs.
        bias: Biases to train.
        rslora: Scale by alpha / sqrt(rank).
        dora: Train a magnitude per output too.
        layers: Layers of rules that name none.
        exclude: Selectors whose weights are taken out.

    Raises:
        LorascopeError: Nothing can be planned, with all reasons. Where some can, the others have a refusal instead of a
            plan.
    """
    require_map(model, "compare")
    for text in rules:
        require_texts("compare", "rules", text)
    require_kinds("compare", training=(training, (Training, type(None)), "a Training"))
    require_texts("compare", "exclude", exclude)
    faults: list[LorascopeError] = []
    excluded = parse_exclusions(exclude, faults)
    raise_all(faults)
    options = Options("", rank, alpha, scale, dropout, bias, rslora, dora, layers, excluded)
    settings = training or Training()
    texts = [tuple(text.split()) if isinstance(text, str) else tuple(text) for text in rules]
    texts = texts or [(name,) for name in RECIPES]
    candidates = tuple(_candidate(model, words, settings, options) for words in texts)
    if all(candidate.plan is None for candidate in candidates):
        reasons = list(dict.fromkeys(f"{candidate.name}: {candidate.refusal}" for candidate in candidates))
        raise LorascopeError(*reasons, where=f"compare {model.model}")
    return Comparison(model, settings, candidates)


def _candidate(model: ModelMap, rules: tuple[str, ...], training: Training, options: Options) -> Candidate:
    name = " ".join(rules)
    try:
        drafted = plan_with(model, rules, options)
    except LorascopeError as error:
        return Candidate(name, None, "; ".join(error.faults))
    return Candidate(
        name=name,
        plan=drafted,
        file_size=adapter_file_size(drafted, training.dtype),
        memory=training_memory(drafted, training),
        coverage=_coverage(drafted),
    )


def _coverage(plan: Plan) -> tuple[tuple[str, float], ...]:
    blocks = covered_blocks(plan.model, {target.weight.name for target in plan.targets})
    return tuple((block, blocks[block][0] / blocks[block][1]) for block in MAIN_BLOCKS if blocks.get(block, (0, 0))[1])
