"""Values of a model map.

Shapes are in the order of `torch.nn.Linear.weight`: `(out_features, in_features)`, with `experts` in front for a fused
expert weight.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.names import count_endings
from lorascope.texts import text_of

Head = Literal["causal-lm", "image-text-to-text", "seq2seq-lm", "masked-lm", "sequence-classification", "unknown"]


# code: kinds and names are those of the model's classes. names: they rest on the names and shapes of a checkpoint.
Basis = Literal["code", "names"]


# linear: nn.Linear and subclasses. conv1d: transformers' Conv1D, a linear layer that stores (in, out).
# conv: nn.Conv1d/2d/3d. parameter: a bare nn.Parameter of a module that is none of the others.
Kind = Literal["linear", "conv1d", "embedding", "conv", "multihead_attention", "parameter"]


# parametrized: torch.nn.utils.parametrize is at work on it. uncopyable: it holds a tensor of a computation, which deepcopy
# refuses. untrainable-bias: its attribute `bias` is neither a parameter nor None, such as the flag of an nn.GRU. uncalled: a
# traced forward pass read its weight and never called it.
Trait = Literal["parametrized", "uncopyable", "untrainable-bias", "uncalled"]


# Sources whose maps are called by a folder or Hub id, from which the model can be loaded.
LOADABLE = ("config", "headers")


# What came of tracing one weight. ambiguous: a self-check refused the role; unexecuted: no call reached it.
Status = Literal["executed", "ambiguous", "unexecuted"]


# What its role rests on. high: name and dataflow agree; medium: only one of them says it; low: they contradict each other,
# or there is nothing but a guess from an unknown name.
Confidence = Literal["high", "medium", "low"]


@dataclasses.dataclass(frozen=True, slots=True)
class Role:
    """A weight's role: five facts, empty where it has none."""

    component: str = "text"
    stack: str = ""
    block: str = "other"
    variant: str = ""
    part: str = ""

    def __str__(self) -> str:
        return ".".join(fact for fact in (self.component, self.stack, self.block, self.variant, self.part) if fact)


