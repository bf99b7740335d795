"""What autograd keeps of a layer from the forward pass for the backward pass, in bytes.

Read off what PyTorch saves (`torch.autograd.graph.saved_tensors_hooks`, torch 2.13, transformers 5.23, peft 0.21.2), which is
what `tests/costing` compare these formulas with. With N tokens in a step, d bytes of a number of the model and 4 bytes of one of
an adapter (PEFT makes adapters float32: `autocast_adapter_dtype`):

- A frozen linear layer keeps nothing: the gradient of its input needs its weight alone.
- An adapted one keeps its input for A's gradient (N × in × 4: a copy of its own where the model is not in float32, one for all
  that read the same where it is and nothing is dropped), the mask of the adapter's dropout (N × in × 1; × 4 on a CPU), and A's
  product (N × rank × 4).
- RMS normalizations of transformers keep their input in float32 and a number per token, `LayerNorm` keeps it as it is.
- Attention by `scaled_dot_product_attention` keeps queries, keys, values, output (d each) and 4 bytes per token and head. With
  a mask, transformers repeats keys and values for all heads (`use_gqa_in_sdpa`), and each layer keeps the mask as numbers
  (batch × length² × d). Where a class has no such attention, the scores are kept: heads × N × length × (4 in float32, or
  4 + d).
- A gated feed-forward network keeps the gate, what the activation makes of it, and `up` (3 × N × width × d); another one what
  its activation keeps.
- Routed experts keep the same for each token and each expert that it goes to, and what they make of it; an adapted parameter
  also keeps its whole weight with the adapter added, because PEFT adds before it multiplies (`ParamWrapper`).
- Mixers and linear attention: an estimate, see `_recurrent`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.costs.layers import Layer, Submodule, fan_in_out
from lorascope.costs.training_run import Training
from lorascope.model.types import ModelMap, Module, Weight

ADAPTER_WIDTH = 4  # bytes of a number of an adapter, of normalizations and of log-sum-exps
_FACTS = Path(__file__).parent.parent / "data" / "training_facts.json"

# Class of an activation -> tensors of its width that it keeps, its input among them (transformers/activations.py).
_KEPT_BY = {
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
# An activation that is no module is most often a function of torch; one that is unknown may be written out as many steps.
_FUNCTION = 2
_UNKNOWN = 4
# Whose output is what they keep, so that what follows keeps nothing more.
_KEEPS_OUTPUT = ("ReLU",)
_FUSED_QKV = ("qkv", "qkvo", "qkv_gate")


@cache
def _table() -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads(_FACTS.read_text(encoding="utf-8"))
    return found


@cache
def training_facts() -> Mapping[str, frozenset[str]]:
    """What transformers' classes do, by fact: see `tools/build_training_facts.py`."""
    return {name: frozenset(keys) for name, keys in _table().items() if name != "kept"}


def measured_share(head: str, model_type: str) -> float | None:
    """What autograd kept of a small model of a type, over what the formulas say; None where none was trained.

    A model of text and images is given what its text model has.
    """
    shares = _table()["kept"]
    for key in (f"{head}/{model_type}", f"causal-lm/{model_type}", f"causal-lm/{model_type}_text"):
        if key in shares:
            return float(shares[key])
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class Adapters:
    """What the adapters are to the layers.

    Attributes:
        ranks: Adapted weight to rank.
        added: Those that PEFT adapts as parameters: it adds the change to the weight before the weight is used.
        drops: The adapters drop some of their input.
        dora: A magnitude is trained as well.
    """

    ranks: Mapping[str, int]
    added: frozenset[str]
    drops: bool
    dora: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """What all layers of one training step share.

    Attributes:
        model: The map.
        training: How it is trained.
        adapting: See there.
        rotary: Queries and keys are rotated.
        eager: Attention's scores are kept.
        capped: They are capped.
        drops: The model has dropout of its own, as its default configuration says.
        relative: Scores get a bias per head and distance (T5), so that each layer keeps a mask per head.
    """

    model: ModelMap
    training: Training
    adapting: Adapters
    rotary: bool
    eager: bool
    capped: bool
    drops: bool
    relative: bool

    @property
    def scored(self) -> bool:
        """Attention's scores are kept: where the class has no kernel for it, or its biases need a gradient.

        T5 has them need one under gradient checkpointing (`position_bias.requires_grad = True`), which no kernel gives.
        """
        return self.eager or (self.relative and self.training.gradient_checkpointing)

    @property
    def mask(self) -> int:
        """Bytes of one number of a mask of the model's own dropout."""
        return self.training.width if self.training.device == "cpu" else 1


