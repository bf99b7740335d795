"""Weights that PEFT cannot adapt, with the reasons."""

from __future__ import annotations

import math

from lorascope.model.types import ModelMap, Module, Weight
from lorascope.peft_rules import reasons
from lorascope.peft_rules.dead_weights import why_dead
from lorascope.peft_rules.diagnostics import Diagnostic
from lorascope.peft_rules.quantization import why_not_quantized
from lorascope.peft_rules.releases import NEWEST, Release, release_of

_MAMBA_NAMES = ("out_proj", "conv1d")
_MAMBA_TYPES = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba"})

# Classes on which get_peft_model succeeds and the first forward then fails.
_TUPLE = "its forward returns a tuple, to which PEFT cannot add the adapter's output"
_READ = "the model reads its parameters from it, and PEFT puts a layer in its place"
_OWN_ARGUMENTS = "PEFT builds the adapter with the layer's own class, whose arguments come in another order"
_CRASHING = {
    "Llama4Router": _TUPLE,
    "PhimoeTopKRouter": _TUPLE,
    "ParameterList": _READ,
    "ParameterDict": _READ,
    "ParametrizationList": _READ,
    "DeepseekV4GroupedLinear": "it multiplies group by group, which the shapes of an adapter do not fit",
    "MuseSparkAudioCausalConv1d": _OWN_ARGUMENTS,
    "NemotronAsrStreamingEncoderCausalConv1d": _OWN_ARGUMENTS,
    "VoxtralRealtimeCausalConv1d": _OWN_ARGUMENTS,
}
# Convolutions on which get_peft_model itself fails, for the last of these reasons.
_MISMATCHED = frozenset(
    {
        "AlignVisionDepthwiseConv2d",
        "EfficientNetDepthwiseConv2d",
        "MoonshineStreamingCausalConv1d",
        "NemotronAsrStreamingEncoderCausalConv2D",
    }
)
_POSITIONAL = "PositionalEmbedding"


def guarded_by_mamba(model: ModelMap, module: str, release: Release) -> bool:
    """PEFT's guard for Mamba's kernels (`_check_lora_target_modules_mamba`), by the leaf name alone."""
    if model.model_type not in _MAMBA_TYPES and not (model.model_type == "nemotron_h" and release >= (0, 20)):
        return False
    return module.rpartition(".")[2] in _MAMBA_NAMES


def known_broken(module: Module) -> Diagnostic | None:
    """Why an adapter here is dead or breaks the forward pass, or None."""
    if module.class_name in _CRASHING:
        return reasons.BREAKS_FORWARD.about(class_name=module.class_name, why=_CRASHING[module.class_name])
    if module.class_name == "NonDynamicallyQuantizableLinear":
        return reasons.NEVER_CALLED.about(owner=module.name.rpartition(".")[0])
    if module.kind == "embedding" and _POSITIONAL in module.class_name:
        return reasons.OWN_POSITIONS.about(class_name=module.class_name)
    return None


def constructor_mismatch(module: Module) -> bool:
    """PEFT fails to build the adapter: the class orders its arguments otherwise."""
    return module.class_name in _MISMATCHED


def why_not_adaptable(model: ModelMap, weight: Weight, peft: str = NEWEST) -> Diagnostic | None:
    """Why PEFT cannot adapt a weight, with the next step; else None.

    Args:
        model: The map that the weight belongs to.
        weight: One of its weights.
        peft: The version of PEFT.

    Raises:
        LorascopeError: The version is unknown.
    """
    if not weight.module:
        return reasons.WEIGHT_OF_ROOT.about()
    release = release_of(peft)
    if guarded_by_mamba(model, weight.module, release):
        return reasons.WEIGHT_GUARDED.about(model_type=model.model_type)
    if weight.quantization and (why := why_not_quantized(weight.kind, weight.quantization)):
        return reasons.WEIGHT_STORED.about(quantization=weight.quantization, why=why)
    module = model.module_by_name.get(weight.module)
    if module is None:
        return reasons.WEIGHT_WITHOUT_MODULE.about(module=weight.module)
    if constructor_mismatch(module):
        return reasons.WEIGHT_MISMATCHED.about(class_name=module.class_name)
    return (
        known_broken(module)
        or why_not_by_shape(weight, module, release)
        or why_dead(model, weight.name, weight.quantization)
    )


def why_not_by_shape(weight: Weight, module: Module, release: Release) -> Diagnostic | None:
    """Why PEFT cannot adapt a weight of this shape and kind, or None."""
    apart = module.kind == "multihead_attention" and all(name != "in_proj_weight" for name, _ in module.parameters)
    # From 0.19 on the parameters of such an attention can be adapted one by one.
    if apart and (weight.kind != "parameter" or release < (0, 19)):
        return reasons.WEIGHT_OF_OTHER_WIDTHS.about()
    if weight.kind == "parameter":
        if len(weight.shape) not in (2, 3):
            return reasons.WEIGHT_OF_OTHER_DIMENSIONS.about(dimensions=len(weight.shape))
        if len(weight.shape) == 3 and weight.role.block == "attention" and "Expert" not in module.class_name:
            return reasons.WEIGHT_NOT_OF_EXPERTS.about(shape=weight.shape)
        return None
    if module.kind == "other":
        return reasons.WEIGHT_OF_OTHER_KIND.about(class_name=module.class_name)
    if module.kind == "conv" and module.groups >= _full_rank(module) > 0 and module.groups > 1:
        return reasons.WEIGHT_IN_GROUPS.about(groups=module.groups)
    return None


def _full_rank(module: Module) -> int:
    """The smaller side of a convolution's matrix, (out, in per group * kernel)."""
    shape = next((shape for name, shape in module.parameters if name == "weight"), ())
    return min(shape[0], math.prod(shape[1:])) if len(shape) > 2 else 0
