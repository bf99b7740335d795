"""LoraConfig arguments that a trainer can set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import LOADABLE, ModelMap, Weight
from lorascope.names import listed
from lorascope.peft_rules.addresses import as_parameter, peft_name
from lorascope.peft_rules.releases import NEWEST
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.compiler import size_difference
from lorascope.plans.name_forms import module_forms
from lorascope.plans.types import Plan
from lorascope.trainers.protocol import Unsupported

_MOST_NAMED = 4
# Scales that differ by less are one scale.
_CLOSE = 1e-12
LANGUAGE_HEADS = ("causal-lm", "image-text-to-text", "unknown")


@dataclasses.dataclass(frozen=True, slots=True)
class Capabilities:
    """Which arguments of `peft.LoraConfig` a trainer's configuration can set.

    Attributes:
        title: What the trainer calls itself.
        peft: The release of PEFT that it runs with.
        regex: `target_modules` as a regular expression.
        layers: `layers_to_transform`.
        excludes: `exclude_modules`.
        patterns: `rank_pattern` and `alpha_pattern`.
        parameters: `target_parameters`.
        dora: `use_dora`.
        rslora: `use_rslora`.
        biases: The values of `bias` that it can set.
    """

    title: str
    peft: str
    regex: bool = True
    layers: bool = True
    excludes: bool = True
    patterns: bool = True
    parameters: bool = True
    dora: bool = True
    rslora: bool = True
    biases: tuple[str, ...] = ("none", "all", "lora_only")

    def unsupported(self, plan: Plan) -> tuple[Unsupported, ...]:
        """Everything in a plan that these arguments cannot express."""
        parts = tuple(self._missing(plan))
        if parts:
            return parts
        config = expressible_config(plan, self)
        if config is None:
            return (
                Unsupported(
                    "names",
                    f"{self.title} cannot name exactly these weights: either others share their names, or PEFT {self.peft} "
                    "reads the names differently.",
                ),
            )
        if config.bias != "none":
            trained = resolve(plan.model, config, self.peft).trainable
            if trained != plan.resolution.trainable:
                return (
                    Unsupported(
                        "biases",
                        f'With bias="{config.bias}", PEFT {self.peft} would train {trained:,} parameters; the plan has '
                        f"{plan.resolution.trainable:,}.",
                    ),
                )
        return ()

    def _missing(self, plan: Plan) -> Iterator[Unsupported]:
        """Parts of a plan that need a missing argument."""
        config, title = plan.config, self.title
        if not self.patterns and (config.rank_pattern or config.alpha_pattern):
            yield Unsupported("sizes", f"{title} takes one rank and alpha; this plan has {_sizes(plan)}.")
        parameters = [t.weight for t in plan.targets if as_parameter(plan.model, t.weight, self.peft)]
        if not self.parameters and parameters:
            yield Unsupported(
                "weights", f"{title} has no target_parameters, which PEFT needs for {_weights_named(parameters)}."
            )
        if not self.dora and config.use_dora:
            yield Unsupported("variant", f"{title} has no option for DoRA.")
        if not self.rslora and config.use_rslora:
            yield Unsupported("variant", f"{title} has no option for rsLoRA.")
        if config.bias not in self.biases:
            yield _unsupported_bias(plan, title, self.biases)


def expressible_config(plan: Plan, capabilities: Capabilities) -> AdapterConfig | None:
    """A configuration within the capabilities for exactly a plan."""
    for config in _candidates(plan, capabilities):
        if adapts_exactly(plan, resolve(plan.model, config, capabilities.peft), capabilities.peft):
            return config
    return None


def adapts_exactly(plan: Plan, resolution: Resolution, peft: str = NEWEST) -> bool:
    """The resolution has the plan's weights, ranks and alphas."""
    sizes = {peft_name(plan.model, t.weight, peft): (t.rank, t.alpha) for t in plan.targets}
    return resolution.refusal is None and not size_difference(resolution, sizes, peft)


def _candidates(plan: Plan, capabilities: Capabilities) -> Iterator[AdapterConfig]:
    config = plan.config
    plain: dict[str, Any] = {"layers_to_transform": None, "exclude_modules": None, "layers_pattern": None}
    within = (
        (capabilities.regex or not isinstance(config.target_modules, str))
        and (capabilities.layers or config.layers_to_transform is None)
        and (capabilities.excludes or config.exclude_modules is None)
    )
    if within:
        yield config
    modules = {t.weight.name for t in plan.targets if not as_parameter(plan.model, t.weight, capabilities.peft)}
    if len(modules) == len(plan.targets):  # Releases before the rewrite reach as modules what later ones do not.
        plain["target_parameters"] = None
    forms = module_forms(
        plan.model,
        modules,
        layers=capabilities.layers,
        excludes=capabilities.excludes,
        regex=capabilities.regex,
    )
    for form in forms:
        yield dataclasses.replace(config, **{**plain, **form})


def untrained_head(model: ModelMap, title: str, heads: Sequence[str] = LANGUAGE_HEADS) -> Iterator[Unsupported]:
    """The model's head, where the trainer has no training for such models."""
    if model.head not in heads:
        yield Unsupported("model", f"{title} does not train models with the head {model.head} ({model.architecture}).")
    elif model.head == "unknown" and _generates_nothing(model):
        yield Unsupported("model", f"{title} trains models that generate text, which {model.architecture} does not.")


def _generates_nothing(model: ModelMap) -> bool:
    """A class of transformers without generation: of images, of sound, or without a head."""
    return model.source in LOADABLE and model.basis == "code" and not model.prepares_generation


def unequal_sizes(plan: Plan, title: str) -> Iterator[Unsupported]:
    """Differing ranks and scales, for a trainer with one of each."""
    ranks = sorted({adapted.rank for adapted in plan.resolution.adapted})
    scales = sorted({adapted.scale for adapted in plan.resolution.adapted})
    if len(ranks) > 1:
        yield Unsupported("sizes", f"{title} takes one rank; this plan has {', '.join(map(str, ranks))}.")
    if scales[-1] - scales[0] > _CLOSE * scales[-1]:
        shown = ", ".join(f"{scale:g}" for scale in scales)
        yield Unsupported("sizes", f"{title} takes one scale (alpha / rank); this plan has {shown}.")


def untrained_biases(plan: Plan, title: str) -> Iterator[Unsupported]:
    """The plan's biases, for a trainer that trains none."""
    if plan.config.bias != "none":
        yield _unsupported_bias(plan, title, ("none",))


def _unsupported_bias(plan: Plan, title: str, biases: Sequence[str]) -> Unsupported:
    takes = f"takes bias={' or '.join(biases)} only" if len(biases) > 1 else "trains no biases"
    return Unsupported("biases", f'{title} {takes}; this plan has bias="{plan.config.bias}".')


def _sizes(plan: Plan) -> str:
    counts = Counter((target.rank, target.alpha) for target in plan.targets)
    groups = ", ".join(f"{rank}/{alpha:g} on {count} weights" for (rank, alpha), count in counts.items())
    return f"{len(counts)} ({groups})"


def _weights_named(weights: Sequence[Weight]) -> str:
    return f"{len(weights)} weights ({listed((weight.name for weight in weights), _MOST_NAMED)})"
