"""torchtune: the YAML file of its LoRA recipes.

They are `lora_finetune_single_device` and `lora_finetune_distributed`. torchtune has its own models and LoRA layers and
does not use PEFT. One function of `torchtune.models` builds a model of one size with adapters on some of the attention's
four layers, on all of the MLP or none of it, and on the output layer or not, in every layer, with one rank and one alpha.

Run in the tests, with torchtune 0.6.1 on the meta device: its `config.validate` and `config.instantiate` on the files
that are written here, and every function of `builders` for its sizes, parameters, ranks, dropout and
`get_adapter_params`. Only read: its recipes, and how it reads a checkpoint of transformers into its own names. Not
covered: reward models, classifiers, and Llama 3.2 Vision.
"""

from __future__ import annotations

from lorascope.trainers.protocol import Trainer
from lorascope.trainers.torchtune.files import read_torchtune, unsupported_by_torchtune, write_torchtune
from lorascope.trainers.torchtune.schema import RELEASE, TITLE
from lorascope.trainers.torchtune.targets import resolve_torchtune

TORCHTUNE = Trainer(
    name="torchtune",
    title=TITLE,
    release=RELEASE,
    peft="",
    form="yaml",
    marks=frozenset({"checkpointer", "metric_logger", "tokenizer", "enable_activation_checkpointing", "lr_scheduler"}),
    limits=unsupported_by_torchtune,
    write=write_torchtune,
    read=read_torchtune,
    resolve=resolve_torchtune,
)
