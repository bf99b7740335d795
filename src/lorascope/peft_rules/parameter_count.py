"""Counts of trainable parameters, in scalars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.model.types import ModelMap, Module
from lorascope.peft_rules import initializations, reasons, variants
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.matchers import parameter_names
from lorascope.peft_rules.releases import Release
from lorascope.peft_rules.types import AdapterConfig

Shape = tuple[int, ...]


class UncountableError(LorascopeError):
    """A module without readable features, such as one with a parametrized weight.

    Args:
        diagnostic: Why.
    """

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(str(diagnostic))
        self.diagnostic = diagnostic


def stored_shape(module: Module, parameter: str) -> Shape | None:
    """The stored shape of a module's own parameter, or None."""
    return next((shape for name, shape in module.parameters if name == parameter), None)


def read_shape(module: Module, parameter: str) -> Shape | None:
    """The shape as PEFT reads it: computed, else stored, else None."""
    return next((shape for name, shape in module.computed if name == parameter), None) or stored_shape(
        module, parameter
    )


def in_and_out(module: Module) -> tuple[int, int]:
    """In and out features of an adaptable module.

    Raises:
        UncountableError: The module's kind is not one of those, or its weight is not to be seen.
    """
    weight = read_shape(module, "in_proj_weight" if module.kind == "multihead_attention" else "weight")
    if weight is None:
        raise UncountableError(reasons.NO_WEIGHT.about(module=module.name))
    if module.kind == "linear" or module.kind == "multihead_attention":
        return weight[1], weight[0]
    if module.kind in ("conv1d", "embedding"):  # Conv1D stores (in, out), an embedding (tokens, width).
        return weight[0], weight[1]
    if module.kind == "conv":
        return weight[1] * module.groups, weight[0]
    raise UncountableError(reasons.UNCOUNTABLE.about(class_name=module.class_name))


@dataclasses.dataclass(frozen=True, slots=True)
class Factors:
    """What PEFT makes for one module.

    Attributes:
        down: The shape of A.
        up: The shape of B.
        up_bias: Scalars of the bias on B.
        magnitude: Scalars of DoRA's magnitude.
        others: Scalars that a variant adds.
        up_trains: B is not frozen.
        inner_down: The shape of A of the output projection within a MultiheadAttention; empty for everything else.
        inner_up: That of its B.
    """

    down: Shape
    up: Shape
    up_bias: int = 0
    magnitude: int = 0
    others: int = 0
    up_trains: bool = True
    inner_down: Shape = ()
    inner_up: Shape = ()

    @property
    def trainable(self) -> int:
        """Scalars that train."""
        inner = math.prod(self.inner_down) + math.prod(self.inner_up) if self.inner_down else 0
        up = math.prod(self.up) if self.up_trains else 0
        return math.prod(self.down) + up + self.up_bias + self.magnitude + self.others + inner

    @property
    def largest(self) -> int:
        """Scalars of the largest tensor."""
        return max(math.prod(self.down), math.prod(self.up))


