"""Bytes of an optimizer's states.

AdamW keeps two numbers per parameter, of its dtype. bitsandbytes' 8-bit AdamW (arXiv 2110.02861;
`optim/optimizer.py`, `get_state_buffer`) keeps two bytes, and 4 bytes per block of 256 for each of two scales;
tensors below 4096 numbers are as in AdamW. SGD keeps nothing, as transformers runs it without momentum. Adafactor
(arXiv 1804.04235; `transformers.optimization.Adafactor` without first moment) keeps a number per row and per column of a matrix,
in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

# Shape and bytes per element of a trained tensor.
TrainedTensor = tuple[tuple[int, ...], int]
_SMALL = 4096
_BLOCK = 256


def optimizer_bytes(optimizer: str, tensors: Iterable[TrainedTensor]) -> int:
    """Bytes of an optimizer's states (see `OPTIMIZERS`), without counters of steps."""
    return sum(_state(optimizer, shape, width) for shape, width in tensors)


def _state(optimizer: str, shape: tuple[int, ...], width: int) -> int:
    count = math.prod(shape)
    if optimizer == "sgd":
        return 0
    if optimizer == "adafactor":
        if len(shape) < 2:
            return 4 * count
        return 4 * (math.prod(shape[:-1]) + math.prod((*shape[:-2], shape[-1])))
    if optimizer == "adamw" or count < _SMALL:
        return 2 * count * (width if optimizer == "adamw" else 4)
    return 2 * (count + 4 * -(-count // _BLOCK))


def step_bytes(optimizer: str, tensors: Iterable[TrainedTensor]) -> int:
    """Bytes of temporary tensors in the optimizer's step.

    Adafactor makes an update of each tensor, and its square.
    """
    if optimizer != "adafactor":
        return 0  # torch's fused AdamW, bitsandbytes' kernels and SGD work in place
    return max((3 * 4 * math.prod(shape) for shape, _ in tensors), default=0)
