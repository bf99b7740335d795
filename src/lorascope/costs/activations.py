"""Bytes that autograd saves of each layer for the backward pass.

Read off what PyTorch saves (`torch.autograd.graph.saved_tensors_hooks`, torch 2.13, transformers 5.23, peft 0.21.2);
`tests/costs` compares these formulas with it. With N tokens in a step, d bytes per element of the model and 4 of an adapter
(PEFT makes adapters float32: `autocast_adapter_dtype`):

- A frozen linear layer saves nothing: the gradient of its input needs its weight alone.
- An adapted one saves its input for A's gradient (N × in × 4: a copy of its own below float32; in float32 without dropout
  one for all layers that read it), the mask of the adapter's dropout (N × in × 1; × 4 on a CPU), and A's product
  (N × rank × 4).
- RMS normalizations of transformers save their input in float32 and a number per token, `LayerNorm` saves it as it is.
- Attention by `scaled_dot_product_attention` saves queries, keys, values, output (d each) and 4 bytes per token and head. With
  a mask, transformers repeats keys and values for all heads (`use_gqa_in_sdpa`), and each layer saves the mask as numbers
  (batch × length² × d). Where a class has no such attention, the scores are saved: heads × N × length × (4 in float32, or
  4 + d).
- A gated feed-forward network saves the gate, the activation's output, and `up` (3 × N × width × d); another one what
  its activation saves.
- Routed experts save the same for each token and active expert, and their output; an adapted parameter
  also saves its whole weight with the adapter added, because PEFT adds before it multiplies (`ParamWrapper`).
- Mixers and linear attention: an estimate, see `_recurrent`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.costs.layers import Layer, Submodule, fan_in_out
from lorascope.costs.training_run import Training
from lorascope.model.types import ModelMap, Module, Weight
from lorascope.packaged import load_json

ADAPTER_WIDTH = 4  # bytes per element of adapters, normalizations and log-sum-exps

# Class of an activation -> tensors of its width that it saves, its input included (transformers/activations.py).
_SAVED_BY = {
    "SiLUActivation": 1,
    "SiLU": 1,
    "GELUActivation": 1,
    "GELUTanh": 1,
    "GELU": 1,
    "ReLU": 1,
    "BloomGelu": 1,
    "ReLUSquaredActivation": 1,
    "QuickGELUActivation": 2,
    "NewGELUActivation": 4,
}
# Without a module it is most often a function of torch; an unknown class may be written out in many steps.
_FUNCTION = 2
_UNKNOWN = 4
# These save their output, so the next layer saves no input of its own.
_SAVES_OUTPUT = ("ReLU",)
_FUSED_QKV = ("qkv", "qkvo", "qkv_gate")


@cache
def _table() -> Mapping[str, Any]:
    table: dict[str, Any] = load_json("training_facts.json")
    return table


@cache
def training_facts() -> Mapping[str, frozenset[str]]:
    """Classes of transformers by fact: see `tools/build_training_facts.py`."""
    return {name: frozenset(keys) for name, keys in _table().items() if name != "kept"}


def measured_share(head: str, model_type: str) -> float | None:
    """Measured saved bytes over those of the formulas.

    None where no small model of the type was trained. A model of text and images gets the share of its text model.
    """
    shares = _table()["kept"]
    for key in (f"{head}/{model_type}", f"causal-lm/{model_type}", f"causal-lm/{model_type}_text"):
        if key in shares:
            return float(shares[key])
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class Adapters:
    """Adapters of a model's layers.

    Attributes:
        ranks: Adapted weight to rank.
        added: Those adapted as parameters: PEFT adds the change to the weight before use.
        drops: The adapters have dropout.
        dora: Magnitudes are trained too.
    """

    ranks: Mapping[str, int]
    added: frozenset[str]
    drops: bool
    dora: bool


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingStep:
    """Facts that all layers of a training step share.

    Attributes:
        model: The map.
        training: Settings of the training.
        adapters: The adapters.
        rotary: Queries and keys are rotated.
        eager: Attention's scores are saved.
        capped: They are capped.
        drops: The model has dropout of its own, by its default configuration.
        relative: Scores get a bias per head and distance (T5), so each layer saves a mask per head.
    """

    model: ModelMap
    training: Training
    adapters: Adapters
    rotary: bool
    eager: bool
    capped: bool
    drops: bool
    relative: bool

    @property
    def scored(self) -> bool:
        """Whether attention's scores are saved.

        They are where its class has no kernel, or its biases need a gradient. T5's biases need one under gradient checkpointing (`position_bias.requires_grad = True`); no kernel gives it.
        """
        return self.eager or (self.relative and self.training.gradient_checkpointing)

    @property
    def mask(self) -> int:
        """Bytes per element of a mask of the model's own dropout."""
        return self.training.width if self.training.device == "cpu" else 1