def saved_activations(layer: Layer, step: Step, tokens: int, *, first_stage: int = -1) -> dict[str, int]:
    """The bytes that one run of a layer keeps, by what keeps them.

    Args:
        layer: The layer.
        step: What all layers share.
        tokens: Tokens that go through it.
        first_stage: The stage of the layer (`Submodule.stage`) that the first gradient is needed in; what runs before it
            keeps nothing. -1 where the layer's own input needs a gradient.
    """
    kept: dict[str, int] = {}

    def add(what: str, size: int) -> None:
        kept[what] = kept.get(what, 0) + size

    for group in layer.groups:
        if group.stage < first_stage:
            continue
        for what, size in _group(group, layer, step, tokens):
            add(what, size)
    norms = layer.norms
    if first_stage >= 0:
        norms = _norms_after(layer, first_stage)
    for norm in norms:
        add("normalizations", norm_bytes(norm, tokens * _norm_times(norm, layer), step.training))
    if step.drops:
        add("the model's own dropout", step.mask * tokens * sum(_dropout_widths(layer)))
    return {what: size for what, size in kept.items() if size}


def _norms_after(layer: Layer, stage: int) -> tuple[Module, ...]:
    """The normalizations without those that stand before the first group that matters."""
    own = [norm for norm in layer.norms if "output" not in norm.name]
    inner = [norm for norm in own if any(norm.name.startswith(f"{group.parent}.") for group in layer.groups)]
    outer = [norm for norm in own if norm not in inner]
    skipped = outer[: 1 + sum(1 for group in layer.groups if group.block == "attention" and group.stage < stage)]
    return tuple(norm for norm in layer.norms if norm not in skipped)


def _norm_times(norm: Module, layer: Layer) -> int:
    """How often a token goes through a normalization: once for each head where it is as wide as one."""
    width = norm.parameters[0][1][-1] if norm.parameters[0][1] else 1
    for group in layer.groups:
        if group.block != "attention" or not norm.name.startswith(f"{group.parent}."):
            continue
        leaf = norm.name.rpartition(".")[2]
        made = _made(group, "k" if leaf.startswith("k") and not leaf.startswith("kv") else "q")
        if 0 < width < made and made % width == 0 and not leaf.startswith(("q_a", "kv_a")):
            return made // width
    return 1


def _made(group: Submodule, piece: str) -> int:
    """How wide a query or key is, over all heads."""
    weights = group.weights
    for part in (piece, f"{piece}_b", "q_gate" if piece == "q" else "kv", "qkv"):
        if part in weights:
            return fan_in_out(weights[part])[1] // {"q_gate": 2, "kv": 2, "qkv": 3}.get(part, 1)
    return 0


def norm_bytes(norm: Module, tokens: int, training: Training) -> int:
    """What a normalization keeps: its input and a number or two per token, and Gemma's one plus its weight."""
    size = norm.parameters[0][1][-1] if norm.parameters[0][1] else 1
    if norm.class_name in ("LayerNorm", "BatchNorm1d", "GroupNorm"):
        return tokens * (size * training.width + 2 * (training.width if training.device == "cpu" else ADAPTER_WIDTH))
    twice = training.width if norm.class_name.startswith("T5") and training.width != ADAPTER_WIDTH else 0
    weight = size * ADAPTER_WIDTH if norm.class_name.startswith("Gemma") else 0
    return tokens * (size * (ADAPTER_WIDTH + twice) + ADAPTER_WIDTH) + weight


def _dropout_widths(layer: Layer) -> Iterator[int]:
    """How wide what each dropout drops is; one within an attention drops scores, which the kernel does.

    Without such modules it is a function, called behind each attention and network.
    """
    if not layer.dropouts:
        yield from (layer.width for group in layer.groups if group.block in ("attention", "ffn"))
    down = next((group.weights["down"] for group in layer.groups if "down" in group.weights), None)
    for module in layer.dropouts:
        inside = any(
            group.block == "attention" and module.name.startswith(f"{group.parent}.") for group in layer.groups
        )
        if inside and "resid" not in module.name:
            continue
        wide = module.name.endswith(("DenseReluDense.dropout", "activation_dropout"))
        yield fan_in_out(down)[0] if wide and down is not None else layer.width


