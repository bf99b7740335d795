"""`docs/memory.md`: formulas of the memory estimate, and measured errors."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MEASURED = {device: ROOT / "benchmarks" / f"memory_{device}.json" for device in ("cpu", "cuda")}
FACTS = ROOT / "src" / "lorascope" / "data" / "training_facts.json"

_FORMULAS = """# Training memory

`lorascope plan … --budget memory=24GB`, `--memory` and `lorascope compare` estimate the peak memory of a training step: PEFT's
LoRA on a transformers model, in bytes that torch allocates (`torch.cuda.max_memory_allocated`). A map is enough: no torch, no
GPU, no weights.

This page is generated: `python tools/build_docs.py`.

## Moments of a step

The peak is the largest of these moments. The parts that lorascope prints are those of that moment.

- Start of the backward pass: everything that autograd saved, and the loss. Most often the peak.
- Backward pass of each layer: its temporary tensors and the gradients of the layers behind it.
- Optimizer's step: all gradients.

## Parts

N tokens per step, T tokens per sequence, d bytes per element (2 in bf16 and fp16, 4 in fp32). Adapters are always float32.

| part | bytes | source |
|---|---|---|
| weights | d each, a tied tensor once | the map |
| – nf4 | 1/2 each, 1 per 64, 4 per 16,384: the linear layers but the head; not embeddings, norms, fused experts | QLoRA (arXiv 2305.14314), bitsandbytes, transformers `integrations/bitsandbytes.py` |
| – 8bit | 1 each, 4 per row: the same layers | LLM.int8() (arXiv 2208.07339), bitsandbytes |
| adapters | 4 per trainable parameter | PEFT, `autocast_adapter_dtype` |
| gradients | 4 per trainable parameter, once they exist | torch |
| optimizer states | adamw 8 per trainable parameter; adamw-8bit 2, and 8 per 256 (8 below 4,096 numbers); sgd 0; adafactor 4 per row and per column | torch, arXiv 2110.02861, arXiv 1804.04235 |
| activations | below | what autograd saves |
| – frozen linear layer | nothing | the gradient needs its weight only |
| – adapted linear layer | N × in × 4 (in fp32 without dropout once for all layers that read it), N × rank × 4; with dropout N × in for the mask | |
| – RMS normalization | N × width × 4 | transformers computes it in float32 |
| – LayerNorm | N × width × d | |
| – attention | N × (q + k + v + out) × d, N × heads × 4; with a mask, k and v as many as q, and N × T × d | `scaled_dot_product_attention` |
| – attention without a kernel | heads × N × T × 4 (and d more below fp32) instead of the output | `eager` |
| – feed-forward network | gated N × 3 × width × d; else what its activation saves (GELU 1 tensor, GPT-2's 4) | |
| – routed experts | the same for N × active tokens, and N × active × hidden × d | transformers' `grouped_mm` |
| – adapted fused experts | all their weights × d in each layer | PEFT adds the adapter to the weight, `ParamWrapper` |
| – the model's own dropout | N × width for each | |
| – with gradient checkpointing | N × hidden × d per layer, and one layer in full | |
| logits | N × words × 12: log-softmax, its gradient and the one before; 3 × d where the class calls cross entropy itself; d more where they are capped | `ForCausalLMLoss` |
| workspace | gradients of the widest operation, unpacked weights of the largest quantized layer, 32 MiB of cuBLAS | |

Layers below the first adapted one save nothing. With gradient checkpointing all layers count, because PEFT makes the output of
the embeddings require a gradient.

The formulas hold for {explained} of {compared} architectures: a small model of each was trained, and saved at most 3 % more than they
predict (`python tools/build_training_facts.py --kept`). Activations of the others are scaled up by the measured factor; the estimate
lists that part as `unexplained`, with a note. Another note marks architectures without a measurement.

The docstrings in `src/lorascope/costs/` explain the formulas. `tests/costs/test_saved_activations.py` compares them with
`torch.autograd.graph.saved_tensors_hooks` on real models: exact to the byte for a layer of llama, qwen3, gemma2, phi3, gpt2, opt,
bert, t5 and mixtral, in float32 and bfloat16, with and without masks and dropout.
"""

_NOT_COVERED = """
## Not covered

- The CUDA context and libraries outside of torch (0.3 to 1 GB by device) and unused blocks of torch's allocator come on top.
- Autocast (`bf16=True` of transformers' Trainer on a float32 model) saves casts of its own. The estimate assumes a model in the
  training dtype.
- Gradient accumulation keeps gradients at the start of the backward pass too. A note gives the amount.
- `prepare_model_for_kbit_training` makes embeddings, norms and everything else unquantized float32. A note gives the amount.
- Mixers and linear attention are a rough estimate, meant as an upper bound, for transformers' own path without kernels
  (`mamba-ssm`, `flash-linear-attention`). Kernels need much less. A note marks these models.
- Towers get one image or sound per sequence, with as many positions as the tower has, or a sequence's length if that is unknown.
- Encoder and decoder get the same length.
- Masks count from two sequences on, for attention that is not causal too, padded or not. FlashAttention with packed sequences saves
  no mask, and fewer keys and values.
- DoRA's temporary tensors, offloading, several devices, and chunked losses (Liger, Unsloth).
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
            f"\n## {titles[device]}\n\nNot measured yet. `python benchmarks/memory.py --device {device}` measures larger models with "
            "`torch.cuda.max_memory_allocated`. Differences to a CPU (dropout masks of one byte, attention kernels, cuBLAS) are read from "
            "the libraries' code, not measured.\n"
        )
    data = json.loads(path.read_text(encoding="utf-8"))
    rows = data["settings"]
    errors = [row["error"] for row in rows]
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    lines = [
        f"\n## {titles[device]}",
        "",
        f"Median error {_percent(statistics.median(map(abs, errors)))}: the lowest estimate is {_percent(-min(errors))} below the measurement, the",
        f"highest {_percent(max(errors))} above. {len(rows)} settings with random weights, each in a process of its own, on {data['date']}",
        f"({data['machine']}; {versions}): `python benchmarks/memory.py --device {device}`.",
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
        '"Measured" is the peak of the process (`VmHWM`) over two steps, above its memory before the model was built. "torch\'s',
        "bytes\" are torch's own allocations, by its profiler; the rest belongs to the process, such as buffers of the matrix library.",
        "Adapted experts in bf16 stand out: the process grows by about 80 MB per step outside of torch. That is oneDNN, which caches",
        "something for every number of tokens that an expert gets: about 25 MB per step without its cache",
        "(`ONEDNN_PRIMITIVE_CACHE_CAPACITY=0`), none with its AVX2 kernels (`ONEDNN_MAX_CPU_ISA=AVX2`). Attention scores have no",
        "dropout, because a CPU has no kernel for it.",
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