def saved_activations(layer: Layer, step: TrainingStep, tokens: int, *, first_stage: int = -1) -> dict[str, int]:
    """Bytes that one run of a layer saves, by what saves them.

    Args:
        layer: The layer.
        step: Facts of the step.
        tokens: Tokens that go through it.
        first_stage: First stage of the layer (`Submodule.stage`) that needs a gradient; earlier ones save nothing. -1
            where the layer's own input needs one.
    """
    saved: dict[str, int] = {}

    def add(what: str, size: int) -> None:
        saved[what] = saved.get(what, 0) + size

    for submodule in layer.submodules:
        if submodule.stage < first_stage:
            continue
        for what, size in _saved_by_submodule(submodule, layer, step, tokens):
            add(what, size)
    norms = layer.norms
    if first_stage >= 0:
        norms = _norms_after(layer, first_stage)
    for norm in norms:
        add("normalizations", norm_bytes(norm, tokens * _norm_times(norm, layer), step.training))
    if step.drops:
        add("the model's own dropout", step.mask * tokens * sum(_dropout_widths(layer)))
    return {what: size for what, size in saved.items() if size}


def _norms_after(layer: Layer, stage: int) -> tuple[Module, ...]:
    """The normalizations from the first submodule with a gradient on."""
    own = [norm for norm in layer.norms if "output" not in norm.name]
    inner = [
        norm for norm in own if any(norm.name.startswith(f"{submodule.parent}.") for submodule in layer.submodules)
    ]
    outer = [norm for norm in own if norm not in inner]
    skipped = outer[
        : 1 + sum(1 for submodule in layer.submodules if submodule.block == "attention" and submodule.stage < stage)
    ]
    return tuple(norm for norm in layer.norms if norm not in skipped)


def _norm_times(norm: Module, layer: Layer) -> int:
    """Runs of a normalization per token: several where it is per head."""
    width = norm.parameters[0][1][-1] if norm.parameters[0][1] else 1
    for submodule in layer.submodules:
        if submodule.block != "attention" or not norm.name.startswith(f"{submodule.parent}."):
            continue
        leaf = norm.name.rpartition(".")[2]
        total = _projected_width(submodule, "k" if leaf.startswith("k") and not leaf.startswith("kv") else "q")
        if 0 < width < total and total % width == 0 and not leaf.startswith(("q_a", "kv_a")):
            return total // width
    return 1


def _projected_width(submodule: Submodule, piece: str) -> int:
    """Width of a query or key, over all heads."""
    weights = submodule.weights
    for part in (piece, f"{piece}_b", "q_gate" if piece == "q" else "kv", "qkv"):
        if part in weights:
            return fan_in_out(weights[part])[1] // {"q_gate": 2, "kv": 2, "qkv": 3}.get(part, 1)
    return 0


def norm_bytes(norm: Module, tokens: int, training: Training) -> int:
    """Bytes that a normalization saves.

    Its input, and one or two numbers per token; Gemma's weight too.
    """
    size = norm.parameters[0][1][-1] if norm.parameters[0][1] else 1
    if norm.class_name in ("LayerNorm", "BatchNorm1d", "GroupNorm"):
        return tokens * (size * training.width + 2 * (training.width if training.device == "cpu" else ADAPTER_WIDTH))
    twice = training.width if norm.class_name.startswith("T5") and training.width != ADAPTER_WIDTH else 0
    weight = size * ADAPTER_WIDTH if norm.class_name.startswith("Gemma") else 0
    return tokens * (size * (ADAPTER_WIDTH + twice) + ADAPTER_WIDTH) + weight


def _dropout_widths(layer: Layer) -> Iterator[int]:
    """Width of each dropout's input.

    Dropout within attention drops scores, which the kernel does. Without such modules it is a function, called after
    each attention and network.
    """
    if not layer.dropouts:
        yield from (layer.width for submodule in layer.submodules if submodule.block in ("attention", "ffn"))
    down = next((submodule.weights["down"] for submodule in layer.submodules if "down" in submodule.weights), None)
    for module in layer.dropouts:
        inside = any(
            submodule.block == "attention" and module.name.startswith(f"{submodule.parent}.")
            for submodule in layer.submodules
        )
        if inside and "resid" not in module.name:
            continue
        wide = module.name.endswith(("DenseReluDense.dropout", "activation_dropout"))
        yield fan_in_out(down)[0] if wide and down is not None else layer.width


