"""The memory of a training step, from a plan alone: bytes at the step's peak, by part.

A step passes moments that can be its peak, and the largest is it:

- the start of the backward pass: everything that autograd kept, and the loss: for N tokens and V words the log-softmax, its
  gradient and the gradient before it, 3 × N × V numbers in float32 (`transformers.loss.ForCausalLMLoss` makes the logits
  float32; classes that call cross entropy themselves stay in the model's dtype). Capped logits are kept once more;
- the backward pass of each layer: what is kept of it and of the layers before it, its working tensors, and the
  gradients of the layers behind it. With gradient checkpointing one hidden state per layer, and one layer at a time in full;
- the optimizer's step: all gradients, and what the optimizer needs for a moment.

Weights, adapters and the optimizer's states are there throughout. What autograd keeps: `activations`. What is measured beside
it: `benchmarks/memory.py`, `docs/memory.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.costs.activations import (
    ADAPTER_WIDTH,
    Adapters,
    Step,
    measured_share,
    norm_bytes,
    saved_activations,
    saved_outside_layers,
    training_facts,
)
from lorascope.costs.base_weights import BaseWeights, base_weights
from lorascope.costs.layers import Layer, ModelLayers, Submodule, fan_in_out, layer_order, model_layers
from lorascope.costs.optimizer_state import Trained, optimizer_bytes, step_bytes
from lorascope.costs.training_run import OPTIMIZERS, Training
from lorascope.model.types import ModelMap, Weight
from lorascope.peft_rules.state_dict import saved_tensors
from lorascope.plans.arguments import require_kinds, require_plan
from lorascope.plans.types import Plan

# What cuBLAS works in, which torch allocates: 8 MiB on most devices, 32 MiB on Hopper (torch's notes on CUDA semantics,
# CUBLAS_WORKSPACE_CONFIG).
_CUBLAS = 32 * 2**20
# Up to here a small model's share of what is said is taken as explained: masks of a step, labels.
_EXACT = 1.03
PARTS = ("weights", "adapters", "gradients", "optimizer states", "activations", "logits", "workspace")
_TOWERS = ("vision", "audio")
_VOCABULARY_HEADS = ("causal-lm", "image-text-to-text", "seq2seq-lm", "masked-lm", "unknown")


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryPart:
    """One part of the memory.

    Attributes:
        name: See `PARTS`.
        size: Bytes at the peak.
        formula: How they come about, in words with the figures.
    """

    name: str
    size: int
    formula: str


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a training step.

    Attributes:
        parts: All of it, in the order of `PARTS`.
        notes: What is guessed and what is left out.
        moment: The moment of the peak.
    """

    parts: tuple[MemoryPart, ...]
    notes: tuple[str, ...] = ()
    moment: str = ""

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(part.size for part in self.parts)


@dataclasses.dataclass(frozen=True, slots=True)
class _Moment:
    name: str
    gradients: int = 0
    activations: int = 0
    logits: int = 0
    workspace: int = 0

    @property
    def size(self) -> int:
        return self.gradients + self.activations + self.logits + self.workspace


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    """One layer in a step: what it keeps, needs and trains."""

    layer: Layer
    kept: Mapping[str, int]
    boundary: int
    working: int
    trained: int

    @property
    def size(self) -> int:
        return sum(self.kept.values())


def training_memory(plan: Plan, training: Training) -> Memory:
    """The memory that training a plan takes, at the peak of a step (not the first, in which states are made)."""
    require_plan(plan, "training_memory")
    require_kinds("training_memory", training=(training, (Training,), "a Training"))
    return memory_estimate(plan, training).memory()


def memory_estimate(plan: Plan, training: Training, *, corrected: bool = True) -> MemoryEstimate:
    """The same with what it is made of; not `corrected` by what small models of the type kept."""
    return MemoryEstimate(plan, training, corrected=corrected)


