"""Calls that run a denoising model of diffusers, by the names of its arguments and the figures of its configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lorascope import light_dataclasses as dataclasses
from lorascope.sources.modules.module_tree import modules_in
from lorascope.sources.modules.python_objects import attribute, name_of_class
from lorascope.tracing.calls.types import Call, integers, number, ones, parameters, required

if TYPE_CHECKING:
    import torch

# Patches of an image, unlike each other and the text; tokens of a prompt.
_HEIGHT, _WIDTH, _TEXT = 4, 6, 7
# Where an image's side is free: it can be halved five times.
_SIDE = 32
_TEXT_WIDTHS = (
    *("encoder_hid_dim", "caption_channels", "joint_attention_dim", "text_embed_dim", "text_dim", "cap_feat_dim"),
    *("cross_attention_input_dim", "cross_attention_dim", "embedding_dim"),
)
_POOLED = (1280, 768, 1024)


@dataclasses.dataclass(frozen=True, slots=True)
class _Model:
    """A model with what decides its inputs.

    Attributes:
        config: Its configuration.
        name: Its class.
        packed: It takes patches as tokens, not images.
        dimensions: How many the inputs of its first layer have besides batch and channels.
        video: It takes frames.
    """

    config: Any
    name: str
    packed: bool
    dimensions: int
    video: bool

    def figure(self, *keys: str, default: int = 0) -> int:
        """The first of some figures that the configuration has."""
        return number(self.config, *keys, default=default)

    @property
    def channels(self) -> int:
        """Channels of the latent image."""
        return self.figure("in_channels", "num_channels", default=4)

    @property
    def side(self) -> int:
        """Side of the latent image."""
        return self.figure("sample_size", default=_SIDE)

    @property
    def text_length(self) -> int:
        """Tokens of a prompt, where their number is fixed."""
        return self.figure("max_text_seq_length", "text_len", "num_embeddings", default=_TEXT)

    @property
    def frames(self) -> int:
        """Frames of the latent video."""
        if length := self.figure("video_length"):
            return length
        if sampled := self.figure("sample_frames"):
            frames = (sampled - 1) // self.figure("temporal_compression_ratio", default=4) + 1
            step = self.figure("patch_size_t", default=1)
            return frames + -frames % step
        return 2 * self.figure("patch_size_t", default=1)


def denoising_calls(module: torch.nn.Module) -> Iterator[Call]:
    """The call of a denoising model or autoencoder of diffusers."""
    names, needed = parameters(module.forward), required(module.forward)
    model = _model(module)
    arguments = {}
    for name in names:
        if name == "encoder_attention_mask" and name not in needed:
            continue  # without it all of the prompt counts
        maker = _MAKERS.get(name)
        value = maker(model) if maker is not None else None
        if value is not None:
            arguments[name] = value
    if "return_dict" in names:
        arguments["return_dict"] = False
    if needed <= {*arguments}:
        what = "patches" if model.packed else "a latent video" if model.video else "a latent image"
        yield Call("forward", arguments, "", f"{what}, a time and what conditions it")


def _model(module: Any) -> _Model:
    """A model's facts, by the first layer that takes its channels."""
    config, name = module.config, name_of_class(type(module))
    channels = number(config, "in_channels", "num_channels", default=4)
    video = "3D" in name or "SpatioTemporal" in name or "Motion" in name
    packed, dimensions = False, 0
    for inner in modules_in(module).values():
        weight = attribute(inner, "weight")
        shape = tuple(getattr(weight, "shape", ()))
        if len(shape) == 2 and shape[1] == channels and type(inner).__name__ == "Linear":
            packed = True
            break
        if len(shape) >= 3:
            dimensions = dimensions or len(shape) - 2  # of the first one, if none has as many channels
        if len(shape) >= 3 and shape[1] == channels:
            dimensions = len(shape) - 2
            break
    return _Model(config, name, packed, dimensions or 2, video or dimensions == 3)


