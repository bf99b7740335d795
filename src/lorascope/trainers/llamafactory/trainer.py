"""LLaMA-Factory: its YAML file.

Run in the tests, with LLaMA-Factory 0.9.5, PEFT 0.18.1 and transformers 5.6.0: its parser on every form that is written
and on unknown keys, its `find_all_linear_modules`, `find_expanded_modules`, `get_forbidden_modules` and
`patch_target_modules` with PEFT behind them on models of many architectures, its table of model parts, and trainings of a
few steps from files that are written here. Only read: which class it loads a model with, `resize_vocab`, and what is
refused here (Unsloth, KTransformers, mixture of depths, an adapter that it goes on with).
"""

from __future__ import annotations

from lorascope.trainers.llamafactory.files import (
    read_llamafactory,
    unsupported_by_llamafactory,
    write_llamafactory,
)
from lorascope.trainers.llamafactory.schema import PEFT, RELEASE, SCHEMA, TITLE
from lorascope.trainers.llamafactory.targets import resolve_llamafactory
from lorascope.trainers.protocol import Trainer

LLAMAFACTORY = Trainer(
    name="llamafactory",
    title=TITLE,
    release=RELEASE,
    peft=PEFT,
    form="yaml",
    marks=frozenset(
        {
            "finetuning_type",
            "stage",
            "lora_rank",
            "lora_target",
            "additional_target",
            "freeze_vision_tower",
            "freeze_multi_modal_projector",
            "freeze_language_model",
            "template",
            "cutoff_len",
            "dataset_dir",
        }
    ),
    limits=unsupported_by_llamafactory,
    write=write_llamafactory,
    read=read_llamafactory,
    resolve=resolve_llamafactory,
    keys=SCHEMA.keys,
)
