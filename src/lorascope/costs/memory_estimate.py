"""Bytes at each moment of a training step.

A step passes moments that can be its peak:

- the start of the backward pass: everything that autograd saved, and the loss. For N tokens and V words that is the
  log-softmax, its gradient and the gradient before it, 3 × N × V numbers in float32 (`transformers.loss.ForCausalLMLoss`
  makes the logits float32; classes that call cross entropy themselves stay in the model's dtype). Capped logits are saved
  once more;
- the backward pass of each layer: what is saved of it and of the layers before it, its temporary tensors, and the
  gradients of the layers behind it. With gradient checkpointing one hidden state per layer, and one layer at a time in full;
- the optimizer's step: all gradients, and the optimizer's temporary tensors.

Weights, adapters and the optimizer's states are there throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property

from lorascope import light_dataclasses as dataclasses
from lorascope.costs.activations import (
    ADAPTER_WIDTH,
    Adapters,
    TrainingStep,
    measured_share,
    norm_bytes,
    saved_activations,
    saved_outside_layers,
    training_facts,
)
from lorascope.costs.adapter_tensors import adapter_tensors
from lorascope.costs.base_weights import BaseWeights, base_weights
from lorascope.costs.layers import Layer, ModelLayers, Submodule, fan_in_out, layer_order, model_layers
from lorascope.costs.optimizer_state import TrainedTensor, step_bytes
from lorascope.costs.training_run import Training
from lorascope.model.types import ModelMap, Weight
from lorascope.plans.types import Plan

# Up to this share, small differences to the formulas are ignored: masks of a step, labels.
_EXACT = 1.03
_TOWERS = ("vision", "audio")
_VOCABULARY_HEADS = ("causal-lm", "image-text-to-text", "seq2seq-lm", "masked-lm", "unknown")


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """Bytes at one moment of a step, without what is there throughout."""

    name: str
    gradients: int = 0
    activations: int = 0
    logits: int = 0
    workspace: int = 0

    @property
    def size(self) -> int:
        """All of them."""
        return self.gradients + self.activations + self.logits + self.workspace


@dataclasses.dataclass(frozen=True, slots=True)
class LayerRun:
    """One run of a layer in a step.

    Attributes:
        layer: The layer.
        saved: Bytes that autograd saves, by what saves them.
        boundary: Bytes of its hidden states.
        working: Bytes of its temporary tensors.
        trained: Bytes of its gradients.
    """

    layer: Layer
    saved: Mapping[str, int]
    boundary: int
    working: int
    trained: int

    @property
    def size(self) -> int:
        """Bytes that autograd saves."""
        return sum(self.saved.values())


class MemoryEstimate:
    """Memory of one plan in one training.

    Args:
        plan: The plan.
        training: Settings of the training.
        corrected: Scale activations by what a small model of the type saved.
    """

    def __init__(self, plan: Plan, training: Training, *, corrected: bool = True) -> None:
        self.plan = plan
        self.model = plan.model
        self.training = training
        self.share = measured_share(plan.model.head, plan.model.model_type)
        self.correction = self.share if corrected and self.share is not None and self.share > _EXACT else 1.0
        self.layers = _layers_of(plan.model)
        config = plan.config
        ranks, added = _ranks(plan)
        key = f"{plan.model.head}/{plan.model.model_type}"
        facts = training_facts()
        self.capped = key in facts["softcap"]
        self.plain_loss = key in facts["plain_loss"]
        eager = key in facts["eager"]
        self.step = TrainingStep(
            model=plan.model,
            training=training,
            adapters=Adapters(ranks, added, config.lora_dropout > 0, config.use_dora),
            rotary=self.layers.rotary,
            eager=eager,
            capped=self.capped and eager,
            drops=key in facts["dropout"],
            relative=any("relative" in weight.name for weight in self.layers.before),
        )
        self.guessed_tokens: set[str] = set()
        self.base = _base_of(plan.model, training)
        self.trained = self._trained_tensors()
        self.unpacked = self.base.largest_packed * training.width
        self.start, self.first_stage = self._start()
        self.runs = self._runs()

    def moments(self) -> list[Moment]:
        """Every moment that can be the peak."""
        return [self._loss(), *self._backward(), self._optimizer_step()]

    def saved_by_place(self) -> list[tuple[str, Mapping[str, int]]]:
        """Bytes that autograd saves, by layer and by what saves them."""
        return [(run.layer.place, run.saved) for run in self.runs]

    def saved_before_backward(self) -> int:
        """Bytes saved when the backward pass begins, log-softmax and capped logits included."""
        numbers = self.training.tokens * self.vocabulary()
        width = (self.training.width if self.plain_loss else 4) + (self.training.width if self.capped else 0)
        return self._saved() + self._outside() + numbers * width

    # Trained tensors.

    def _trained_tensors(self) -> tuple[TrainedTensor, ...]:
        return tuple(
            (tensor.shape, self.training.width if tensor.part == "bias" else ADAPTER_WIDTH)
            for tensor in adapter_tensors(self.plan)
            if tensor.part != "base"
        )

    @cached_property
    def all_gradients(self) -> int:
        """Bytes of the gradients of all trained tensors."""
        return sum(math.prod(shape) * width for shape, width in self.trained)

    # Layers that run, and the first that needs gradients.

    def _start(self) -> tuple[tuple[int, int, int], int]:
        """First layer that needs gradients, and the stage within it."""
        weights = self.model.weight_by_name
        adapted = [weights[name] for name in self.step.adapters.ranks if name in weights]
        inner = [layer_order(weight) for weight in adapted if weight.role.block != "head"]
        start = min(inner, default=(99, 0, 0))
        if self.training.gradient_checkpointing:
            # PEFT makes the output of the input embeddings require a gradient, for the checkpoints.
            first = next((_key(layer) for layer in self.layers.layers if layer.component not in _TOWERS), start)
            return min(start, (first[0], first[1], -1)), -1
        stages = [
            submodule.stage
            for layer in self.layers.layers
            if _key(layer) == start
            for submodule in layer.submodules
            if any(weight.name in self.step.adapters.ranks for weight in submodule.weights.values())
        ]
        return start, min(stages, default=-1)

    def _tokens(self, component: str) -> int:
        """Tokens per step through a component.

        A tower gets its positions once per sequence, where the map shows them.
        """
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

    def _runs(self) -> list[LayerRun]:
        runs = []
        trained = self._trained_by_layer()
        for layer in self.layers.layers:
            tokens = self._tokens(layer.component)
            key = _key(layer)
            saved: Mapping[str, int] = {}
            if key >= self.start:
                saved = saved_activations(
                    layer, self.step, tokens, first_stage=self.first_stage if key == self.start else -1
                )
            if saved and self.correction > 1:
                saved = {**saved, "unexplained": math.ceil(sum(saved.values()) * (self.correction - 1))}
            boundary = tokens * layer.width * self.training.width if key >= self.start else 0
            own = trained.get((layer.component, layer.stack, layer.index), 0)
            run = LayerRun(layer, saved, boundary, self._working(layer, tokens), own)
            # Gradients of a shared layer exist after its first run in the backward pass.
            runs.extend([dataclasses.replace(run, trained=0)] * (layer.repeats - 1))
            runs.append(run)
        return runs

    def _trained_by_layer(self) -> dict[tuple[str, str, int], int]:
        sizes: dict[tuple[str, str, int], int] = {}
        for adapted in self.plan.resolution.adapted:
            weight = _weight_of(self.model, adapted.name)
            if weight is not None and weight.layer is not None:
                key = (weight.role.component, weight.role.stack, weight.layer)
                sizes[key] = sizes.get(key, 0) + adapted.trainable * ADAPTER_WIDTH
        return sizes

    def _working(self, layer: Layer, tokens: int) -> int:
        """Bytes of a layer's temporary tensors, gradients of its hidden states included."""
        hidden = 2 * tokens * layer.width * self.training.width
        return (
            hidden
            + max((self._working_of(submodule, tokens) for submodule in layer.submodules), default=0)
            + self.unpacked
        )

    def _working_of(self, submodule: Submodule, tokens: int) -> int:
        """Bytes of a submodule's temporary tensors in the backward pass.

        - Gated network: gradients of the product and of its two factors. Other frozen weights: gradients of input and
          output.
        - Adapter in a model that is not in float32: two gradients of its output, the output in float32, and that scaled.
        - Adapted parameter of experts: the change of the weights, that scaled, and one more where factors are cast.
        - Saved scores: their gradient in float32 before and after the softmax, and once more in the model's dtype.
        """
        width = self.training.width
        rows = tokens
        if submodule.variant == "expert":
            rows = tokens * (self.model.dimensions.active_experts or self.model.dimensions.experts or submodule.copies)
        gated = submodule.block == "ffn" and ("gate_up" in submodule.weights or "gate" in submodule.weights)
        most = 0
        for weight in submodule.weights.values():
            inner, output = fan_in_out(weight)
            adapted = weight.name in self.step.adapters.ranks
            if submodule.variant == "expert" and weight.kind == "parameter" and adapted:
                most = max(most, (2 if width == ADAPTER_WIDTH else 3) * weight.size * width)
            elif adapted:
                in_float32 = 0 if width == ADAPTER_WIDTH else 2 * ADAPTER_WIDTH
                most = max(most, rows * output * (2 * width + in_float32))
            if submodule.block in ("attention", "ffn", "mixer"):
                gradients = 3 if gated and weight.role.part == "down" else 2
                most = max(most, gradients * rows * max(inner, output if gradients == 2 else 0) * width)
        if submodule.block == "attention" and self.step.scored:
            heads = self.model.dimensions.attention_heads or 1
            most = max(most, heads * tokens * self.training.seq_len * (2 * ADAPTER_WIDTH + width))
        return most

    # Moments.

    def _outside(self) -> int:
        """Bytes saved after the layers, and by adapters before them."""
        tokens = self.training.tokens
        saved = sum(norm_bytes(norm, tokens, self.training) for norm in self.layers.norms) if self.runs else 0
        if self.step.drops:
            saved += len(self.layers.late_dropouts) * tokens * self._hidden() * self.step.mask
        if self.training.gradient_checkpointing:  # the embeddings' output needs a gradient
            if self.step.relative:  # biases of each stack, shared by its layers
                stacks = len({layer.stack for layer in self.layers.layers})
                heads = self.model.dimensions.attention_heads or 1
                saved += stacks * heads * tokens * self.training.seq_len * self.training.width
            saved += sum(norm_bytes(norm, tokens, self.training) for norm in self.layers.early_norms)
            if self.step.drops:
                saved += len(self.layers.early_dropouts) * tokens * self._hidden() * self.step.mask
        for weight in (*self.layers.before, *self.layers.between, *self.layers.head):
            saved += saved_outside_layers(weight, self.step, self._tokens(weight.role.component))
        for weight in self.layers.head:
            if weight.role.part == "transform":
                saved += tokens * fan_in_out(weight)[1] * self.training.width
        for weight in self.layers.between:
            if layer_order(weight) >= self.start:
                saved += 2 * self._tokens(weight.role.component) * fan_in_out(weight)[1] * self.training.width
        return saved

    def _hidden(self) -> int:
        return max((layer.width for layer in self.layers.layers if layer.component not in _TOWERS), default=0)

    def _saved(self) -> int:
        if self.training.gradient_checkpointing:
            return sum(run.boundary for run in self.runs)
        return sum(run.size for run in self.runs)

    def _loss(self) -> Moment:
        return Moment("the loss's backward pass", activations=self._saved() + self._outside(), logits=self._logits())

    def _logits(self) -> int:
        numbers = self.training.tokens * self.vocabulary()
        width = self.training.width if self.plain_loss else 4
        return numbers * (3 * width + (self.training.width if self.capped else 0))

    def vocabulary(self) -> int:
        """Numbers that the head outputs per token."""
        head = self.model.module_by_name.get(self.model.output_embeddings)
        if head is not None and head.parameters and self.model.head in _VOCABULARY_HEADS:
            shape = head.parameters[0][1]
            if len(shape) > 1:  # not flattened
                return shape[0]
        outputs = [fan_in_out(weight)[1] for weight in self.layers.head if weight.role.part in ("lm", "classifier")]
        return max(outputs, default=0)

    def _backward(self) -> Iterable[Moment]:
        gradients = self.all_gradients - sum(run.trained for run in self.runs)
        below = self._saved()
        for run in reversed(self.runs):
            saved = below + (run.size if self.training.gradient_checkpointing else 0)
            name = f"the backward pass of {_name(run.layer)}"
            yield Moment(name, gradients=gradients, activations=saved, workspace=run.working)
            below -= run.boundary if self.training.gradient_checkpointing else run.size
            gradients += run.trained

    def _optimizer_step(self) -> Moment:
        working = step_bytes(self.training.optimizer, self.trained)
        return Moment("the optimizer's step", gradients=self.all_gradients, workspace=working)


