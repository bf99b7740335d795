"""ms-swift: the options of `swift sft`.

They stand in a command, a shell script, or the YAML or JSON that it takes in their place.

Run in the tests, with ms-swift 4.6.0, PEFT 0.20.0 and transformers 5.19: its argument parser on every form that is
written and on the words that are checked here, its `get_target_modules`, `get_modules_to_save` and
`prepare_adapter` with what it changes in PEFT on models of many architectures, its tables of models, at which
configurations it stops, and trainings of a few steps from commands that are written here. Only read: the YAML and JSON
that it takes in place of options, what it does for `rlhf` and `pt`, and which model types go by the name of a model.
"""

from __future__ import annotations

from lorascope.trainers.ms_swift.files import PROGRAMS, read_swift, unsupported_by_swift, write_swift
from lorascope.trainers.ms_swift.schema import PEFT, RELEASE, SCHEMA, TITLE
from lorascope.trainers.ms_swift.targets import resolve_swift
from lorascope.trainers.protocol import Trainer

MS_SWIFT = Trainer(
    name="ms-swift",
    title=TITLE,
    release=RELEASE,
    peft=PEFT,
    form="command",
    marks=frozenset(
        {
            "tuner_type",
            "target_regex",
            "lora_rank",
            "lora_bias",
            "freeze_llm",
            "freeze_vit",
            "freeze_aligner",
            "init_weights",
            "split_dataset_ratio",
            "use_hf",
        }
    ),
    limits=unsupported_by_swift,
    write=write_swift,
    read=read_swift,
    resolve=resolve_swift,
    programs=PROGRAMS,
    # Its own search changes these two before PEFT gets them.
    keys={**SCHEMA.keys, "target_modules": "target_modules", "modules_to_save": "modules_to_save"},
)
