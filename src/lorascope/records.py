"""The glossary as frozen values: what a model, a plan and an adapter configuration are made of.

Nothing here reads, computes a policy or talks; the two methods that print and the one that hands over to PEFT call the
rooms above when they are called. Shapes are in the order of `torch.nn.Linear.weight`:
`(out_features, in_features)`, with `experts` in front for a fused expert weight.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from peft import LoraConfig

Head = Literal["causal-lm", "image-text-to-text", "seq2seq-lm", "masked-lm", "sequence-classification", "unknown"]

# code: kinds and names are those of the model's classes. names: they rest on the names and shapes of a checkpoint.
Basis = Literal["code", "names"]

# linear: nn.Linear and subclasses. conv1d: transformers' Conv1D, a linear layer that stores (in, out).
# conv: nn.Conv1d/2d/3d. parameter: a bare nn.Parameter of a module that is none of the others.
Kind = Literal["linear", "conv1d", "embedding", "conv", "multihead_attention", "parameter"]

# parametrized: torch.nn.utils.parametrize is at work on it. uncopyable: it holds a tensor of a computation, which deepcopy
# refuses. untrainable-bias: its attribute `bias` is neither a parameter nor None, such as the flag of an nn.GRU.
Trait = Literal["parametrized", "uncopyable", "untrainable-bias"]

# Sources whose maps are called by a folder or Hub id, from which the model can be loaded.
LOADABLE = ("config", "headers")

# How much a finding matters, see `Finding`.
Severity = Literal["error", "warning", "note"]

# What came of tracing one weight. ambiguous: a self-check refused the role; unexecuted: no call reached it.
Status = Literal["executed", "ambiguous", "unexecuted"]

# What its role rests on. high: name and dataflow agree; medium: only one of them says it; low: they contradict each other,
# or there is nothing but a guess from an unknown name.
Confidence = Literal["high", "medium", "low"]


@dataclasses.dataclass(frozen=True, slots=True)
class Role:
    """What a weight does, as five facts. Empty strings are facts that the weight does not have."""

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
        quantisation: How a checkpoint stores its parameters (`fp8`, `gptq 4 bit`); empty for plain numbers.
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
    quantisation: str = ""
    computed: tuple[tuple[str, tuple[int, ...]], ...] = ()
    traits: tuple[Trait, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Weight:
    """One matrix that LoRA could adapt (or a stack of them, one per expert).

    Attributes:
        name: The module's name, or `module.parameter` for a bare parameter: the name that PEFT matches.
        module: Name of the module that owns it.
        kind: See `Kind`.
        shape: `(out, in)`, or `(experts, out, in)`.
        role: What it does.
        layer: Its layer within its component and stack, from 0, or None outside of layers.
        guess: The role is a guess from an unknown name.
        quantisation: How a checkpoint stores it; empty for plain numbers. Shapes are those without it.
    """

    name: str
    module: str
    kind: Kind
    shape: tuple[int, ...]
    role: Role
    layer: int | None = None
    guess: bool = False
    quantisation: str = ""

    @property
    def size(self) -> int:
        """Number of scalars in the base weight."""
        return math.prod(self.shape)

    @property
    def experts(self) -> int:
        """Number of matrices stacked in it: 1, or the experts of a fused weight."""
        return self.shape[0] if len(self.shape) == 3 else 1


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """What a forward pass shows of one weight, beside what its name says.

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
class Figures:
    """The model's own numbers, from its (text) configuration. None where the configuration has no such thing."""

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
    """All weights of a model with their roles, and what PEFT's rules need to know of the rest.

    Attributes:
        model: What the user called it.
        model_type: `config.model_type`; empty for a module that has no configuration.
        architecture: The model's class.
        head: Which of transformers' heads it has.
        source: Where the map comes from (`gallery`, `config`, `module`, …).
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
        notes: What must be said about the map itself.
        basis: What every weight's kind and name rest on, see `Basis`.
        unexplained: Tensors of the checkpoint that the model has no place for.
        traces: What a forward pass shows of the weights, in their order and at most one for each; empty if none was made.
            The weights' roles are then those of names and dataflow together.
    """

    model: str
    model_type: str
    architecture: str
    head: Head
    source: str
    versions: Mapping[str, str]
    figures: Figures
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
    traces: tuple[Trace, ...] = ()

    def __str__(self) -> str:
        from lorascope.reporting.terminal import map_text

        return map_text(self)

    @cached_property
    def weight_by_name(self) -> Mapping[str, Weight]:
        """Weight name to weight."""
        return {weight.name: weight for weight in self.weights}

    @cached_property
    def module_by_name(self) -> Mapping[str, Module]:
        """Module name to module."""
        return {module.name: module for module in self.modules}