class MemoryEstimate:
    """One plan in one training."""

    def __init__(self, plan: Plan, training: Training, *, corrected: bool = True) -> None:
        self.plan = plan
        self.model = plan.model
        self.training = training
        self.share = measured_share(plan.model.head, plan.model.model_type)
        self.correction = self.share if corrected and self.share is not None and self.share > _EXACT else 1.0
        self.body = _body(plan.model)
        config = plan.config
        ranks, added = _ranks(plan)
        key = f"{plan.model.head}/{plan.model.model_type}"
        facts = training_facts()
        self.capped = key in facts["softcap"]
        self.plain_loss = key in facts["plain_loss"]
        eager = key in facts["eager"]
        self.step = Step(
            model=plan.model,
            training=training,
            adapting=Adapters(ranks, added, config.lora_dropout > 0, config.use_dora),
            rotary=self.body.rotary,
            eager=eager,
            capped=self.capped and eager,
            drops=key in facts["dropout"],
            relative=any("relative" in weight.name for weight in self.body.before),
        )
        self.guessed_tokens: set[str] = set()
        self.frozen = _base_weights(plan.model, training)
        self.trained = self._trained()
        self.unpacked = self.frozen.largest_packed * training.width
        self.start, self.first_stage = self._start()
        self.runs = self._runs()

    def memory(self) -> Memory:
        """All parts at the moment of the peak."""
        moments = [self._loss(), *self._backward(), self._optimizer_step()]
        peak = max(moments, key=lambda moment: moment.size)
        numbers = sum(math.prod(shape) for shape, _ in self.trained)
        adapters = sum(math.prod(shape) * ADAPTER_WIDTH for shape, width in self.trained if width == ADAPTER_WIDTH)
        states = optimizer_bytes(self.training.optimizer, self.trained)
        library = _CUBLAS if self.training.device == "cuda" else 0
        formulas = {
            "weights": (self.frozen.size, self._weights_formula()),
            "adapters": (adapters, f"{numbers:,} parameters × 4 bytes (PEFT makes adapters float32)"),
            "gradients": (peak.gradients, _gradients_formula(peak, self._all_gradients())),
            "optimizer states": (states, f"{OPTIMIZERS[self.training.optimizer]} for {numbers:,} parameters"),
            "activations": (peak.activations, self._activations_formula(peak)),
            "logits": (peak.logits, self._logits_formula(peak)),
            "workspace": (peak.workspace + library, _workspace_formula(peak, library)),
        }
        parts = tuple(MemoryPart(name, *formulas[name]) for name in PARTS)
        return Memory(parts, self._notes(peak), peak.name)

    def saved_by_place(self) -> list[tuple[str, Mapping[str, int]]]:
        """What autograd keeps of each layer's run, by the layer's name and by what keeps it."""
        return [(run.layer.place, run.kept) for run in self.runs]

    def saved_before_backward(self) -> int:
        """What autograd keeps in all when the backward pass begins, with the loss's log-softmax and capped logits."""
        numbers = self.training.tokens * self._vocabulary()
        width = (self.training.width if self.plain_loss else 4) + (self.training.width if self.capped else 0)
        return self._kept() + self._outside() + numbers * width

    # What is trained.

    def _trained(self) -> tuple[Trained, ...]:
        tensors = saved_tensors(self.model, self.plan.config, self.plan.resolution).tensors.values()
        return tuple(
            (tensor.shape, self.training.width if tensor.part == "bias" else ADAPTER_WIDTH)
            for tensor in tensors
            if tensor.part != "base"
        )

    def _all_gradients(self) -> int:
        return sum(math.prod(shape) * width for shape, width in self.trained)

    # Which layers run, and from where gradients are needed.

    def _start(self) -> tuple[tuple[int, int, int], int]:
        """The first place that a gradient goes through, and the stage within that layer."""
        weights = self.model.weight_by_name
        adapted = [weights[name] for name in self.step.adapting.ranks if name in weights]
        inner = [layer_order(weight) for weight in adapted if weight.role.block != "head"]
        start = min(inner, default=(99, 0, 0))
        if self.training.gradient_checkpointing:
            # PEFT has the input embeddings' output require a gradient, so that checkpoints get one.
            first = next((_key(layer) for layer in self.body.layers if layer.component not in _TOWERS), start)
            return min(start, (first[0], first[1], -1)), -1
        stages = [
            group.stage
            for layer in self.body.layers
            if _key(layer) == start
            for group in layer.groups
            if any(weight.name in self.step.adapting.ranks for weight in group.weights.values())
        ]
        return start, min(stages, default=-1)

    def _tokens(self, component: str) -> int:
        """Tokens of a step in a component. A tower's are its positions, once per sequence, where a map shows them."""
        if component not in (*_TOWERS, "connector"):
            return self.training.tokens
        towers = _TOWERS if component == "connector" else (component,)
        positions = [
            weight.shape[-2]
            for weight in self.model.weights
            if weight.role.component in towers and weight.role.part == "position" and len(weight.shape) >= 2
        ]
        if not positions:
            self.guessed_tokens.add(component)
            return self.training.tokens
        return self.training.batch * max(positions)

    def _runs(self) -> list[_Run]:
        runs = []
        trained = self._trained_by_layer()
        for layer in self.body.layers:
            tokens = self._tokens(layer.component)
            key = _key(layer)
            kept: Mapping[str, int] = {}
            if key >= self.start:
                kept = saved_activations(
                    layer, self.step, tokens, first_stage=self.first_stage if key == self.start else -1
                )
            if kept and self.correction > 1:
                kept = {**kept, "unexplained": math.ceil(sum(kept.values()) * (self.correction - 1))}
            boundary = tokens * layer.width * self.training.width if key >= self.start else 0
            own = trained.get((layer.component, layer.stack, layer.index), 0)
            run = _Run(layer, kept, boundary, self._working(layer, tokens), own)
            # A shared layer's gradients are there once it has been run the first time in the backward pass.
            runs.extend([dataclasses.replace(run, trained=0)] * (layer.repeats - 1))
            runs.append(run)
        return runs

    def _trained_by_layer(self) -> dict[tuple[str, str, int], int]:
        found: dict[tuple[str, str, int], int] = {}
        for adapted in self.plan.resolution.adapted:
            weight = _weight_of(self.model, adapted.name)
            if weight is not None and weight.layer is not None:
                key = (weight.role.component, weight.role.stack, weight.layer)
                found[key] = found.get(key, 0) + adapted.trainable * ADAPTER_WIDTH
        return found

    def _working(self, layer: Layer, tokens: int) -> int:
        """The tensors that a layer needs for a moment: its largest operation's, and the hidden states' gradients."""
        hidden = 2 * tokens * layer.width * self.training.width
        return hidden + max((self._working_of(group, tokens) for group in layer.groups), default=0) + self.unpacked

    def _working_of(self, group: Submodule, tokens: int) -> int:
        """What one group needs for a moment in the backward pass.

        A gated network: the gradients of the product and of its two factors; any other frozen weight: those of what it
        reads and makes. An adapter in a model that is not in float32: besides two gradients as wide as what it makes, that
        in float32, and scaled. An adapted parameter of experts: the weights' change and that
        scaled, and one more where factors are cast. Kept
        scores: their gradient in float32 before and after the softmax, and once more in the model's dtype.
        """
        width = self.training.width
        rows = tokens
        if group.variant == "expert":
            rows = tokens * (self.model.dimensions.active_experts or self.model.dimensions.experts or group.copies)
        gated = group.block == "ffn" and ("gate_up" in group.weights or "gate" in group.weights)
        most = 0
        for weight in group.weights.values():
            inner, made = fan_in_out(weight)
            adapted = weight.name in self.step.adapting.ranks
            if group.variant == "expert" and weight.kind == "parameter" and adapted:
                most = max(most, (2 if width == ADAPTER_WIDTH else 3) * weight.size * width)
            elif adapted:
                in_float32 = 0 if width == ADAPTER_WIDTH else 2 * ADAPTER_WIDTH
                most = max(most, rows * made * (2 * width + in_float32))
            if group.block in ("attention", "ffn", "mixer"):
                gradients = 3 if gated and weight.role.part == "down" else 2
                most = max(most, gradients * rows * max(inner, made if gradients == 2 else 0) * width)
        if group.block == "attention" and self.step.scored:
            heads = self.model.dimensions.attention_heads or 1
            most = max(most, heads * tokens * self.training.seq_len * (2 * ADAPTER_WIDTH + width))
        return most

    # Moments.

    def _outside(self) -> int:
        """What is kept outside of the layers: behind them, and of adapters before them."""
        tokens = self.training.tokens
        kept = sum(norm_bytes(norm, tokens, self.training) for norm in self.body.norms) if self.runs else 0
        if self.step.drops:
            kept += len(self.body.late_dropouts) * tokens * self._hidden() * self.step.mask
        if self.training.gradient_checkpointing:  # the embeddings' output needs a gradient
            if self.step.relative:  # each stack's biases, which all its layers are called with
                stacks = len({layer.stack for layer in self.body.layers})
                heads = self.model.dimensions.attention_heads or 1
                kept += stacks * heads * tokens * self.training.seq_len * self.training.width
            kept += sum(norm_bytes(norm, tokens, self.training) for norm in self.body.early_norms)
            if self.step.drops:
                kept += len(self.body.early_dropouts) * tokens * self._hidden() * self.step.mask
        for weight in (*self.body.before, *self.body.between, *self.body.head):
            kept += saved_outside_layers(weight, self.step, self._tokens(weight.role.component))
        for weight in self.body.head:
            if weight.role.part == "transform":
                kept += tokens * fan_in_out(weight)[1] * self.training.width
        for weight in self.body.between:
            if layer_order(weight) >= self.start:
                kept += 2 * self._tokens(weight.role.component) * fan_in_out(weight)[1] * self.training.width
        return kept

    def _hidden(self) -> int:
        return max((layer.width for layer in self.body.layers if layer.component not in _TOWERS), default=0)

    def _kept(self) -> int:
        if self.training.gradient_checkpointing:
            return sum(run.boundary for run in self.runs)
        return sum(run.size for run in self.runs)

    def _loss(self) -> _Moment:
        return _Moment("the loss's backward pass", activations=self._kept() + self._outside(), logits=self._logits())

    def _logits(self) -> int:
        numbers = self.training.tokens * self._vocabulary()
        width = self.training.width if self.plain_loss else 4
        return numbers * (3 * width + (self.training.width if self.capped else 0))

    def _vocabulary(self) -> int:
        """How many numbers the head makes of a token."""
        head = self.model.module_by_name.get(self.model.output_embeddings)
        if head is not None and head.parameters and self.model.head in _VOCABULARY_HEADS:
            shape = head.parameters[0][1]
            if len(shape) > 1:  # flattened, it does not tell
                return shape[0]
        made = [fan_in_out(weight)[1] for weight in self.body.head if weight.role.part in ("lm", "classifier")]
        return max(made, default=0)

    def _backward(self) -> Iterable[_Moment]:
        gradients = self._all_gradients() - sum(run.trained for run in self.runs)
        below = self._kept()
        for run in reversed(self.runs):
            kept = below + (run.size if self.training.gradient_checkpointing else 0)
            name = f"the backward pass of {_said(run.layer)}"
            yield _Moment(name, gradients=gradients, activations=kept, workspace=run.working)
            below -= run.boundary if self.training.gradient_checkpointing else run.size
            gradients += run.trained

    def _optimizer_step(self) -> _Moment:
        working = step_bytes(self.training.optimizer, self.trained)
        return _Moment("the optimizer's step", gradients=self._all_gradients(), workspace=working)

    # What is said.

    def _weights_formula(self) -> str:
        width = self.training.width
        plain = f"{self.frozen.plain:,} × {width} bytes ({self.training.dtype})"
        if not self.frozen.packed:
            return plain
        how = self.training.quantization if self.training.quantization != "none" else "the checkpoint's quantization"
        return f"{self.frozen.packed:,} in {how} with their scales, {plain}"

    def _activations_formula(self, peak: _Moment) -> str:
        if not peak.activations:
            return "none at this moment"
        tokens = f"{self.training.batch} × {self.training.seq_len} tokens"
        reached = [run for run in self.runs if run.size]
        if self.training.gradient_checkpointing:
            return (
                f"{tokens}: one hidden state for each of {len(self.runs)} layers, and one layer in full where it is run"
            )
        whole: dict[str, int] = {}
        for run in reached:
            for what, size in run.kept.items():
                whole[what] = whole.get(what, 0) + size
        listed = ", ".join(
            f"{what} {size / 1e6:,.0f} MB" for what, size in sorted(whole.items(), key=lambda at: -at[1])
        )
        return f"{tokens} through {len(reached)} of {len(self.runs)} layers, all together: {listed}"

    def _logits_formula(self, peak: _Moment) -> str:
        if not peak.logits:
            return "none at this moment"
        width = self.training.width if self.plain_loss else 4
        capped = f", and {self.training.width} bytes as they are capped" if self.capped else ""
        return f"{self.training.tokens:,} tokens × {self._vocabulary():,} × 3 × {width} bytes{capped}"

    def _notes(self, peak: _Moment) -> tuple[str, ...]:
        return (*self._left_out(peak), *self._uncertain())

    def _left_out(self, peak: _Moment) -> Iterable[str]:
        missing = self._all_gradients() - peak.gradients
        if missing > 0:
            yield (
                f"with gradient accumulation {missing / 1e6:,.1f} MB of gradients more are there at the peak, from the step before"
            )
        if self.training.device == "cuda":
            yield (
                "the CUDA context and its libraries (some 0.3 to 1 GB, by device) and unused blocks of the allocator come on top; "
                "torch.cuda.max_memory_allocated does not count them"
            )
        yield "counted without autocast, which keeps copies in its own dtype, and with the logits of all tokens"
        if self.frozen.bare_experts and self.training.quantization != "none":
            yield (
                f"{self.frozen.bare_experts:,} weights of experts are fused parameters, which bitsandbytes does not quantize: "
                f"{self.frozen.bare_experts * self.training.width / 1e9:,.1f} GB of the weights"
            )
        if self.training.quantization != "none":
            yield (
                f"peft.prepare_model_for_kbit_training makes what is not quantized float32: "
                f"{self.frozen.plain * (4 - self.training.width) / 1e9:,.1f} GB more"
            )
        if self.training.optimizer.startswith("paged"):
            yield "the optimizer's states are counted, though a paged optimizer moves them to the CPU where memory is short"

    def _uncertain(self) -> Iterable[str]:
        if self.correction > 1:
            yield (
                "what autograd keeps of this architecture is explained in part: a small model of it, without kernels of its own, kept "
                f"{self.correction:.2f} times of what the formulas say, and so much is counted"
            )
        elif self.share is None:
            yield "what autograd keeps of this architecture was not compared with a real model of it"
        copies = sum(run.kept.get("copies of adapted experts", 0) for run in self.runs)
        if copies:
            kept = max(run.kept.get("copies of adapted experts", 0) for run in self.runs)
            yield (
                "PEFT adds an adapter of fused experts to the weights before they are used, so that each step keeps copies of them: "
                f"{copies / 1e9:,.1f} GB, or {kept / 1e9:,.1f} GB with gradient checkpointing"
            )
        if any("mixers" in run.kept for run in self.runs):
            yield "mixers and linear attention are an estimate of lower certainty, meant to lie above the truth"
        if any("other weights" in run.kept for run in self.runs):
            yield "some weights are of no known role: what they make is counted once"
        if self.guessed_tokens:
            yield f"how many tokens go through {', '.join(sorted(self.guessed_tokens))} is unknown: taken as a sequence's"
        if any(layer.stack == "encoder" for layer in self.body.layers) and any(
            layer.stack == "decoder" for layer in self.body.layers
        ):
            yield f"encoder and decoder are both given {self.training.seq_len} tokens"
        if self.step.eager and any("attention" in run.kept for run in self.runs):
            yield "the attention of this class keeps its scores, which grow with the square of the length"
        if self.step.adapting.dora:
            yield "DoRA's working tensors are an estimate of lower certainty"
        if self.frozen.stored_packed:
            yield "weights are counted as the checkpoint stores them"