def _latents(model: _Model) -> Any:
    channels = model.channels
    if getattr(model.config, "addition_embed_type", None) == "image_hint":
        channels //= 2  # the hint has the others
    if model.name == "PriorTransformer":
        return ones(1, model.figure("embedding_dim", default=1))
    if model.packed:
        return ones(1, _HEIGHT * _WIDTH, channels)
    if model.dimensions == 1:
        return ones(1, channels, model.figure("sample_size", default=64))
    height = model.figure("sample_height", default=model.side)
    width = model.figure("sample_width", default=model.side)
    if not model.video:
        return ones(1, channels, height, width)
    if model.name.startswith(("CogVideoX", "ConsisID")) or "SpatioTemporal" in model.name:
        return ones(1, model.frames, channels, height, width)
    return ones(1, channels, model.frames, height, width)


def _text(model: _Model) -> Any:
    width = model.figure(*_TEXT_WIDTHS)
    prompts = model.frames if "Motion" in model.name else 1  # one for each frame
    return ones(prompts, model.text_length, width) if width else None


def _mask(model: _Model) -> Any:
    return integers(1, model.text_length)


def _places(model: _Model, count: int) -> Any:
    axes = getattr(model.config, "axes_dims_rope", None)
    return ones(count, len(axes) if isinstance(axes, list | tuple) else 3)


def _sized(*keys: str, lead: tuple[int, ...] = (1,)) -> Callable[[_Model], Any]:
    """A tensor whose last dimension is a figure; nothing where there is no such figure."""

    def make(model: _Model) -> Any:
        size = model.figure(*keys)
        return ones(*lead, size) if size else None

    return make


def _guidance(model: _Model) -> Any:
    return ones(1) if getattr(model.config, "guidance_embeds", None) else None


def _labels(model: _Model) -> Any:
    kind = getattr(model.config, "class_embed_type", None)
    if kind in ("projection", "simple_projection"):
        return ones(1, model.figure("projection_class_embeddings_input_dim", default=1))
    if kind in ("timestep", "identity"):
        return ones(1) if kind == "timestep" else ones(1, 4 * model.figure("block_out_channels", default=1))
    labelled = model.figure("num_class_embeds") or getattr(model.config, "norm_type", "") == "ada_norm_zero"
    return integers(1, value=0) if labelled else None


def _conditions(model: _Model) -> Any:
    """What UNets and PixArt take beside the prompt."""
    kind = getattr(model.config, "addition_embed_type", None)
    hidden = getattr(model.config, "encoder_hid_dim_type", None) or ""
    more: dict[str, Any] = {}
    if kind == "text_time":
        size, own = (
            model.figure(key, default=1) for key in ("projection_class_embeddings_input_dim", "addition_time_embed_dim")
        )
        count = next((n for n in (6, 5) if size - n * own in _POOLED), 6)
        more = {"text_embeds": ones(1, size - count * own), "time_ids": ones(1, count)}
    elif kind in ("text_image", "image", "image_hint"):
        width = model.figure(*(("cross_attention_dim",) if kind == "text_image" else ("encoder_hid_dim",)), default=1)
        more = {"text_embeds": ones(1, model.figure("cross_attention_dim", default=1)), "image_embeds": ones(1, width)}
        more |= {"hint": ones(1, 3, 8 * model.side, 8 * model.side)} if kind == "image_hint" else {}
    elif "image" in hidden:
        more = {"image_embeds": ones(1, model.figure("cross_attention_dim", default=1))}
    if getattr(model.config, "norm_type", None) == "ada_norm_single":
        more = {"resolution": ones(1, 2), "aspect_ratio": ones(1, 1)}
    return more or None


