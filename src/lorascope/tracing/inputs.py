"""The calls that run every part of a model once: what to hand to which method, from signatures and configurations.

A model is called by its forward with token ids, and by its methods for images, videos and sounds, so that a picture
needs no places among the tokens. Values are made for the shape, not for the sense: nobody looks at the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lorascope.tracing.calling import Call, number, parameters, required, site, text_config, token_ids, width
from lorascope.tracing.images import ONLY_WITH_TEXT, image_calls
from lorascope.tracing.sounds import sound_calls

if TYPE_CHECKING:
    import torch

__all__ = ["Call", "calls"]

# Tokens of a decoder and positions of an encoder beside the text: lengths unlike it, and unlike each other.
_DECODER, _ENCODER = 7, 5


def calls(module: torch.nn.Module, *, length: int = 11) -> tuple[Call, ...]:
    """The calls that together run every weight of a model that can be run.

    Args:
        module: Any model; its configuration says the sizes where it is one of transformers.
        length: The number of text tokens.

    Returns:
        The main forward first. A part that no call can be made for is left out.
    """
    return (_forward(module, length), *image_calls(module), *sound_calls(module))


def _forward(module: torch.nn.Module, length: int) -> Call:
    import torch

    names = parameters(module.forward)
    config = getattr(module, "config", None)
    text = text_config(config)
    arguments: dict[str, Any] = {}
    if "input_ids" in names:
        arguments["input_ids"] = token_ids(module, length)
    elif "inputs_embeds" in names:
        arguments["inputs_embeds"] = torch.ones(1, length, width(text))
    if "decoder_input_ids" in names:
        arguments["decoder_input_ids"] = token_ids(module, _DECODER)
    if "use_cache" in names or ("kwargs" in names and hasattr(text, "use_cache")):
        arguments["use_cache"] = False
    if "encoder_hidden_states" in names and _crosses(text):
        size = getattr(text, "cross_attention_hidden_size", None) or width(text)
        arguments["encoder_hidden_states"] = torch.ones(1, _ENCODER, size)
    about = f"{length} tokens"
    return Call("forward", arguments, "", about)


def _crosses(text: Any) -> bool:
    crosses = getattr(text, "add_cross_attention", None)
    return bool(getattr(text, "is_decoder", False)) if crosses is None else bool(crosses)