def _group(group: Submodule, layer: Layer, step: Step, tokens: int) -> Iterator[tuple[str, int]]:
    if group.block == "attention" and group.variant == "linear":
        yield from _recurrent(group, step, tokens)
    elif group.block == "attention":
        yield "attention", _attention(group, step, tokens)
    elif group.block == "ffn" and group.variant == "expert":
        yield from _experts(group, step, tokens)
        return
    elif group.block == "ffn":
        yield "feed-forward", _network(group, tokens) * step.training.width
    elif group.block == "router":
        experts = fan_in_out(next(iter(group.weights.values())))[1]
        active = step.model.dimensions.active_experts or 1
        yield "routing", tokens * (experts * 4 + active * (8 + 4) + 4)
    elif group.block == "mixer":
        yield from _recurrent(group, step, tokens)
    else:
        wide = sum(fan_in_out(weight)[1] for weight in group.weights.values() if weight.kind != "parameter")
        yield "other weights", tokens * wide * step.training.width
    yield "inputs of adapters", _adapter_inputs(group, step, tokens)


def _attention(group: Submodule, step: Step, tokens: int) -> int:
    """Queries, keys, values, output and log-sum-exps, or the scores; see the module."""
    width, length = step.training.width, step.training.seq_len
    weights = {part: fan_in_out(weight) for part, weight in group.weights.items()}
    fused = next((weights[part] for part in _FUSED_QKV if part in weights), None)
    out = weights["o"][0] if "o" in weights else max(made for _, made in weights.values())
    masked = step.training.batch > 1
    eager, scored = step.eager, step.scored
    if "q_b" in weights or "kv_b" in weights:
        query = _made(group, "q") or out
        # Values are narrower than keys, which a CPU has no kernel for.
        eager = scored = eager or step.training.device == "cpu"
        numbers = 2 * query + (2 * out if eager else weights.get("kv_b", (0, out))[1] + out)
    elif fused is not None:
        shared = max(fused[1] - out, 0)
        apart = fused[1] + out + (out + shared // 2 if step.rotary else 0)
        # With a mask, keys and values that are fewer than queries are repeated for all heads.
        numbers = 4 * out if masked and shared < 2 * out else apart
    else:
        query = _made(group, "q") or out
        key = _made(group, "k") or _made(group, "q") or out
        value = weights["v"][1] if "v" in weights else key
        repeated = (masked or step.eager) and key < query
        numbers = query + (2 * query if repeated else key + value) + out
    if "q_gate" in weights or "gate" in weights or "qkv_gate" in weights:
        numbers += 2 * out
    heads = _heads(group, step, out)
    if eager:
        numbers -= out  # which no product keeps
    kept = tokens * numbers * width
    if scored:
        scores = 4 + (width if width != 4 else 0) + (width if step.capped else 0)
        kept += heads * tokens * length * scores
    if eager:
        return kept
    kept += tokens * heads * 4
    if step.relative and (masked or group.variant != "cross"):
        sequences = 1 if group.variant != "cross" and "decoder" in _stack(group) else step.training.batch
        kept += heads * sequences * length * length * width
    elif masked:
        kept += tokens * length * width
    return kept


def _stack(group: Submodule) -> str:
    return next(iter(group.weights.values())).role.stack


def _heads(group: Submodule, step: Step, out: int) -> int:
    first = next(iter(group.weights.values()))
    said = (
        step.model.dimensions.attention_heads if first.role.component not in ("vision", "audio", "connector") else None
    )
    return said or max(1, out // 64)


def _network(group: Submodule, tokens: int) -> int:
    """Numbers that a feed-forward network keeps beside its adapters' inputs."""
    weights = {part: fan_in_out(weight) for part, weight in group.weights.items()}
    inner = _inner(group)
    activation = _activation(group)
    gated = "gate_up" in weights or ("gate" in weights and "up" in weights)
    return tokens * inner * (activation + 2 if gated else activation)


def _inner(group: Submodule) -> int:
    weights = {part: fan_in_out(weight) for part, weight in group.weights.items()}
    if "down" in weights:
        return weights["down"][0]
    return max(made for _, made in weights.values())


def _activation(group: Submodule) -> int:
    known = [_KEPT_BY[name] for name in group.classes if name in _KEPT_BY]
    if known:
        return max(known)
    named = any("Activation" in name or name.endswith("GELU") for name in group.classes)
    return _UNKNOWN if named else _FUNCTION


def _experts(group: Submodule, step: Step, tokens: int) -> Iterator[tuple[str, int]]:
    """Routed experts: every token in as many rows as experts are active (transformers' `grouped_mm`)."""
    width = step.training.width
    dimensions = step.model.dimensions
    rows = tokens * (dimensions.active_experts or dimensions.experts or group.copies)
    inner = _inner(group)
    hidden = fan_in_out(group.weights["down"])[1] if "down" in group.weights else inner
    gated = "gate_up" in group.weights or "gate" in group.weights
    adapted = {part: weight for part, weight in group.weights.items() if weight.name in step.adapting.ranks}
    numbers = inner * (_activation(group) + 2 if gated else _activation(group)) + hidden
    fused = {part for part, weight in group.weights.items() if weight.kind == "parameter"}
    if fused & adapted.keys() - {"down"}:
        numbers += hidden
    if "down" in fused & adapted.keys():
        numbers += inner
    offsets = 4 * max((weight.experts for weight in group.weights.values()), default=0)
    yield "experts", rows * (numbers * width + 4 + 3 * 8) + offsets
    for part in sorted(fused & adapted.keys()):
        weight = adapted[part]
        rank = step.adapting.ranks[weight.name]
        yield "copies of adapted experts", weight.size * width
        if width != ADAPTER_WIDTH:
            yield "copies of adapted experts", weight.experts * rank * sum(fan_in_out(weight)) * width
    if not fused:
        yield "inputs of adapters", _adapter_inputs(group, step, rows)


def _recurrent(group: Submodule, step: Step, tokens: int) -> Iterator[tuple[str, int]]:
    """State spaces, recurrences, linear attention: an estimate, meant to lie above.

    What every weight makes is kept four times in float32 (through the convolution, the activation, the gate and the
    normalization that such layers have), and once more for what it reads. Where a decay per channel and state is a
    parameter (Mamba's `A_log`), transformers' own path, without the kernels of `mamba-ssm`, keeps the discrete states
    of all tokens three times; kernels do not.
    """
    numbers = sum(inner + 4 * made for inner, made in map(fan_in_out, group.weights.values()))
    yield "mixers", tokens * numbers * ADAPTER_WIDTH
    module = step.model.module_by_name.get(group.parent)
    state = (
        next((shape for name, shape in module.parameters if name == "A_log" and len(shape) == 2), None)
        if module
        else None
    )
    if state is not None:
        yield "mixers", 3 * tokens * state[0] * state[1] * ADAPTER_WIDTH


def _adapter_inputs(group: Submodule, step: Step, tokens: int) -> int:
    """What the adapters of a group keep: see the module."""
    size, shared = 0, set[int]()
    # What the activation keeps is what `down` reads, unless some of that is dropped in between.
    activation_kept = group.block == "ffn" and bool(group.classes & set(_KEEPS_OUTPUT))
    activation_kept = activation_kept and not (step.drops and "Dropout" in group.classes)
    for part, weight in group.weights.items():
        if weight.name not in step.adapting.ranks:
            continue
        inner, made = fan_in_out(weight)
        if weight.name in step.adapting.added:  # its weight with the change added, factors, and what it reads
            size += weight.size * step.training.width
            if part in ("down", "o", "out") or inner not in shared:
                size += tokens * inner * step.training.width
                shared.add(inner)
            if step.training.width != ADAPTER_WIDTH:
                size += step.adapting.ranks[weight.name] * (inner + made) * step.training.width
            continue
        size += tokens * step.adapting.ranks[weight.name] * ADAPTER_WIDTH
        if step.adapting.dora:
            size += 2 * tokens * made * ADAPTER_WIDTH
        if step.adapting.drops:
            masks = ADAPTER_WIDTH if step.training.device == "cpu" else 1
            size += tokens * inner * (ADAPTER_WIDTH + masks)
        elif step.training.width != ADAPTER_WIDTH:
            size += tokens * inner * ADAPTER_WIDTH
        elif part == "o" and _reads_output(group, step):
            continue  # the attention's output, which is kept already
        elif part == "down" and activation_kept:
            continue  # what the activation keeps
        elif part in ("down", "o", "out", "q_b", "kv_b"):
            size += tokens * inner * ADAPTER_WIDTH
        elif inner not in shared:
            shared.add(inner)
            size += tokens * inner * ADAPTER_WIDTH
    return size


def _reads_output(group: Submodule, step: Step) -> bool:
    """The output projection reads what attention keeps. Where queries are put together of parts it reads a copy."""
    apart = step.rotary and any(part in group.weights for part in (*_FUSED_QKV, "q_b", "kv_b"))
    return group.block == "attention" and group.variant != "linear" and not step.eager and not apart


def saved_outside_layers(weight: Weight, step: Step, tokens: int) -> int:
    """What an adapter outside of the layers keeps."""
    rank = step.adapting.ranks.get(weight.name)
    if rank is None:
        return 0
    inner = 0 if weight.kind == "embedding" else fan_in_out(weight)[0]
    return tokens * (inner * (ADAPTER_WIDTH + (1 if step.adapting.drops else 0)) + rank * ADAPTER_WIDTH)
