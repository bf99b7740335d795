"""The calls that run what a model sees with: its towers for images and videos, with what leads into the text.

How a picture is handed over is told by the names of the arguments that go with it (a grid, positions, sizes); what is
left over stands in a table by model type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lorascope.tracing.calling import Call, Site, number, site, width

if TYPE_CHECKING:
    import torch

ONLY_WITH_TEXT: dict[str, Any] = {}
_Made = tuple[dict[str, Any], str]


def image_calls(model: torch.nn.Module) -> Iterator[Call]:
    """The calls for images and for videos, by the methods that transformers' models have for them."""
    for modality in ("image", "video"):
        name = f"get_{modality}_features"
        where = site(model, name)
        if where is None or vision_config(where.config) is None:
            continue
        pixels = "pixel_values_videos" if "pixel_values_videos" in where.names else "pixel_values"
        own = _OWN.get(where.config.model_type)
        if own is not None:
            yield from own(where, modality)
            continue
        maker = next((make for sign, make in _BY_ARGUMENT if sign in where.names), _square)
        arguments, about = maker(where, modality)
        yield Call(where.method(name), {pixels: arguments.pop("pixels"), **arguments}, "vision", about)


def vision_config(config: Any) -> Any:
    """The configuration of what a model sees with, or None."""
    for key in ("vision_config", "vq_config"):
        if getattr(config, key, None) is not None:
            return getattr(config, key)
    return config if getattr(config, "image_size", None) else None


def _sizes(where: Site) -> tuple[int, int, int]:
    """Channels, patch size and the number of patches that are merged, per side."""
    vision = vision_config(where.config)
    return (
        number(vision, "num_channels", "in_channels", "in_chans", default=3),
        number(vision, "patch_size", default=14),
        number(vision, "spatial_merge_size", "merge_size", "merge_kernel_size", default=0)
        or number(where.config, "spatial_merge_size", "merge_size", "downsample_factor", default=2),
    )


def _grid(where: Site, modality: str) -> _Made:
    import torch

    channels, patch, merge = _sizes(where)
    vision = vision_config(where.config)
    depth = number(vision, "temporal_patch_size", "patch_temporal", default=1)
    frames, height, width = 2 if modality == "video" else 1, 2 * merge, 4 * merge
    arguments = {
        "pixels": torch.ones(frames * height * width, channels * depth * patch * patch),
        f"{modality}_grid_thw": torch.tensor([[frames, height, width]]),
    }
    if f"{modality}_merge_sizes" in where.names:
        arguments[f"{modality}_merge_sizes"] = torch.tensor([merge])
    return arguments, f"{modality} of {frames} × {height} × {width} patches"


def _positions(where: Site, modality: str) -> _Made:
    import torch

    channels, patch, _ = _sizes(where)
    pool = number(vision_config(where.config), "pooling_kernel_size", default=3)
    height, width = 2 * pool, 3 * pool
    places = torch.tensor([[[x, y] for y in range(height) for x in range(width)]])
    arguments = {"pixels": torch.ones(1, height * width, channels * patch * patch), f"{modality}_position_ids": places}
    if "num_frames_per_video" in where.names:
        arguments["num_frames_per_video"] = torch.tensor([1])
    return arguments, f"{modality} of {height} × {width} patches"


def _tiles(where: Site, modality: str) -> _Made:
    import torch

    channels, _, _ = _sizes(where)
    size = number(vision_config(where.config), "image_size", default=224)
    pinpoint = where.config.image_grid_pinpoints[0]
    tiles = -(-pinpoint[0] // size) * -(-pinpoint[1] // size) + 1
    return {
        "pixels": torch.ones(1, tiles, channels, size, size),
        "image_sizes": torch.tensor([pinpoint]),
    }, f"image of {tiles} tiles"


def _sized(where: Site, modality: str) -> _Made:
    import torch

    if getattr(where.config, "image_grid_pinpoints", None):
        return _tiles(where, modality)
    channels, patch, merge = _sizes(where)
    height, width = 2 * merge * patch, 3 * merge * patch
    return {
        "pixels": torch.ones(1, channels, height, width),
        "image_sizes": torch.tensor([[height, width]]),
    }, f"image of {height} × {width}"


def _flat_row(where: Site, modality: str) -> _Made:
    import torch

    channels, patch, merge = _sizes(where)
    height, width = 2 * merge, 4 * merge
    return {
        "pixels": torch.ones(1, height * width, channels * patch * patch),
        "spatial_shapes": torch.tensor([[height, width]]),
        "pixel_attention_mask": torch.ones(1, height * width, dtype=torch.long),
    }, f"image of {height} × {width} patches"


def _square(where: Site, modality: str) -> _Made:
    import torch

    channels, _, _ = _sizes(where)
    size = number(vision_config(where.config), "image_size", default=224)
    shape = (1, 2, channels, size, size) if modality == "video" else (1, channels, size, size)
    return {"pixels": torch.ones(*shape)}, f"{modality} of {size} × {size}"


_BY_ARGUMENT: tuple[tuple[str, Callable[[Site, str], _Made]], ...] = (
    ("image_grid_thw", _grid),
    ("video_grid_thw", _grid),
    ("image_position_ids", _positions),
    ("video_position_ids", _positions),
    ("spatial_shapes", _flat_row),
    ("image_sizes", _sized),
)
_OWN: dict[str, Callable[[Site, str], Iterator[Call]]] = {}
