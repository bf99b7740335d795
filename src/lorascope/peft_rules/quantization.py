"""PEFT on quantized checkpoints: what it adapts, and how to load them.

Schemes are those of `lorascope.sources.checkpoint.quantization.unpack`. Measured with PEFT 0.19 to 0.21 and transformers
5.23; see `docs/quantized.md`.
"""

from __future__ import annotations

from collections.abc import Mapping

from lorascope import light_dataclasses as dataclasses
from lorascope.model.storage import parse_storage
from lorascope.model.types import Kind

_BASE = "Load the model that it was quantized from."
_PLAIN_KINDS: tuple[Kind, ...] = ("linear", "conv1d")
_REPACKED = frozenset({"gptq", "awq"})


@dataclasses.dataclass(frozen=True, slots=True)
class _Limits:
    """PEFT's limits on one kind of quantization.

    Attributes:
        unloadable: Why no weight of it can be adapted, whatever it is; empty if some can.
        fused: Why a bare parameter (fused experts) of it cannot be adapted; empty if it can.
        needs: What must be installed, and how the model must be loaded.
        needs_fused: The same for bare parameters, where it is more.
        unpacked: transformers holds it as plain numbers wherever PEFT can adapt a weight of it.
        untrainable: What to do where transformers' Trainer refuses every adapter on a model with such weights.
    """

    unloadable: str = ""
    fused: str = ""
    needs: str = ""
    needs_fused: str = ""
    unpacked: bool = False
    untrainable: str = ""


_NO_LIMITS = _Limits()
_NO_FUSED = (
    "transformers 5 fuses the experts into one parameter, into which it cannot load experts that are packed one by one. "
    f"{_BASE}"
)
_GPTQMODEL = (
    "Install gptqmodel (7.0 or later for PEFT 0.20 and 0.21) and optimum 1.24 or later: PEFT adapts GPTQModel's layers, "
    "without DoRA, and cannot merge the adapter. Name the modules, because all-linear matches none of them."
)
_COMPRESSED = (
    "Install compressed-tensors 0.15 or later and load with quantization_config=CompressedTensorsConfig(dequantize=True): "
    "modules that stay packed have no weight, on which PEFT fails."
)
_FP8 = (
    "Without a GPU of compute capability 8.9 transformers loads it dequantized. Kept in fp8, it cannot be merged: for that, "
    "load with quantization_config=FineGrainedFP8Config(dequantize=True)."
)
_FP8_FUSED = (
    "Load with quantization_config=FineGrainedFP8Config(dequantize=True): kept as they are stored, the experts' numbers lack "
    "their scales, and PEFT would add to the numbers."
)
# By scheme.
_LIMITS: Mapping[str, _Limits] = {
    "bnb": _Limits(fused=_NO_FUSED, needs="Install bitsandbytes. Merging rounds the sum to the same few bits again."),
    "gptq": _Limits(fused=_NO_FUSED, needs=_GPTQMODEL),
    "awq": _Limits(fused=_NO_FUSED, needs=_GPTQMODEL),
    "fp8": _Limits(needs=_FP8, needs_fused=_FP8_FUSED),
    "mxfp8": _Limits(needs=_FP8, needs_fused=_FP8_FUSED),
    "fp4": _Limits(
        needs=_FP8_FUSED,
        needs_fused=(
            "Load with quantization_config=FineGrainedFP8Config(dequantize=True): of experts that stay packed, two numbers "
            "in a byte, PEFT takes half the width for their inputs."
        ),
        unpacked=True,
    ),
    "mxfp4": _Limits(
        needs_fused=(
            "Load with quantization_config=Mxfp4Config(dequantize=True): of experts that stay packed, two numbers in a byte, "
            "PEFT takes the packed shape for theirs."
        ),
        untrainable="Load it with quantization_config=Mxfp4Config(dequantize=True).",
    ),
    "fbgemm": _Limits(
        unloadable=f"transformers says of its fbgemm modules that they cannot be trained. {_BASE}", untrainable=_BASE
    ),
    "compressed-tensors": _Limits(needs=_COMPRESSED, unpacked=True),
    "gguf": _Limits(unpacked=True),  # transformers dequantizes what it loads from a GGUF file
    "modelopt": _Limits(
        unloadable=(
            "transformers 5.23 does not know Model Optimizer's checkpoints. It refuses those of 4 bits for their shapes, and of "
            "fp8 it takes the numbers without their scales, with no error, so that PEFT would train on a wrong model. "
            f"{_BASE}"
        ),
    ),
    "bitnet": _Limits(
        unloadable=(
            "transformers says of packed BitNet modules that they cannot be trained, and PEFT refuses a BitLinear, which is no "
            "nn.Linear. Load the variant of the model whose weights are not packed."
        ),
        untrainable="Load the variant of the model whose weights are not packed.",
    ),
    "mlx": _Limits(
        unloadable=(
            "transformers 5.23 refuses MLX's checkpoints, whose configuration names no quant_method. "
            f"{_BASE} mlx-lm trains it as it is: lorascope export PLAN --to mlx-lm."
        ),
    ),
    "auto-round": _Limits(
        unloadable=f"transformers says of AutoRound's modules that they cannot be trained. {_BASE}", untrainable=_BASE
    ),
}


def why_not_quantized(kind: Kind, quantization: str) -> str:
    """Why PEFT cannot adapt a weight stored like this; empty if it can.

    Args:
        kind: What PEFT would see in it.
        quantization: How it is stored, as `Stored.quantization` says it.

    Returns:
        The reason, or nothing where it can, be it on the conditions of `quantized_needs`.
    """
    limits = _limits_of(quantization)
    if limits.unloadable:
        return limits.unloadable
    if kind == "parameter":
        return limits.fused
    if is_repacked(quantization) and kind not in _PLAIN_KINDS:
        return f"GPTQModel packs it into a layer of its own, of which PEFT adapts those that stand for a Linear alone. {_BASE}"
    return ""


def quantized_needs(quantization: str, kind: Kind = "linear") -> str:
    """What to install, and how to load the model, for such a weight.

    Args:
        quantization: How it is stored, as `Stored.quantization` says it.
        kind: What PEFT would see in it.

    Returns:
        One or two sentences; nothing where nothing is needed.
    """
    limits = _limits_of(quantization)
    return (limits.needs_fused if kind == "parameter" else "") or limits.needs


def is_repacked(quantization: str) -> bool:
    """GPTQModel holds it in a layer of its own, which is no `nn.Linear` and takes no DoRA."""
    return parse_storage(quantization).scheme in _REPACKED


def untrainable(quantization: str) -> str:
    """Why transformers' Trainer refuses any adapter on a model with such weights; empty if it does not.

    From `is_trainable` of its quantizers (5.23, 5.24), which `validate_quantization_for_training` asks.
    """
    return _limits_of(quantization).untrainable


def is_unpacked(quantization: str) -> bool:
    """A model that PEFT adapts holds such weights as plain numbers."""
    return _limits_of(quantization).unpacked


def _limits_of(quantization: str) -> _Limits:
    storage = parse_storage(quantization)
    return _LIMITS.get(storage.scheme, _NO_LIMITS) if storage.scaled else _NO_LIMITS
