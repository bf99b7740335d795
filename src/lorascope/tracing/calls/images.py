"""Calls that run a model's vision towers.

How a picture is handed over is told by the names of the arguments that go with it (a grid, positions, sizes); what is
left over stands in a table by model type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lorascope.tracing.calls.types import Call, Site, count_up, find_site, integers, number, ones, token_ids, width

if TYPE_CHECKING:
    import torch

_Inputs = tuple[dict[str, Any], str]


def image_calls(model: torch.nn.Module) -> Iterator[Call]:
    """Calls for images and videos, by transformers' methods for them."""
    apart = _APART.get(getattr(getattr(model, "config", None), "model_type", ""))
    if apart is not None:
        yield from apart(model)
    for modality in ("image", "video"):
        name = f"get_{modality}_features"
        where = find_site(model, name, lambda config: vision_config(config) is not None)
        if where is None:
            continue
        own = _OWN.get(where.config.model_type)
        if own is not None:
            yield from own(where, modality)
            continue
        pixels = "pixel_values_videos" if "pixel_values_videos" in where.names else "pixel_values"
        maker = next((make for sign, make in _BY_ARGUMENT if sign in where.names), _square)
        arguments, about = maker(where, modality)
        arguments = {pixels: arguments.pop("pixels"), **arguments}
        yield Call(where.method(name), arguments, "vision", about)


def vision_config(config: Any) -> Any:
    """The configuration of the vision tower, or None."""
    for key in ("vision_config", "vq_config"):
        if getattr(config, key, None) is not None:
            return getattr(config, key)
    return config if getattr(config, "image_size", None) or getattr(config, "patch_dim", None) else None


def pixels(config: Any, *lead: int) -> torch.Tensor:
    """An image of the size that a model takes.

    Args:
        config: The configuration that has the vision configuration.
        lead: The dimensions before channels, height and width.
    """
    vision = vision_config(config)
    size = image_size(vision)
    frames = number(vision, "num_frames", "frames_per_clip", default=0)
    if frames and vision is config and len(lead) < 2:  # a model for videos
        lead = (1, frames)
    return ones(*(lead or (1,)), number(vision, "num_channels", "in_channels", default=3), size, size)


def patch_row(model: Any) -> dict[str, Any]:
    """An image in patches, as a forward that asks for their grid takes it."""
    arguments, _ = _row(Site("", model, frozenset(), frozenset()), "image")
    return {"pixel_values": arguments.pop("pixels"), **arguments}


def patch_grid(model: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor, str]]:
    """Patches of an image and their grid, in each shape that a tower may take, and a few words about them."""
    where = Site("", model, frozenset(), frozenset())
    arguments, about = _grid(where, "image")
    grid = arguments["image_grid_thw"]
    channels, patch, reconcile = _sizes(where)
    count = 8 * reconcile * reconcile
    yield arguments["pixels"], grid, about
    yield ones(count, channels, patch, patch), grid, about
    yield ones(count, channels * patch * patch), grid, about
    merged = grid.clone()
    merged[:, 1:] //= reconcile
    yield ones(8, reconcile * patch, reconcile * patch, channels), merged, about
    yield ones(1, count, channels * patch * patch), grid, about


def patch_positions(model: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor, str]]:
    """Patches of an image, their places, and a few words about them."""
    arguments, about = _positions(Site("", model, frozenset(), frozenset()), "image")
    yield arguments["pixels"], arguments["image_position_ids"], about


