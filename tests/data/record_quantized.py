"""Records what quantizing libraries that are too heavy for the test environment make of one small Llama.

    python tests/data/record_quantized.py

writes two files beside itself: `quantized_headers.json` has for each library and format the names, types and shapes of the
tensors and the configuration, `quantized_peft.json` what PEFT does with GPTQModel's layers. It needs torch, transformers, gptqmodel 7.6 with optimum, and, without what they depend on, autoawq 0.2.9, auto-gptq
0.7.1 and nvidia-modelopt 0.47 (with scipy, omegaconf, pulp and nvidia-ml-py). None of them needs a GPU for this: of the first
three the modules that a model is packed into are enough, the last one quantizes and exports for real.
"""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import json
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("quantized_headers.json")
PEFT = Path(__file__).with_name("quantized_peft.json")
SIZES = {
    "vocab_size": 96,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELOPT = ("FP8", "FP8_2D_BLOCKWISE_WEIGHT_ONLY", "FP8_PER_CHANNEL_PER_TOKEN", "MXFP8", "MXFP4", "NVFP4", "INT4_AWQ")


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(architectures=["LlamaForCausalLM"], **SIZES)).half()


def header(state: dict[str, Any]) -> dict[str, Any]:
    """What safetensors writes of a state dict: types and shapes."""
    from safetensors.torch import save

    content = save({name: tensor.contiguous() for name, tensor in state.items()})
    found = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return {name: [entry["dtype"], entry["shape"]] for name, entry in found.items() if name != "__metadata__"}


def replaced(make: Callable[[Any], Any]) -> dict[str, Any]:
    """The header of the model with every Linear but the head replaced."""
    import torch

    model = llama()
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            model.set_submodule(name, make(module))
    return header(model.state_dict())


def gptqmodels(kind: type, bits: int, words: Any) -> Callable[[Any], Any]:
    """From a Linear to one of GPTQModel's layers."""
    return lambda linear: kind(
        bits=bits,
        group_size=64,
        sym=True,
        desc_act=False,
        in_features=linear.in_features,
        out_features=linear.out_features,
        bias=False,
        pack_dtype=words,
        register_buffers=True,
    )


def of_gptqmodel() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    import torch
    from gptqmodel.nn_modules.qlinear.gemv_fast_awq import AwqGEMVFastLinear, LLMAwqLinear
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear

    for bits in (2, 3, 4, 5, 6, 7, 8):
        config = {"quant_method": "gptq", "bits": bits, "group_size": 64, "desc_act": False, "sym": True}
        yield f"gptq {bits} bit", config, replaced(gptqmodels(TorchLinear, bits, torch.int32))
    kinds = ((AwqTorchLinear, "gemm", torch.int32), (AwqGEMVFastLinear, "gemv_fast", torch.int16))
    for kind, version, words in (*kinds, (LLMAwqLinear, "llm-awq", torch.int16)):
        config = {"quant_method": "awq", "bits": 4, "group_size": 64, "version": version, "zero_point": True}
        yield f"awq 4 bit {version}", config, replaced(gptqmodels(kind, 4, words))


