"""Quantized storage: the words of `Weight.quantization`, read in one place."""

from __future__ import annotations

import functools
import itertools

from lorascope import light_dataclasses as dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """How a checkpoint stores a weight.

    Attributes:
        scheme: The library or format: `bnb`, `gptq`, `awq`, `fp8`, `mxfp4`, `compressed-tensors`, …; empty for plain
            numbers.
        bits: Bits per number where the words count them (`gptq 4 bit`).
        scaled: Scales belong to the numbers; False for `fp8 without scale`.
    """

    scheme: str = ""
    bits: int | None = None
    scaled: bool = True


@functools.lru_cache(maxsize=256)
def parse_storage(quantization: str) -> Storage:
    """Parse the words: a scheme, then its details.

    Of several kinds in one module, the first counts.

    >>> parse_storage("gptq 4 bit")
    Storage(scheme='gptq', bits=4, scaled=True)
    """
    scheme, *details = quantization.split(" ") if quantization else ("",)
    counts = [int(count) for count, unit in itertools.pairwise(details) if unit == "bit" and count.isdecimal()]
    return Storage(scheme, counts[0] if counts else None, scaled=details[:2] != ["without", "scale"])
