"""PEFT's limits on quantized weights: what the rules say, and that the installed PEFT and transformers do so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig, LlamaConfig, MixtralConfig

from lorascope.model.types import Kind
from lorascope.peft_rules.quantization import quantized_needs, why_not_quantized
from tests.helpers.paths import DATA

# Every quantization that `lorascope.sources.checkpoint.quantization.unpack` can name; and of which kinds PEFT can adapt a weight.
KINDS: tuple[Kind, ...] = ("linear", "parameter", "embedding")
ADAPTABLE: dict[str, tuple[Kind, ...]] = {
    "": KINDS,
    "fp8 without scale": KINDS,
    "fp8 tensor": KINDS,
    "fp8 channel": KINDS,
    "fp8 block 128×128": KINDS,
    "mxfp8": KINDS,
    "fp4 block 1×32": KINDS,
    "mxfp4": KINDS,
    "bnb nf4": ("linear", "embedding"),
    "bnb fp4": ("linear", "embedding"),
    "bnb int8": ("linear", "embedding"),
    "gptq 4 bit": ("linear",),
    "awq 4 bit gemm": ("linear",),
    "awq 4 bit gemv_fast": ("linear",),
    "compressed-tensors int4": KINDS,
    "compressed-tensors int8 channel": KINDS,
    "compressed-tensors fp8 tensor": KINDS,
    "compressed-tensors nvfp4": KINDS,
    "auto-round gptq 4 bit": (),
    "fbgemm fp8 channel": (),
    "modelopt fp8 tensor": (),
    "modelopt nvfp4": (),
    "modelopt int4": (),
    "bitnet": (),
}


@pytest.mark.parametrize("quantization", ADAPTABLE)
def test_every_quantization_has_an_answer(quantization: str) -> None:
    for kind in KINDS:
        why = why_not_quantized(kind, quantization)
        assert (why == "") == (kind in ADAPTABLE[quantization]), kind
        # It says what to do next, and whole sentences.
        assert not why or ("Load " in why and why.endswith("."))
    needs = {kind: quantized_needs(quantization, kind) for kind in KINDS}
    assert all(not text or text.endswith(".") for text in needs.values())


def test_what_is_needed() -> None:
    assert len(ADAPTABLE) == 24
    assert quantized_needs("") == quantized_needs("", "parameter") == ""
    assert "Install bitsandbytes" in quantized_needs("bnb nf4")
    assert "gptqmodel" in quantized_needs("gptq 3 bit") and "all-linear" in quantized_needs("awq 4 bit gemm")
    assert "CompressedTensorsConfig(dequantize=True)" in quantized_needs("compressed-tensors int4")
    assert "Mxfp4Config(dequantize=True)" in quantized_needs("mxfp4", "parameter")
    assert quantized_needs("fp8 tensor") != quantized_needs("fp8 tensor", "parameter")


# --- the installed PEFT and transformers ---------------------------------------------------------------------------------


class Box(torch.nn.Module):
    """A model with one module in it, and a parameter, by which PEFT finds the device."""

    def __init__(self, experts: torch.nn.Module) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(4)
        self.experts = experts.requires_grad_(False)


def widths(experts: torch.nn.Module) -> tuple[int, int]:
    """Inputs and outputs that PEFT sees in the experts' gate and up projection."""
    adapted = get_peft_model(Box(experts), LoraConfig(target_parameters=["experts.gate_up_proj"]))
    wrapper = adapted.base_model.model.experts
    return wrapper.in_features, wrapper.out_features


SMALL = MixtralConfig(hidden_size=64, intermediate_size=96, num_local_experts=4)


def test_peft_takes_the_packed_shape_of_experts_for_theirs() -> None:
    from transformers.integrations.finegrained_fp8 import FP8Experts
    from transformers.integrations.mxfp4 import Mxfp4GptOssExperts

    assert widths(FP8Experts(SMALL, block_size=(32, 32))) == (64, 192)
    assert widths(FP8Experts(SMALL, expert_dtype="fp4")) == (32, 192)
    # As transformers unpacks them they are (experts, 64, 192); neither number is right.
    assert widths(Mxfp4GptOssExperts(GptOssConfig(hidden_size=64, intermediate_size=96, num_local_experts=4))) == (
        32,
        192,
    )


def test_peft_adapts_an_fp8_layer_and_cannot_merge_it() -> None:
    from transformers.integrations.finegrained_fp8 import FP8Linear

    adapted = get_peft_model(Box(FP8Linear(64, 96, block_size=(32, 32))), LoraConfig(target_modules=["experts"]))
    assert adapted.get_nb_trainable_parameters()[0] == 8 * (64 + 96)
    with pytest.raises(RuntimeError, match="Promotion for Float8 Types is not supported"):
        adapted.merge_and_unload()


# The module compiles a function when it is loaded, for which torch loads what it calls deprecated itself.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_peft_refuses_a_bitnet_layer() -> None:
    from transformers.integrations.bitnet import BitLinear

    with pytest.raises(ValueError, match=r"Target module BitLinear\(\) is not supported"):
        get_peft_model(Box(BitLinear(64, 96, bias=False)), LoraConfig(target_modules=["experts"]))