@dataclasses.dataclass(frozen=True, slots=True)
class Module:
    """One entry of `named_modules()`.

    Attributes:
        name: Dotted name, relative to the model; the root module is the empty string and is not listed.
        class_name: Its Python class.
        kind: What PEFT would see in it by `isinstance`: a `Kind`, or `other` for everything that PEFT refuses.
        parameters: Its own parameters (not those of its children): name to stored shape, in order.
        groups: Convolution groups, 1 for everything else.
        transposed: The module says (`is_transposed`) that its 3-D parameters are stored (experts, in, out).
        quantization: How a checkpoint stores its parameters (`fp8`, `gptq 4 bit`); empty for plain numbers.
        computed: Tensors that it works out of its parameters (weight normalization, pruning), name to shape; and its
            weight where the class's own numbers of features say another shape than the stored one.
        traits: What else matters to PEFT of a module at hand, see `Trait`.
    """

    name: str
    class_name: str
    kind: str
    parameters: tuple[tuple[str, tuple[int, ...]], ...] = ()
    groups: int = 1
    transposed: bool = False
    quantization: str = ""
    computed: tuple[tuple[str, tuple[int, ...]], ...] = ()
    traits: tuple[Trait, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Weight:
    """A matrix that LoRA could adapt, or a stack of experts.

    Attributes:
        name: The module's name, or `module.parameter` for a bare parameter: the name that PEFT matches.
        module: Name of the module that owns it.
        kind: See `Kind`.
        shape: `(out, in)`, or `(experts, out, in)`.
        role: What it does.
        layer: Its layer within its component and stack, from 0, or None outside of layers.
        guess: The role is a guess from an unknown name.
        quantization: How a checkpoint stores it; empty for plain numbers. Shapes are those without it.
    """

    name: str
    module: str
    kind: Kind
    shape: tuple[int, ...]
    role: Role
    layer: int | None = None
    guess: bool = False
    quantization: str = ""

    @property
    def size(self) -> int:
        """Number of scalars in the base weight."""
        return math.prod(self.shape)

    @property
    def experts(self) -> int:
        """Number of stacked matrices: 1, or the experts."""
        return self.shape[0] if len(self.shape) == 3 else 1


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """The role by dataflow of one weight, compared with its name.

    Attributes:
        weight: `Weight.name`.
        named: The role by its name.
        guess: That one is a guess.
        flow: The role by dataflow; None unless status is `executed`. Facts that dataflow leaves open are empty.
        status: See `Status`.
        evidence: One sentence on what was seen, such as "its output is what an attention's softmax weighs".
        confidence: See `Confidence`.
        disagrees: Name and dataflow contradict each other.
    """

    weight: str
    named: Role
    guess: bool
    flow: Role | None
    status: Status
    evidence: str
    confidence: Confidence
    disagrees: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Dimensions:
    """Dimensions of the (text) model; None where it has no such thing."""

    hidden_size: int | None = None
    intermediate_size: int | None = None
    layers: int | None = None
    attention_heads: int | None = None
    key_value_heads: int | None = None
    experts: int | None = None
    active_experts: int | None = None
    parameters: int = 0


@dataclasses.dataclass(frozen=True)
class ModelMap:
    """All weights of a model with their roles, and what PEFT needs.

    Attributes:
        model: What the user called it.
        model_type: `config.model_type`; empty for a module that has no configuration.
        architecture: The model's class.
        head: Which of transformers' heads it has.
        source: Where the map comes from (`built-in`, `config`, `module`, …).
        versions: Library name to version that built it.
        figures: The model's own numbers.
        modules: Every module in `named_modules()` order, without the root.
        root_parameters: The root module's own parameters, which PEFT cannot adapt.
        weights: The weights, in module order.
        ties: Groups of parameter names that share one tensor.
        moe_conversion: The transformers pattern (`mixtral`, `qwen2_moe`) by which PEFT rewrites a configuration for
            this model type, or empty.
        input_embeddings: Name of the module that `get_input_embeddings()` returns; empty where it has none.
        output_embeddings: The same for `get_output_embeddings()`.
        prepares_generation: The class has `prepare_inputs_for_generation`, which PEFT's CAUSAL_LM and SEQ_2_SEQ_LM
            wrappers need.
        refusal: Why PEFT cannot wrap this model at all, or empty.
        notes: Notes on the map itself.
        basis: What every weight's kind and name rest on, see `Basis`.
        unexplained: Tensors of the checkpoint that the model has no place for.
        missing: What the model's class has and the checkpoint does not: parameters, and `name.*` for whole modules.
        traces: What a forward pass shows of the weights, in their order and at most one for each; empty if none was made.
            The weights' roles are then those of names and dataflow together.
    """

    model: str
    model_type: str
    architecture: str
    head: Head
    source: str
    versions: Mapping[str, str]
    dimensions: Dimensions
    modules: tuple[Module, ...]
    weights: tuple[Weight, ...]
    root_parameters: tuple[tuple[str, tuple[int, ...]], ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
    moe_conversion: str = ""
    input_embeddings: str = ""
    output_embeddings: str = ""
    prepares_generation: bool = True
    refusal: str = ""
    notes: tuple[str, ...] = ()
    basis: Basis = "code"
    unexplained: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    traces: tuple[Trace, ...] = ()

    def __str__(self) -> str:
        return text_of(self)

    @cached_property
    def weight_by_name(self) -> Mapping[str, Weight]:
        """Weight name to weight."""
        return {weight.name: weight for weight in self.weights}

    @cached_property
    def module_by_name(self) -> Mapping[str, Module]:
        """Module name to module."""
        return {module.name: module for module in self.modules}

    @cached_property
    def module_endings(self) -> Counter[str]:
        """Number of modules whose names have each dotted ending."""
        return count_endings(module.name for module in self.modules)

    @cached_property
    def parameter_endings(self) -> Counter[str]:
        """Number of modules' parameters whose names have each dotted ending."""
        return count_endings(f"{module.name}.{name}" for module in self.modules for name, _ in module.parameters)
