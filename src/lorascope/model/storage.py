"""Quantized storage: the words of `Weight.quantization`, read in one place."""

from __future__ import annotations

import functools
import itertools
import re

from lorascope import light_dataclasses as dataclasses

# A type of numbers that says how many bits each has: nf4, int4, mxfp4, fp8, fbgemm_fp8, Q4_K, IQ2_XS.
_TYPE = re.compile(r"(?:nf|int|(?:mx|nv|fbgemm_)?fp|MXFP|NVFP|I?Q|TQ)([1-8])(?:_\w+)?")
_TERNARY = 2  # BitNet packs four numbers into a byte


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """How a checkpoint stores a weight.

    Attributes:
        scheme: The library or format: `bnb`, `gptq`, `awq`, `fp8`, `mxfp4`, `compressed-tensors`, …; empty for plain
            numbers.
        bits: Bits per number where the words count them (`gptq 4 bit`) or a type does (`bnb nf4`, `gguf Q4_K`, `bitnet`).
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
    >>> parse_storage("compressed-tensors nvfp4").bits
    4
    """
    scheme, *details = quantization.split(" ") if quantization else ("",)
    counts = [int(count) for count, unit in itertools.pairwise(details) if unit == "bit" and count.isdecimal()]
    types = (_TYPE.fullmatch(word) for word in quantization.replace(",", " ").split())
    counts += [int(type_[1]) for type_ in types if type_]
    bits = counts[0] if counts else _TERNARY if scheme == "bitnet" else None
    return Storage(scheme, bits, scaled=details[:2] != ["without", "scale"])