def _times(model: _Model) -> Any:
    own = model.figure("addition_time_embed_dim", default=1)
    return ones(1, model.figure("projection_class_embeddings_input_dim", default=1) // own)


def _seen(model: _Model) -> Any:
    width = model.figure("image_dim")
    return ones(2 if model.figure("pos_embed_seq_len") else 1, 257, width) if width else None


def _side_text(model: _Model) -> Any:
    width = model.figure("cross_attention_dim_t5", "text_embed_dim_t5", "caption_channels")
    return ones(1, model.figure("text_len_t5", default=_TEXT), width) if width else None


def _layers_of_text(model: _Model) -> Any:
    widths = getattr(model.config, "caption_channels", None)
    layers = getattr(model.config, "llama_layers", None)
    if not isinstance(widths, list | tuple) or not isinstance(layers, list | tuple):
        return None
    return ones(max(layers) + 1, 1, _TEXT, widths[-1])


def _side_mask(model: _Model) -> Any:
    return integers(1, model.figure("text_len_t5", default=_TEXT))


def _style(model: _Model) -> Any:
    return integers(1, value=0) if getattr(model.config, "use_style_cond_and_image_meta_size", None) else None


def _meta_size(model: _Model) -> Any:
    return ones(1, 6) if getattr(model.config, "use_style_cond_and_image_meta_size", None) else None


def _listed_image(model: _Model) -> Any:
    return [ones(model.channels, 1, 8, 12)]


def _listed_text(model: _Model) -> Any:
    return [ones(_TEXT, model.figure("cap_feat_dim", default=1))]


def _effnet(model: _Model) -> Any:
    channels = model.figure("effnet_in_channels")
    return ones(1, channels, model.side // 2, model.side // 2) if channels else None


def _hint(model: _Model) -> Any:
    side = 8 * model.side
    return ones(1, model.figure("conditioning_channels", default=3), side, side)


_MAKERS: dict[str, Callable[[_Model], Any]] = {
    "sample": _latents,
    "hidden_states": _latents,
    "x": _listed_image,
    "cap_feats": _listed_text,
    **dict.fromkeys(("timestep", "t", "timestep_ratio", "timesteps"), lambda model: ones(1)),
    "encoder_hidden_states": _text,
    **dict.fromkeys(
        ("encoder_attention_mask", "encoder_hidden_states_mask", "encoder_mask", "text_embedding_mask"), _mask
    ),
    "pooled_projections": _sized("pooled_projection_dim"),
    "pooled_embeds": _sized("text_emb_dim", "pooled_projection_dim"),
    "guidance": _guidance,
    "img_ids": lambda model: _places(model, _HEIGHT * _WIDTH),
    "txt_ids": lambda model: _places(model, model.text_length),
    "img_shapes": lambda model: [[(1, _HEIGHT, _WIDTH)]],
    "txt_seq_lens": lambda model: [model.text_length],
    "num_frames": lambda model: 1,
    "height": lambda model: _HEIGHT,
    "width": lambda model: _WIDTH,
    "class_labels": _labels,
    "added_cond_kwargs": _conditions,
    "added_time_ids": _times,
    "timestep_cond": _sized("time_cond_proj_dim"),
    "encoder_hidden_states_image": _seen,
    "encoder_hidden_states_t5": _side_text,
    "encoder_hidden_states_llama3": _layers_of_text,
    "text_embedding_mask_t5": _side_mask,
    "image_meta_size": _meta_size,
    "style": _style,
    "ofs": lambda model: ones(1) if model.figure("ofs_embed_dim") else None,
    **dict.fromkeys(("original_size", "target_size", "crop_coords"), lambda model: ones(1, 2)),
    "proj_embedding": _sized("embedding_dim"),
    "global_hidden_states": _sized("global_states_input_dim", lead=(1, 1)),
    "clip_text_pooled": _sized("clip_text_pooled_in_channels", lead=(1, 1)),
    "clip_text": _sized("clip_text_in_channels", lead=(1, 9)),
    "clip_img": _sized("clip_image_in_channels", lead=(1, 1)),
    "effnet": _effnet,
    "controlnet_cond": _hint,
}