def _saved_by_submodule(
    submodule: Submodule, layer: Layer, step: TrainingStep, tokens: int
) -> Iterator[tuple[str, int]]:
    if submodule.block == "attention" and submodule.variant == "linear":
        yield from _recurrent(submodule, step, tokens)
    elif submodule.block == "attention":
        yield "attention", _attention(submodule, step, tokens)
    elif submodule.block == "ffn" and submodule.variant == "expert":
        yield from _experts(submodule, step, tokens)
        return
    elif submodule.block == "ffn":
        yield "feed-forward", _network(submodule, tokens) * step.training.width
    elif submodule.block == "router":
        experts = fan_in_out(next(iter(submodule.weights.values())))[1]
        active = step.model.dimensions.active_experts or 1
        yield "routing", tokens * (experts * 4 + active * (8 + 4) + 4)
    elif submodule.block == "mixer":
        yield from _recurrent(submodule, step, tokens)
    else:
        wide = sum(fan_in_out(weight)[1] for weight in submodule.weights.values() if weight.kind != "parameter")
        yield "other weights", tokens * wide * step.training.width
    yield "inputs of adapters", _adapter_inputs(submodule, step, tokens)


def _attention(submodule: Submodule, step: TrainingStep, tokens: int) -> int:
    """Bytes that attention saves: see the module."""
    width, length = step.training.width, step.training.seq_len
    weights = {part: fan_in_out(weight) for part, weight in submodule.weights.items()}
    fused = next((weights[part] for part in _FUSED_QKV if part in weights), None)
    out = weights["o"][0] if "o" in weights else max(output for _, output in weights.values())
    masked = step.training.batch > 1
    eager, scored = step.eager, step.scored
    if "q_b" in weights or "kv_b" in weights:
        query = _projected_width(submodule, "q") or out
        # A CPU has no kernel for values narrower than keys.
        eager = scored = eager or step.training.device == "cpu"
        numbers = 2 * query + (2 * out if eager else weights.get("kv_b", (0, out))[1] + out)
    elif fused is not None:
        shared = max(fused[1] - out, 0)
        apart = fused[1] + out + (out + shared // 2 if step.rotary else 0)
        # With a mask, keys and values are repeated for all heads.
        numbers = 4 * out if masked and shared < 2 * out else apart
    else:
        query = _projected_width(submodule, "q") or out
        key = _projected_width(submodule, "k") or _projected_width(submodule, "q") or out
        value = weights["v"][1] if "v" in weights else key
        repeated = (masked or step.eager) and key < query
        numbers = query + (2 * query if repeated else key + value) + out
    if "q_gate" in weights or "gate" in weights or "qkv_gate" in weights:
        numbers += 2 * out
    heads = _heads(submodule, step, out)
    if eager:
        numbers -= out  # the output, which no product saves
    saved = tokens * numbers * width
    if scored:
        scores = 4 + (width if width != 4 else 0) + (width if step.capped else 0)
        saved += heads * tokens * length * scores
    if eager:
        return saved
    saved += tokens * heads * 4
    if step.relative and (masked or submodule.variant != "cross"):
        sequences = 1 if submodule.variant != "cross" and "decoder" in _stack(submodule) else step.training.batch
        saved += heads * sequences * length * length * width
    elif masked:
        saved += tokens * length * width
    return saved


def _stack(submodule: Submodule) -> str:
    return next(iter(submodule.weights.values())).role.stack


def _heads(submodule: Submodule, step: TrainingStep, out: int) -> int:
    first = next(iter(submodule.weights.values()))
    heads = (
        step.model.dimensions.attention_heads if first.role.component not in ("vision", "audio", "connector") else None
    )
    return heads or max(1, out // 64)


def _network(submodule: Submodule, tokens: int) -> int:
    """Numbers that a feed-forward network saves, without its adapters' inputs."""
    weights = {part: fan_in_out(weight) for part, weight in submodule.weights.items()}
    inner = _inner(submodule)
    activation = _activation(submodule)
    gated = "gate_up" in weights or ("gate" in weights and "up" in weights)
    return tokens * inner * (activation + 2 if gated else activation)


def _inner(submodule: Submodule) -> int:
    weights = {part: fan_in_out(weight) for part, weight in submodule.weights.items()}
    if "down" in weights:
        return weights["down"][0]
    return max(output for _, output in weights.values())


def _activation(submodule: Submodule) -> int:
    known = [_SAVED_BY[name] for name in submodule.classes if name in _SAVED_BY]
    if known:
        return max(known)
    named = any("Activation" in name or name.endswith("GELU") for name in submodule.classes)
    return _UNKNOWN if named else _FUNCTION


def _experts(submodule: Submodule, step: TrainingStep, tokens: int) -> Iterator[tuple[str, int]]:
    """Routed experts: one row per token and active expert (transformers' `grouped_mm`)."""
    width = step.training.width
    dimensions = step.model.dimensions
    rows = tokens * (dimensions.active_experts or dimensions.experts or submodule.copies)
    inner = _inner(submodule)
    hidden = fan_in_out(submodule.weights["down"])[1] if "down" in submodule.weights else inner
    gated = "gate_up" in submodule.weights or "gate" in submodule.weights
    adapted = {part: weight for part, weight in submodule.weights.items() if weight.name in step.adapters.ranks}
    numbers = inner * (_activation(submodule) + 2 if gated else _activation(submodule)) + hidden
    fused = {part for part, weight in submodule.weights.items() if weight.kind == "parameter"}
    if fused & adapted.keys() - {"down"}:
        numbers += hidden
    if "down" in fused & adapted.keys():
        numbers += inner
    offsets = 4 * max((weight.experts for weight in submodule.weights.values()), default=0)
    yield "experts", rows * (numbers * width + 4 + 3 * 8) + offsets
    for part in sorted(fused & adapted.keys()):
        weight = adapted[part]
        rank = step.adapters.ranks[weight.name]
        yield "copies of adapted experts", weight.size * width
        if width != ADAPTER_WIDTH:
            yield "copies of adapted experts", weight.experts * rank * sum(fan_in_out(weight)) * width
    if not fused:
        yield "inputs of adapters", _adapter_inputs(submodule, step, rows)


def _recurrent(submodule: Submodule, step: TrainingStep, tokens: int) -> Iterator[tuple[str, int]]:
    """Rough upper estimate of state spaces, recurrences and linear attention.

    Each weight's output counts four times in float32 (convolution, activation, gate and normalization), its input once. Where a decay per channel and state is a
    parameter (Mamba's `A_log`), transformers' own path, without the kernels of `mamba-ssm`, saves the discrete states
    of all tokens three times; kernels do not.
    """
    numbers = sum(inner + 4 * output for inner, output in map(fan_in_out, submodule.weights.values()))
    yield "mixers", tokens * numbers * ADAPTER_WIDTH
    module = step.model.module_by_name.get(submodule.parent)
    state = (
        next((shape for name, shape in module.parameters if name == "A_log" and len(shape) == 2), None)
        if module
        else None
    )
    if state is not None:
        yield "mixers", 3 * tokens * state[0] * state[1] * ADAPTER_WIDTH


def _adapter_inputs(submodule: Submodule, step: TrainingStep, tokens: int) -> int:
    """Bytes that the adapters of a submodule save: see the module."""
    size, shared = 0, set[int]()
    # `down` reads what the activation saves, unless dropout lies in between.
    activation_saved = submodule.block == "ffn" and bool(submodule.classes & set(_SAVES_OUTPUT))
    activation_saved = activation_saved and not (step.drops and "Dropout" in submodule.classes)
    for part, weight in submodule.weights.items():
        if weight.name not in step.adapters.ranks:
            continue
        inner, output = fan_in_out(weight)
        if weight.name in step.adapters.added:  # its weight with the change added, factors, and what it reads
            size += weight.size * step.training.width
            if part in ("down", "o", "out") or inner not in shared:
                size += tokens * inner * step.training.width
                shared.add(inner)
            if step.training.width != ADAPTER_WIDTH:
                size += step.adapters.ranks[weight.name] * (inner + output) * step.training.width
            continue
        size += tokens * step.adapters.ranks[weight.name] * ADAPTER_WIDTH
        if step.adapters.dora:
            size += 2 * tokens * output * ADAPTER_WIDTH
        if step.adapters.drops:
            masks = ADAPTER_WIDTH if step.training.device == "cpu" else 1
            size += tokens * inner * (ADAPTER_WIDTH + masks)
        elif step.training.width != ADAPTER_WIDTH:
            size += tokens * inner * ADAPTER_WIDTH
        elif part == "o" and _reads_output(submodule, step):
            continue  # attention saved its output
        elif part == "down" and activation_saved:
            continue  # the activation saved it
        elif part in ("down", "o", "out", "q_b", "kv_b"):
            size += tokens * inner * ADAPTER_WIDTH
        elif inner not in shared:
            shared.add(inner)
            size += tokens * inner * ADAPTER_WIDTH
    return size


def _reads_output(submodule: Submodule, step: TrainingStep) -> bool:
    """Whether the output projection reads what attention saves.

    With assembled queries it reads a copy.
    """
    apart = step.rotary and any(part in submodule.weights for part in (*_FUSED_QKV, "q_b", "kv_b"))
    return submodule.block == "attention" and submodule.variant != "linear" and not step.eager and not apart


def saved_outside_layers(weight: Weight, step: TrainingStep, tokens: int) -> int:
    """Bytes that an adapter outside of the layers saves."""
    rank = step.adapters.ranks.get(weight.name)
    if rank is None:
        return 0
    inner = 0 if weight.kind == "embedding" else fan_in_out(weight)[0]
    return tokens * (inner * (ADAPTER_WIDTH + (1 if step.adapters.drops else 0)) + rank * ADAPTER_WIDTH)
