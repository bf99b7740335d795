"""PEFT: `adapter_config.json`, and scripts with a `LoraConfig`.

Run in the tests, with PEFT itself: it reads every file, and a script trains a tiny model.
"""

from __future__ import annotations

from lorascope import light_dataclasses as dataclasses
from lorascope.peft_rules.releases import NEWEST
from lorascope.trainers.peft.files import (
    read_peft,
    read_peft_python,
    resolve_peft,
    write_peft,
    write_peft_python,
)
from lorascope.trainers.protocol import Trainer

PEFT = Trainer(
    name="peft",
    title="PEFT",
    release=NEWEST,
    peft=NEWEST,
    form="json",
    marks=frozenset({"peft_type"}),
    limits=lambda _: (),  # plans are made for PEFT
    write=write_peft,
    read=read_peft,
    resolve=resolve_peft,
)
PEFT_PYTHON = dataclasses.replace(
    PEFT,
    name="peft-python",
    form="python",
    marks=frozenset({"LoraConfig"}),
    write=write_peft_python,
    read=read_peft_python,
)
