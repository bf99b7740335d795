"""Packed weights by their documented layouts, recorded headers of the libraries, and everything that does not fit."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorascope.errors import LorascopeError
from lorascope.sources.checkpoint.quantization.unpack import unpack
from lorascope.sources.checkpoint.safetensors import open_checkpoint
from lorascope.sources.checkpoint.types import Checkpoint, Span, Stored, Tensor
from lorascope.sources.files.folder import open_folder
from tests.helpers.paths import DATA
from tests.helpers.samples import fails
from tests.helpers.sparse_checkpoints import write_checkpoint

RECORDED = json.loads((DATA / "quantized_headers.json").read_text(encoding="utf-8"))
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


class Memory:
    """Files whose bytes are in memory; implements `checkpoint.types.Files`, and counts its reads."""

    where, commit = "memory", ""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.names = frozenset(files)
        self.reads: list[list[Span]] = []

    def size(self, name: str) -> int:
        return len(self.files[name])

    def read(self, spans: list[Span]) -> list[bytes]:
        self.reads.append(spans)
        return [self.files[span.file][span.start : span.end] for span in spans]


def checkpoint(
    tensors: Tensors,
    quantization: object = None,
    data: Mapping[str, bytes] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Checkpoint:
    """A checkpoint of names, types and shapes; `data` gives the bytes of those that have any."""
    content, found = b"", {}
    for name, (dtype, shape) in tensors.items():
        own = (data or {}).get(name, b"")
        found[name] = Tensor(name, dtype, shape, Span("model.safetensors", len(content), len(content) + len(own)))
        content += own
    said = {"quantization_config": quantization} if quantization is not None else {}
    return Checkpoint(Memory({"model.safetensors": content, **(files or {})}), {**said, **(config or {})}, found)


def summary(found: Mapping[str, Stored]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (stored.shape, stored.quantization) for name, stored in found.items()}


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}
MODELOPT = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
MLX = {
    "bits": 4,
    "group_size": 64,
    "b": {"bits": 3, "group_size": 32},
    "model.embed_tokens": {"bits": 8, "group_size": 64},
}
STATE = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [24, 64]}


def mlx(module: str, outputs: int, inputs: int, bits: int, size: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    scales = ("BF16", (outputs, inputs // size))
    words = ("U32", (outputs, inputs * bits // 32))
    return {f"{module}.weight": words, f"{module}.scales": scales, f"{module}.biases": scales}


def scheme(**weights: Any) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


def gptq(bits: int = 4, outputs: int = 64, inputs: int = 96, size: int = 32) -> dict[str, tuple[str, tuple[int, ...]]]:
    groups = -(-inputs // size)
    return {
        "a.qweight": ("I32", (inputs * bits // 32, outputs)),
        "a.qzeros": ("I32", (groups, -(-outputs * bits // 32))),
        "a.scales": ("F16", (groups, outputs)),
        "a.g_idx": ("I32", (inputs,)),
    }


def bnb4(
    shape: tuple[int, int] = (24, 64), storage: str = "U8", width: int = 1
) -> dict[str, tuple[str, tuple[int, ...]]]:
    numbers = shape[0] * shape[1]
    return {
        "a.weight": (storage, (numbers // 2 // width, 1)),
        "a.weight.absmax": ("F32", (-(-numbers // 64),)),
        "a.weight.quant_map": ("F32", (16,)),
        "a.weight.quant_state.bitsandbytes__nf4": ("U8", (99,)),
    }


def state(**changes: Any) -> dict[str, bytes]:
    return {"a.weight.quant_state.bitsandbytes__nf4": json.dumps({**STATE, **changes}).encode()}


# --- what libraries made -------------------------------------------------------------------------------------------------

LLAMA = {
    "lm_head.weight": (96, 128),
    "model.embed_tokens.weight": (96, 128),
    "model.norm.weight": (128,),
    "model.layers.0.input_layernorm.weight": (128,),
    "model.layers.0.post_attention_layernorm.weight": (128,),
}
PACKED = {
    "model.layers.0.self_attn.q_proj.weight": (128, 128),
    "model.layers.0.self_attn.k_proj.weight": (64, 128),
    "model.layers.0.self_attn.v_proj.weight": (64, 128),
    "model.layers.0.self_attn.o_proj.weight": (128, 128),
    "model.layers.0.mlp.gate_proj.weight": (384, 128),
    "model.layers.0.mlp.up_proj.weight": (384, 128),
    "model.layers.0.mlp.down_proj.weight": (128, 384),
}
MODELOPTS = {
    "FP8": "modelopt fp8 tensor",
    "FP8_2D_BLOCKWISE_WEIGHT_ONLY": "modelopt fp8 block 128×128",
    "FP8_PER_CHANNEL_PER_TOKEN": "modelopt fp8 channel",
    "MXFP8": "modelopt mxfp8",
    "MXFP4": "modelopt mxfp4",
    "NVFP4": "modelopt nvfp4",
    "INT4_AWQ": "modelopt int4",
}


def test_the_record_has_what_it_had() -> None:
    assert len(RECORDED) == 24
    libraries = Counter(name.partition(" ")[0] for name in RECORDED)
    assert libraries == {"gptqmodel": 10, "nvidia-modelopt": 7, "auto-gptq": 4, "autoawq": 3}


@pytest.mark.parametrize("name", RECORDED)
def test_what_a_library_packs_has_the_models_names_and_shapes(name: str) -> None:
    tensors = {key: (dtype, tuple(shape)) for key, (dtype, shape) in RECORDED[name]["tensors"].items()}
    found = unpack(checkpoint(tensors, RECORDED[name]["config"]))
    assert {key: stored.shape for key, stored in found.items()} == {**LLAMA, **PACKED}
    kinds = {found[key].quantization for key in PACKED}
    kind = name.partition(": ")[2]
    if kind == "FP8_2D_BLOCKWISE_WEIGHT_ONLY":  # a weight of one block is exported with one scale
        assert kinds == {"modelopt fp8 block 128×128", "modelopt fp8 tensor"}
    else:
        assert kinds == {MODELOPTS.get(kind, kind)}
    assert all(found[key].quantization == "" for key in LLAMA)
    assert sorted(source for stored in found.values() for source in stored.sources) == sorted(tensors)


def test_model_optimizers_own_file_says_as_much() -> None:
    name = next(name for name in RECORDED if name.endswith(": NVFP4"))
    tensors = {key: (dtype, tuple(shape)) for key, (dtype, shape) in RECORDED[name]["tensors"].items()}
    said = json.dumps({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}})
    found = unpack(checkpoint(tensors, files={"hf_quant_config.json": said.encode()}))
    assert {found[key].shape for key in PACKED} == set(PACKED.values())
    with fails("nothing says how they are packed"):
        unpack(checkpoint(tensors))


# --- documented layouts --------------------------------------------------------------------------------------------------

# Each with where its layout is written down.
LAYOUTS: dict[str, tuple[Any, Tensors, dict[str, tuple[tuple[int, ...], str]]]] = {
    # AutoGPTQ before 0.2, https://github.com/AutoGPTQ/AutoGPTQ: without act-order no g_idx was written.
    "gptq without g_idx": (
        {**GPTQ, "bits": 3},
        {name: shape for name, shape in gptq(3).items() if not name.endswith("g_idx")},
        {"a.weight": ((64, 96), "gptq 3 bit")},
    ),
    # GPTQModel's README, "dynamic": other bits for single modules.
    "gptq with overrides": (
        {**GPTQ, "dynamic": {"+:.*down.*": {"bits": 8, "group_size": 64}, "-:.*head.*": {}}},
        gptq(8, size=64),
        {"a.weight": ((64, 96), "gptq 8 bit")},
    ),
    "gptq in one group": ({**GPTQ, "group_size": -1}, gptq(size=96), {"a.weight": ((64, 96), "gptq 4 bit")}),
    # AutoRound's docs/step_by_step.md: format auto_round with the packing of another library.
    "auto-round": (
        {"quant_method": "intel/auto-round", "bits": 4, "group_size": 32, "packing_format": "auto_round:auto_gptq"},
        gptq(),
        {"a.weight": ((64, 96), "auto-round gptq 4 bit")},
    ),
    # transformers 5.23, integrations/finegrained_fp8.py: FP8Linear; the last blocks are not full.
    "fp8 in blocks": (
        FP8,
        {"a.weight": ("F8_E4M3", (200, 300)), "a.weight_scale_inv": ("F32", (2, 3)), "a.activation_scale": ("F32", ())},
        {"a.weight": ((200, 300), "fp8 block 128×128")},
    ),
    "fp8 by tensor": (
        {**FP8, "weight_block_size": None},
        {"a.weight": ("F8_E4M3", (200, 300)), "a.weight_scale_inv": ("F32", ())},
        {"a.weight": ((200, 300), "fp8 tensor")},
    ),
    # The same, FP8Experts: fused, with a gate and an up projection that begin with blocks of their own.
    "fp8 experts": (
        FP8,
        {"e.gate_up_proj": ("F8_E4M3", (4, 320, 256)), "e.gate_up_proj_scale_inv": ("F32", (4, 4, 2))},
        {"e.gate_up_proj": ((4, 320, 256), "fp8 block 128×128")},
    ),
    "fp8 experts by tensor": (
        {**FP8, "weight_block_size": None},
        {"e.down_proj": ("F8_E4M3", (4, 320, 256)), "e.down_proj_scale_inv": ("F32", (4, 1, 1))},
        {"e.down_proj": ((4, 320, 256), "fp8 tensor")},
    ),
    # The same, Fp8Dequantize: DeepSeek-V4's experts with two numbers in a byte, and `.scale` for weight_scale_inv.
    "fp4 experts": (
        {**FP8, "expert_dtype": "fp4", "scale_fmt": "ue8m0"},
        {
            "e.0.w1.weight": ("I8", (96, 64)),
            "e.0.w1.scale": ("F8_E8M0", (96, 4)),
            "a.weight": ("F8_E4M3", (256, 128)),
            "a.scale": ("F8_E8M0", (2, 1)),
            "norm.scale": ("F32", (128,)),
        },
        {
            "e.0.w1.weight": ((96, 128), "fp4 block 1×32"),
            "a.weight": ((256, 128), "fp8 block 128×128"),
            "norm.scale": ((128,), ""),
        },
    ),
    # transformers 5.23, quantizers/auto.py: MXFP8 is fp8 with bytes for exponents.
    "mxfp8": (
        {"quant_method": "mxfp8"},
        {"a.weight": ("F8_E4M3", (48, 64)), "a.weight_scale_inv": ("U8", (48, 2))},
        {"a.weight": ((48, 64), "mxfp8")},
    ),
    # transformers 5.23, quantizer_finegrained_fp8.py: Mistral's names.
    "mistral": (
        {**FP8, "weight_block_size": None},
        {"a.weight": ("F8_E4M3", (48, 64)), "a.qscale_weight": ("BF16", ()), "a.qscale_act": ("BF16", ())},
        {"a.weight": ((48, 64), "fp8 tensor")},
    ),
    # transformers 5.23, integrations/fbgemm_fp8.py: FbgemmFp8Linear.
    "fbgemm": (
        {"quant_method": "fbgemm_fp8"},
        {"a.weight": ("F8_E4M3", (48, 64)), "a.weight_scale": ("F32", (48, 1))},
        {"a.weight": ((48, 64), "fbgemm fp8 channel")},
    ),
    # transformers 5.23, integrations/mxfp4.py: the layout of openai/gpt-oss-20b.
    "mxfp4": (
        {"quant_method": "mxfp4"},
        {
            "e.gate_up_proj_blocks": ("U8", (4, 192, 2, 16)),
            "e.gate_up_proj_scales": ("U8", (4, 192, 2)),
            "e.gate_up_proj_bias": ("BF16", (4, 192)),
        },
        {"e.gate_up_proj": ((4, 64, 192), "mxfp4"), "e.gate_up_proj_bias": ((4, 192), "")},
    ),
    # transformers 5.23, integrations/bitnet.py: pack_weights.
    "bitnet": (
        {"quant_method": "bitnet"},
        {"a.weight": ("U8", (16, 64)), "a.weight_scale": ("BF16", (1,))},
        {"a.weight": ((64, 64), "bitnet")},
    ),
    # compressed-tensors 0.20, kv_cache_scheme: scales beside the projections, which themselves may be plain.
    "scales of a cache": (
        scheme(num_bits=8, type="float", strategy="channel"),
        {
            "s.k_proj.weight": ("F8_E4M3", (48, 64)),
            "s.k_proj.weight_scale": ("BF16", (48, 1)),
            "s.v_proj.weight": ("BF16", (48, 64)),
            "s.k_scale": ("BF16", (1,)),
            "s.v_scale": ("BF16", (1,)),
        },
        {"s.k_proj.weight": ((48, 64), "compressed-tensors fp8 channel"), "s.v_proj.weight": ((48, 64), "")},
    ),
    # compressed-tensors 0.20, MXFP6PackedCompressor: four numbers in three bytes.
    "mxfp6": (
        scheme(num_bits=6, type="float", strategy="group", group_size=32),
        {"a.weight_packed": ("U8", (48, 48)), "a.weight_scale": ("U8", (48, 2))},
        {"a.weight": ((48, 64), "compressed-tensors mxfp6")},
    ),
    "compressed int8 by group": (
        scheme(num_bits=8, type="int", strategy="group", group_size=16),
        {"a.weight": ("I8", (48, 64)), "a.weight_scale": ("BF16", (48, 4)), "a.weight_zero_point": ("I8", (48, 4))},
        {"a.weight": ((48, 64), "compressed-tensors int8 block 1×16")},
    ),
    # MLX 0.32, mlx.core.quantize: words along the inputs; mlx-lm says bits and groups, of single modules too.
    "mlx": (
        MLX,
        {
            **mlx("a", 48, 64, 4, 64),
            **mlx("b", 48, 96, 3, 32),
            **mlx("model.embed_tokens", 128, 64, 8, 64),
            **{name: (dtype, (4, *shape)) for name, (dtype, shape) in mlx("e.switch_mlp", 48, 64, 4, 64).items()},
            "norm.weight": ("BF16", (64,)),
        },
        {
            "a.weight": ((48, 64), "mlx 4 bit"),
            "b.weight": ((48, 96), "mlx 3 bit"),
            "model.embed_tokens.weight": ((128, 64), "mlx 8 bit"),
            "e.switch_mlp.weight": ((4, 48, 64), "mlx 4 bit"),
            "norm.weight": ((64,), ""),
        },
    ),
    "mlx mxfp4": (
        {"bits": 4, "group_size": 32, "mode": "mxfp4"},
        {"a.weight": ("U32", (48, 8)), "a.scales": ("U8", (48, 2))},
        {"a.weight": ((48, 64), "mlx 4 bit")},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_documented_layout(name: str) -> None:
    said, tensors, expected = LAYOUTS[name]
    found = unpack(checkpoint(tensors, said))
    assert summary(found) == expected
    assert sorted(source for stored in found.values() for source in stored.sources) == sorted(tensors)


def test_layouts_are_as_many_as_documented() -> None:
    assert len(LAYOUTS) == 19


@pytest.mark.parametrize(("storage", "width"), [("U8", 1), ("BF16", 2), ("F32", 4)])
def test_the_state_of_bitsandbytes_tells_the_shape(storage: str, width: int) -> None:
    found = unpack(checkpoint(bnb4(storage=storage, width=width), BNB, state()))
    assert summary(found) == {"a.weight": ((24, 64), "bnb nf4")}
    assert found["a.weight"].dtype == storage


def test_all_states_are_read_at_once() -> None:
    tensors, data = {}, {}
    for layer in range(300):
        for name, value in bnb4().items():
            tensors[f"layers.{layer}.{name}"] = value
        for name, content in state().items():
            data[f"layers.{layer}.{name}"] = content
    opened = checkpoint(tensors, BNB, data)
    found = unpack(opened)
    assert Counter(summary(found).values()) == {((24, 64), "bnb nf4"): 300}
    assert isinstance(opened.files, Memory)
    assert [len(spans) for spans in opened.files.reads] == [300]
    assert sum(span.end - span.start for span in opened.files.reads[0]) < 300 * 100


@pytest.mark.parametrize("inputs", [64, 61])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("bits", [3, 4, 5, 8])
def test_the_shape_of_packed_rows_that_are_not_full(bits: int, dense: bool, inputs: int) -> None:
    words = -(-inputs * bits // 32) if dense else -(-inputs // (32 // bits))
    tensors = {
        "a.weight_packed": ("I32", (48, words)),
        "a.weight_scale": ("BF16", (48, 1)),
        "a.weight_shape": ("I64", (2,)),
    }
    said = scheme(num_bits=bits, type="int", strategy="channel")
    found = unpack(checkpoint(tensors, said, {"a.weight_shape": struct.pack("<2q", 48, inputs)}))
    assert summary(found) == {"a.weight": ((48, inputs), f"compressed-tensors int{bits}")}


# --- where the configuration says it -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"quantization_config": GPTQ},
        {"text_config": {"quantization_config": GPTQ}},
        {"vision_config": {}, "thinker_config": {"quantization_config": GPTQ}},
        {"quantization_config": {}, "text_config": {"quantization_config": GPTQ}},
        {"quantization_config": GPTQ, "text_config": {"quantization_config": AWQ}},
        {"quantization_config": {"method": "gptq", "bits": 4, "group_size": 32}},
    ],
)
def test_wherever_the_configuration_says_it(config: dict[str, Any]) -> None:
    assert summary(unpack(checkpoint(gptq(), config=config))) == {"a.weight": ((64, 96), "gptq 4 bit")}


def test_mlx_says_it_under_either_key(tmp_path: Path) -> None:
    tensors = mlx("a", 48, 64, 4, 64)
    for number, keys in enumerate((["quantization"], ["quantization_config"], ["quantization", "quantization_config"])):
        config = {key: {"bits": 4, "group_size": 64} for key in keys}
        folder = write_checkpoint(tmp_path / str(number), tensors, config=config)
        assert summary(unpack(open_checkpoint(open_folder(folder)))) == {"a.weight": ((48, 64), "mlx 4 bit")}


def test_the_old_name_of_compressed_tensors_configuration() -> None:
    said = {"config_groups": scheme(num_bits=8, type="int", strategy="channel")["config_groups"]}
    tensors = {"a.weight": ("I8", (48, 64)), "a.weight_scale": ("BF16", (48, 1))}
    found = unpack(checkpoint(tensors, config={"compression_config": said}))
    assert summary(found) == {"a.weight": ((48, 64), "compressed-tensors int8 channel")}


@pytest.mark.parametrize(
    "said", [GPTQ, AWQ, FP8, BNB, MODELOPT, {"quant_method": "hqq"}, {"quant_method": "mxfp4"}, None]
)
def test_plain_numbers_stay_what_they_are(said: dict[str, Any] | None) -> None:
    tensors = {"a.weight": ("BF16", (48, 64)), "a.bias": ("F16", (48,)), "b.scale": ("F32", (4,)), "steps": ("I64", ())}
    found = unpack(checkpoint(tensors, said))
    assert summary(found) == {name: (shape, "") for name, (_, shape) in tensors.items()}
    assert [stored.sources for stored in found.values()] == [(name,) for name in tensors]


def test_a_plain_weight_may_have_a_scale_beside_it() -> None:
    found = unpack(
        checkpoint({"a.weight": ("BF16", (48, 64)), "a.weight_scale": ("BF16", (1,))}, {"quant_method": "bitnet"})
    )
    assert summary(found) == {"a.weight": ((48, 64), "")}
    assert found["a.weight"].sources == ("a.weight", "a.weight_scale")


def test_fp8_needs_no_configuration() -> None:
    tensors = {
        "a.weight": ("F8_E4M3", (96, 64)),
        "a.weight_scale_inv": ("F32", (6, 4)),
        "b.weight": ("F8_E4M3", (8, 8)),
    }
    assert summary(unpack(checkpoint(tensors))) == {
        "a.weight": ((96, 64), "fp8 block 16×16"),
        "b.weight": ((8, 8), "fp8 without scale"),
    }


def test_integers_that_are_no_weights_stay() -> None:
    tensors = {
        "h.attn.bias": ("U8", (1, 1, 8, 8)),
        "mask": ("BOOL", (4, 4)),
        "gate.tid2eid": ("I64", (96, 4)),
        "relative_position_index": ("I32", (49, 49)),
    }
    assert list(unpack(checkpoint(tensors, FP8))) == list(tensors)


# --- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "hqq",
        "aqlm",
        "vptq",
        "spqr",
        "higgs",
        "torchao",
        "quanto",
        "eetq",
        "quark",
        "fp_quant",
        "fouroversix",
        "metal",
        "sinq",
        "gemma",
        "gguf",
        "nvfp4",
        "exl3",
        "new",
    ],
)
def test_a_format_that_is_not_known_is_refused_by_name(method: str) -> None:
    with fails(f"'{method}' is not supported", "config.json: quantization_config", "--source config"):
        unpack(checkpoint({"a.W_q": ("U8", (48, 64)), "a.meta": ("F16", (4,))}, {"quant_method": method}))


REFUSED = {
    "sparse": ({**scheme(), "format": "marlin-24"}, {"a.weight_packed": ("I32", (8, 8))}, "'marlin-24'"),
    "gptq for a kernel": ({**GPTQ, "checkpoint_format": "marlin"}, gptq(), "GPTQ's format 'marlin'"),
    "awq for a kernel": ({**AWQ, "version": "marlin"}, gptq(), "AWQ's version 'marlin'"),
    "no method": (None, gptq(), "names no method"),
    "another method": (FP8, gptq(), "names the method 'fp8'"),
    "auto-round's own": ({"quant_method": "auto-round", "packing_format": "auto_round"}, gptq(), "'auto-round' is not"),
    "awq of 8 bits": ({**AWQ, "bits": 8}, gptq(), "other than 4 bits"),
    "gptq taken for awq": (AWQ, gptq(), "do not fit"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_variant_that_is_not_known_is_refused(name: str) -> None:
    said, tensors, message = REFUSED[name]
    with fails(message, "--source config"):
        unpack(checkpoint(tensors, said))


def without(tensors: Tensors, *names: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: value for name, value in tensors.items() if name not in names}


FP8_PAIR = {"a.weight": ("F8_E4M3", (200, 300)), "a.weight_scale_inv": ("F32", (2, 3))}
MXFP4 = {"e.down_proj_blocks": ("U8", (4, 64, 2, 16)), "e.down_proj_scales": ("U8", (4, 64, 2))}
INT4 = {
    "a.weight_packed": ("I32", (48, 8)),
    "a.weight_scale": ("BF16", (48, 4)),
    "a.weight_shape": ("I64", (2,)),
}
G16 = scheme(num_bits=4, type="int", strategy="group", group_size=16)
SHAPE = {"a.weight_shape": struct.pack("<2q", 48, 64)}
EIGHT = {"a.weight": ("I8", (48, 64)), "a.SCB": ("F32", (48,)), "a.weight_format": ("U8", ())}
NVFP4 = {
    "a.weight": ("U8", (48, 32)),
    "a.weight_scale": ("F8_E4M3", (48, 4)),
    "a.weight_scale_2": ("F32", ()),
}
# Each: what the configuration says, tensors, their data, and what the message must say.
MISFITS: dict[str, tuple[Any, Tensors, dict[str, bytes], str]] = {
    "gptq no scales": (GPTQ, without(gptq(), "a.scales"), {}, "has no a.scales beside it"),
    "gptq no zeros": (GPTQ, without(gptq(), "a.qzeros"), {}, "has no a.qzeros beside it"),
    "gptq only zeros": (GPTQ, {"a.qzeros": ("I32", (3, 8))}, {}, "belongs to a packed weight that is not there"),
    "gptq other bits": (GPTQ, gptq(8), {}, "config.json: quantization_config says 4 bits, groups of 32"),
    "gptq other groups": (GPTQ, gptq(size=48), {}, "do not fit"),
    "gptq other order": (GPTQ, {**gptq(), "a.g_idx": ("I32", (80,))}, {}, "g_idx I32 [80]"),
    "gptq floats": (GPTQ, {**gptq(), "a.qweight": ("F32", (12, 64))}, {}, "qweight F32 [12, 64], which must be I8 or"),
    "gptq 9 bits": ({**GPTQ, "bits": 9}, gptq(), {}, "cannot have numbers of 9 bits"),
    "gptq 0 bits": ({**GPTQ, "bits": 0}, gptq(), {}, "cannot have numbers of 0 bits"),
    "gptq two forms": (GPTQ, {**gptq(), "a.weight": ("BF16", (64, 96))}, {}, "is there twice"),
    "awq with order": (AWQ, gptq(outputs=32, inputs=32, size=8), {}, "g_idx"),
    "fp8 no scale": (FP8, {"a.weight": ("F8_E4M3", (200, 300))}, {}, "nothing says how it is packed"),
    "fp8 only a scale": (FP8, {"a.weight_scale_inv": ("F32", (2, 3))}, {}, "and no weight"),
    "fp8 other blocks": (FP8, {**FP8_PAIR, "a.weight_scale_inv": ("F32", (3, 2))}, {}, "a scale of shape [3, 2]"),
    "fp8 no blocks": (FP8, {**FP8_PAIR, "a.weight_scale_inv": ("F32", (0, 0))}, {}, "a scale of shape [0, 0]"),
    "fp8 empty": (
        {"quant_method": "mxfp8"},
        {**FP8_PAIR, "a.weight": ("F8_E4M3", (0, 0))},
        {},
        "numbers of shape [0, 0]",
    ),
    "fp8 scale of words": (FP8, {**FP8_PAIR, "a.weight_scale_inv": ("I64", (2, 3))}, {}, "weight_scale_inv I64 [2, 3]"),
    "fp8 flat": (
        FP8,
        {"a.weight": ("F8_E4M3", (96,)), "a.weight_scale_inv": ("F32", ())},
        {},
        "must have 2 dimensions",
    ),
    "fp4 other blocks": (FP8, {"a.weight": ("I8", (96, 64)), "a.scale": ("F8_E8M0", (96, 2))}, {}, "do not fit fp4"),
    "mxfp4 no scales": ({"quant_method": "mxfp4"}, without(MXFP4, "e.down_proj_scales"), {}, "no down_proj_scales"),
    "mxfp4 other scales": (
        {"quant_method": "mxfp4"},
        {**MXFP4, "e.down_proj_scales": ("U8", (4, 64, 3))},
        {},
        "not 16 bytes for each scale",
    ),
    "mxfp4 flat": ({"quant_method": "mxfp4"}, {**MXFP4, "e.down_proj_blocks": ("U8", (4, 64, 32))}, {}, "4 dimensions"),
    "bnb no state": (BNB, without(bnb4(), "a.weight.quant_state.bitsandbytes__nf4"), {}, "packed weight that is not"),
    "bnb no weight": (BNB, without(bnb4(), "a.weight"), state(), "has no weight beside it"),
    "bnb no scales": (BNB, without(bnb4(), "a.weight.absmax"), state(), "has no weight.absmax beside it"),
    "bnb no map": (BNB, without(bnb4(), "a.weight.quant_map"), state(), "has no weight.quant_map beside it"),
    "bnb other product": (BNB, bnb4(), state(shape=[24, 65]), "768 bytes, and [24, 65] at 4 bits takes 780"),
    "bnb negative": (BNB, bnb4(), state(shape=[-24, -64]), "the shape [-24, -64]"),
    "bnb huge": (BNB, bnb4(), state(shape=[2**62, 2**62]), "the shape [46116"),
    "bnb truth": (BNB, bnb4(), state(shape=[True, 1536]), "the shape [True, 1536]"),
    "bnb fraction": (BNB, bnb4(), state(shape=[24.0, 64]), "the shape [24.0, 64]"),
    "bnb text": (BNB, bnb4(), state(shape="24,64"), "the shape '24,64'"),
    "bnb no shape": (BNB, bnb4(), state(shape=None), "the shape None"),
    "bnb other type": (BNB, bnb4(), state(quant_type="fp4"), "the quant_type 'fp4' in a quant_state of nf4"),
    "bnb no blocks": (BNB, bnb4(), state(blocksize=0), "the blocksize 0"),
    "bnb other blocks": (BNB, bnb4(), state(blocksize=128), "1536 numbers have 12 blocks of 128"),
    "bnb escape": (BNB, bnb4(), state(quant_type="\x1b[31m"), r"'\x1b[31m'"),
    "bnb empty": (BNB, bnb4(), {}, "has a quant_state that is not JSON"),
    "bnb NaN": (BNB, bnb4(), {"a.weight.quant_state.bitsandbytes__nf4": b'{"shape": [NaN, 64]}'}, "holds NaN"),
    "bnb list": (BNB, bnb4(), {"a.weight.quant_state.bitsandbytes__nf4": b"[24, 64]"}, "not an object"),
    "bnb deep": (BNB, bnb4(), {"a.weight.quant_state.bitsandbytes__nf4": b"[" * 4000}, "quant_state that"),
    "bnb long": (BNB, bnb4(), {"a.weight.quant_state.bitsandbytes__nf4": b" " * 5000}, "longer than 4096 bytes"),
    "bnb bytes": (BNB, bnb4(), {"a.weight.quant_state.bitsandbytes__nf4": b"\xff\xfe"}, "is not UTF-8"),
    "bnb nested of floats": (
        BNB,
        {**bnb4(), "a.weight.nested_absmax": ("F32", (1,)), "a.weight.nested_quant_map": ("F32", (256,))},
        state(),
        "absmax F32 [24], which must be U8",
    ),
    "int8 other scales": (BNB, {**EIGHT, "a.SCB": ("F32", (64,))}, {}, "not one scale for each output"),
    "int8 no weight": (BNB, without(EIGHT, "a.weight"), {}, "has no a.weight beside it"),
    "int8 no scales": (BNB, without(EIGHT, "a.SCB"), {}, "'a.weight_format' belongs to a packed weight"),
    "packed no shape": (G16, without(INT4, "a.weight_shape"), {}, "has no a.weight_shape beside it"),
    "packed no scale": (G16, without(INT4, "a.weight_scale"), SHAPE, "has no a.weight_scale beside it"),
    "packed other outputs": (
        G16,
        INT4,
        {"a.weight_shape": struct.pack("<2q", 47, 64)},
        "its weight_shape says [47, 64]",
    ),
    "packed negative": (G16, INT4, {"a.weight_shape": struct.pack("<2q", 48, -64)}, "its weight_shape says [48, -64]"),
    "packed huge": (G16, INT4, {"a.weight_shape": struct.pack("<2q", 48, 2**62)}, "its weight_shape says [48, 46"),
    "packed cut": (G16, INT4, {"a.weight_shape": b"\x30\0\0\0"}, "not one number for each dimension"),
    "packed other bits": (scheme(num_bits=8, type="int"), INT4, SHAPE, "says 8 bits by None"),
    "packed nonsense": ({**G16, "config_groups": [1, 2]}, INT4, SHAPE, "says no such scheme"),
    "nvfp4 odd": (
        G16,
        {"a.weight_packed": ("U8", (48, 33)), "a.weight_scale": ("F8_E4M3", (48, 4))},
        {},
        "do not fit nvfp4",
    ),
    "mxfp4 of floats": (
        G16,
        {"a.weight_packed": ("U8", (48, 32)), "a.weight_scale": ("BF16", (48, 2))},
        {},
        "must be F8_E8M0 or U8 for mxfp4",
    ),
    "modelopt odd": (
        MODELOPT,
        {**NVFP4, "a.weight_scale": ("F8_E4M3", (48, 5))},
        {},
        "do not fit nvfp4, mxfp4 or int4",
    ),
    "modelopt half": (MODELOPT, without(NVFP4, "a.weight_scale_2"), {}, "has no weight_scale_2 beside it"),
    "fused and packed": (MODELOPT, {"e.gate_up_proj": ("U8", (4, 64, 32))}, {}, "nothing says how"),
    "integers alone": (None, {"a.weight": ("I8", (48, 64))}, {}, "nothing says how it is packed"),
    "mlx words": (MLX, {**mlx("a", 48, 64, 4, 64), "a.weight": ("U32", (48, 9))}, {}, "says 4 bits, groups of 64"),
    "mlx scales": (MLX, {**mlx("a", 48, 64, 4, 64), "a.scales": ("BF16", (47, 1))}, {}, "which do not fit"),
    "mlx biases": (MLX, {**mlx("a", 48, 64, 4, 64), "a.biases": ("BF16", (48, 2))}, {}, "which do not fit"),
    "mlx two ways": (
        {**MLX, "b": {"bits": 8, "group_size": 32}},
        mlx("a", 48, 64, 4, 64),
        {},
        "fit several widths alike",
    ),
    "mlx without scales": (MLX, {"a.weight": ("U32", (48, 8))}, {}, "nothing says how it is packed"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_said(name: str) -> None:
    said, tensors, data, message = MISFITS[name]
    with fails(message, "memory", "--source config"):
        unpack(checkpoint(tensors, said, data))


def test_misfits_are_as_many_as_documented() -> None:
    assert len(MISFITS) == 66 and len(REFUSED) == 8


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([1], "is [1], not an object"),
        ("gptq", "is 'gptq', not an object"),
        ({"bits": 4}, "has None for quant_method"),
        ({"quant_method": ["gptq"]}, "has ['gptq'] for quant_method"),
        ({**GPTQ, "bits": "4"}, "bits is '4', not a whole number"),
        ({**GPTQ, "bits": True}, "bits is True, not a whole number"),
        ({**GPTQ, "group_size": 1e9}, "group_size is 1000000000.0, not a whole number"),
        ({**GPTQ, "dynamic": {str(i): {"group_size": i} for i in range(40)}}, "group_size has 40 different values"),
        ({**G16, "config_groups": {str(i): {"weights": {}} for i in range(99)}}, "config_groups has 99 groups"),
    ],
)
def test_a_configuration_that_makes_no_sense(said: object, message: str) -> None:
    with fails(message, "config.json: quantization_config"):
        unpack(checkpoint({**gptq(), **INT4}, said, SHAPE))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is [], not an object"),
        (b'{"quantization": [1]}', "has [1] for quantization"),
        (b" " * (2**20 + 1), "has 1,048,577 bytes, more than the 1,048,576 that are read"),
    ],
)
def test_model_optimizers_file_may_be_broken(content: bytes, message: str) -> None:
    with fails(message, "hf_quant_config.json"):
        unpack(checkpoint(NVFP4, files={"hf_quant_config.json": content}))


def test_all_faults_come_at_once() -> None:
    tensors = {
        f"layers.{layer}.{name}": value for layer in range(30) for name, value in without(gptq(), "a.scales").items()
    }
    with fails("11 faults", "'layers.0.a.weight'", "'layers.9.a.weight'", "and 20 more") as caught:
        unpack(checkpoint(tensors, GPTQ))
    assert len(caught.value.faults) == 11


# --- from real files, quickly, and whatever else there may be ------------------------------------------------------------


def test_from_a_folder_of_shards(tmp_path: Path) -> None:
    tensors = {f"layers.{layer}.{name}": value for layer in range(4) for name, value in bnb4().items()}
    data = {f"layers.{layer}.{name}": content.ljust(99) for layer in range(4) for name, content in state().items()}
    folder = write_checkpoint(tmp_path, tensors, 3, {"model_type": "llama", "quantization_config": BNB}, data)
    found = unpack(open_checkpoint(open_folder(folder)))
    assert summary(found) == {f"layers.{layer}.a.weight": ((24, 64), "bnb nf4") for layer in range(4)}


def test_ninety_thousand_tensors() -> None:
    tensors = {}
    for expert in range(45_000):
        tensors[f"layers.{expert // 750}.mlp.experts.{expert % 750}.up_proj.weight"] = ("F8_E4M3", (2048, 7168))
        tensors[f"layers.{expert // 750}.mlp.experts.{expert % 750}.up_proj.weight_scale_inv"] = ("F32", (16, 56))
    opened = checkpoint(tensors, FP8)
    found = unpack(opened)
    assert Counter(summary(found).values()) == {((2048, 7168), "fp8 block 128×128"): 45_000}


ENDS = [
    ".weight",
    ".qweight",
    ".qzeros",
    ".scales",
    ".g_idx",
    ".weight_packed",
    ".weight_scale",
    ".weight_shape",
    ".weight_scale_inv",
    ".scale",
    "_scale",
    "_scale_inv",
    "_blocks",
    "_scales",
    ".SCB",
    ".weight_format",
    ".weight.absmax",
    ".weight.quant_map",
    ".weight.nested_absmax",
    ".input_scale",
    ".weight_scale_2",
    ".qscale_weight",
    ".k_scale",
    ".weight.quant_state.bitsandbytes__nf4",
    ".weight.quant_state.bitsandbytes__fp4",
]
DTYPES = ["F32", "BF16", "F16", "F8_E4M3", "F8_E8M0", "I8", "U8", "I16", "I32", "I64", "F4", "BOOL"]
NAMES = st.builds(
    lambda stem, end: stem + end, st.sampled_from(["a", "a.b", "a.k_proj", "a.weight"]), st.sampled_from(ENDS)
)
SHAPES = st.lists(st.integers(0, 3) | st.sampled_from([16, 32, 64, 2**40 - 1]), max_size=5).map(tuple)
WORDS = st.sampled_from(
    [
        "quant_method",
        "bits",
        "group_size",
        "version",
        "format",
        "config_groups",
        "weights",
        "num_bits",
        "strategy",
        "gptq",
        "awq",
        "fp8",
        "mxfp4",
        "bitnet",
        "modelopt",
        "compressed-tensors",
        "bitsandbytes",
        "weight_block_size",
        "dynamic",
        "load_in_4bit",
        "sparsity_config",
        "backend",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 200) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)
METHODS = st.sampled_from(
    [
        "gptq",
        "awq",
        "fp8",
        "mxfp8",
        "mxfp4",
        "bitnet",
        "modelopt",
        "compressed-tensors",
        "bitsandbytes",
        "fbgemm_fp8",
        "auto-round",
        "hqq",
    ]
)
SAID = JSON | st.builds(
    lambda rest, method: {**rest, "quant_method": method}, st.dictionaries(WORDS, JSON, max_size=6), METHODS
)


VALID = [(said, tensors, {}) for said, tensors, _ in LAYOUTS.values()] + [(BNB, bnb4(), state()), (G16, INT4, SHAPE)]
TENSORS = st.tuples(st.sampled_from(DTYPES), SHAPES)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[object, dict[str, tuple[str, tuple[int, ...]]], dict[str, bytes]]:
    """A checkpoint that is sound but for up to three changes."""
    said, sound, told = draw(st.sampled_from(VALID))
    tensors, data = dict(sound), dict(told)
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(sound)))
        what = draw(st.sampled_from(["drop", "dtype", "shape", "data", "more", "said"]))
        if what == "drop":
            tensors.pop(name, None)
        elif what == "dtype" and name in tensors:
            tensors[name] = (draw(st.sampled_from(DTYPES)), tensors[name][1])
        elif what == "shape" and name in tensors:
            tensors[name] = (tensors[name][0], draw(SHAPES))
        elif what == "data":
            data[name] = draw(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
        elif what == "more":
            tensors[draw(NAMES)] = draw(TENSORS)
        elif what == "said" and isinstance(said, dict):
            said = {**said, draw(WORDS): draw(JSON)}
    return said, tensors, data


ANYTHING = st.tuples(SAID, st.dictionaries(NAMES, TENSORS, max_size=12), st.just({}))


@pytest.mark.parametrize("strategy", [damaged(), ANYTHING], ids=["damaged", "anything"])
def test_anything_gives_tensors_or_one_clean_error(strategy: st.SearchStrategy[Any]) -> None:
    told = Counter()

    @given(strategy)
    @settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def attempt(given: tuple[object, Tensors, dict[str, bytes]]) -> None:
        said, tensors, data = given
        try:
            found = unpack(checkpoint(tensors, said, data))
        except LorascopeError as error:
            told["error"] += 1
            assert str(error).isprintable() or str(error).replace("\n", "").isprintable()
            return
        told["tensors"] += 1
        assert sorted(source for stored in found.values() for source in stored.sources) == sorted(tensors)
        assert all(all(type(size) is int and size >= 0 for size in stored.shape) for stored in found.values())

    attempt()
    assert told.total() >= 500 and min(told["error"], told["tensors"]) > 50