def prompts(model: Any) -> dict[str, Any]:
    """A point, its label and a mask, as models that segment by prompts take them."""
    encoder = getattr(model.config, "prompt_encoder_config", None)
    side = 4 * (number(encoder, "image_size", default=1024) // number(encoder, "patch_size", default=16))
    return {
        "input_points": ones(1, 1, 1, 2),
        "input_labels": integers(1, 1, 1),
        "input_masks": ones(1, 1, side, side),
    }


def image_size(vision: Any) -> int:
    """Side length of a tower's images, in pixels."""
    size = number(vision, "image_size", "img_size", default=0)
    for name in ("model_args", *getattr(vision, "sub_configs", ())):
        part = getattr(vision, name, None)
        if not size and isinstance(part, dict):
            listed = part.get("img_size") or 0
            size = listed[0] if isinstance(listed, list | tuple) else listed
        elif not size:
            size = number(part, "image_size", "img_size", default=0)
    return size or 224


# --- by the names of the arguments -----------------------------------------------------------------------------------


def _sizes(where: Site) -> tuple[int, int, int]:
    """Channels, patch size, and patches merged per side."""
    vision = vision_config(where.config) or where.config
    return (
        number(vision, "num_channels", "in_channels", "in_chans", default=3),
        number(vision, "patch_size", default=14),
        number(vision, "spatial_merge_size", "merge_size", "merge_kernel_size", default=0)
        or number(where.config, "spatial_merge_size", "merge_size", "downsample_factor", default=2),
    )


def _grid(where: Site, modality: str) -> _Inputs:
    import torch

    channels, patch, reconcile = _sizes(where)
    vision = vision_config(where.config) or where.config
    depth = number(vision, "temporal_patch_size", "patch_temporal", default=1)
    kind = where.config.model_type
    frames = 2 if modality == "video" and kind != "kimi_k25" else 1  # that one joins the frames
    height, width = 2 * reconcile, 4 * reconcile
    count = frames * height * width
    if kind in ("kimi_k25", "paddleocr_vl"):  # patches keep their shape
        patches = ones(count, channels, patch, patch)
    elif kind in ("inkling2", "inkling2_loop"):  # of merged patches, channels last; the grid counts those
        height, width = 2, 4
        patches = ones(frames * height * width, reconcile * patch, reconcile * patch, channels)
    else:
        patches = ones(count, channels * depth * patch * patch)
    arguments = {"pixels": patches, f"{modality}_grid_thw": torch.tensor([[frames, height, width]])}
    if f"{modality}_merge_sizes" in where.names:
        arguments[f"{modality}_merge_sizes"] = torch.tensor([reconcile])
    shape = f"{height} × {width}" if frames == 1 else f"{frames} × {height} × {width}"
    return arguments, f"{_article(modality)} of {shape} patches"


def _positions(where: Site, modality: str) -> _Inputs:
    import torch

    channels, patch, _ = _sizes(where)
    pool = number(vision_config(where.config) or where.config, "pooling_kernel_size", default=3)
    height, width = 2 * pool, 3 * pool
    numbers = count_up(height * width)
    places = torch.stack([numbers % width, numbers // width], -1).unsqueeze(0)
    arguments = {"pixels": ones(1, height * width, channels * patch * patch), f"{modality}_position_ids": places}
    if "num_frames_per_video" in where.names:
        arguments["num_frames_per_video"] = torch.tensor([1])
    return arguments, f"{_article(modality)} of {height} × {width} patches"


def _sized(where: Site, modality: str) -> _Inputs:
    import torch

    vision = vision_config(where.config)
    if getattr(where.config, "image_grid_pinpoints", None) and "image_sizes" in where.needed:
        height, width = where.config.image_grid_pinpoints[0]
        size = image_size(vision)
        tiles = -(-height // size) * -(-width // size) + 1  # and the whole image once more
        sizes = torch.tensor([[height, width]])
        return {"pixels": pixels(where.config, 1, tiles), "image_sizes": sizes}, f"an image of {tiles} tiles"
    if getattr(vision, "model_type", "") == "pixtral" or "image_sizes" in where.needed:  # of any size
        channels, patch, reconcile = _sizes(where)
        height, width = 2 * reconcile * patch, 3 * reconcile * patch
        return {
            "pixels": ones(1, channels, height, width),
            "image_sizes": torch.tensor([[height, width]]),
        }, f"an image of {height} × {width}"
    return _square(where, modality)


def _row(where: Site, modality: str) -> _Inputs:
    import torch

    channels, patch, reconcile = _sizes(where)
    height, width = 2 * reconcile, 4 * reconcile
    return {
        "pixels": ones(1, height * width, channels * patch * patch),
        "spatial_shapes": torch.tensor([[height, width]]),
        "pixel_attention_mask": integers(1, height * width),
    }, f"an image of {height} × {width} patches"


def _strip(where: Site, modality: str) -> _Inputs:
    import torch

    channels, patch, _ = _sizes(where)
    height, width = 4, 8
    sizes = "target_sizes_videos" if modality == "video" else "target_sizes"
    arguments: dict[str, Any] = {
        "pixels": ones(1, channels, patch, height * width * patch),
        sizes: torch.tensor([[height, width]]),
    }
    if "downsample_mode" in where.names:
        arguments["downsample_mode"] = "16x"  # the other mode leaves a merger out
    return arguments, f"{_article(modality)} of {height} × {width} patches"


def _packed(where: Site, modality: str) -> _Inputs:
    import torch

    channels, patch, _ = _sizes(where)
    height, width = 4, 8
    return {
        "pixels": ones(height * width, channels * patch * patch),
        "image_grid_hw": torch.tensor([[height, width]]),
    }, f"an image of {height} × {width} patches"


def _pooled(where: Site, modality: str) -> _Inputs:
    import torch

    channels, patch, _ = _sizes(where)
    vision = vision_config(where.config)
    side = image_size(vision) // patch
    count = number(vision, "image_num_pos", "num_position_embeddings", default=side * side)
    height, width, pool = 2, 3, 4
    grid = [[1, height, width]] if modality == "video" else [[height, width, 0, 0]]
    return {
        "pixels": ones(1, count, channels * patch * patch),
        f"{modality}_token_pooling": count_up(height * width * pool).reshape(height * width, pool),
        f"{modality}_grids": torch.tensor(grid),
    }, f"{_article(modality)} of {count} patches"


def _square(where: Site, modality: str) -> _Inputs:
    image = pixels(where.config, 1, 2) if modality == "video" else pixels(where.config)
    arguments: dict[str, Any] = {"pixels": image}
    if "qformer_input_ids" in where.needed:
        arguments["qformer_input_ids"] = question_ids(where.module)
    if "high_res_pixel_values" in where.needed:
        high = where.config.high_res_vision_config
        size = image_size(high)
        arguments["high_res_pixel_values"] = ones(1, number(high, "num_channels", default=3), size, size)
    return arguments, f"{_article(modality)} of {image.shape[-2]} × {image.shape[-1]}"


def question_ids(module: Any) -> torch.Tensor:
    """Token ids of the instruction that a query transformer reads."""
    return token_ids(module, 3, size=number(module.config.qformer_config, "vocab_size", default=100))


def _article(modality: str) -> str:
    return "an image" if modality == "image" else f"a {modality}"


_BY_ARGUMENT: tuple[tuple[str, Callable[[Site, str], _Inputs]], ...] = (
    ("image_grid_thw", _grid),
    ("video_grid_thw", _grid),
    ("image_position_ids", _positions),
    ("video_position_ids", _positions),
    ("spatial_shapes", _row),
    ("target_sizes", _strip),
    ("target_sizes_videos", _strip),
    ("image_grid_hw", _packed),
    ("image_token_pooling", _pooled),
    ("video_token_pooling", _pooled),
    ("image_sizes", _sized),
)

# --- by the model type -----------------------------------------------------------------------------------------------


def _tower(where: Site, modality: str) -> Iterator[Call]:
    # The method drops images that are all zero, which needs their values; the tower and what follows it do not.
    import torch

    vision = where.config.vision_config
    image = pixels(where.config)
    side = image.shape[-1] // number(vision, "patch_size", default=14)
    yield Call(
        where.method("vision_model"),
        {"pixel_values": image, "patch_attention_mask": integers(1, side, side, dtype=torch.bool)},
        "vision",
        f"an image of {image.shape[-2]} × {image.shape[-1]}",
    )
    side = 2 * number(where.config, "pixel_shuffle_factor", "scale_factor", default=2)
    arguments = {"image_hidden_states": ones(1, side * side, width(vision))}
    if where.config.model_type == "idefics2":
        arguments["attention_mask"] = integers(1, side * side, dtype=torch.bool)
    yield Call(where.method("connector"), arguments, "connector", f"{side * side} states of an image")


def _patches(where: Site, modality: str) -> Iterator[Call]:

    channels, patch, _ = _sizes(where)
    values = ones(1, 6, number(where.config, "patch_dim", default=channels * patch * patch))
    yield Call(where.method("get_image_features"), {"pixel_values": values}, "connector", "6 patches of an image")


def _aria(where: Site, modality: str) -> Iterator[Call]:
    # Its projector has a number of queries for some numbers of patches only.

    channels, patch, _ = _sizes(where)
    size = math.isqrt(min(int(count) for count in where.config.projector_patch_to_query_dict)) * patch
    arguments = {"pixel_values": ones(1, channels, size, size)}
    yield Call(where.method("get_image_features"), arguments, "vision", f"an image of {size} × {size}")


def _tiled(where: Site, modality: str) -> Iterator[Call]:
    image = pixels(where.config, 1, 1)
    about = f"an image of {image.shape[-2]} × {image.shape[-1]}"
    yield Call(where.method("get_image_features"), {"pixel_values": image}, "vision", about)


def _docling(where: Site, modality: str) -> Iterator[Call]:
    import torch

    tile = integers(1, 1, dtype=torch.bool)
    arguments = {"pixel_values": pixels(where.config, 1, 1), "pixel_attention_mask": tile}
    yield Call(where.method("get_image_features"), arguments, "vision", "an image of one tile")
    fine = {**arguments, "tile_fine_mask": tile}
    yield Call(where.method("get_image_features"), fine, "vision", "an image of one fine tile")


def _resolutions(where: Site, modality: str) -> Iterator[Call]:
    # Queries of their own for the whole image and for crops of it.

    for size in (image_size(vision_config(where.config)), 768):
        arguments = {"pixel_values": ones(1, 3, size, size)}
        yield Call(where.method("get_image_features"), arguments, "vision", f"an image of {size} × {size}")


def _inkling(where: Site, modality: str) -> Iterator[Call]:

    vision = where.config.vision_config
    channels, patch, _ = _sizes(where)
    values = ones(2, number(vision, "temporal_patch_size", default=1), patch, patch, channels)
    yield Call(where.method("get_image_features"), {"pixel_values": values}, "vision", "2 patches of an image")


def _frames(where: Site, modality: str) -> Iterator[Call]:
    if modality == "image":
        arguments, about = _packed(where, modality)
        arguments = {"pixel_values": arguments.pop("pixels"), **arguments}
    else:
        images = pixels(where.config, 2)
        arguments, about = {"pixel_values_videos": images}, f"2 images of {images.shape[-2]} × {images.shape[-1]}"
    yield Call(where.method(f"get_{modality}_features"), arguments, "vision", about)


def _quantizer(where: Site, modality: str) -> Iterator[Call]:
    # The method looks the image's tokens up in a table, which needs their values; the encoder does not.
    import torch

    size = 64
    arguments: dict[str, Any] = {"pixel_values": ones(1, 3, size, size)}
    if where.config.model_type == "emu3":
        arguments["image_sizes"] = torch.tensor([[size, size]])
    yield Call(where.method("vqmodel.encode"), arguments, "codec", f"an image of {size} × {size}")
    if callable(getattr(where.module.vqmodel, "decode", None)):
        codes = integers(1, 4, 4, value=0)
        yield Call(where.method("vqmodel.decode"), {"hidden_states": codes}, "codec", "16 codes of an image")


def _pooling(where: Site, modality: str) -> Iterator[Call]:
    # The default configuration has fewer patches than the projector is to pool them to.
    vision = where.config.vision_config
    image = pixels(where.config)
    about = f"an image of {image.shape[-2]} × {image.shape[-1]}"
    side = image_size(vision) // number(vision, "patch_size", default=14)
    whole = math.isqrt(number(where.config, "mm_tokens_per_image", default=1)) <= side
    name = "get_image_features" if whole else "vision_tower"
    yield Call(where.method(name), {"pixel_values": image}, "vision", about)


def _windowed(where: Site, modality: str) -> Iterator[Call]:
    # The default configuration has a number of patches that its projectors cannot part into windows.
    vision = where.config.vision_config
    side = image_size(vision) // number(vision, "patch_size", default=14)
    windows, queries = (int(word) for word in str(where.config.downsample_rate).split("/")[::-1])
    if side % windows == 0 and queries:
        arguments, about = _sized(where, modality)
        arguments = {"pixel_values": arguments.pop("pixels"), **arguments}
        yield Call(where.method("get_image_features"), arguments, "vision", about)
    else:
        image = pixels(where.config)
        about = f"an image of {image.shape[-2]} × {image.shape[-1]}"
        yield Call(where.method("vision_tower"), {"pixel_values": image}, "vision", about)


def _adapted(where: Site, modality: str) -> Iterator[Call]:
    # The method ends before the projector.

    arguments, about = _square(where, modality)
    yield Call(where.method("get_image_features"), {"pixel_values": arguments["pixels"]}, "vision", about)
    states = ones(1, 6, number(where.config.vision_config, "vision_output_dim", default=1))
    arguments = {"image_features": states}
    yield Call(where.method("multi_modal_projector"), arguments, "connector", "6 states of an image")


def _generator(where: Site, modality: str) -> Iterator[Call]:
    import torch

    image = pixels(where.config)
    about = f"an image of {image.shape[-2]} × {image.shape[-1]}"
    yield Call(where.method("get_image_features"), {"pixel_values": image}, "vision", about)
    quantizer = where.config.vq_config
    yield Call(where.method("vqmodel"), {"pixel_values": image}, "codec", about)
    codes = torch.arange(6).unsqueeze(0)
    yield Call(where.method("generation_embeddings"), {"input": codes}, "connector", "6 codes of an image")
    size = number(quantizer, "embed_dim", default=1)
    states = ones(1, 6, size)
    yield Call(where.method("generation_aligner"), {"hidden_states": states}, "connector", "6 codes of an image")
    wide = ones(1, 6, number(quantizer, "image_token_embed_dim", default=1))
    yield Call(where.method("generation_head"), {"hidden_states": wide}, "connector", "6 states of an image")


def _tiles(model: Any) -> Iterator[Call]:

    vision = model.config.vision_config
    tiles = number(vision, "max_num_tiles", default=1)
    images = pixels(model.config, 1, 1, tiles)
    arguments = {
        "pixel_values": images,
        "aspect_ratio_ids": integers(1, 1),
        "aspect_ratio_mask": integers(1, 1, tiles),
    }
    yield Call("model.vision_model", arguments, "vision", f"an image of {tiles} tiles")
    states = ones(1, 6, number(vision, "vision_output_dim", default=1))
    yield Call("model.multi_modal_projector", {"input": states}, "connector", "6 states of an image")


def _cropped(model: Any) -> Iterator[Call]:
    # One crop and the whole image: half of the patches per side are left of each, and each row ends in a mark.
    import torch

    vision = model.config.vision_config
    images = pixels(model.config, 1, 2)
    patches = images.shape[-1] // number(vision, "patch_size", default=14)
    side, crop = -(-patches // 2), number(vision, "crop_size", default=images.shape[-1])
    count = 2 * side * (side + 1) + 1
    arguments = {
        "input_ids": integers(1, count, value=int(vision.image_token_id)),
        "inputs_embeds": ones(1, count, width(model.config)),
        "image_pixel_values": images,
        "image_sizes": torch.tensor([[crop, crop]]),
        "image_attention_mask": integers(1, 2, patches, patches),
    }
    about = f"an image of {images.shape[-2]} × {images.shape[-1]} and a crop"
    yield Call("model.embed_tokens_extend.image_embed", arguments, "vision", about)


# Models without a method for images, by model type.
_APART: dict[str, Callable[[Any], Iterator[Call]]] = {"mllama": _tiles, "phi4_multimodal": _cropped}
_OWN: dict[str, Callable[[Site, str], Iterator[Call]]] = {
    "aria": _aria,
    "chameleon": _quantizer,
    "deepseek_ocr2": _resolutions,
    "emu3": _quantizer,
    "fuyu": _patches,
    "gemma3": _pooling,
    "granite4_vision": _windowed,
    "granite_docling": _docling,
    "idefics2": _tower,
    "idefics3": _tower,
    "inkling_mm_model": _inkling,
    "janus": _generator,
    "llama4": _adapted,
    "modernvbert": _tower,
    "nemotron_h_omni": _frames,
    "neomme": _patches,
    "perception_lm": _tiled,
    "shieldgemma2": _pooling,
    "smolvlm": _tower,
    "t5gemma2_encoder": _pooling,
    "ultravbert": _tower,
}
