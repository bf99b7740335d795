"""How a training is run: what its memory depends on beside the model and the plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from lorascope.errors import LorascopeError, did_you_mean

# Bytes of one number.
DTYPES = {"bf16": 2, "fp16": 2, "fp32": 4}
# From the largest to the smallest.
QUANTISATIONS = ("none", "8bit", "nf4")
# What a user types -> `optim` of transformers' TrainingArguments.
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw-8bit": "adamw_bnb_8bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
    "sgd": "sgd",
    "adafactor": "adafactor",
}
# Nobody trains beyond these, and what they multiply to stays readable.
_MOST_BATCH = 1_000_000
_MOST_LENGTH = 100_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Training:
    """How a training is run.

    Attributes:
        batch: Sequences in one step, per device. More than one means sequences of different lengths, so that there is an
            attention mask.
        length: Tokens of a sequence.
        dtype: Of the frozen weights and of what they compute: `bf16`, `fp16` or `fp32`.
        quantization: How bitsandbytes stores the frozen weights: `none`, `8bit` or `nf4` (with double quantization).
        optimizer: See `OPTIMIZERS`.
        checkpointing: Gradient checkpointing: activations within a layer are computed again in the backward pass.
        device: `cuda` or `cpu`. A CPU keeps the masks of dropout in the dtype of what they mask, a GPU in one byte.

    Raises:
        LorascopeError: With every fault of the values.
    """

    batch: int = 1
    length: int = 2048
    dtype: str = "bf16"
    quantization: str = "none"
    optimizer: str = "adamw"
    checkpointing: bool = False
    device: str = "cuda"

    def __post_init__(self) -> None:
        faults = training_faults(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        if faults:
            raise LorascopeError(*faults, where="training", hint=_DEFAULTS)

    @property
    def width(self) -> int:
        """Bytes of one number of the frozen weights where they are not quantized, and of the activations."""
        return DTYPES[self.dtype]

    @property
    def tokens(self) -> int:
        """Tokens in one step."""
        return self.batch * self.length


_DEFAULTS = "The defaults are batch 1, length 2048, dtype bf16, quantization none, optimizer adamw, checkpointing off."


def training_faults(
    batch: object = 1,
    length: object = 2048,
    dtype: object = "bf16",
    quantization: object = "none",
    optimizer: object = "adamw",
    checkpointing: object = False,
    device: object = "cuda",
) -> tuple[str, ...]:
    """Everything that is wrong with the values of a `Training`."""
    faults = [
        *_number_faults("batch", batch, _MOST_BATCH),
        *_number_faults("length", length, _MOST_LENGTH),
        *_word_faults("dtype", dtype, DTYPES),
        *_word_faults("quantization", quantization, QUANTISATIONS),
        *_word_faults("optimizer", optimizer, OPTIMIZERS),
        *_word_faults("device", device, ("cuda", "cpu")),
    ]
    if not isinstance(checkpointing, bool):
        faults.append(f"checkpointing {checkpointing!r} is neither true nor false")
    return tuple(faults)


def _number_faults(name: str, value: object, most: int) -> list[str]:
    if type(value) is int and 1 <= value <= most:
        return []
    return [f"{name} {value!r} is not a whole number from 1 to {most}"]


def _word_faults(name: str, value: object, known: Iterable[str]) -> list[str]:
    words = tuple(known)
    if isinstance(value, str) and value in words:
        return []
    near = did_you_mean(value, words) if isinstance(value, str) else ""
    return [f"{name} {value!r} is none of {', '.join(words)}. {near}".rstrip(" .")]
