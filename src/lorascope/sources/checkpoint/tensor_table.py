"""Tensors of a checkpoint, kept as columns: few objects for 90,000 tensors."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import NamedTuple

from lorascope.sources.checkpoint.types import Span, Tensor

# Dtype, shape and bytes.
Form = tuple[str, tuple[int, ...], int]
# As `Span._make` and `Tensor._make`, in half of the time.
_new_span: Callable[[Iterable[object]], Span] = functools.partial(tuple.__new__, Span)
_new_tensor: Callable[[Iterable[object]], Tensor] = functools.partial(tuple.__new__, Tensor)


class Header(NamedTuple):
    """The header of one file, whose data lie end to end.

    Attributes:
        file: Its name.
        start: Where the data begin, counted from the start of the file.
        names: Those of its tensors, in the order of their data.
        forms: Dtype, shape and bytes of each.
    """

    file: str
    start: int
    names: list[str]
    forms: list[Form]

    def tensors(self, names: Container[str] | None = None) -> Iterator[Tensor]:
        """Its tensors, or those of some names, in the same order."""
        ends = itertools.accumulate(map(operator.itemgetter(2), self.forms), initial=self.start)
        next(ends)
        rows: Iterable[tuple[str, Form, int]] = zip(self.names, self.forms, ends, strict=True)
        for name, (dtype, shape, size), end in (
            rows if names is None else itertools.compress(rows, map(names.__contains__, self.names))
        ):
            yield _new_tensor((name, dtype, shape, _new_span((self.file, end - size, end)), 1))


class TensorTable(Mapping[str, Tensor]):
    """Tensors by name, which are made when the first is asked for.

    Args:
        headers: The headers that they are in.
    """

    def __init__(self, headers: Iterable[Header]) -> None:
        self.headers = list(headers)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(header.names for header in self.headers)

    def __len__(self) -> int:
        return sum(len(header.names) for header in self.headers)

    def files(self) -> dict[str, str]:
        """The file of each."""
        return dict(
            itertools.chain.from_iterable(zip(each.names, itertools.repeat(each.file)) for each in self.headers)
        )

    @functools.cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return {tensor.name: tensor for header in self.headers for tensor in header.tensors()}
