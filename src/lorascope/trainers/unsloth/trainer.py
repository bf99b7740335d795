"""Unsloth: a Python script that calls its `get_peft_model`.

Run in the tests, with PEFT 0.21.2 and taken out of Unsloth 2026.10.9 and unsloth_zoo 2026.10.9, because Unsloth stops
without a GPU: both `get_peft_model` up to PEFT's, what they call for names, experts, layers and embeddings, its change of
PEFT's rewrite for fused experts, and what it then sets to be trained. Only read: which of both its loader chooses,
loading itself, and training. Not covered and refused here: encoder-decoder models, models of several models
(Qwen-Omni), models that generate text by diffusion, models without a known head that do not generate, and the lists of
names that it filters on models whose experts are modules of their own. Not covered, and not visible in a map: speech
models, remote code, and vLLM (`fast_inference`).
"""

from __future__ import annotations

from lorascope.trainers.protocol import Trainer
from lorascope.trainers.unsloth.files import read_unsloth, unsupported_by_unsloth, write_unsloth
from lorascope.trainers.unsloth.schema import CLASSES, PEFT, RELEASE, SCHEMA, TITLE
from lorascope.trainers.unsloth.targets import resolve_unsloth

UNSLOTH = Trainer(
    name="unsloth",
    title=TITLE,
    release=RELEASE,
    peft=PEFT,
    form="python",
    marks=frozenset({*CLASSES, "unsloth", "finetune_language_layers", "use_gradient_checkpointing"}),
    limits=unsupported_by_unsloth,
    write=write_unsloth,
    read=read_unsloth,
    resolve=resolve_unsloth,
    keys=SCHEMA.keys,
)
