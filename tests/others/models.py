"""Models of timm, x-transformers, vit-pytorch, open_clip and diffusers, and the arguments of one call of each.

The libraries are imported where they are used: an environment of their own has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Model = tuple[Any, dict[str, Any]]

MODELS: dict[str, Callable[[], Model]] = {}


def _model(build: Callable[[], Model]) -> Callable[[], Model]:
    MODELS[build.__name__] = build
    return build


def _picture(size: int = 64) -> torch.Tensor:
    return torch.randn(1, 3, size, size)


def _tokens(count: int = 11, size: int = 101) -> torch.Tensor:
    return torch.randint(1, size, (1, count))


def _timm(name: str, size: int, **sizes: Any) -> Model:
    import timm

    return timm.create_model(name, pretrained=False, **sizes), {"x": _picture(size)}


@_model
def timm_vit() -> Model:
    return _timm("vit_tiny_patch16_224", 64, depth=3, img_size=64)


@_model
def timm_swin() -> Model:
    return _timm("swin_tiny_patch4_window7_224", 56, img_size=56, depths=(2, 2), num_heads=(2, 4), embed_dim=32)


@_model
def timm_mixer() -> Model:
    return _timm("mixer_s32_224", 224)


@_model
def timm_eva() -> Model:
    return _timm("eva02_tiny_patch14_224", 56, depth=3, img_size=56)


@_model
def timm_convnext() -> Model:
    return _timm("convnext_atto", 64)


@_model
def timm_maxvit() -> Model:
    return _timm("maxvit_tiny_tf_224", 64, img_size=64, embed_dim=(32, 64), depths=(1, 1))


@_model
def timm_beit() -> Model:
    return _timm("beit_base_patch16_224", 64, img_size=64, depth=3, embed_dim=96, num_heads=3)


@_model
def timm_xcit() -> Model:
    return _timm("xcit_nano_12_p16_224", 64, depth=3)


@_model
def timm_pvt() -> Model:
    return _timm("pvt_v2_b0", 64)


@_model
def timm_mvit() -> Model:
    return _timm("mvitv2_tiny", 64, img_size=64)


@_model
def timm_gmlp() -> Model:
    return _timm("gmlp_ti16_224", 224)


@_model
def timm_siglip() -> Model:
    return _timm("vit_base_patch16_siglip_224", 64, img_size=64, depth=2, embed_dim=96, num_heads=3)


def _language(kind: str, *, length: int = 32, **layers: Any) -> Model:
    import x_transformers

    stack = getattr(x_transformers, kind)(dim=64, depth=3, heads=4, **layers)
    model = x_transformers.TransformerWrapper(num_tokens=101, max_seq_len=length, attn_layers=stack)
    return model, {"x": _tokens()}


@_model
def xt_decoder() -> Model:
    return _language("Decoder", rotary_pos_emb=True, ff_glu=True, ff_swish=True, use_rmsnorm=True)


@_model
def xt_mqa() -> Model:
    return _language("Decoder", attn_one_kv_head=True, attn_flash=True, attn_qk_norm=True)


@_model
def xt_gated() -> Model:
    return _language(
        "Encoder",
        attn_gate_values=True,
        attn_pre_talking_heads=True,
        attn_post_talking_heads=True,
        rel_pos_bias=True,
        sandwich_norm=True,
    )


@_model
def xt_seq2seq() -> Model:
    import x_transformers

    encoder = {"enc_num_tokens": 101, "enc_depth": 2, "enc_heads": 4, "enc_max_seq_len": 32}
    decoder = {"dec_num_tokens": 107, "dec_depth": 2, "dec_heads": 4, "dec_max_seq_len": 32}
    return x_transformers.XTransformer(dim=64, **encoder, **decoder), {"src": _tokens(), "tgt": _tokens(9)}


@_model
def xt_vit() -> Model:
    import x_transformers

    stack = x_transformers.Encoder(dim=64, depth=3, heads=4)
    model = x_transformers.ViTransformerWrapper(image_size=64, patch_size=16, num_classes=10, attn_layers=stack)
    return model, {"img": _picture()}


@_model
def xt_continuous() -> Model:
    import x_transformers

    stack = x_transformers.Encoder(dim=64, depth=3, heads=4, alibi_pos_bias=True)
    model = x_transformers.ContinuousTransformerWrapper(dim_in=20, dim_out=24, max_seq_len=32, attn_layers=stack)
    return model, {"x": torch.randn(1, 11, 20)}


_VIT = {"image_size": 64, "patch_size": 16, "num_classes": 10, "dim": 64, "heads": 4, "mlp_dim": 112}


@_model
def vp_vit() -> Model:
    from vit_pytorch import ViT

    return ViT(depth=3, **_VIT), {"img": _picture()}


@_model
def vp_simple() -> Model:
    from vit_pytorch import SimpleViT

    return SimpleViT(depth=3, **_VIT), {"img": _picture()}


@_model
def vp_cait() -> Model:
    from vit_pytorch.cait import CaiT

    return CaiT(depth=3, cls_depth=2, **_VIT), {"img": _picture()}


@_model
def vp_parallel() -> Model:
    from vit_pytorch.parallel_vit import ViT

    return ViT(depth=2, **_VIT), {"img": _picture()}


@_model
def vp_navit() -> Model:
    from vit_pytorch.na_vit import NaViT

    return NaViT(depth=2, **_VIT), {"batched_images": [[torch.randn(3, 64, 64)]]}


@_model
def vp_crossvit() -> Model:
    from vit_pytorch.cross_vit import CrossViT

    small = {"sm_dim": 32, "sm_patch_size": 16, "sm_enc_mlp_dim": 80, "sm_enc_heads": 2}
    large = {"lg_dim": 64, "lg_patch_size": 32, "lg_enc_mlp_dim": 112, "lg_enc_heads": 4}
    return CrossViT(image_size=64, num_classes=10, depth=2, **small, **large), {"img": _picture()}


@_model
def vp_nest() -> Model:
    from vit_pytorch.nest import NesT

    sizes = {"image_size": 64, "patch_size": 4, "dim": 32, "heads": 2, "num_classes": 10}
    return NesT(num_hierarchies=2, block_repeats=(2, 2), **sizes), {"img": _picture()}


@_model
def vp_mobile() -> Model:
    from vit_pytorch.mobile_vit import MobileViT

    channels = [16, 16, 24, 24, 32, 32, 48, 48, 56, 56, 80]
    return MobileViT(image_size=(64, 64), dims=[32, 48, 64], channels=channels, num_classes=10), {"x": _picture()}


@_model
def vp_twins() -> Model:
    from vit_pytorch.twins_svt import TwinsSVT

    stages = {f"s{stage}_emb_dim": 16 * stage for stage in (1, 2, 3, 4)}
    local = {f"s{stage}_local_patch_size": 2 for stage in (1, 2, 3, 4)}
    return TwinsSVT(num_classes=10, s3_depth=2, s2_depth=1, **stages, **local), {"x": _picture(256)}


@_model
def vp_cct() -> Model:
    from vit_pytorch.cct import CCT

    sizes = {"img_size": 64, "embedding_dim": 64, "num_heads": 4, "mlp_ratio": 2.0, "num_classes": 10}
    return CCT(n_conv_layers=1, num_layers=2, **sizes), {"x": _picture()}


_TEXT = {"context_length": 16, "vocab_size": 101, "width": 48, "heads": 4, "layers": 2}
_TOWER = {"layers": 2, "width": 64, "head_width": 16, "patch_size": 16, "image_size": 64}


def _pair(size: int = 64) -> dict[str, Any]:
    return {"image": _picture(size), "text": _tokens(16)}


@_model
def oc_clip() -> Model:
    from open_clip.model import CLIP

    return CLIP(embed_dim=40, vision_cfg=_TOWER, text_cfg=_TEXT), _pair()


@_model
def oc_coca() -> Model:
    from open_clip.coca_model import CoCa

    text = {**_TEXT, "embed_cls": True, "output_tokens": True}
    tower = {**_TOWER, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
    return CoCa(48, multimodal_cfg={**_TEXT, "mlp_ratio": 4}, text_cfg=text, vision_cfg=tower), _pair()


@_model
def oc_siglip() -> Model:
    from open_clip.model import CustomTextCLIP

    tower = {"timm_model_name": "vit_base_patch16_siglip_224", "timm_model_pretrained": False, "timm_pool": "map"}
    text = {**_TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    return CustomTextCLIP(96, {**tower, "timm_proj": "none", "image_size": 224}, text), _pair(224)


_HEADS = {"num_attention_heads": 3, "attention_head_dim": 16}
_WORDS = torch.Size((1, 7, 40))


def _diffusers(name: str, call: dict[str, Any], **sizes: Any) -> Model:
    import diffusers

    return getattr(diffusers, name)(**sizes), {**call, "return_dict": False}


def _step(step: float | int = 5.0) -> dict[str, torch.Tensor]:
    return {"timestep": torch.tensor([step])}


def _told() -> dict[str, torch.Tensor]:
    return {"encoder_hidden_states": torch.randn(_WORDS)}


@_model
def df_flux() -> Model:
    call = {
        "hidden_states": torch.randn(1, 12, 16),
        "pooled_projections": torch.randn(1, 24),
        "img_ids": torch.zeros(12, 3),
        "txt_ids": torch.zeros(7, 3),
        "guidance": torch.tensor([1.0]),
    }
    sizes = {"in_channels": 16, "joint_attention_dim": 40, "pooled_projection_dim": 24, "axes_dims_rope": (4, 6, 6)}
    return _diffusers(
        "FluxTransformer2DModel",
        {**call, **_told(), **_step(0.5)},
        num_layers=2,
        num_single_layers=3,
        guidance_embeds=True,
        **_HEADS,
        **sizes,
    )


@_model
def df_sd3() -> Model:
    call = {"hidden_states": torch.randn(1, 4, 16, 16), "pooled_projections": torch.randn(1, 24)}
    sizes = {"sample_size": 16, "in_channels": 4, "out_channels": 4, "joint_attention_dim": 40}
    return _diffusers(
        "SD3Transformer2DModel",
        {**call, **_told(), **_step()},
        num_layers=3,
        caption_projection_dim=48,
        pooled_projection_dim=24,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
        **_HEADS,
        **sizes,
    )


@_model
def df_pixart() -> Model:
    more = {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
    sizes = {"in_channels": 4, "out_channels": 8, "cross_attention_dim": 48, "sample_size": 16, "caption_channels": 40}
    return _diffusers(
        "PixArtTransformer2DModel",
        {"hidden_states": torch.randn(1, 4, 16, 16), **more, **_told(), **_step()},
        num_layers=3,
        use_additional_conditions=False,
        **_HEADS,
        **sizes,
    )


@_model
def df_dit() -> Model:
    call = {"hidden_states": torch.randn(1, 4, 16, 16), "class_labels": torch.tensor([3]), **_step(5)}
    sizes = {"in_channels": 4, "out_channels": 8, "num_layers": 3, "sample_size": 16, "num_embeds_ada_norm": 20}
    return _diffusers("DiTTransformer2DModel", call, **_HEADS, **sizes)


@_model
def df_sana() -> Model:
    sizes = {"in_channels": 4, "out_channels": 4, "num_cross_attention_heads": 3, "cross_attention_head_dim": 16}
    return _diffusers(
        "SanaTransformer2DModel",
        {"hidden_states": torch.randn(1, 4, 8, 8), **_told(), **_step()},
        num_layers=3,
        cross_attention_dim=48,
        caption_channels=40,
        sample_size=8,
        **_HEADS,
        **sizes,
    )


@_model
def df_unet() -> Model:
    more = {"added_cond_kwargs": {"text_embeds": torch.randn(1, 24), "time_ids": torch.randn(1, 6)}}
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (32, 64),
    }
    return _diffusers(
        "UNet2DConditionModel",
        {"sample": torch.randn(1, 4, 16, 16), **more, **_told(), **_step()},
        sample_size=16,
        layers_per_block=1,
        cross_attention_dim=40,
        attention_head_dim=8,
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=72,
        **blocks,
    )


@_model
def df_cogvideox() -> Model:
    sizes = {"in_channels": 4, "out_channels": 4, "time_embed_dim": 32, "text_embed_dim": 40}
    frames = {"sample_width": 8, "sample_height": 8, "sample_frames": 9, "max_text_seq_length": 7}
    call = {"hidden_states": torch.randn(1, 3, 4, 8, 8), **_told(), **_step(5)}
    return _diffusers("CogVideoXTransformer3DModel", call, num_layers=3, **_HEADS, **sizes, **frames)


@_model
def df_wan() -> Model:
    sizes = {"in_channels": 4, "out_channels": 4, "text_dim": 40, "freq_dim": 32, "ffn_dim": 112}
    call = {"hidden_states": torch.randn(1, 4, 2, 8, 8), **_told(), **_step(5)}
    return _diffusers("WanTransformer3DModel", call, num_layers=3, **_HEADS, **sizes)


@_model
def df_ltx() -> Model:
    frames = {"num_frames": 2, "height": 2, "width": 2, "encoder_attention_mask": torch.ones(1, 7).long()}
    sizes = {"in_channels": 16, "out_channels": 16, "cross_attention_dim": 48, "caption_channels": 40}
    call = {"hidden_states": torch.randn(1, 8, 16), **frames, **_told(), **_step(5)}
    return _diffusers("LTXVideoTransformer3DModel", call, num_layers=3, **_HEADS, **sizes)


@_model
def df_hunyuan() -> Model:
    call = {
        "hidden_states": torch.randn(1, 4, 2, 8, 8),
        "encoder_attention_mask": torch.ones(1, 7).long(),
        "pooled_projections": torch.randn(1, 24),
        "guidance": torch.tensor([1.0]),
    }
    sizes = {"in_channels": 4, "out_channels": 4, "text_embed_dim": 40, "pooled_projection_dim": 24}
    layers = {"num_layers": 2, "num_single_layers": 2, "num_refiner_layers": 1, "rope_axes_dim": (4, 6, 6)}
    model = "HunyuanVideoTransformer3DModel"
    return _diffusers(model, {**call, **_told(), **_step(5)}, **_HEADS, **sizes, **layers)


@_model
def df_qwenimage() -> Model:
    call = {
        "hidden_states": torch.randn(1, 16, 16),
        "encoder_hidden_states_mask": torch.ones(1, 7).long(),
        "img_shapes": [[(1, 4, 4)]],
    }
    sizes = {"in_channels": 16, "out_channels": 4, "joint_attention_dim": 40, "axes_dims_rope": (4, 6, 6)}
    model = "QwenImageTransformer2DModel"
    return _diffusers(model, {**call, **_told(), **_step(0.5)}, num_layers=3, **_HEADS, **sizes)


@_model
def df_lumina2() -> Model:
    call = {"hidden_states": torch.randn(1, 4, 16, 16), "encoder_attention_mask": torch.ones(1, 7).bool()}
    sizes = {"sample_size": 16, "in_channels": 4, "hidden_size": 48, "num_attention_heads": 3, "num_kv_heads": 1}
    return _diffusers(
        "Lumina2Transformer2DModel",
        {**call, **_told(), **_step(0.5)},
        num_layers=2,
        num_refiner_layers=1,
        multiple_of=16,
        axes_dim_rope=(4, 6, 6),
        axes_lens=(32, 32, 32),
        cap_feat_dim=40,
        **sizes,
    )


@_model
def df_stableaudio() -> Model:
    call = {
        "hidden_states": torch.randn(1, 4, 16),
        "encoder_hidden_states": torch.randn(1, 7, 24),
        "global_hidden_states": torch.randn(1, 1, 32),
        **_step(0.5),
    }
    heads = {"attention_head_dim": 16, "num_attention_heads": 4, "num_key_value_attention_heads": 2}
    return _diffusers(
        "StableAudioDiTModel",
        call,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=24,
        time_proj_dim=16,
        global_states_input_dim=32,
        cross_attention_input_dim=24,
        **heads,
    )
