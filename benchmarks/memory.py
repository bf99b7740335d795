"""Estimated memory of a training step beside the measured peak: every setting in a process of its own.

Needs the extra `test`. `python benchmarks/memory.py` measures on the CPU and writes `memory_cpu.json` beside it;
`--device cuda` measures `torch.cuda.max_memory_allocated` on larger models and writes `memory_cuda.json`. `--only 3,5` measures
some settings and prints them. The page `docs/memory.md` is made of the files (`python tools/build_docs.py`).

A setting is a model of random weights with a plan's adapters. It is trained for a step that nothing is read from, in which the
optimizer makes its states, and for two that are measured: loss, backward pass, optimizer, gradients set to none. With more than
one sequence some are padded. On a CPU the peak is that of the process (`VmHWM`) above what it had in memory before the
model was built, and after a small model of the same class had been trained and matrices as large as the model's had been
multiplied (which leaves 30 MB of buffers with the library that does it); torch's own bytes, from its profiler, are
written down beside it. Dropout of attention's scores is switched off on a CPU, which has no kernel for it.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import datetime
import gc
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]

# Freed memory goes back to the system at once, so that the process's peak is that of what is in use.
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One training: a model by class and configuration, a plan by rule, rank and dropout, and how it is trained."""

    architecture: str
    config: dict[str, Any]
    rules: str = "all"
    rank: int = 16
    dropout: float = 0.0
    training: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def label(self) -> str:
        """What it is, in words."""
        how = self.training
        words = [self.config["model_type"], self.rules, f"rank {self.rank}"]
        words += [f"dropout {self.dropout:g}"] if self.dropout else []
        words += [f"{how.get('batch', 1)} × {how.get('seq_len', 2048)}", how.get("dtype", "bf16")]
        words += [how["quantization"]] if "quantization" in how else []
        words += [how.get("optimizer", "adamw")]
        words += ["checkpointing"] if how.get("gradient_checkpointing") else []
        return ", ".join(words)


