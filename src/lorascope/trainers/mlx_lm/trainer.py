"""mlx-lm: the YAML file of `mlx_lm.lora --config`.

mlx-lm has its own LoRA layers and does not use PEFT. A key is the exact name of a module within a block, or within the
whole model; there is one rank and one scale, the scale being PEFT's alpha / rank.

Run in the tests, with mlx-lm 0.32.2 on a CPU: what its `train_model` adapts, before the first step, on a small model of
every known type that its own `load_model` read, with the files that are written here and with others: keys that it does
not know, that match nothing, at which it stops; its training of four small models by `mlx_lm.lora --config`. Only read:
training on Apple's GPUs, and quantized models, whose modules have the same names.
"""

from __future__ import annotations

from lorascope.trainers.mlx_lm.files import read_mlx, unsupported_by_mlx, write_mlx
from lorascope.trainers.mlx_lm.schema import RELEASE, TITLE
from lorascope.trainers.mlx_lm.targets import resolve_mlx
from lorascope.trainers.protocol import Trainer

MLX_LM = Trainer(
    name="mlx-lm",
    title=TITLE,
    release=RELEASE,
    peft="",
    form="yaml",
    marks=frozenset({"lora_parameters", "fine_tune_type", "num_layers", "adapter_path", "steps_per_eval", "iters"}),
    limits=unsupported_by_mlx,
    write=write_mlx,
    read=read_mlx,
    resolve=resolve_mlx,
)
