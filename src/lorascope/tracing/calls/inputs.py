"""Calls that together run every part of a model.

A model is called by its forward with token ids, and by its methods for images, videos and sounds, so that a picture
needs no places among the tokens. Values are made for the shape, not for the sense: nobody looks at the result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.sources.modules.python_objects import attribute, is_diffusers_config
from lorascope.tracing.calls.audio import audio_calls, sound
from lorascope.tracing.calls.diffusion import denoising_calls
from lorascope.tracing.calls.images import image_calls, patch_row, pixels, prompts, vision_config
from lorascope.tracing.calls.types import (
    Call,
    integers,
    language_config,
    number,
    ones,
    parameters,
    required,
    token_ids,
    width,
)

if TYPE_CHECKING:
    import torch

__all__ = ["Call", "model_calls"]

# Tokens of a decoder and positions of an encoder: lengths unlike the text and each other.
_DECODER, _ENCODER = 7, 5


def model_calls(module: torch.nn.Module, *, length: int = 11) -> tuple[Call, ...]:
    """The calls that together run as many weights as possible.

    Args:
        module: Any model; its configuration says the sizes where it is one of transformers.
        length: The number of text tokens.

    Returns:
        The main forward first. A part that no call can be made for is left out.
    """
    if is_diffusers_config(attribute(module, "config")):
        return tuple(call for call in _makeable(denoising_calls(module)) if _is_whole(module, call))
    parts = (_main_call(module, length), _extra_calls(module, length), image_calls(module), audio_calls(module))
    return tuple(call for part in parts for call in _makeable(part) if _is_whole(module, call))


def _makeable(part: Iterator[Call]) -> Iterator[Call]:
    # A model of another's code may have the name of one that is known here, and none of its settings.
    try:
        yield from part
    except LorascopeError:  # too large
        raise
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError, ArithmeticError):
        return


def _is_whole(module: Any, call: Call) -> bool:
    """The call has arguments, and all that its method requires."""
    try:
        method = attrgetter(call.method)(module)
    except Exception:  # foreign properties can raise anything
        return False
    method = attribute(method, "forward", method)  # of a module, that is what is called
    return bool(call.arguments) and required(method) <= {*call.arguments}


def _main_call(module: torch.nn.Module, length: int) -> Iterator[Call]:
    # Its own forward looks for the places of images among the tokens, and default configurations name no such token.
    kind = getattr(getattr(module, "config", None), "model_type", "")
    if kind in ("blip-2", "instructblip", "instructblipvideo") and hasattr(module, "language_model"):
        call = _forward(module.get_submodule("language_model"), length)
        yield dataclasses.replace(call, method="language_model")
    else:
        yield _forward(module, length)


def _extra_calls(module: Any, length: int) -> Iterator[Call]:
    # The model that ends patches of bytes: its numbers are unknown, so the main call gets made-up patches.
    if getattr(getattr(module, "config", None), "model_type", "") == "blt":
        yield Call("model.patcher", {"input_ids": token_ids(module, length)}, "", f"{length} tokens")


def _forward(module: torch.nn.Module, length: int) -> Call:
    import torch

    names = parameters(module.forward)
    config = getattr(module, "config", None)
    text = language_config(config)
    arguments: dict[str, Any] = {}
    heard = sound(module, names)
    if heard is not None:
        arguments |= heard[0]
    elif "input_ids" in names:
        arguments["input_ids"] = token_ids(module, length)
    elif "inputs_embeds" in names and not _sees(module, names):
        arguments["inputs_embeds"] = ones(1, length, width(text))
    elif "pixel_values" in names:
        arguments |= patch_row(module) if "spatial_shapes" in names else {"pixel_values": pixels(config)}
    if "decoder_input_ids" in names:
        # A classifier reads its decoder's states at the places of the encoder's tokens.
        arguments["decoder_input_ids"] = token_ids(module, _DECODER if _generates(module) else length)
    # What generates hands on what it does not name; a classifier may have given its own answer already.
    if "use_cache" in names or ("kwargs" in names and hasattr(text, "use_cache") and _generates(module)):
        arguments["use_cache"] = False
    if "encoder_hidden_states" in names and _crosses(text):
        size = getattr(text, "cross_attention_hidden_size", None) or width(text)
        arguments["encoder_hidden_states"] = ones(1, _ENCODER, size)
    kind = str(getattr(config, "model_type", ""))
    needs_pixels = "pixel_values" in required(module.forward) or kind in _SEEING or _compares(module)
    if "pixel_values" in names and needs_pixels and "spatial_shapes" not in arguments:
        arguments["pixel_values"] = pixels(config, 1, *_SEEING.get(kind, ()))
        if "spatial_shapes" in names:
            arguments |= patch_row(module)
    if "input_points" in names and "pixel_values" in arguments:
        arguments |= prompts(module)
    if "moe_mm_token_type_ids" in names:  # experts of their own for the places of images
        arguments["moe_mm_token_type_ids"] = (torch.arange(length) % 2).unsqueeze(0)
    if kind in _PARTICULAR:
        more = dict(arguments)
        with contextlib.suppress(AttributeError, KeyError, TypeError):  # as for other parts
            _PARTICULAR[kind](module, more)
            if {*more} <= names or "kwargs" in names:
                arguments = more
    if heard is not None:
        return Call("forward", arguments, "", heard[1])
    about = f"{length} tokens" + (" and an image" if "pixel_values" in arguments else "")
    return Call("forward", arguments, "", about)


def _sees(module: Any, names: frozenset[str]) -> bool:
    """Its main input is an image; what else it takes embedded are queries or features of that."""
    return attribute(module, "main_input_name") == "pixel_values" and "pixel_values" in names


def _generates(module: Any) -> bool:
    generates = getattr(module, "can_generate", None)
    return generates is not None and bool(generates())


def _compares(module: Any) -> bool:
    """It compares a text with an image, as CLIP does, and its forward takes both."""
    towers = ("text_config", "vision_config")
    config = getattr(module, "config", None)
    methods = ("get_text_features", "get_image_features")
    return (
        all(getattr(config, tower, None) is not None for tower in towers)
        and all(callable(attribute(module, method)) for method in methods)
        and not _generates(module)
    )


def _crosses(text: Any) -> bool:
    if getattr(text, "model_type", "") == "musicgen_decoder":
        return True
    crosses = getattr(text, "add_cross_attention", None)
    return bool(getattr(text, "is_decoder", False)) if crosses is None else bool(crosses)


# Models whose forward alone runs what they see with, though it works without: dimensions between batch and channels.
_SEEING: dict[str, tuple[int, ...]] = {
    "git": (),
    "idefics": (1,),
    "kosmos-2": (),
    "layoutlmv3": (),
    "pi0": (1,),
    "pp_formulanet": (),
    "udop": (),
    "vision-encoder-decoder": (),
}


def _lengths(module: Any, arguments: dict[str, Any]) -> None:
    # One patch for the start and then patches of three bytes.
    import torch

    length = arguments["input_ids"].shape[-1]
    arguments["patch_lengths"] = torch.tensor([[1, *[3] * (length // 3), *[length % 3] * bool(length % 3)]])


def _languages(module: Any, arguments: dict[str, Any]) -> None:
    # An adapter for each language: one sentence in each.
    import torch

    count = len(module.config.languages)
    arguments["input_ids"] = arguments["input_ids"].expand(count, -1)
    arguments["lang_ids"] = torch.arange(count)


def _codebooks(module: Any, arguments: dict[str, Any]) -> None:
    count = number(module.config, "num_codebooks", default=4)
    ids = token_ids(module, arguments["input_ids"].shape[-1], size=number(module.config, "vocab_size", default=100))
    arguments["input_ids"] = ids.expand(count, -1)


def _encoded(module: Any, arguments: dict[str, Any]) -> None:
    if "input_features" in arguments:  # the encoder is there, and runs
        return
    arguments["encoder_outputs"] = (ones(1, _ENCODER, width(module.config)),)


def _placed(module: Any, arguments: dict[str, Any]) -> None:
    # Without a padding token in the configuration it cannot count the positions itself.
    import torch

    arguments["position_ids"] = torch.arange(arguments["input_ids"].shape[-1]).unsqueeze(0)


def _crossing(module: Any, arguments: dict[str, Any]) -> None:

    arguments["cross_attention_states"] = ones(1, _ENCODER, width(language_config(module.config)))


def _segments(module: Any, arguments: dict[str, Any]) -> None:
    import torch

    arguments["token_type_ids"] = torch.zeros_like(arguments["input_ids"])


def _boxes(module: Any, arguments: dict[str, Any]) -> None:

    arguments["bbox"] = integers(*arguments["input_ids"].shape, 4, value=0)


def _global(module: Any, arguments: dict[str, Any]) -> None:
    import torch

    mask = torch.zeros_like(arguments["input_ids"])
    mask[:, 0] = 1
    arguments["global_attention_mask"] = mask


def _entities(module: Any, arguments: dict[str, Any]) -> None:
    import torch

    arguments["entity_ids"] = torch.tensor([[1, 2]])
    arguments["entity_attention_mask"] = integers(1, 2)
    arguments["entity_position_ids"] = torch.tensor([[[0, 1, -1], [2, -1, -1]]])


def _protein(module: Any, arguments: dict[str, Any]) -> None:
    import torch

    arguments["protein_input_ids"] = torch.arange(4, 13).unsqueeze(0)
    arguments["protein_attention_mask"] = integers(1, 9)


def _flattened(module: Any, arguments: dict[str, Any]) -> None:
    # Each patch with its row and column in front.

    vision = vision_config(module.config)
    patch = number(vision, "patch_size", default=16)
    size = number(vision, "patch_embed_hidden_size", default=3 * patch * patch)
    patches = ones(1, 6, 2 + size)
    arguments["flattened_patches"] = patches
    arguments.pop("input_ids", None)  # the text is in the image
    if "image_embeds_position_mask" not in arguments:
        arguments["attention_mask"] = integers(1, 6)  # else it asks which patches are not zero


def _embedded_image(module: Any, arguments: dict[str, Any]) -> None:
    import torch

    count = number(module.config, "latent_query_num", default=64)
    ids = torch.cat([integers(1, count, value=0), arguments["input_ids"]], 1)
    arguments["input_ids"] = ids
    mask = torch.zeros_like(ids)
    mask[:, :count] = 1
    arguments["image_embeds_position_mask"] = mask
    if "pixel_values" not in arguments:
        text = arguments["input_ids"]
        _flattened(module, arguments)
        arguments["input_ids"] = text


def _watched(module: Any, arguments: dict[str, Any]) -> None:

    arguments["image_attention_mask"] = integers(*arguments["input_ids"].shape, 1)


def _acting(module: Any, arguments: dict[str, Any]) -> None:
    import torch

    config = module.config
    arguments["state"] = ones(1, number(config, "max_state_dim", default=32))
    arguments["noise"] = ones(1, config.chunk_size, number(config, "max_action_dim", default=32))
    arguments["timestep"] = ones(1)
    arguments["pixel_attention_mask"] = integers(1, 1, dtype=torch.bool)
    arguments["attention_mask"] = torch.ones_like(arguments["input_ids"])
    arguments.pop("use_cache", None)


def _assistant(module: Any, arguments: dict[str, Any]) -> None:
    # It goes on from the states of the model that it assists.
    import torch

    text = language_config(module.config)
    length = arguments.pop("input_ids").shape[-1]
    arguments["inputs_embeds"] = ones(1, length, 2 * number(module.config, "backbone_hidden_size", default=1))
    arguments["position_ids"] = torch.arange(length).unsqueeze(0)
    shared = {}
    for layer, kind in enumerate(text.layer_types):
        settings = text.per_layer_config[layer]
        shared[kind] = (ones(1, settings.num_key_value_heads, length, settings.head_dim),) * 2
    arguments["shared_kv_states"] = shared
    arguments["output_hidden_states"] = True  # else the last layers see the last token only


def _heard(module: Any, arguments: dict[str, Any]) -> None:
    # As many frames as give one state per token: twice for the convolution, times what is joined.

    config = module.config
    frames = arguments["input_ids"].shape[-1] * 2 * number(config, "downsample_factor", default=4)
    arguments["input_features"] = ones(1, number(config.audio_config, "num_mel_bins", default=128), frames)


_PARTICULAR: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "blt": _lengths,
    "esm": _placed,
    "evolla": _protein,
    "gemma4_assistant": _assistant,
    "gemma4_unified_assistant": _assistant,
    "idefics": _watched,
    "kosmos-2": _embedded_image,
    "kosmos-2.5": _embedded_image,
    "led": _global,
    "longformer": _global,
    "luke": _entities,
    "mllama": _crossing,
    "mllama_text_model": _crossing,
    "musicgen_decoder": _codebooks,
    "musicgen_melody_decoder": _codebooks,
    "pi0": _acting,
    "pix2struct": _flattened,
    "udop": _boxes,
    "voxtral_realtime": _heard,
    "whisper": _encoded,
    "xlnet": _segments,
    "xmod": _languages,
}