@dataclasses.dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The keyword arguments of `peft.LoraConfig` that decide what is adapted and how much it costs.

    Field names and defaults are PEFT's. `target_modules` as a string is one regular expression (or `all-linear`),
    as a tuple a list of names. Patterns keep their order, because PEFT takes the first key that matches.
    """

    target_modules: str | tuple[str, ...] | None = None
    target_parameters: tuple[str, ...] | None = None
    r: int = 8
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    bias: str = "none"
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    fan_in_fan_out: bool = False
    rank_pattern: Mapping[str, int] = dataclasses.field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = dataclasses.field(default_factory=dict)
    exclude_modules: str | tuple[str, ...] | None = None
    layers_to_transform: int | tuple[int, ...] | None = None
    layers_pattern: str | tuple[str, ...] | None = None
    modules_to_save: tuple[str, ...] | None = None
    task_type: str | None = None
    init_lora_weights: bool | str | None = True
    inference_mode: bool = False
    trainable_token_indices: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None
    ensure_weight_tying: bool = False
    alora_invocation_tokens: tuple[int, ...] | None = None
    use_qalora: bool = False
    qalora_group_size: int = 16
    use_bdlora: Mapping[str, Any] | None = None
    velora_config: Mapping[str, Any] | None = None
    kasa_config: Mapping[str, Any] | None = None
    arrow_config: Mapping[str, Any] | None = None
    monteclora_config: Mapping[str, Any] | None = None
    loftq_config: Mapping[str, Any] | None = None
    eva_config: Mapping[str, Any] | None = None
    corda_config: Mapping[str, Any] | None = None
    lora_ga_config: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Adapted:
    """One weight that PEFT adapts under a configuration, as PEFT would do it.

    Attributes:
        name: Module name, or `module.parameter` for a target parameter.
        rank: Its rank (per expert for a fused weight).
        alpha: Its alpha.
        scale: What the product BA is multiplied by: alpha / rank, or alpha / sqrt(rank) with rsLoRA.
        trainable: Parameters that train for it: none under `inference_mode`, and not what an option freezes.
    """

    name: str
    rank: int
    alpha: float
    scale: float
    trainable: int


@dataclasses.dataclass(frozen=True, slots=True)
class Behaviour:
    """Something that PEFT does silently or only warns about, and that the owner of a configuration should know.

    Attributes:
        code: The code of the finding that it makes, see `Finding`.
        message: What PEFT does.
        names: The entries, keys or modules that it does it with.
    """

    code: str
    message: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message


@dataclasses.dataclass(frozen=True, slots=True)
class Resolution:
    """What PEFT does with a configuration on a model.

    Attributes:
        adapted: The adapted weights, sorted by name. Empty if PEFT refuses.
        trainable: All trainable parameters, with biases and saved modules.
        saved: Modules that are copied and trained in full (`modules_to_save`).
        error: Why PEFT raises, in its sense if not in its words; empty if it does not.
        cause: The code of the finding that an error makes, where it is of a known kind; see `Finding`.
        warnings: What PEFT warns about or does silently and the user should know.
    """

    adapted: tuple[Adapted, ...] = ()
    trainable: int = 0
    saved: tuple[str, ...] = ()
    error: str = ""
    cause: str = ""
    warnings: tuple[Behaviour, ...] = ()


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
        from lorascope.reporting.terminal import plan_text

        return plan_text(self)

    def to_peft(self) -> LoraConfig:
        """The plan as a `peft.LoraConfig`. Needs peft."""
        from lorascope.verifying import to_peft

        return to_peft(self.config)


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check has to say.

    Attributes:
        code: Which kind of finding it is; stable.
        severity: `error` (training fails or trains nothing there), `warning` (it does something else than most people
            mean by it), or `note` (worth knowing, and no reason to stop).
        where: The file or the weights.
        message: What is so.
        fix: What to do.
    """

    code: str
    severity: Severity
    where: str
    message: str
    fix: str


# Whether something works. depends: it does for some releases, models or flags, and the reason says for which.
Verdict = Literal["yes", "no", "depends"]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One question about serving an adapter, answered.

    Attributes:
        question: What is asked: `rank`, `targets`, `experts`, `options`, …
        answer: See `Verdict`.
        reason: Why, with the releases, weights and flags that it turns on.
        source: What the answer rests on: the server's release and file.
    """

    question: str
    answer: Verdict
    reason: str
    source: str


@dataclasses.dataclass(frozen=True, slots=True)
class Serving:
    """What a server does with an adapter.

    Attributes:
        server: `vllm` or `sglang`.
        release: The release whose rules were applied.
        answer: The worst of the answers.
        answers: Every question, in the order of their weight.
        flags: With which the server must be started, `--max-lora-rank 16` among them.
    """

    server: str
    release: str
    answer: Verdict
    answers: tuple[Answer, ...]
    flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """What an adapter, a list of names or a trainer's configuration does on a model, and the findings.

    Attributes:
        model: The map.
        subject: What was checked, as messages call it.
        config: What PEFT is given; None where a trainer does not use PEFT.
        resolution: The adapted weights, and what they cost.
        findings: What there is to say, errors first.
        trainer: The trainer whose configuration it is, with its release; empty for PEFT itself.
        peft: The release of PEFT whose rules were applied; empty where a trainer does not use PEFT.
        serving: What a server does with it, if that was asked.
    """

    model: ModelMap
    subject: str
    config: AdapterConfig | None
    resolution: Resolution
    findings: tuple[Finding, ...]
    trainer: str = ""
    peft: str = ""
    serving: Serving | None = None

    def __str__(self) -> str:
        from lorascope.reporting.checks import check_text

        return check_text(self)

    @property
    def matters(self) -> bool:
        """Some finding is more than a note: the exit code of `check` is 1."""
        return any(finding.severity != "note" for finding in self.findings)
