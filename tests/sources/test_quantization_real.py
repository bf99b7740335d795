"""Checkpoints that the real libraries quantize, against the same model as it was before: names and shapes, all of them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    FineGrainedFP8Config,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MixtralConfig,
    PretrainedConfig,
)
from transformers.integrations.finegrained_fp8 import Fp8Quantize

from lorascope.sources.checkpoint.quantization.unpack import unpack
from lorascope.sources.checkpoint.safetensors import open_checkpoint
from lorascope.sources.checkpoint.types import Stored
from lorascope.sources.files.folder import open_folder

pytestmark = pytest.mark.slow

SMALL = {
    "vocab_size": 96,
    "hidden_size": 128,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LLAMA = LlamaConfig(**SMALL, num_key_value_heads=2)
MIXTRAL = MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4)
GPT2 = GPT2Config(vocab_size=96, n_embd=128, n_layer=2, n_head=4, n_positions=32, bos_token_id=0, eos_token_id=0)
OSS = GptOssConfig(
    **SMALL,
    num_key_value_heads=2,
    head_dim=32,
    num_local_experts=4,
    layer_types=["full_attention", "sliding_attention"],
)
Shapes = dict[str, tuple[int, ...]]


def saved(config: PretrainedConfig, folder: Path) -> Path:
    """The model in full precision, as `save_pretrained` writes it."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def shapes_of(folder: Path) -> Shapes:
    """Names and shapes by safetensors' own reader."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def repacked(folder: Path, said: dict[str, Any], pack: Callable[[str, torch.Tensor], dict[str, torch.Tensor]]) -> Path:
    """The same checkpoint with every projection packed by a function, and a configuration that says so."""
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        packed = tensor.dim() > 1 and ("_proj" in name or ".experts." in name) and not name.endswith("_bias")
        tensors |= pack(name, tensor) if packed else {name: tensor}
    target = folder.with_name(f"{folder.name}-packed")
    target.mkdir()
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, target / "model.safetensors", {"format": "pt"}
    )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (target / "config.json").write_text(json.dumps({**config, "quantization_config": said}), encoding="utf-8")
    return target


def compared(folder: Path, before: Shapes, kind: str, packed: int) -> dict[str, Stored]:
    """What is read of a quantized folder has the names and shapes of before; so many are of this kind, all others plain."""
    found = unpack(open_checkpoint(open_folder(folder)))
    assert {name: stored.shape for name, stored in found.items()} == before
    kinds = [stored.quantization for stored in found.values() if stored.quantization]
    assert (set(kinds), len(kinds)) == ({kind}, packed)
    assert sorted(source for stored in found.values() for source in stored.sources) == sorted(shapes_of(folder))
    return found


# --- transformers itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "packed"), [(LLAMA, 14), (MIXTRAL, 32)], ids=["llama", "mixtral"])
@pytest.mark.parametrize(("block", "scale"), [((32, 32), "float"), ((32, 32), "ue8m0"), (None, "float")])
def test_fp8_by_transformers_own_operation(
    tmp_path: Path, config: PretrainedConfig, packed: int, block: tuple[int, int] | None, scale: str
) -> None:
    said = FineGrainedFP8Config(weight_block_size=block, scale_fmt=scale)
    quantize = Fp8Quantize(SimpleNamespace(quantization_config=said))
    plain = saved(config, tmp_path / "plain")
    written = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": list(block) if block else None,
        "scale_fmt": scale,
        "modules_to_not_convert": ["lm_head", "gate"],
    }
    folder = repacked(plain, written, lambda name, tensor: quantize.convert({name: tensor}))
    before = shapes_of(plain)
    compared(folder, before, "fp8 block 32×32" if block else "fp8 tensor", packed)
    # transformers reads the same, and dequantizes it where there is no GPU.
    loaded, whole = (AutoModelForCausalLM.from_pretrained(path) for path in (folder, plain))
    assert {n: p.shape for n, p in loaded.named_parameters()} == {n: p.shape for n, p in whole.named_parameters()}
    name = "model.layers.0.self_attn.q_proj.weight"
    packed_weight, weight = (model.get_parameter(name).detach().float() for model in (loaded, whole))
    assert 0 < (packed_weight - weight).abs().mean() < 0.1 * weight.abs().mean()


def test_fp8_that_transformers_saves_again(tmp_path: Path) -> None:
    # It saves plain numbers since 5.24; before, it packed them again and said nothing of it in the configuration.
    quantize = Fp8Quantize(SimpleNamespace(quantization_config=FineGrainedFP8Config(weight_block_size=(32, 32))))
    plain = saved(LLAMA, tmp_path / "plain")
    said = {"quant_method": "fp8", "weight_block_size": [32, 32], "modules_to_not_convert": ["lm_head"]}
    folder = repacked(plain, said, lambda name, tensor: quantize.convert({name: tensor}))
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert "quantization_config" not in json.loads((tmp_path / "again" / "config.json").read_text(encoding="utf-8"))
    plainly = unpack(open_checkpoint(open_folder(tmp_path / "again")))
    assert {stored.quantization for stored in plainly.values()} == {""}
    assert {name: stored.shape for name, stored in plainly.items()} == shapes_of(plain)
    config = folder / "config.json"
    silent = json.loads(config.read_text(encoding="utf-8"))
    del silent["quantization_config"]
    config.write_text(json.dumps(silent), encoding="utf-8")
    compared(folder, shapes_of(plain), "fp8 block 32×32", 14)


def test_mxfp4_as_transformers_unpacks_it(tmp_path: Path) -> None:
    plain = saved(OSS, tmp_path / "plain")

    def pack(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        if ".experts." not in name:
            return {name: tensor}
        experts, inputs, outputs = tensor.shape
        blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
        scales = torch.full((experts, outputs, inputs // 32), 127, dtype=torch.uint8)
        return {f"{name}_blocks": blocks, f"{name}_scales": scales}

    folder = repacked(plain, {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head", "self_attn"]}, pack)
    found = compared(folder, shapes_of(plain), "mxfp4", 4)
    loaded = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    experts = [name for name in found if ".experts." in name]
    assert len(experts) == 8  # two weights and their biases in each of two layers
    assert {name: tuple(loaded[name].shape) for name in experts} == {name: found[name].shape for name in experts}
    assert all(loaded[name].dtype is torch.bfloat16 for name in experts)


# The module compiles a function when it is loaded, for which torch loads what it calls deprecated itself.
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_bitnet_by_transformers_own_packing(tmp_path: Path) -> None:
    from transformers.integrations.bitnet import pack_weights

    plain = saved(LLAMA, tmp_path / "plain")

    def pack(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: pack_weights(tensor.float().sign()), f"{name}_scale": torch.ones(1, dtype=torch.bfloat16)}

    said = {"quant_method": "bitnet", "linear_class": "autobitlinear", "modules_to_not_convert": ["lm_head"]}
    folder = repacked(plain, said, pack)
    compared(folder, shapes_of(plain), "bitnet", 14)


# --- bitsandbytes --------------------------------------------------------------------------------------------------------

BNB = {
    "nf4": ("bnb nf4", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
    "fp4": ("bnb fp4", {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}),
    "nested": ("bnb nf4", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
    "wide": ("bnb nf4", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": torch.bfloat16}),
    "int8": ("bnb int8", {"load_in_8bit": True}),
}


def by_bitsandbytes(plain: Path, settings: dict[str, Any]) -> Path:
    from transformers import BitsAndBytesConfig

    target = plain.with_name("quantized")
    config = BitsAndBytesConfig(**settings)
    model = AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=config, dtype=torch.bfloat16, device_map="cpu"
    )
    model.save_pretrained(target)
    return target


@pytest.mark.parametrize("name", BNB)
@pytest.mark.parametrize(("config", "packed"), [(LLAMA, 14), (MIXTRAL, 8)], ids=["llama", "mixtral"])
def test_bitsandbytes(tmp_path: Path, config: PretrainedConfig, packed: int, name: str) -> None:
    pytest.importorskip("bitsandbytes")
    kind, settings = BNB[name]
    plain = saved(config, tmp_path / "plain")
    compared(by_bitsandbytes(plain, settings), shapes_of(plain), kind, packed)


@pytest.mark.parametrize("name", ["nf4", "int8"])
def test_bitsandbytes_turns_a_conv1d_round(tmp_path: Path, name: str) -> None:
    # At run time such a module is a Linear, so what is stored is (out, in) already.
    pytest.importorskip("bitsandbytes")
    kind, settings = BNB[name]
    plain = saved(GPT2, tmp_path / "plain")
    before = shapes_of(plain)
    turned = {name for name in before if ".c_" in name and name.endswith(".weight")}
    assert len(turned) == 8
    expected = {name: shape[::-1] if name in turned else shape for name, shape in before.items()}
    compared(by_bitsandbytes(plain, settings), expected, kind, 8)


# --- compressed-tensors --------------------------------------------------------------------------------------------------

TOKENS = {"num_bits": 8, "strategy": "token", "dynamic": True}
# Kind, the scheme of the weights, and that of the inputs where it decides the format.
COMPRESSED: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "w4 group": ("int4", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}, None),
    "w4 zeros": (
        "int4",
        {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": False},
        None,
    ),
    "w4 channel": ("int4", {"num_bits": 4, "type": "int", "strategy": "channel"}, None),
    "w3 channel": ("int3", {"num_bits": 3, "type": "int", "strategy": "channel"}, None),
    "w8 channel": ("int8", {"num_bits": 8, "type": "int", "strategy": "channel"}, None),
    "int8": ("int8 channel", {"num_bits": 8, "type": "int", "strategy": "channel"}, {**TOKENS, "type": "int"}),
    "fp8 tensor": (
        "fp8 tensor",
        {"num_bits": 8, "type": "float", "strategy": "tensor"},
        {"num_bits": 8, "type": "float", "strategy": "tensor"},
    ),
    "fp8 channel": (
        "fp8 channel",
        {"num_bits": 8, "type": "float", "strategy": "channel"},
        {**TOKENS, "type": "float"},
    ),
    "fp8 block": (
        "fp8 block 32×32",
        {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [32, 32]},
        None,
    ),
    "naive": ("fp8 channel", {"num_bits": 8, "type": "float", "strategy": "channel"}, None),
    "nvfp4": ("nvfp4", {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}, None),
    "mxfp4": ("mxfp4", {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}, None),
    "mxfp6": ("mxfp6", {"num_bits": 6, "type": "float", "strategy": "group", "group_size": 32}, None),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_tensors(tmp_path: Path, name: str) -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
        apply_quantization_config,
    )

    kind, weights, inputs = COMPRESSED[name]
    plain = saved(LLAMA, tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.bfloat16)
    scheme = QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(**weights),
        input_activations=QuantizationArgs(**inputs) if inputs else None,
    )
    config = QuantizationConfig(
        config_groups={"group_0": scheme}, ignore=["lm_head"], quantization_status=QuantizationStatus.FROZEN
    )
    apply_quantization_config(model, config)
    for parameter, value in model.named_parameters():  # as a calibration would set them
        if parameter.endswith("_scale"):
            value.data.fill_(1 / 64)
        elif parameter.endswith("_zero_point"):
            value.data.zero_()
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(tmp_path / "packed")
    compressor.update_config(tmp_path / "packed")
    before = shapes_of(plain)
    compared(tmp_path / "packed", before, f"compressed-tensors {kind}", 14)
    assert math.prod(before["model.layers.0.mlp.down_proj.weight"]) == 128 * 160


def test_a_damaged_copy_of_a_real_file_is_told(tmp_path: Path) -> None:
    from tests.helpers.samples import fails

    quantize = Fp8Quantize(SimpleNamespace(quantization_config=FineGrainedFP8Config(weight_block_size=(32, 32))))
    plain = saved(LLAMA, tmp_path / "plain")
    said = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    folder = repacked(plain, said, lambda name, tensor: quantize.convert({name: tensor}))
    tensors = load_file(folder / "model.safetensors")
    for layer in range(2):
        del tensors[f"model.layers.{layer}.mlp.up_proj.weight_scale_inv"]
    shutil.copy(folder / "config.json", tmp_path / "config.json")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with fails("2 faults", "'model.layers.1.mlp.up_proj.weight' is F8_E4M3 [160, 128]"):
        unpack(open_checkpoint(open_folder(tmp_path)))
