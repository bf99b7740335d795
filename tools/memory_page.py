"""`docs/memory.md`: how the memory of a training is estimated, and how far the estimates were off where it was measured."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MEASURED = {device: ROOT / "benchmarks" / f"memory_{device}.json" for device in ("cpu", "cuda")}
FACTS = ROOT / "src" / "lorascope" / "data" / "training_facts.json"

_FORMULAS = """# Memory of a training

`lorascope plan … --budget memory=24GB` and `lorascope compare` need to know what a training takes; this is how they know. A map
is enough: no torch, no GPU, no weights. What is estimated is the peak of a training step of PEFT's LoRA on a transformers
model, in bytes that torch allocates (`torch.cuda.max_memory_allocated`).

This page is generated: `python tools/build_docs.py`.

## The moments of a step

The peak is the largest of these, and the parts that are shown are those of that moment:

- the start of the backward pass, with everything that was kept for it and the loss: most often the peak;
- the backward pass of each layer, with its working tensors and the gradients of the layers behind it;
- the optimizer's step, with all gradients.

## The parts

N tokens in a step, T of them in a sequence, d bytes of a number (2 in bf16 and fp16, 4 in fp32), adapters always in float32.

| part | bytes | source |
|---|---|---|
| weights | d each, a tied tensor once | the map |
| – nf4 | 1/2 each, 1 per 64, 4 per 16,384: the linear layers but the head; not embeddings, norms, fused experts | QLoRA (arXiv 2305.14314), bitsandbytes, transformers `integrations/bitsandbytes.py` |
| – 8bit | 1 each, 4 per row: the same layers | LLM.int8() (arXiv 2208.07339), bitsandbytes |
| adapters | 4 per trainable parameter | PEFT, `autocast_adapter_dtype` |
| gradients | 4 per trainable parameter, where they are there | torch |
| optimizer states | adamw 8 per trainable parameter; adamw-8bit 2, and 8 per 256 (8 below 4,096 numbers); sgd 0; adafactor 4 per row and per column | torch, arXiv 2110.02861, arXiv 1804.04235 |
| activations | below | what autograd saves |
| – frozen linear layer | nothing | its weight is all that the gradient needs |
| – adapted linear layer | N × in × 4 (in fp32 without dropout once for all that read the same), N × rank × 4; with dropout N × in more for the mask | |
| – RMS normalization | N × width × 4 | transformers computes it in float32 |
| – LayerNorm | N × width × d | |
| – attention | N × (q + k + v + out) × d, N × heads × 4; with a mask, k and v as many as q, and N × T × d | `scaled_dot_product_attention` |
| – attention without a kernel | heads × N × T × 4 (and d more below fp32) instead of the output | `eager` |
| – feed-forward network | gated N × 3 × width × d; else what its activation keeps (GELU 1, GPT-2's 4 tensors) | |
| – routed experts | the same for N × active tokens, and N × active × hidden × d | transformers' `grouped_mm` |
| – adapted fused experts | all their weights × d in each layer | PEFT adds the change to the weight, `ParamWrapper` |
| – the model's own dropout | N × width for each | |
| – with gradient checkpointing | N × hidden × d for each layer, and one layer in full | |
| logits | N × words × 12: log-softmax, its gradient and the one before; 3 × d where the class calls cross entropy itself; d more where they are capped | `ForCausalLMLoss` |
| workspace | the gradients of the widest operation, unpacked weights of the largest quantized layer, 32 MiB of cuBLAS | |

Layers below the first adapted one keep nothing, unless there is gradient checkpointing: then PEFT has the embeddings' output
need a gradient. Of other architectures a small model was trained where text alone is enough, and what it kept was compared with what is said
(`python tools/build_training_facts.py --kept`): {explained} of {compared} kept no more than 3 % more. Of the others the layers are
counted as so many times larger, and a note says so; `unexplained` is that part. A note also says where none was trained.

The formulas stand in the docstrings of `src/lorascope/costing/`; the tests hold them to what
`torch.autograd.graph.saved_tensors_hooks` sees of real models: to the byte for a layer of llama, qwen3, gemma2, phi3, gpt2, opt,
bert, t5 and mixtral, in float32 and bfloat16, with and without masks and dropout (`tests/costs/test_saved_activations.py`).
"""

_NOT_COVERED = """
## What is not covered

- The CUDA context and libraries outside of torch (0.3 to 1 GB by device) and unused blocks of torch's allocator come on top.
- Autocast (`bf16=True` of transformers' Trainer on a model in float32) keeps casts of its own; counted is a model in the dtype
  that is trained in.
- Gradient accumulation has the gradients there at the start of the backward pass too; the notes say how much that is.
- `prepare_model_for_kbit_training` makes embeddings, norms and everything else that is not quantized float32; the notes say how
  much that is.
- Mixers and linear attention are an estimate for transformers' own path without kernels (`mamba-ssm`, `flash-linear-attention`),
  meant to lie above the truth. Kernels need much less. The notes say where this matters.
- Towers get one image or sound per sequence with as many positions as the tower has; where a map shows none, a sequence's length.
- An encoder and a decoder get the same length.
- Attention that is not causal, padded or not: the mask is counted from two sequences on. FlashAttention with
  packed sequences keeps no mask and fewer keys and values.
- DoRA's working tensors, offloading, several devices, losses that are computed in pieces (Liger, Unsloth).
"""


def memory_page() -> str:
    """The page's text."""
    shares = json.loads(FACTS.read_text(encoding="utf-8"))["kept"].values()
    explained = sum(1 for share in shares if share <= 1.03)
    formulas = _FORMULAS.replace("{explained}", str(explained)).replace("{compared}", str(len(shares)))
    return formulas + "".join(_measured(device) for device in MEASURED) + _NOT_COVERED


def _measured(device: str) -> str:
    titles = {"cpu": "Measured on a CPU", "cuda": "Measured on a GPU"}
    path = MEASURED[device]
    if not path.exists():
        return (
            f"\n## {titles[device]}\n\nNot yet measured. `python benchmarks/memory.py --device {device}` does it: the same "
            "settings' logic, larger models, `torch.cuda.max_memory_allocated`. What differs from a CPU (masks of dropout in one byte, "
            "attention's kernels, cuBLAS) is read from the libraries' code and not measured.\n"
        )
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = found["settings"]
    errors = [row["error"] for row in rows]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        f"\n## {titles[device]}",
        "",
        f"{len(rows)} settings on {found['date']}, {found['machine']}, {versions}; each in a process of its own, with random weights:",
        f"`python benchmarks/memory.py --device {device}`. The median error is {_percent(statistics.median(map(abs, errors)))}, the lowest",
        f"estimate is {_percent(-min(errors))} below and the highest {_percent(max(errors))} above what was measured.",
        *_explained(device),
        "",
        "| setting | estimate, MB | measured, MB | error |"
        + (" torch's bytes, MB | error |" if device == "cpu" else ""),
        "|---|---|---|---|" + ("---|---|" if device == "cpu" else ""),
        *(_row(row) for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _explained(device: str) -> list[str]:
    if device != "cpu":
        return []
    return [
        "",
        "Measured is the process: its peak in memory (`VmHWM`) in two steps, above what it had before the model was built. What",
        "torch itself allocated, by its profiler, stands beside it: the rest is the process's, such as buffers of the library that",
        "multiplies matrices. One setting stands out, adapted experts in bf16: with every step the process grows by some 80 MB that",
        "torch does not hold. They are oneDNN's, which keeps something for every number of tokens that an expert gets: without its",
        "cache (`ONEDNN_PRIMITIVE_CACHE_CAPACITY=0`) it is some 25 MB a step, and nothing with its kernels for AVX2",
        "(`ONEDNN_MAX_CPU_ISA=AVX2`). Scores of attention are not dropped, which a CPU has no kernel for.",
    ]


def _row(row: dict[str, Any]) -> str:
    cells = [row["setting"], _megabytes(row["estimate"]), _megabytes(row["measured"]), f"{100 * row['error']:+.1f} %"]
    if "tensors" in row:
        cells += [_megabytes(row["tensors"]), f"{100 * (row['estimate'] / row['tensors'] - 1):+.1f} %"]
    return "| " + " | ".join(cells) + " |"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
