"""axolotl: its YAML file.

Run in the tests, with axolotl 0.19.0, PEFT 0.20.0 and transformers 5.16.1: its schema on every form that is written and on
the values that are checked here, its `find_all_linear_names`, its `load_lora` with all that it changes in PEFT and
its `freeze_mm_modules`, on models of many architectures. Only read: that training goes on with that model, what `rl`,
`lora_model_dir`, `unfrozen_parameters` and `quantize_moe_experts` do (the last needs a GPU), and its plugins.
"""

from __future__ import annotations

from lorascope.trainers.axolotl.files import read_axolotl, unsupported_by_axolotl, write_axolotl
from lorascope.trainers.axolotl.schema import PEFT, RELEASE, SCHEMA, TITLE
from lorascope.trainers.axolotl.targets import resolve_axolotl
from lorascope.trainers.protocol import Trainer

AXOLOTL = Trainer(
    name="axolotl",
    title=TITLE,
    release=RELEASE,
    peft=PEFT,
    form="yaml",
    marks=frozenset(
        {
            "adapter",
            "base_model",
            "lora_r",
            "lora_target_linear",
            "micro_batch_size",
            "peft_use_dora",
            "peft_use_rslora",
            "peft_layers_to_transform",
            "lora_rank_pattern",
            "sequence_len",
            "type_of_model",
        }
    ),
    limits=unsupported_by_axolotl,
    write=write_axolotl,
    read=read_axolotl,
    resolve=resolve_axolotl,
    keys=SCHEMA.keys,
)
