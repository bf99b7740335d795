"""Kinds of sources that a text may name."""

from __future__ import annotations

import os
import re

from lorascope.sources.builtin import is_builtin

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# Folders of the models in a pipeline of diffusers, as its pipelines call them.
PIPELINE_PARTS = frozenset(
    [
        "transformer",
        "transformer_2",
        "transformer_3",
        "unet",
        "unet_2",
        "prior",
        "decoder",
        "controlnet",
        "mmdit",
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
        "text_encoder_4",
        "image_encoder",
        "image_encoder_2",
        "vae",
        "vqgan",
        "vqvae",
        "movq",
        "safety_checker",
        "prior_prior",
        "prior_text_encoder",
        "prior_image_encoder",
        "language_model",
        "projection_model",
        "vision_language_encoder",
        "feature_extractor",
        "connectors",
        "vocoder",
        "audio_vae",
        "condition_encoder",
        "image_noising_scheduler",
        "motion_adapter",
        "adapter",
        "super_res",
    ]
)
MODEL_TYPE = re.compile(r"[\w.-]+")
# What is named like one of these is a file that is missing, never a repository to ask for.
_FILE = re.compile(r".*\.(?:json|jsonl|ya?ml|toml|txt|py|ipynb|sh|safetensors|gguf)", re.IGNORECASE | re.DOTALL)


def is_hub_id(text: str) -> bool:
    """A text that may name a Hub repository or a part of a pipeline there, not a file."""
    return HUB_ID.fullmatch(hub_folder(text)[0]) is not None and _FILE.fullmatch(text) is None


def hub_folder(text: str) -> tuple[str, str]:
    """A Hub id, and the pipeline's part after it: `owner/name/transformer`; no part where there is none."""
    name, _, part = text.rpartition("/")
    return (name, part) if part in PIPELINE_PARTS and HUB_ID.fullmatch(name) else (text, "")


def names_builtin_model(source: str) -> bool:
    """A text that names a built-in model, not a folder."""
    return (
        bool(MODEL_TYPE.fullmatch(source))
        and is_builtin(source)
        and not os.path.exists(os.path.join(source, "config.json"))
    )
