"""Values of a checkpoint: files, configuration, tensors.

Nothing here reads. `folders` and `hub` say where bytes come from, `safetensors` turns headers into `Tensor`s,
`quantization` turns those into `Stored` ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from lorascope import light_dataclasses as dataclasses

# `Span`, `Tensor` and `Stored` are tuples, not dataclasses as everywhere else: a checkpoint can have 90,000 of each, and
# a frozen dataclass takes three times as long to make.


class Span(NamedTuple):
    """The bytes `start` to `end` (exclusive) of a file."""

    file: str
    start: int
    end: int


class Files(Protocol):
    """Files of one checkpoint: a folder, or a repository at a commit.

    Attributes:
        where: What messages call it: the folder's path or the repository's id.
        commit: The commit of a repository, empty for a folder.
        names: The files at its root. No other is ever read.
    """

    @property
    def where(self) -> str:  # noqa: D102  see the class
        ...

    @property
    def commit(self) -> str:  # noqa: D102
        ...

    @property
    def names(self) -> frozenset[str]:  # noqa: D102
        ...

    def size(self, name: str) -> int:
        """A file's bytes.

        Raises:
            LorascopeError: It is not among `names`, or not a plain file.
        """
        ...

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span, in order.

        They are fewer where the file ends before. Whole files are never fetched for it.

        Raises:
            LorascopeError: A file is not among `names` or cannot be read, or the spans are more than headers can need.
        """
        ...


class Tensor(NamedTuple):
    """One entry of a safetensors header.

    Attributes:
        name: As the file has it.
        dtype: safetensors' code: `F32`, `BF16`, `F8_E4M3`, `U8`, …
        shape: As stored.
        span: Where its data lie, counted from the start of the file.
        repeats: How many tensors it stands for: the last number of its name, 0, and the numbers after it (`repeats.reduce`).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    span: Span
    repeats: int = 1


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose headers have been read.

    Attributes:
        files: Where it lies; data of a few bytes can be read through it.
        config: Its `config.json`.
        tensors: All tensors of all shards by name.
    """

    files: Files
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


class Stored(NamedTuple):
    """A tensor as a checkpoint in full precision would hold it.

    Attributes:
        name: Its name there; `X.weight` for a layer that is stored packed.
        shape: Its logical shape.
        dtype: As `Tensor.dtype`, of what is stored.
        quantization: How it is stored, in a word or two (`fp8`, `gptq 4 bit`); empty for plain numbers.
        sources: The tensors of the file that it was read from, itself where nothing is packed.
        repeats: As `Tensor.repeats`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: str = ""
    sources: tuple[str, ...] = ()
    repeats: int = 1

    @property
    def size(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)