# What the last model is made of: plans of one model are asked for one after another, by comparisons and budgets.
_last: list[tuple[ModelMap, ModelLayers, dict[tuple[str, str], BaseWeights]]] = []


def _known(model: ModelMap) -> tuple[ModelMap, ModelLayers, dict[tuple[str, str], BaseWeights]]:
    if not _last or _last[0][0] is not model:
        _last[:] = [(model, model_layers(model), {})]
    return _last[0]


def _body(model: ModelMap) -> ModelLayers:
    return _known(model)[1]


def _base_weights(model: ModelMap, training: Training) -> BaseWeights:
    found = _known(model)[2]
    key = (training.dtype, training.quantization)
    if key not in found:
        found[key] = base_weights(model, training)
    return found[key]


def _weight_of(model: ModelMap, adapted: str) -> Weight | None:
    """The weight of an adapted module, or of an adapted parameter of it."""
    found = model.weight_by_name.get(adapted)
    return found or model.weight_by_name.get(adapted.rpartition(".")[0])


def _ranks(plan: Plan) -> tuple[dict[str, int], frozenset[str]]:
    """Adapted weights with their ranks, and those of modules that PEFT adapts as parameters."""
    ranks: dict[str, int] = {}
    added: set[str] = set()
    for adapted in plan.resolution.adapted:
        weight = _weight_of(plan.model, adapted.name)
        if weight is not None:
            ranks[weight.name] = adapted.rank
            if weight.name != adapted.name:
                added.add(weight.name)
    return ranks, frozenset(added)


def _key(layer: Layer) -> tuple[int, int, int]:
    first = next(iter(layer.groups[0].weights.values()))
    return layer_order(first)


def _said(layer: Layer) -> str:
    place = " ".join(word for word in (layer.component if layer.component != "text" else "", layer.stack) if word)
    return f"{place + ' ' if place else ''}layer {layer.index}"


def _workspace_formula(peak: _Moment, library: int) -> str:
    working = f"working tensors of {peak.name}" if peak.workspace else "no working tensors beside the above"
    return working + (f", and {library:,} bytes of cuBLAS" if library else "")


def _gradients_formula(peak: _Moment, everything: int) -> str:
    if not peak.gradients:
        return "none yet at this moment"
    share = "all" if peak.gradients >= everything else "some"
    return f"{share} of {everything:,} bytes, one for each trainable parameter, of its dtype"
