"""TRL: its configuration file, and its command lines.

Run in the tests, with TRL 1.16.0 and PEFT 0.21.2: its parser and its `get_peft_config` on every form that is written, on
command lines, on broken values and on unknown keys, and `trl sft --config` itself, which trains tiny models of four
architectures from exported files. Only read: the other training scripts, which hand the same class to the same function
and refuse an adapted head in the same words.
"""

from __future__ import annotations

from lorascope.trainers.protocol import Trainer
from lorascope.trainers.trl.files import PROGRAMS, read_trl, unsupported_by_trl, write_trl
from lorascope.trainers.trl.schema import PEFT, RELEASE, SCHEMA, TITLE
from lorascope.trainers.trl.targets import resolve_trl

TRL = Trainer(
    name="trl",
    title=TITLE,
    release=RELEASE,
    peft=PEFT,
    form="yaml",
    marks=frozenset(
        {"use_peft", "lora_target_modules", "lora_task_type", "dataset_train_split", "dataset_name", "use_dora"}
    ),
    limits=unsupported_by_trl,
    write=write_trl,
    read=read_trl,
    resolve=resolve_trl,
    programs=PROGRAMS,
    keys=SCHEMA.keys,
)
