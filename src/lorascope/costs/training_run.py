"""Settings of a training run that decide its memory."""

from __future__ import annotations

from collections.abc import Iterable

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError, did_you_mean

# Bytes per element.
DTYPES = {"bf16": 2, "fp16": 2, "fp32": 4}
# From the largest to the smallest.
QUANTIZATIONS = ("none", "8bit", "nf4")
# What a user types -> `optim` of transformers' TrainingArguments.
OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw-8bit": "adamw_bnb_8bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
    "sgd": "sgd",
    "adafactor": "adafactor",
}
# Nobody trains beyond these, and their product stays readable.
_MAX_BATCH = 1_000_000
_MAX_SEQ_LEN = 100_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Training:
    """Settings of a training run.

    Attributes:
        batch: Sequences per step and device. More than one means sequences of different lengths, so an attention mask.
        seq_len: Tokens per sequence.
        dtype: Of the base weights and activations: `bf16`, `fp16` or `fp32`.
        quantization: Of the base weights, by bitsandbytes: `none`, `8bit` or `nf4` (with double quantization).
        optimizer: See `OPTIMIZERS`.
        gradient_checkpointing: Recompute a layer's activations in the backward pass.
        device: `cuda` or `cpu`. Dropout masks take the dtype of their input on a CPU, one byte per element on a GPU.

    Raises:
        LorascopeError: With every invalid value.
    """

    batch: int = 1
    seq_len: int = 2048
    dtype: str = "bf16"
    quantization: str = "none"
    optimizer: str = "adamw"
    gradient_checkpointing: bool = False
    device: str = "cuda"

    def __post_init__(self) -> None:
        faults = training_faults(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        if faults:
            raise LorascopeError(*faults, where="training", hint=_DEFAULTS)

    @property
    def width(self) -> int:
        """Bytes per element of activations and unquantized base weights."""
        return DTYPES[self.dtype]

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.batch * self.seq_len


_DEFAULTS = "The defaults are batch 1, seq_len 2048, dtype bf16, quantization none, optimizer adamw, gradient_checkpointing off."


def training_faults(
    batch: object = 1,
    seq_len: object = 2048,
    dtype: object = "bf16",
    quantization: object = "none",
    optimizer: object = "adamw",
    gradient_checkpointing: object = False,
    device: object = "cuda",
) -> tuple[str, ...]:
    """Everything that is wrong with the values of a `Training`."""
    faults = [
        *_number_faults("batch", batch, _MAX_BATCH),
        *_number_faults("seq_len", seq_len, _MAX_SEQ_LEN),
        *_word_faults("dtype", dtype, DTYPES),
        *_word_faults("quantization", quantization, QUANTIZATIONS),
        *_word_faults("optimizer", optimizer, OPTIMIZERS),
        *_word_faults("device", device, ("cuda", "cpu")),
    ]
    if not isinstance(gradient_checkpointing, bool):
        faults.append(f"gradient_checkpointing {gradient_checkpointing!r} is neither true nor false")
    return tuple(faults)


def _number_faults(name: str, value: object, maximum: int) -> list[str]:
    if type(value) is int and 1 <= value <= maximum:
        return []
    return [f"{name} {value!r} is not a whole number from 1 to {maximum}"]


def _word_faults(name: str, value: object, known: Iterable[str]) -> list[str]:
    words = tuple(known)
    if isinstance(value, str) and value in words:
        return []
    suggestion = did_you_mean(value, words) if isinstance(value, str) else ""
    return [f"{name} {value!r} is not one of {', '.join(words)}. {suggestion}".rstrip(" .")]
