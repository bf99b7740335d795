"""Formulas of a memory estimate, and notes on what it leaves out."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lorascope.costs.memory_estimate import MemoryEstimate, Moment
from lorascope.costs.training_run import OPTIMIZERS
from lorascope.costs.units import bytes_text

_EXPERT_COPIES = "copies of adapted experts"


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


def memory_notes(estimate: MemoryEstimate, peak: Moment) -> tuple[str, ...]:
    """What an estimate leaves out, and what is uncertain."""
    return (*_left_out(estimate, peak), *_uncertain(estimate))


def _left_out(estimate: MemoryEstimate, peak: Moment) -> Iterator[str]:
    training, base = estimate.training, estimate.base
    missing = estimate.all_gradients - peak.gradients
    if missing > 0:
        yield f"Gradient accumulation adds {bytes_text(missing)} at the peak."
    if training.device == "cuda":
        yield (
            "On top come the CUDA context with its libraries (0.3 to 1 GB, by device) and unused blocks of the allocator. "
            "torch.cuda.max_memory_allocated leaves them out too."
        )
    yield f"Assumes pure {training.dtype} (no autocast) and full logits (no chunked loss)."
    if base.bare_experts and training.quantization != "none":
        yield (
            f"bitsandbytes does not quantize fused experts: {base.bare_experts:,} parameters, "
            f"{bytes_text(base.bare_experts * training.width)} of the weights."
        )
    if training.quantization != "none":
        added = base.plain * (4 - training.width)
        yield f"peft.prepare_model_for_kbit_training makes unquantized weights float32, which adds {bytes_text(added)}."
    if training.optimizer.startswith("paged"):
        yield "Optimizer states are included. A paged optimizer moves them to the CPU when GPU memory runs out."


def _uncertain(estimate: MemoryEstimate) -> Iterator[str]:
    runs, layers = estimate.runs, estimate.layers
    if estimate.correction > 1:
        yield (
            f"Activations scaled by {estimate.correction:.2f}: a small model of this architecture, without custom kernels, "
            "kept that much more than the formulas predict."
        )
    elif estimate.share is None:
        yield "Activations were not measured on this architecture: the formulas alone are used."
    copies = [run.saved.get(_EXPERT_COPIES, 0) for run in runs]
    if sum(copies):
        yield (
            "PEFT adds the adapters of fused experts to the weights before use, so each step keeps copies of them: "
            f"{bytes_text(sum(copies))}, or {bytes_text(max(copies))} with gradient checkpointing."
        )
    if any("mixers" in run.saved for run in runs):
        yield "Mixers and linear attention are a rough estimate, meant as an upper bound."
    if any("other weights" in run.saved for run in runs):
        yield "Some weights have an unknown role: their outputs are counted once."
    if estimate.guessed_tokens:
        towers = ", ".join(sorted(estimate.guessed_tokens))
        yield f"The number of tokens through {towers} is unknown: a sequence's is assumed."
    if {"encoder", "decoder"} <= {layer.stack for layer in layers.layers}:
        yield f"Encoder and decoder get {estimate.training.seq_len} tokens each."
    if estimate.step.eager and any("attention" in run.saved for run in runs):
        yield "Attention keeps its scores in this class, and they grow with the square of the sequence length."
    if estimate.step.adapters.dora:
        yield "DoRA's temporary tensors are a rough estimate."
    if estimate.base.stored_packed:
        yield "Weights are counted as the checkpoint stores them."