_LLAMA = {
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 16000,
}
_QWEN3 = {**_LLAMA, "model_type": "qwen3", "head_dim": 64, "vocab_size": 32000, "num_hidden_layers": 4}
_GEMMA2 = {**_QWEN3, "model_type": "gemma2", "num_key_value_heads": 8, "vocab_size": 24000}
_PHI3 = {**_LLAMA, "model_type": "phi3", "pad_token_id": 0, "num_hidden_layers": 4}
_MIXTRAL = {
    **_LLAMA,
    "model_type": "mixtral",
    "hidden_size": 768,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "num_hidden_layers": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
_GPT2 = {"model_type": "gpt2", "n_embd": 768, "n_layer": 6, "n_head": 12, "vocab_size": 20000, "attn_pdrop": 0.0}
_BERT = {"model_type": "bert", "num_hidden_layers": 6, "attention_probs_dropout_prob": 0.0}
_T5 = {"model_type": "t5", "num_layers": 4, "d_model": 512, "d_ff": 2048, "decoder_start_token_id": 0}
_OPT = {
    "model_type": "opt",
    "hidden_size": 768,
    "ffn_dim": 3072,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "word_embed_proj_dim": 768,
    "vocab_size": 20000,
}


def _training(batch: int, seq_len: int, dtype: str, **more: Any) -> dict[str, Any]:
    return {"batch": batch, "seq_len": seq_len, "dtype": dtype, **more}


CPU = (
    Setting("LlamaForCausalLM", _LLAMA, training=_training(2, 192, "fp32")),
    Setting("LlamaForCausalLM", _LLAMA, "qv", training=_training(1, 256, "fp32")),
    Setting("LlamaForCausalLM", _LLAMA, training=_training(2, 256, "fp32", gradient_checkpointing=True)),
    Setting("LlamaForCausalLM", _LLAMA, dropout=0.05, training=_training(2, 256, "bf16")),
    Setting("LlamaForCausalLM", _LLAMA, "qv", training=_training(1, 1024, "bf16", gradient_checkpointing=True)),
    Setting("LlamaForCausalLM", _LLAMA, rank=64, training=_training(1, 128, "fp32", optimizer="sgd")),
    Setting("LlamaForCausalLM", _LLAMA, "ffn", rank=128, training=_training(1, 64, "fp32", optimizer="adafactor")),
    Setting("LlamaForCausalLM", _LLAMA, rank=128, training=_training(1, 64, "fp32")),
    Setting("Qwen3ForCausalLM", _QWEN3, training=_training(2, 128, "fp32")),
    Setting("Qwen3ForCausalLM", _QWEN3, "attention", training=_training(1, 512, "bf16")),
    Setting("GPT2LMHeadModel", _GPT2, dropout=0.05, training=_training(2, 128, "fp32")),
    Setting("GPT2LMHeadModel", _GPT2, "qv", training=_training(1, 1024, "bf16")),
    Setting("BertForMaskedLM", _BERT, "qv", training=_training(4, 96, "fp32")),
    Setting("BertForMaskedLM", _BERT, training=_training(8, 96, "bf16")),
    Setting("BertForSequenceClassification", _BERT, training=_training(8, 64, "fp32")),
    Setting("T5ForConditionalGeneration", _T5, "qv", training=_training(2, 192, "fp32")),
    Setting("T5ForConditionalGeneration", _T5, training=_training(2, 256, "fp32", gradient_checkpointing=True)),
    Setting("MixtralForCausalLM", _MIXTRAL, "attention", training=_training(2, 128, "fp32")),
    Setting("MixtralForCausalLM", _MIXTRAL, rank=4, training=_training(2, 256, "bf16", gradient_checkpointing=True)),
    Setting("MixtralForCausalLM", _MIXTRAL, rank=4, training=_training(1, 128, "fp32")),
    Setting("Gemma2ForCausalLM", _GEMMA2, "qv", training=_training(1, 256, "fp32")),
    Setting("Phi3ForCausalLM", _PHI3, training=_training(2, 256, "fp32", gradient_checkpointing=True)),
    Setting("OPTForCausalLM", _OPT, "attention", training=_training(4, 64, "fp32")),
)

_LLAMA_1B = {
    **_LLAMA,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
_LLAMA_8B = {
    **_LLAMA_1B,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "tie_word_embeddings": False,
}
_QWEN3_4B = {
    **_LLAMA_1B,
    "model_type": "qwen3",
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "head_dim": 128,
    "vocab_size": 151936,
}
_MIXTRAL_5B = {**_LLAMA_8B, "model_type": "mixtral", "num_hidden_layers": 4, "vocab_size": 32000}
_GEMMA2_2B = {"model_type": "gemma2"}
_GPT2_XL = {"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25}
_BERT_LARGE = {
    "model_type": "bert",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_T5_LARGE = {**_T5, "d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16}

CUDA = (
    Setting("LlamaForCausalLM", _LLAMA_1B, training=_training(4, 1024, "bf16")),
    Setting("LlamaForCausalLM", _LLAMA_1B, "qv", training=_training(1, 4096, "bf16")),
    Setting("LlamaForCausalLM", _LLAMA_1B, training=_training(8, 1024, "bf16", gradient_checkpointing=True)),
    Setting("LlamaForCausalLM", _LLAMA_1B, training=_training(1, 2048, "fp32")),
    Setting("LlamaForCausalLM", _LLAMA_8B, dropout=0.05, training=_training(1, 2048, "bf16")),
    Setting("LlamaForCausalLM", _LLAMA_8B, training=_training(2, 2048, "bf16", gradient_checkpointing=True)),
    Setting(
        "LlamaForCausalLM",
        _LLAMA_8B,
        training=_training(1, 2048, "bf16", quantization="nf4", gradient_checkpointing=True),
    ),
    Setting("LlamaForCausalLM", _LLAMA_8B, "qv", training=_training(1, 2048, "bf16", quantization="8bit")),
    Setting("LlamaForCausalLM", _LLAMA_8B, rank=256, training=_training(1, 512, "bf16", optimizer="adamw-8bit")),
    Setting("Qwen3ForCausalLM", _QWEN3_4B, training=_training(2, 1024, "bf16")),
    Setting(
        "Qwen3ForCausalLM", _QWEN3_4B, "attention", training=_training(1, 4096, "bf16", gradient_checkpointing=True)
    ),
    Setting("MixtralForCausalLM", _MIXTRAL_5B, "attention", training=_training(1, 2048, "bf16")),
    Setting(
        "MixtralForCausalLM", _MIXTRAL_5B, rank=4, training=_training(1, 2048, "bf16", gradient_checkpointing=True)
    ),
    Setting("Gemma2ForCausalLM", _GEMMA2_2B, "qv", training=_training(1, 2048, "bf16")),
    Setting("GPT2LMHeadModel", _GPT2_XL, training=_training(4, 512, "bf16")),
    Setting("BertForMaskedLM", _BERT_LARGE, "qv", training=_training(32, 256, "bf16")),
    Setting("T5ForConditionalGeneration", _T5_LARGE, "qv", training=_training(8, 256, "bf16")),
)
SETTINGS = {"cpu": CPU, "cuda": CUDA}
# What makes a small model of the same class, whose training loads the code that the measured one runs.
_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "d_model": 64,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
    "ffn_dim": 96,
    "word_embed_proj_dim": 64,
}


def build(setting: Setting, *, small: bool, device: str) -> Any:
    """The model, with random weights."""
    import torch
    import transformers

    config = {name: _SMALL.get(name, value) if small else value for name, value in setting.config.items()}
    configured = transformers.AutoConfig.for_model(**config, use_cache=False)
    cls: Any = getattr(transformers, setting.architecture)
    dtype = getattr(torch, _DTYPES[setting.training["dtype"]])
    quantization = setting.training.get("quantization", "none")
    with torch.device(device):
        model = cls._from_config(configured, dtype=dtype)
    if quantization != "none":
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            model = cls.from_pretrained(
                folder, dtype=dtype, device_map=device, quantization_config=_quantizing(quantization)
            )
    if device == "cpu":
        _silence_scores(model)
    return model


def _quantizing(kind: str) -> Any:
    import torch
    import transformers

    if kind == "8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _silence_scores(model: Any) -> None:
    for module in model.modules():
        if "Attention" in type(module).__name__ and isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0


def optimizer_of(name: str, parameters: list[Any]) -> Any:
    """The optimizer that transformers' `optim` makes of a name."""
    import torch
    import transformers

    if name == "sgd":
        return torch.optim.SGD(parameters, lr=1e-3)
    if name == "adafactor":
        return transformers.Adafactor(parameters, lr=1e-3, scale_parameter=False, relative_step=False)
    if name == "adamw":
        return torch.optim.AdamW(parameters, fused=True)
    import bitsandbytes

    return {"adamw-8bit": bitsandbytes.optim.AdamW8bit, "paged-adamw-8bit": bitsandbytes.optim.PagedAdamW8bit}[name](
        parameters
    )


def plan_of(setting: Setting, model: Any) -> Any:
    """The setting's plan for a model."""
    import lorascope
    from lorascope.sources.transformers.meta_model import map_module

    mapped = map_module(model, model=setting.config["model_type"])
    return lorascope.plan(mapped, *setting.rules.split(), rank=setting.rank, dropout=setting.dropout)


class Trainee:
    """A model with a plan's adapters, ready to be trained."""

    def __init__(self, setting: Setting, *, small: bool = False, device: str = "cpu") -> None:
        import peft
        import torch

        torch.manual_seed(0)
        how = dict(setting.training)
        model = build(setting, small=small, device=device)
        self.plan = plan_of(setting, model)
        if how.get("gradient_checkpointing"):
            model.activation_checkpointing_enable()
        self.model: Any = peft.get_peft_model(model, self.plan.to_peft())
        self.model.train()
        if how.get("gradient_checkpointing"):
            self.model.enable_input_require_grads()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = optimizer_of(how.get("optimizer", "adamw"), trained)
        batch, length = (2, 16) if small else (how["batch"], how["seq_len"])
        words = torch.randint(5, 500, (batch, length), device=device)
        classifies = "Classification" in setting.architecture
        labels = torch.zeros(batch, dtype=torch.long, device=device) if classifies else words
        self.inputs = {"input_ids": words, "labels": labels}
        if batch > 1:
            mask = torch.ones(batch, length, dtype=torch.long, device=device)
            mask[1:, -(length // 8) :] = 0
            self.inputs["attention_mask"] = mask

    def step(self) -> None:
        """One step of training."""
        self.model(**self.inputs).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def held(self) -> int:
        """Bytes of parameters and of the optimizer's states."""
        import torch

        storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in self.model.parameters()}
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        return sum(storages.values()) + sum(value.nbytes for value in states if torch.is_tensor(value))


def on_cpu(setting: Setting) -> dict[str, Any]:
    """The process's peak, and torch's."""
    import torch

    torch.set_num_threads(2)
    warming = Trainee(setting, small=True)
    for _ in range(3):
        warming.step()
    del warming
    _warm_products(setting)
    _trim()
    before = _status("VmRSS")
    trainee = Trainee(setting)
    trainee.step()
    _trim()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for _ in range(2):
        trainee.step()
    measured = _status("VmHWM") - before
    return {"measured": measured, "tensors": torch_peak(trainee), **estimated(trainee.plan, setting, "cpu")}


def _warm_products(setting: Setting) -> None:
    """Multiplies as largely as the model will, because the library for that keeps the buffers that it once made."""
    import torch

    tokens = setting.training["batch"] * setting.training["seq_len"]
    for wide in (2816, setting.config.get("vocab_size", 32128)):
        torch.randn(tokens, 1024) @ torch.randn(1024, wide)


def torch_peak(trainee: Trainee) -> int:
    """What torch has allocated at the peak of a step, by its profiler's events."""
    import torch

    held = trainee.held()
    with torch.profiler.profile(profile_memory=True) as profile:
        trainee.step()
    found = sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    now = most = 0
    for event in found:
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return held + most


def on_cuda(setting: Setting) -> dict[str, Any]:
    """The peak that torch counts on the device."""
    import torch

    before = torch.cuda.memory_allocated()
    trainee = Trainee(setting, device="cuda")
    trainee.step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        trainee.step()
    torch.cuda.synchronize()
    measured = torch.cuda.max_memory_allocated() - before
    return {"measured": measured, **estimated(trainee.plan, setting, "cuda")}


def estimated(plan: Any, setting: Setting, device: str) -> dict[str, Any]:
    """What lorascope says of the same."""
    from lorascope.costs.memory import training_memory
    from lorascope.costs.training_run import Training

    memory = training_memory(plan, Training(**setting.training, device=device))
    parts = {part.name: part.size for part in memory.parts}
    return {"estimate": memory.total, "moment": memory.moment, "parts": parts}


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def _trim() -> None:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def _one(device: str, index: int) -> None:
    import architectures

    architectures.mend_torchvision()
    warnings.simplefilter("ignore")
    import transformers

    transformers.logging.set_verbosity_error()
    setting = SETTINGS[device][index]
    print(json.dumps(on_cpu(setting) if device == "cpu" else on_cuda(setting)))


def _machine(device: str) -> str:
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return f"{name or platform.machine()}, 2 threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=SETTINGS, default="cpu")
    parser.add_argument("--only", default="", help="numbers of settings, joined by commas; nothing is written")
    parser.add_argument("--again", action="store_true", help="new estimates for what was measured")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        _one(arguments.device, arguments.one)
        return
    target = ROOT / "benchmarks" / f"memory_{arguments.device}.json"
    settings = SETTINGS[arguments.device]
    if arguments.again:
        _estimate_again(target, settings, arguments.device)
        return
    chosen = [int(number) for number in arguments.only.split(",") if number] or range(len(settings))
    rows = []
    for index in chosen:
        command = [sys.executable, __file__, "--device", arguments.device, "--one", str(index)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **_ENVIRONMENT})
        if done.returncode:
            sys.exit(f"setting {index} ({settings[index].label}) failed:\n{done.stderr[-3000:]}")
        row = {"setting": settings[index].label, **json.loads(done.stdout.splitlines()[-1])}
        row["error"] = round(row["estimate"] / row["measured"] - 1, 4)
        rows.append(row)
        _show(row)
        if not arguments.only:
            _write(target, arguments.device, rows)


def _write(target: Path, device: str, rows: list[dict[str, Any]]) -> None:
    written = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device,
        "machine": _machine(device),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")},
        "settings": rows,
    }
    target.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _estimate_again(target: Path, settings: tuple[Setting, ...], device: str) -> None:
    """Writes new estimates beside what was measured."""
    import architectures

    architectures.mend_torchvision()
    written = json.loads(target.read_text(encoding="utf-8"))
    by_label = {setting.label: setting for setting in settings}
    for row in written["settings"]:
        setting = by_label[row["setting"]]
        row.update(estimated(plan_of(setting, build(setting, small=False, device="meta")), setting, device))
        row["error"] = round(row["estimate"] / row["measured"] - 1, 4)
        _show(row)
    target.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _show(row: dict[str, Any]) -> None:
    tensors = f"{row['estimate'] / row['tensors'] - 1:+.1%}" if "tensors" in row else ""
    print(f"{row['error']:+7.1%} {tensors:>7} {row['measured'] / 1e6:8.0f} MB  {row['setting']}", flush=True)


if __name__ == "__main__":
    main()
