"""Bytes of base weights: by hand, and against modules of bitsandbytes and transformers."""

from __future__ import annotations

import math

import pytest
import torch

from lorascope import light_dataclasses as dataclasses
from lorascope.costs.base_weights import base_weights, packed_bytes
from lorascope.costs.training_run import Training
from lorascope.model.storage import parse_storage
from lorascope.model.types import ModelMap
from lorascope.sources.transformers.meta_model import map_module
from tests.helpers.samples import sample
from tests.helpers.saved_tensors import built

NF4 = Training(quantization="nf4")
INT8 = Training(quantization="8bit")


def test_llama_by_hand() -> None:
    """Llama-2-7B: 6,476,005,376 weights in the linear layers of its blocks, 262,410,240 elsewhere."""
    model = sample("llama")
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    rest = 2 * 32000 * 4096 + 65 * 4096
    assert base_weights(model, Training()).size == 2 * (linear + rest) == 2 * 6_738_415_616
    assert base_weights(model, Training(dtype="fp32")).size == 4 * 6_738_415_616
    assert base_weights(model, NF4).size == linear // 2 + linear // 64 + 4 * (linear // 64 // 256) + 2 * rest
    assert base_weights(model, INT8).size == linear + 4 * 32 * (5 * 4096 + 2 * 11008) + 2 * rest
    assert base_weights(model, NF4).largest_packed == 4096 * 11008


def test_a_tied_head_counts_once_and_is_not_quantized() -> None:
    model = sample("gpt2")
    assert base_weights(model, Training(dtype="fp32")).size == 4 * model.dimensions.parameters
    words = 50257 * 768
    assert base_weights(model, NF4).plain >= words + 1024 * 768
    assert base_weights(model, NF4).packed == 12 * (12 * 768**2)


def test_fused_experts_are_not_quantized() -> None:
    model = sample("mixtral")
    experts = 32 * 8 * 3 * 4096 * 14336
    assert base_weights(model, NF4).bare_experts == experts
    assert base_weights(model, NF4).size > 2 * experts


@pytest.mark.parametrize("shape", [(64, 64), (700, 300), (33, 65), (4096, 1024)])
def test_packed_bytes_are_those_of_bitsandbytes(shape: tuple[int, int]) -> None:
    import bitsandbytes as bnb

    out, inner = shape
    packed = bnb.nn.Linear4bit(inner, out, bias=False, quant_type="nf4", compress_statistics=True)
    packed.load_state_dict({"weight": torch.randn(out, inner)})
    weight = packed.to("cpu").weight
    scales = weight.quant_state
    real = weight.data.nbytes + scales.absmax.nbytes + scales.state2.absmax.nbytes
    assert packed_bytes(out * inner, out, NF4) == real
    whole = bnb.nn.Linear8bitLt(inner, out, bias=False, has_fp16_weights=False)
    whole.load_state_dict({"weight": torch.randn(out, inner)})
    eight = whole.to("cpu").weight
    assert packed_bytes(out * inner, out, INT8) == eight.data.nbytes + 4 * out


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "t5", "mixtral", "gemma2", "deepseek_v3", "mamba"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_those_of_the_module(name: str, dtype: str) -> None:
    model = built(name, dtype)
    real = sum(parameter.nbytes for parameter in model.parameters())
    estimate = base_weights(map_module(model), Training(dtype="fp32" if dtype == "float32" else "bf16")).size
    # deepseek_v3 keeps its routers' biases in buffers, and in transformers 5.24 the routers in float32, as mamba A and D.
    assert math.isclose(estimate, real, rel_tol=0.03 if name in ("mamba", "deepseek_v3") else 0)


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ("bnb nf4", 4),
        ("bnb fp4", 4),
        ("bnb int8", 8),
        ("mxfp4", 4),
        ("mxfp8", 8),
        ("fp8 block 128×128", 8),
        ("modelopt int4", 4),
        ("bitnet", 2),
        ("gptq 3 bit", 3),
        ("mlx 6 bit", 6),
        ("aqlm", 8),  # what says nothing counts as a byte
    ],
)
def test_stored_weights_count_by_their_own_bits(quantization: str, bits: int) -> None:
    linear, rest = 32 * (4 * 4096**2 + 3 * 4096 * 11008), 2 * 32000 * 4096 + 65 * 4096
    weights = base_weights(stored_as(quantization), Training())
    assert weights.stored_packed
    assert not weights.dequantized
    assert (weights.packed, weights.plain) == (linear, rest)
    assert weights.size == linear * bits * 17 // 16 // 8 + 2 * rest


@pytest.mark.parametrize(
    "quantization", ["compressed-tensors int4", "compressed-tensors nvfp4", "fp4 block 1×32", "gguf Q4_K"]
)
def test_what_must_be_loaded_dequantized_counts_unpacked(quantization: str) -> None:
    for training in (Training(), NF4):
        weights = base_weights(stored_as(quantization), training)
        assert weights.dequantized
        assert not weights.stored_packed
        assert weights.plain >= 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert base_weights(stored_as(quantization), Training()).size == base_weights(sample("llama"), Training()).size


def test_bits_that_types_say() -> None:
    words = {
        "compressed-tensors nvfp4": 4,
        "compressed-tensors mxfp6": 6,
        "gguf IQ2_XS": 2,
        "gguf MXFP4": 4,
        "gguf BF16": None,
    }
    assert {word: parse_storage(word).bits for word in words} == words


def stored_as(quantization: str) -> ModelMap:
    """A llama whose linear layers are stored like this."""
    model = sample("llama")
    modules = tuple(
        dataclasses.replace(module, quantization=quantization)
        if module.kind == "linear" and module.name != "lm_head"
        else module
        for module in model.modules
    )
    return dataclasses.replace(model, modules=modules)