def without_its_package(package: str, *inner: str) -> None:
    """Make a package's modules importable without running its `__init__`, which needs a GPU or an old transformers."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    for name in (package, *inner):
        module = types.ModuleType(name)
        folder = Path(spec.submodule_search_locations[0], *name.split(".")[1:])
        module.__path__ = [str(folder)] if folder.exists() else []
        sys.modules[name] = module


def of_autoawq() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    without_its_package("awq", "awq.modules", "awq.modules.linear", "awq.utils", "awq.modules.triton")
    kernels = types.ModuleType("awq.modules.triton.gemm")
    kernels.awq_gemm_triton = kernels.awq_dequantize_triton = None  # type: ignore[attr-defined]
    sys.modules["awq.modules.triton.gemm"] = kernels
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.modules.linear.gemv import WQLinear_GEMV
    from awq.modules.linear.gemv_fast import WQLinear_GEMVFast

    for kind, version in ((WQLinear_GEMM, "gemm"), (WQLinear_GEMV, "gemv"), (WQLinear_GEMVFast, "gemv_fast")):
        config = {"quant_method": "awq", "bits": 4, "group_size": 64, "version": version, "zero_point": True}

        def make(linear: Any, kind: Any = kind) -> Any:
            return kind(4, 64, linear.in_features, linear.out_features, False, "cpu")

        yield f"awq 4 bit {version}", config, replaced(make)


def of_auto_gptq() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    without_its_package("auto_gptq", "auto_gptq.nn_modules", "auto_gptq.nn_modules.qlinear")
    from auto_gptq.nn_modules.qlinear.qlinear_cuda_old import QuantLinear

    for bits in (2, 3, 4, 8):
        config = {"quant_method": "gptq", "bits": bits, "group_size": 64, "desc_act": False, "sym": True}

        def make(linear: Any, bits: int = bits) -> Any:
            return QuantLinear(bits, 64, linear.in_features, linear.out_features, False)

        yield f"gptq {bits} bit", config, replaced(make)


def of_modelopt() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_hf_checkpoint
    from safetensors.torch import load_file

    for name in MODELOPT:
        config = copy.deepcopy(getattr(mtq, f"{name}_DEFAULT_CFG", None) or getattr(mtq, f"{name}_CFG"))
        model = mtq.quantize(llama().bfloat16(), config, lambda model: model(torch.arange(16)[None]))
        with tempfile.TemporaryDirectory() as folder:
            export_hf_checkpoint(model, export_dir=folder)
            said = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))["quantization_config"]
            yield name, said, header(load_file(Path(folder, "model.safetensors")))


def of_peft() -> dict[str, Any]:
    """What PEFT does with a model of GPTQModel's layers."""
    import peft
    import torch
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear

    def model(kind: type) -> Any:
        whole = llama().float()
        for name, module in list(whole.named_modules()):
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                whole.set_submodule(name, gptqmodels(kind, 4, torch.int32)(module))
        return whole

    def error(attempt: Callable[[], Any]) -> str:
        try:
            attempt()
        except Exception as found:
            return f"{type(found).__name__}: {found}"
        return "done"

    names = sorted({name.rpartition(".")[2] for name, _ in llama().named_modules() if name.endswith("_proj")})
    libraries = ("gptqmodel", "optimum", "peft")
    found: dict[str, Any] = {"versions": {name: importlib.metadata.version(name) for name in libraries}}
    for quantization, kind in (("gptq 4 bit", TorchLinear), ("awq 4 bit gemm", AwqTorchLinear)):
        adapted = peft.get_peft_model(model(kind), peft.LoraConfig(target_modules=names))
        layer = type(adapted.base_model.model.model.layers[0].mlp.down_proj).__name__
        dora = peft.LoraConfig(target_modules=names, use_dora=True)
        every = peft.LoraConfig(target_modules="all-linear")
        found[quantization] = {
            "adapted by name": [layer, adapted.get_nb_trainable_parameters()[0]],
            "merged": error(adapted.merge_and_unload),
            "with DoRA": error(lambda kind=kind, dora=dora: peft.get_peft_model(model(kind), dora)),
            "by all-linear": error(lambda kind=kind, every=every: peft.get_peft_model(model(kind), every)),
        }
    return found


def main() -> None:
    sources = {
        "nvidia-modelopt": of_modelopt,
        "gptqmodel": of_gptqmodel,
        "autoawq": of_autoawq,
        "auto-gptq": of_auto_gptq,
    }
    found: dict[str, Any] = {}
    for library, recorded in sources.items():
        version = importlib.metadata.version(library)
        for name, config, tensors in recorded():
            found[f"{library} {version}: {name}"] = {"config": config, "tensors": tensors}
    text = json.dumps(found, sort_keys=True).replace('}, "', '},\n"')
    TARGET.write_text(text + "\n", encoding="utf-8")
    PEFT.write_text(json.dumps(of_peft(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(found)} formats")


if __name__ == "__main__":
    main()
