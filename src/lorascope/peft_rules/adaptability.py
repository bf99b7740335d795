"""Whether PEFT can adapt one weight at all, and if not, why."""

from __future__ import annotations

import math

from lorascope.model.types import ModelMap, Module, Weight
from lorascope.peft_rules.quantization import quantized_obstacle
from lorascope.peft_rules.releases import Release, release_of

_MAMBA_NAMES = ("out_proj", "conv1d")
_MAMBA_TYPES = frozenset({"falcon_h1", "mamba", "mamba2", "falcon_mamba"})

# Classes on which get_peft_model succeeds and the first forward then fails.
_TUPLE = "its forward returns a tuple, to which PEFT cannot add the adapter's output"
_OWN_ARGUMENTS = "PEFT builds the adapter with the layer's own class, whose arguments come in another order"
_CRASHING = {
    "Llama4Router": _TUPLE,
    "PhimoeTopKRouter": _TUPLE,
    "DeepseekV4GroupedLinear": "it multiplies group by group, which the shapes of an adapter do not fit",
    "MuseSparkAudioCausalConv1d": _OWN_ARGUMENTS,
    "NemotronAsrStreamingEncoderCausalConv1d": _OWN_ARGUMENTS,
    "VoxtralRealtimeCausalConv1d": _OWN_ARGUMENTS,
}
# Convolutions on which get_peft_model itself fails, for the last of these reasons.
_UNBUILDABLE = frozenset(
    {
        "AlignVisionDepthwiseConv2d",
        "EfficientNetDepthwiseConv2d",
        "MoonshineStreamingCausalConv1d",
        "NemotronAsrStreamingEncoderCausalConv2D",
    }
)
_POSITIONAL = "PositionalEmbedding"


def guarded_by_mamba(model: ModelMap, module: str, release: Release) -> bool:
    """PEFT refuses this module name on this model type (`_check_lora_target_modules_mamba`): leaf name alone counts."""
    if model.model_type not in _MAMBA_TYPES and not (model.model_type == "nemotron_h" and release >= (0, 20)):
        return False
    return module.rpartition(".")[2] in _MAMBA_NAMES


def dead_or_crashing(module: Module) -> str:
    """Why an adapter on this module does nothing or breaks the forward although PEFT creates it; empty if it works."""
    if module.class_name in _CRASHING:
        return (
            f"{module.class_name} breaks with an adapter: {_CRASHING[module.class_name]}. PEFT creates the adapter "
            "without an error, and the first forward fails. Leave it out."
        )
    if module.class_name == "NonDynamicallyQuantizableLinear":
        owner = module.name.rpartition(".")[0]
        return (
            "an adapter on it would be dead, because MultiheadAttention reads its weight and never calls it. Adapt the "
            f'MultiheadAttention "{owner}" itself: PEFT then adapts its input and output projections together.'
        )
    if module.kind == "embedding" and _POSITIONAL in module.class_name:
        return (
            f"{module.class_name} works out its positions itself, while PEFT's adapter looks up the rows of whatever "
            "the module is called with, so that the first forward fails. Leave it out, or train it in full with "
            "modules_to_save."
        )
    return ""


def unbuildable(module: Module) -> str:
    """Why PEFT fails to build an adapter for a module of a kind that it supports; empty if it does not."""
    if module.class_name in _UNBUILDABLE:
        return (
            f"PEFT cannot build an adapter for a {module.class_name}: it does so with the layer's own class, whose "
            "arguments come in another order. Leave it out."
        )
    return ""


def obstacle(model: ModelMap, weight: Weight, peft: str = "0.21.2") -> str:
    """Why PEFT cannot adapt this one weight, in one sentence with the next step; empty if it can.

    Args:
        model: The map that the weight belongs to.
        weight: One of its weights.
        peft: The version of PEFT.

    Raises:
        LorascopeError: The version is unknown.
    """
    if not weight.module:
        return (
            "PEFT cannot wrap a parameter of the model itself, because there is no module around it. Train it in full "
            "in your own code, or leave it out."
        )
    release = release_of(peft)
    if guarded_by_mamba(model, weight.module, release):
        return (
            f"PEFT refuses every module called out_proj or conv1d on {model.model_type}, because the fused kernels "
            "read those weights past an adapter. Adapt in_proj or x_proj instead."
        )
    if weight.quantization and (stored := quantized_obstacle(weight.kind, weight.quantization)):
        return f"Stored as {weight.quantization}: {stored}"
    module = model.module_by_name.get(weight.module)
    if module is None:
        return f'The model has no module "{weight.module}", so that PEFT has nothing to wrap.'
    trouble = unbuildable(module) or dead_or_crashing(module)
    if trouble:
        return trouble[0].upper() + trouble[1:]
    apart = module.kind == "multihead_attention" and all(name != "in_proj_weight" for name, _ in module.parameters)
    # From 0.19 on the parameters of such an attention can be adapted one by one.
    if apart and (weight.kind != "parameter" or release < (0, 19)):
        return (
            "PEFT adapts a MultiheadAttention only where queries, keys and values have the same width. Train it in "
            "full with modules_to_save, or leave it out."
        )
    if weight.kind == "parameter":
        return _parameter_obstacle(weight, module)
    if module.kind == "other":
        return (
            f"PEFT has no adapter for a {module.class_name}. Where it has a 2-D or 3-D parameter of its own, that can "
            "be adapted through target_parameters; otherwise train it in full with modules_to_save."
        )
    if module.kind == "conv" and module.groups >= _full_rank(module) > 0 and module.groups > 1:
        return (
            f"The rank of a convolution must be a multiple of its {module.groups} groups, and that is already its full "
            "rank. Train it in full with modules_to_save, or leave it out."
        )
    return ""


def _parameter_obstacle(weight: Weight, module: Module) -> str:
    if len(weight.shape) not in (2, 3):
        return (
            f"PEFT adapts parameters of two or three dimensions, not of {len(weight.shape)}. Train it in full with "
            "modules_to_save, or leave it out."
        )
    if len(weight.shape) == 3 and weight.role.block == "attention" and "Expert" not in module.class_name:
        return (
            f"PEFT takes the first dimension of a 3-D parameter for experts, and here it is not: shape {weight.shape} "
            "belongs to one projection. Train the module in full with modules_to_save, or leave it out."
        )
    return ""


def _full_rank(module: Module) -> int:
    """The rank at which a convolution's matrix, (out, in per group * kernel), is no longer low-rank."""
    shape = next((shape for name, shape in module.parameters if name == "weight"), ())
    return min(shape[0], math.prod(shape[1:])) if len(shape) > 2 else 0
