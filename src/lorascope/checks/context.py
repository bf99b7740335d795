"""One configuration on one model: what every rule looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.entries import TargetEntries, match_entries
from lorascope.checks.saved_labels import SavedLabels
from lorascope.checks.setting_syntax import SettingSyntax
from lorascope.checks.suggestions import MOST_SPELLED
from lorascope.model.types import ModelMap, Weight
from lorascope.names import count_endings
from lorascope.peft_rules.addresses import peft_name, weight_of
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.matchers import parameter_names
from lorascope.peft_rules.releases import NEWEST, Release, release_of
from lorascope.peft_rules.replication import replicated
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.name_forms import shortest_endings
from lorascope.plans.rules import own_components
from lorascope.sources.checkpoint.types import Tensor

if TYPE_CHECKING:
    from lorascope.checks.tensor_comparison import TensorComparison


@dataclasses.dataclass(frozen=True)
class CheckContext:
    """A configuration, the model, and what PEFT does with them.

    Attributes:
        model: The map.
        config: The configuration as PEFT is given it.
        resolution: What PEFT does with it.
        where: The file that it stands in, for messages.
        peft: The release of PEFT whose rules were applied; empty for the newest.
        given: Every key of `adapter_config.json`, also those that `config` does not hold.
        tensors: The tensors of the adapter's file by name; None where none were read.
        targets: The target entries, where they are not those of `config`.
        resolved: `resolution` is what PEFT's rules make of `config`; a trainer may have changed more.
        syntax: How the checked tool writes its settings.
        expanded: The targets are a trainer's own expansion of `all`: no user wrote the names.
        labels: The labels of the saved head, where the base model has another number; the map is one with them.
    """

    model: ModelMap
    config: AdapterConfig
    resolution: Resolution
    where: str = "adapter configuration"
    peft: str = ""
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tensors: Mapping[str, Tensor] | None = None
    targets: TargetEntries | None = None
    resolved: bool = False
    syntax: SettingSyntax = SettingSyntax()
    expanded: bool = False
    labels: SavedLabels | None = None

    @cached_property
    def entries(self) -> TargetEntries:
        """The entries of the targets, each with what it matches."""
        return self.targets or match_entries(self.model, self.config, self.release)

    @cached_property
    def adapted_weights(self) -> tuple[Weight, ...]:
        """The adapted weights, in the map's order."""
        names = {weight.name for one in self.resolution.adapted if (weight := weight_of(self.model, one.name))}
        return tuple(weight for weight in self.model.weights if weight.name in names)

    @cached_property
    def sizes(self) -> dict[str, tuple[int, float]]:
        """Rank and alpha of every adapted weight, by PEFT's name for it."""
        return adapted_sizes(self.resolution)

    @cached_property
    def main_components(self) -> frozenset[str]:
        """The components of the model itself, without towers and connectors."""
        return own_components(self.model)

    @property
    def release_name(self) -> str:
        """The release of PEFT whose rules apply: `0.21.2`."""
        return self.peft or NEWEST

    @property
    def release(self) -> Release:
        """The same, to compare."""
        return release_of(self.release_name)

    @cached_property
    def module_names(self) -> tuple[str, ...]:
        """The names of all modules."""
        return tuple(module.name for module in self.model.modules)

    @cached_property
    def parameter_names(self) -> tuple[str, ...]:
        """The names of all parameters."""
        return tuple(name for _, name, _ in parameter_names(self.model))

    @cached_property
    def comparison(self) -> TensorComparison | None:
        """The file next to what PEFT would save; None if either is missing."""
        if self.tensors is None or self.refusal:
            return None
        from lorascope.checks.tensor_comparison import TensorComparison  # with what reads tables of names

        return TensorComparison(self.model, self.config, self.resolution, self.release_name, self.tensors)

    @property
    def refusal(self) -> Diagnostic | None:
        """Why PEFT raises; None if it does not."""
        return self.resolution.refusal

    def refused_as(self, code: str) -> bool:
        """PEFT raises, for a reason of this code."""
        return self.resolution.refused_as(code)

    def warnings_of(self, *codes: str) -> tuple[Diagnostic, ...]:
        """What PEFT warns about or does silently, of some codes."""
        return self.resolution.warnings_of(*codes)

    @cached_property
    def own_resolution(self) -> Resolution:
        """What PEFT makes of `config`."""
        return self.resolution if self.resolved else self.resolve_with()

    @property
    def is_of_peft(self) -> bool:
        """PEFT adapts these weights, not a trainer by rules of its own."""
        return adapted_sizes(self.own_resolution).keys() == self.sizes.keys()

    @cached_property
    def without_rewrite(self) -> Resolution:
        """What PEFT would do without its rewrite for fused experts."""
        plain = dataclasses.replace(self.model, moe_conversion="")
        return resolve(plain, self.config, self.release_name)

    def trainable_of(self, weights: Iterable[Weight]) -> int:
        """The trainable parameters of some weights."""
        names = {peft_name(self.model, weight) for weight in weights}
        return sum(adapted.trainable for adapted in self.resolution.adapted if adapted.name in names)

    def resolve_with(self, **changes: Any) -> Resolution:
        """What PEFT does with the configuration after some changes."""
        return resolve(self.model, dataclasses.replace(self.config, **changes), self.release_name)

    def setting(self, key: str, value: Any) -> str:
        """A setting to paste, in the checked tool's own keys."""
        return self.syntax.write(key, value)

    def parameters_setting(self, names: Iterable[str]) -> str:
        """The setting that adapts parameters, and the dropout that they need."""
        return f"{self.setting('target_parameters', list(names))} with {self.setting('lora_dropout', 0)}"

    def without_entries(self) -> CheckContext:
        """The same result, of targets that are not PEFT's."""
        return dataclasses.replace(self, targets=TargetEntries("none"))

    def module_entries(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """The fewest list entries for exactly these modules; empty if there are none without numbers."""
        return _short(shortest_endings(sorted(wanted), self.model.module_endings, numbers=False))

    def parameter_entries(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """The same for parameters."""
        return _short(shortest_endings(sorted(wanted), self._parameter_endings, numbers=False))

    @cached_property
    def _parameter_endings(self) -> Counter[str]:
        roots = [name for name, _ in self.model.root_parameters]
        return self.model.parameter_endings + count_endings(roots) if roots else self.model.parameter_endings


def on_replicated_layers(context: CheckContext) -> CheckContext:
    """The same check on the model that `layer_replication` builds."""
    replicas = replicated(context.model, context.config.layer_replication)
    if not replicas.layers:
        return context
    config = dataclasses.replace(context.config, layer_replication=None)
    return dataclasses.replace(context, model=replicas.model, config=config)


def adapted_sizes(resolution: Resolution) -> dict[str, tuple[int, float]]:
    """Rank and alpha of every adapted weight."""
    return {adapted.name: (adapted.rank, adapted.alpha) for adapted in resolution.adapted}


def _short(entries: tuple[str, ...] | None) -> tuple[str, ...]:
    return entries if entries and len(entries) <= MOST_SPELLED else ()