def module_factors(module: Module, rank: int, config: AdapterConfig, release: Release) -> Factors:
    """The factors of an adapter on a module.

    A convolution's A is a full convolution whatever its groups, its B a 1x1 one with the groups of the layer. A
    `MultiheadAttention` gets an adapter on its fused input projection and another on its output projection, always
    both.
    """
    inner, outer = in_and_out(module)
    bias = outer if config.lora_bias else 0
    magnitude = outer if config.use_dora else 0
    up_trains = not initializations.freezes_up(config, release)
    if module.kind == "conv":
        kernel = (read_shape(module, "weight") or ())[2:]
        up = (outer, rank // module.groups, *(1,) * len(kernel))
        return Factors((rank, inner, *kernel), up, bias, magnitude)
    if module.kind == "multihead_attention":
        bias += inner if config.lora_bias else 0
        return Factors((rank, inner), (outer, rank), bias, inner_down=(rank, inner), inner_up=(inner, rank))
    if module.kind == "embedding":
        return Factors((rank, inner), (outer, rank), 0, magnitude, up_trains=up_trains)
    method = initializations.method_of(config.init_lora_weights, release)
    kept = initializations.kept_rank(method, rank, (inner, outer))
    down, up = (kept, inner), (outer, kept)
    if initializations.swaps_sides(method, module):
        down, up = (kept, outer), (inner, kept)
    side, blocks = variants.blocks_of(config, module)
    if side == "a":
        down = (rank, inner // blocks)
    elif side == "b":
        up = (outer, rank // blocks)
    return Factors(down, up, bias, magnitude, variants.extra_count(config, module, rank), up_trains)


def swaps_factors(release: Release) -> bool:
    """The release reads every 3-D parameter as (experts, in, out).

    From 0.19 on it is (experts, out, in) unless the module says `is_transposed` (PEFT, tuners/lora/layer.py,
    `ParamWrapper`). Saved by 0.18.1, an adapter of Mixtral's experts does not load in 0.21.2, nor the other way round.
    """
    return release < (0, 19)


def parameter_factors(shape: Shape, rank: int, owner: Module, config: AdapterConfig, release: Release) -> Factors:
    """The factors on a 2-D or 3-D parameter, with the rank per expert.

    Initializations that need a weight take that of the module around, whatever the parameter is.
    """
    *experts, outer, inner = shape
    if experts and (owner.transposed or swaps_factors(release)):
        inner, outer = outer, inner
    ranks = rank * (experts[0] if experts else 1)
    method = initializations.method_of(config.init_lora_weights, release)
    if method == "orthogonal":
        ranks = rank  # of one expert alone
    if method in ("pissa", "olora"):
        outer, inner = (read_shape(owner, "weight") or (outer, inner))[-2:]
        ranks = min(rank, outer, inner)
    return Factors((ranks, inner), (outer, ranks))


class Tensors:
    """The model's tensors, each tied one counted once."""

    def __init__(self, model: ModelMap) -> None:
        self._first = {name: group[0] for group in model.ties for name in group}
        self._sizes: dict[str, int] = {}
        self._owned: dict[str, list[str]] = {}
        for owner, name, shape in parameter_names(model):
            first = self.first(name)
            self._sizes.setdefault(first, math.prod(shape))
            self._owned.setdefault(owner, []).append(first)
        self._modules = tuple(module.name for module in model.modules)

    def first(self, name: str) -> str:
        """The first name of a tensor."""
        return self._first.get(name, name)

    def of(self, module: str) -> list[str]:
        """The tensors that a module itself owns."""
        return self._owned.get(module, [])

    def below(self, modules: Iterable[str]) -> Mapping[str, set[str]]:
        """The tensors of each module and all below."""
        tensors_of: dict[str, set[str]] = {module: set() for module in modules}
        for name in self._modules if tensors_of else ():
            tensors = self._owned.get(name)
            if not tensors:
                continue
            above = name
            while above:
                if above in tensors_of:
                    tensors_of[above].update(tensors)
                above = above.rpartition(".")[0]
        return tensors_of

    def size(self, tensors: Iterable[str]) -> int:
        """Number of scalars in some tensors, each counted once."""
        return sum(self._sizes[tensor] for tensor in set(tensors))


def may_train_base(model: ModelMap, config: AdapterConfig, release: Release) -> bool:
    """A cheap test: False if `trained_biases` would find nothing."""
    if config.bias != "none":
        return True
    return release < (0, 21) and any("lora_" in name for _, name, _ in parameter_names(model))


def trained_biases(
    model: ModelMap, config: AdapterConfig, adapted: Iterable[str], tensors: Tensors, release: Release
) -> set[str]:
    """The base model's tensors that `bias` trains, by first name.

    Args:
        model: The map of the model.
        config: The configuration.
        adapted: The modules that carry an adapter, of their own or of one of their parameters. The output projection
            of an adapted MultiheadAttention is one of them.
        tensors: The model's tensors.
        release: PEFT's release.
    """
    names: set[str] = set()
    if release < (0, 21):
        # Up to 0.20 everything called "lora_" counts as an adapter and stays as trainable as it was.
        names |= {first for _, name, _ in parameter_names(model) if "lora_" in (first := tensors.first(name))}
    if config.bias == "none":
        return names
    if config.bias == "all":
        for _, name, _ in parameter_names(model):
            first = tensors.first(name)
            # Up to 0.20 any name with "bias" in it counts: in_proj_bias, gate_up_proj_bias, relative_attention_bias.
            if "bias" in first if release < (0, 21) else first == "bias" or first.endswith(".bias"):
                names.add(first)
        return names
    for name in adapted:
        if stored_shape(model.module_by_name[name], "bias") is not None:
            names.add(tensors.first(f"{name}.bias"))
    return names
