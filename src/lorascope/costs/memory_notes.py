"""Formulas of a memory estimate, and notes on what it leaves out."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lorascope.costs.memory_estimate import MemoryEstimate, Moment
from lorascope.costs.training_run import OPTIMIZERS
from lorascope.number_text import bytes_text
from lorascope.peft_rules.diagnostics import Diagnostic, Reason

_EXPERT_COPIES = "copies of adapted experts"

ACCUMULATION = Reason("gradient-accumulation", "Gradient accumulation adds {size:bytes} at the peak.")
CUDA_CONTEXT = Reason(
    "cuda-context",
    "On top come the CUDA context with its libraries (0.3 to 1 GB, by device) and unused blocks of the allocator. "
    "torch.cuda.max_memory_allocated leaves them out too.",
)
ASSUMPTIONS = Reason("assumptions", "Assumes pure {dtype} (no autocast) and full logits (no chunked loss).")
BARE_EXPERTS = Reason(
    "unquantized-experts",
    "bitsandbytes does not quantize fused experts: {parameters:,} parameters, {size:bytes} of the weights.",
)
KBIT_PREPARATION = Reason(
    "kbit-preparation",
    "peft.prepare_model_for_kbit_training makes unquantized weights float32, which adds {size:bytes}.",
)
PAGED_OPTIMIZER = Reason(
    "paged-optimizer",
    "Optimizer states are included. A paged optimizer moves them to the CPU when GPU memory runs out.",
)
SCALED_ACTIVATIONS = Reason(
    "scaled-activations",
    "Activations scaled by {factor:.2f}: a small model of this architecture, without custom kernels, kept that much more "
    "than the formulas predict.",
)
UNMEASURED = Reason(
    "unmeasured-activations", "Activations were not measured on this architecture: the formulas alone are used."
)
EXPERT_COPIES = Reason(
    "expert-copies",
    "PEFT adds the adapters of fused experts to the weights before use, so each step keeps copies of them: {size:bytes}, or "
    "{one_layer:bytes} with gradient checkpointing.",
)
MIXERS = Reason("rough-mixers", "Mixers and linear attention are a rough estimate, meant as an upper bound.")
UNKNOWN_ROLES = Reason("unknown-roles", "Some weights have an unknown role: their outputs are counted once.")
UNKNOWN_TOKENS = Reason(
    "unknown-tokens", "The number of tokens through {names:listed} is unknown: a sequence's is assumed."
)
TWO_STACKS = Reason("two-stacks", "Encoder and decoder get {seq_len} tokens each.")
SAVED_SCORES = Reason(
    "saved-scores",
    "Attention keeps its scores in this class, and they grow with the square of the sequence length.",
)
DORA = Reason("rough-dora", "DoRA's temporary tensors are a rough estimate.")
STORED_WEIGHTS = Reason("stored-quantization", "Weights are counted as the checkpoint stores them.")
DEQUANTIZED_WEIGHTS = Reason(
    "dequantized",
    "Quantized weights of the checkpoint are counted unpacked: PEFT adapts this model only if it is loaded dequantized.",
)


def memory_formulas(estimate: MemoryEstimate, peak: Moment, library: int) -> dict[str, str]:
    """Formula of each part.

    Args:
        estimate: The estimate.
        peak: Its largest moment.
        library: Bytes of cuBLAS.
    """
    trained = sum(math.prod(shape) for shape, _ in estimate.trained)
    return {
        "weights": _weights(estimate),
        "adapters": f"{trained:,} parameters × 4 bytes (PEFT keeps adapters in float32)",
        "gradients": _gradients(estimate, peak),
        "optimizer states": f"{OPTIMIZERS[estimate.training.optimizer]} for {trained:,} parameters",
        "activations": _activations(estimate, peak),
        "logits": _logits(estimate, peak),
        "workspace": _workspace(peak, library),
    }


def _weights(estimate: MemoryEstimate) -> str:
    training, base = estimate.training, estimate.base
    plain = f"{base.plain:,} × {training.width} bytes ({training.dtype})"
    if not base.packed:
        return plain
    how = training.quantization if training.quantization != "none" else "the checkpoint's quantization"
    return f"{base.packed:,} in {how} with their scales, {plain}"


def _gradients(estimate: MemoryEstimate, peak: Moment) -> str:
    if not peak.gradients:
        return "none at this moment"
    total = estimate.all_gradients
    share = "all" if peak.gradients >= total else "part"
    return f"{share} of {bytes_text(total)}, one per trainable parameter"


def _activations(estimate: MemoryEstimate, peak: Moment) -> str:
    if not peak.activations:
        return "none at this moment"
    training, runs = estimate.training, estimate.runs
    tokens = f"{training.batch} × {training.seq_len} tokens"
    if training.gradient_checkpointing:
        return f"{tokens}: one hidden state for each of {len(runs)} layers, and one layer recomputed in full"
    totals: dict[str, int] = {}
    for run in runs:
        for name, size in run.saved.items():
            totals[name] = totals.get(name, 0) + size
    listed = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in sorted(totals.items(), key=lambda at: -at[1]))
    return f"{tokens} through {sum(1 for run in runs if run.size)} of {len(runs)} layers: {listed}"


def _logits(estimate: MemoryEstimate, peak: Moment) -> str:
    if not peak.logits:
        return "none at this moment"
    training = estimate.training
    width = training.width if estimate.plain_loss else 4
    factor = f"(3 × {width} + {training.width}) bytes (capped)" if estimate.capped else f"3 × {width} bytes"
    return f"{training.tokens:,} tokens × {estimate.vocabulary():,} × {factor}"


def _workspace(peak: Moment, library: int) -> str:
    tensors = f"temporary tensors of {peak.name}" if peak.workspace else "no temporary tensors"
    return tensors + (f", {bytes_text(library)} of cuBLAS" if library else "")


def memory_notes(estimate: MemoryEstimate, peak: Moment) -> tuple[Diagnostic, ...]:
    """What an estimate leaves out, and what is uncertain."""
    return (*_left_out(estimate, peak), *_uncertain(estimate))


def _left_out(estimate: MemoryEstimate, peak: Moment) -> Iterator[Diagnostic]:
    training, base = estimate.training, estimate.base
    missing = estimate.all_gradients - peak.gradients
    if missing > 0:
        yield ACCUMULATION.about(size=missing)
    if training.device == "cuda":
        yield CUDA_CONTEXT.about()
    yield ASSUMPTIONS.about(dtype=training.dtype)
    if base.bare_experts and training.quantization != "none":
        yield BARE_EXPERTS.about(parameters=base.bare_experts, size=base.bare_experts * training.width)
    if training.quantization != "none":
        yield KBIT_PREPARATION.about(size=base.plain * (4 - training.width))
    if training.optimizer.startswith("paged"):
        yield PAGED_OPTIMIZER.about()


def _uncertain(estimate: MemoryEstimate) -> Iterator[Diagnostic]:
    runs, stacks = estimate.runs, {layer.stack for layer in estimate.layers.layers}
    if estimate.correction > 1:
        yield SCALED_ACTIVATIONS.about(factor=estimate.correction)
    elif estimate.share is None:
        yield UNMEASURED.about()
    copies = [run.saved.get(_EXPERT_COPIES, 0) for run in runs]
    if sum(copies):
        yield EXPERT_COPIES.about(size=sum(copies), one_layer=max(copies))
    if any("mixers" in run.saved for run in runs):
        yield MIXERS.about()
    if any("other weights" in run.saved for run in runs):
        yield UNKNOWN_ROLES.about()
    if estimate.guessed_tokens:
        yield UNKNOWN_TOKENS.about(*sorted(estimate.guessed_tokens))
    if {"encoder", "decoder"} <= stacks:
        yield TWO_STACKS.about(seq_len=estimate.training.seq_len)
    if estimate.step.eager and any("attention" in run.saved for run in runs):
        yield SAVED_SCORES.about()
    if estimate.step.adapters.dora:
        yield DORA.about()
    if estimate.base.stored_packed:
        yield STORED_WEIGHTS.about()
    if estimate.base.dequantized:
        yield DEQUANTIZED_WEIGHTS.about()
