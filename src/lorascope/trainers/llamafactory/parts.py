"""Multimodal models that LLaMA-Factory knows, and words that mark their parts.

LLaMA-Factory 0.9.5, model_utils/visual.py, `_register_composite_model`. A word counts wherever it stands in a module's name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lorascope import light_dataclasses as dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """Words in names that tell the parts of a model apart.

    Attributes:
        projector: What joins towers and language model.
        vision: The towers, audio's too.
        language: The language model.
        conflicts: Modules that LoRA never adapts.
    """

    projector: tuple[str, ...] = ("multi_modal_projector",)
    vision: tuple[str, ...] = ("vision_tower",)
    language: tuple[str, ...] = ("language_model", "lm_head")
    conflicts: tuple[str, ...] = ()

    @property
    def by_switch(self) -> Mapping[str, tuple[str, ...]]:
        """The words by the option that freezes the part."""
        return {
            "freeze_vision_tower": self.vision,
            "freeze_multi_modal_projector": self.projector,
            "freeze_language_model": self.language,
        }


_PLAIN = Parts()
_TOWER_OF_BLOCKS = Parts(
    projector=("visual.merger",), vision=("visual.patch_embed", "visual.blocks"), conflicts=("patch_embed",)
)
_QWEN3_VISION = ("visual.pos_embed", "visual.patch_embed", "visual.blocks")
_QWEN3_VL = Parts(
    projector=("visual.merger",),
    vision=(*_QWEN3_VISION, "visual.deepstack_merger_list"),
    conflicts=("patch_embed",),
)
_QWEN3_5 = Parts(projector=("model.visual.merger",), vision=_QWEN3_VISION, conflicts=("patch_embed",))
_OF_VISION_MODEL = Parts(vision=("vision_model",))

PARTS: Mapping[str, Parts] = {
    "dots_ocr": Parts(projector=("vision_tower.merger",), language=("model", "lm_head"), conflicts=("merger",)),
    "gemma3": _PLAIN,
    "gemma3n": Parts(vision=("vision_tower", "audio_tower"), conflicts=("timm_model", "subsample_conv_projection")),
    "gemma4": Parts(
        projector=("model.embed_vision", "model.embed_audio"),
        vision=("vision_tower", "audio_tower"),
        conflicts=("per_layer_projection_norm",),
    ),
    "glm4v": _TOWER_OF_BLOCKS,
    "glm4v_moe": _TOWER_OF_BLOCKS,
    "glm_ocr": _TOWER_OF_BLOCKS,
    "internvl": _PLAIN,
    "interns1": _PLAIN,
    "Keye": Parts(
        projector=("mlp_AR",),
        vision=("visual.vision_model.patch_embedding", "visual.vision_model.encoder"),
        language=("model", "lm_head"),
        conflicts=("patch_embedding",),
    ),
    "kimi_vl": _PLAIN,
    "llama4": _OF_VISION_MODEL,
    "llava": _PLAIN,
    "llava_next": _PLAIN,
    "llava_next_video": _PLAIN,
    "minicpmv": Parts(projector=("resampler",), vision=("vpm",), language=("llm",)),
    "minicpmv4_6": Parts(
        projector=("model.merger",), vision=("model.vision_tower",), language=("model.language_model", "lm_head")
    ),
    "minicpmo": Parts(
        projector=("resampler",),
        vision=("vpm", "apm", "audio_avg_pooler", "audio_projection_layer", "tts"),
        language=("llm",),
        conflicts=("audio_projection_layer",),
    ),
    "mistral3": Parts(projector=("model.multi_modal_projector",)),
    "mllama": _OF_VISION_MODEL,
    "paligemma": _PLAIN,
    "qwen2_audio": Parts(vision=("audio_tower",)),
    "qwen2_5_omni_thinker": Parts(
        projector=("visual.merger", "audio_tower.proj"),
        vision=("visual.patch_embed", "visual.blocks", "audio_tower"),
        language=("model", "lm_head"),
        conflicts=("patch_embed",),
    ),
    "qwen2_vl": _TOWER_OF_BLOCKS,
    "qwen2_5_vl": _TOWER_OF_BLOCKS,
    "qwen3_vl": _QWEN3_VL,
    "qwen3_vl_moe": _QWEN3_VL,
    "qwen3_omni_moe_thinker": Parts(
        projector=("visual.merger", "audio_tower.proj"),
        vision=(*_QWEN3_VISION, "visual.deepstack_merger_list", "audio_tower"),
        conflicts=("patch_embed",),
    ),
    "qwen3_5": _QWEN3_5,
    "qwen3_5_moe": _QWEN3_5,
    "video_llava": _PLAIN,
}


def holds_word(name: str, words: Collection[str]) -> bool:
    """One of the words stands anywhere in the name."""
    return any(word in name for word in words)