def model_optimizers(folder: Path, packed: bool) -> Path:
    """A checkpoint as Model Optimizer exports it: two numbers in a byte, or fp8 with a scale that is far from 1."""
    config = LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if "_proj" not in name:
            tensors[name] = tensor
        elif packed:
            rows, columns = tensor.shape
            tensors[name] = torch.zeros(rows, columns // 2, dtype=torch.uint8)
            tensors[f"{name}_scale"] = torch.ones(rows, columns // 16).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_2"] = torch.tensor(1.0)
        else:
            tensors[name] = torch.full_like(tensor, 448.0).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale"] = torch.tensor(1e-4)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    said["quantization_config"] = {"quant_method": "modelopt", "quant_algo": "NVFP4" if packed else "FP8"}
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def test_transformers_takes_model_optimizers_fp8_for_the_weights_themselves(tmp_path: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(model_optimizers(tmp_path, packed=False))
    assert loaded.model.layers[0].mlp.down_proj.weight.max() == 448  # and not 0.0448


def test_transformers_refuses_model_optimizers_packed_shapes(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForCausalLM.from_pretrained(model_optimizers(tmp_path, packed=True))


# --- with libraries that the test environment may have -------------------------------------------------------------------

LLAMA = LlamaConfig(
    vocab_size=96,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=4,
)
TRAINABLE = 8 * (4 * (128 + 128) + 3 * (128 + 256))


def trained(model: Any, **settings: Any) -> Any:
    """The model with an adapter on every Linear, after one step back."""
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear", **settings))
    adapted(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    gradients = [parameter.grad for name, parameter in adapted.named_parameters() if "lora_B" in name]
    assert len(gradients) == 7 and all(gradient.abs().sum() > 0 for gradient in gradients)
    return adapted


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"load_in_4bit": True}, {"load_in_8bit": True}], ids=["4 bit", "8 bit"])
@pytest.mark.filterwarnings("ignore:Merge lora module to [48]-bit linear:UserWarning")
@pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning")
def test_peft_trains_and_merges_bitsandbytes(tmp_path: Path, settings: dict[str, Any]) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    AutoModelForCausalLM.from_config(LLAMA).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(**settings), device_map="cpu", dtype=torch.float32
    )
    adapted = trained(model)
    assert adapted.get_nb_trainable_parameters()[0] == TRAINABLE
    adapted.merge_and_unload()


@pytest.mark.slow
def test_transformers_cannot_load_experts_that_bitsandbytes_packed_one_by_one(tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    config = MixtralConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        tensors[name] = tensor
        if ".experts." in name or "_proj" in name:
            tensors[name], state = functional.quantize_4bit(tensor, quant_type="nf4")
            tensors |= {f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    said = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    said["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForCausalLM.from_pretrained(tmp_path, device_map="cpu")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You passed `quantization_config`:UserWarning")
def test_peft_fails_on_compressed_modules_and_trains_dequantized_ones(tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from transformers import CompressedTensorsConfig

    AutoModelForCausalLM.from_config(LLAMA, dtype=torch.bfloat16).save_pretrained(tmp_path)
    weights = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=32)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        if "_proj" in name:
            scale = torch.full((tensor.shape[0], tensor.shape[1] // 32), 1 / 64, dtype=tensor.dtype)
            packed = compressor.compress({"weight": tensor, "weight_scale": scale}, scheme)
            tensors |= {name.removesuffix("weight") + key: value for key, value in packed.items()}
        else:
            tensors[name] = tensor
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    said = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    said["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights.model_dump(mode="json")}},
    }
    (tmp_path / "config.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'weight'"):
        trained(AutoModelForCausalLM.from_pretrained(tmp_path))
    whole = CompressedTensorsConfig(dequantize=True)
    adapted = trained(AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=whole))
    assert adapted.get_nb_trainable_parameters()[0] == TRAINABLE


@pytest.mark.parametrize(
    ("quantization", "layer"), [("gptq 4 bit", "GPTQLoraLinear"), ("awq 4 bit gemm", "AwqLoraLinear")]
)
def test_what_peft_did_with_gptqmodels_layers(quantization: str, layer: str) -> None:
    # Recorded, because GPTQModel is too heavy for the test environment: `tests/data/record_quantized.py`.
    path = DATA / "quantized_peft.json"
    recorded = json.loads(path.read_text(encoding="utf-8"))
    assert recorded["versions"] == {"gptqmodel": "7.6.0", "optimum": "2.3.0", "peft": "0.21.2"}
    did = recorded[quantization]
    assert did["adapted by name"] == [layer, 8 * (2 * (128 + 128) + 2 * (128 + 64) + 3 * (128 + 384))]
    assert did["merged"].startswith("NotImplementedError")
    assert "does not support DoRA" in did["with DoRA"]
    assert did["by all-linear"].startswith("NoMatchingPeftModuleError")
    needs = quantized_needs(quantization)
    assert all(word in needs for word in ("without DoRA", "cannot merge", "all-linear matches none"))