# Parts of the last model: comparisons and budgets need them for many plans of one model.
_last: list[tuple[ModelMap, ModelLayers, dict[tuple[str, str], BaseWeights]]] = []


def _shared(model: ModelMap) -> tuple[ModelMap, ModelLayers, dict[tuple[str, str], BaseWeights]]:
    if not _last or _last[0][0] is not model:
        _last[:] = [(model, model_layers(model), {})]
    return _last[0]


def _layers_of(model: ModelMap) -> ModelLayers:
    return _shared(model)[1]


def _base_of(model: ModelMap, training: Training) -> BaseWeights:
    known = _shared(model)[2]
    key = (training.dtype, training.quantization)
    if key not in known:
        known[key] = base_weights(model, training)
    return known[key]


def _weight_of(model: ModelMap, adapted: str) -> Weight | None:
    """Weight of an adapted module, or of its adapted parameter."""
    weight = model.weight_by_name.get(adapted)
    return weight or model.weight_by_name.get(adapted.rpartition(".")[0])


def _ranks(plan: Plan) -> tuple[dict[str, int], frozenset[str]]:
    """Rank by adapted weight, and the weights that PEFT adapts as parameters."""
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
    first = next(iter(layer.submodules[0].weights.values()))
    return layer_order(first)


def _name(layer: Layer) -> str:
    place = " ".join(word for word in (layer.component if layer.component != "text" else "", layer.stack) if word)
    return f"{place + ' ' if place else ''}layer {layer.index}"
