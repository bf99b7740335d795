"""One configuration on one model, as everything that looks for findings is given it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap, Weight
from lorascope.names import listed
from lorascope.peft_rules.addresses import weight_of
from lorascope.peft_rules.types import AdapterConfig, Resolution
from lorascope.plans.rules import own_components

# So many folded names stand in a finding; the resolution has them all.
_MOST_NAMED = 6


@dataclasses.dataclass(frozen=True)
class Case:
    """A configuration, the model, and what PEFT does with the one on the other.

    Attributes:
        model: The map.
        config: The configuration as PEFT is given it.
        resolution: What PEFT does with it.
        where: The file that it stands in, for messages.
        peft: The release of PEFT whose rules were applied.
        given: Every key of `adapter_config.json`, those included that `config` does not hold.
    """

    model: ModelMap
    config: AdapterConfig
    resolution: Resolution
    where: str = "adapter configuration"
    peft: str = ""
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @cached_property
    def hit(self) -> tuple[Weight, ...]:
        """The weights that are adapted, in the map's order."""
        names = {weight.name for one in self.resolution.adapted if (weight := weight_of(self.model, one.name))}
        return tuple(weight for weight in self.model.weights if weight.name in names)

    @cached_property
    def own(self) -> frozenset[str]:
        """The components that are the model itself, without towers and connectors."""
        return own_components(self.model)


def places(weights: Iterable[Weight]) -> str:
    """The names of weights, folded and not too many."""
    return listed((weight.name for weight in weights), _MOST_NAMED)
