"""Reads alike experts once: 90,000 tensors have few different ones.

Tensors are grouped by their names with all digits alike, so that no step is taken for each name by itself. Where all
numbers of a list have the same tensors, number 0 stands for the others, and `Tensor.repeats` says how many there are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lorascope.sources.checkpoint.tensor_table import Form, Header
from lorascope.sources.checkpoint.types import Tensor

# Fewer tensors are read one by one in less time than it takes to group them.
FEWEST = 2_000
_DIGITS_ALIKE = str.maketrans("123456789", "000000000")
_LAST_NUMBER = re.compile(r"(.*\.)(0+)(\..*)", re.DOTALL)
# From pairs of names, number 0 and number 1, to whether all numbers are one parameter of the model.
Stacked = Callable[[Mapping[str, str]], Mapping[str, bool]]


class _Group(NamedTuple):
    """Tensors of one dtype and shape whose names differ in numbers alone.

    Attributes:
        names: Their names, in the order of the files.
        form: Their dtype and shape.
        firsts: What the names begin with before their last number, and the first name of each.
        numbers: The last numbers.
        ending: What follows the last number.
    """

    names: list[str]
    form: Form
    firsts: Mapping[str, str]
    numbers: frozenset[str]
    ending: str

    @property
    def is_product(self) -> bool:
        """Every beginning has all numbers."""
        return len(self.firsts) * len(self.numbers) == len(self.names)


def reduce(headers: Sequence[Header], stacked: Stacked) -> dict[str, Tensor]:
    """The tensors, alike ones as number 0 alone.

    Args:
        headers: All headers of a checkpoint.
        stacked: See `Stacked`. A pair that it leaves out says nothing of the others in the list.
    """
    groups = list(_groups(headers))
    lists = dict(_alike(groups))
    verdicts = stacked({f"{at}0{end}": f"{at}1{end}" for at, (_, ends) in lists.items() for end in ends})
    repeats: dict[str, int] = {}
    for at, (count, ends) in lists.items():
        names = [f"{at}0{end}" for end in ends]
        known = [verdicts[name] for name in names if name in verdicts]
        if known and all(known):
            repeats |= dict.fromkeys(names, count)
    return _without(headers, groups, repeats) if repeats else {}


def _groups(headers: Iterable[Header]) -> Iterator[_Group]:
    found: defaultdict[tuple[str, Form], list[str]] = defaultdict(list)
    for header in headers:
        keys = zip("\n".join(header.names).translate(_DIGITS_ALIKE).split("\n"), header.forms, strict=False)
        for key, name in zip(keys, header.names, strict=False):
            found[key].append(name)
    for (alike, form), alikes in found.items():
        cut = _LAST_NUMBER.fullmatch(alike)
        start, end = cut.span(2) if cut else (0, 0)
        for ending, names in _by_ending(alikes, alike, end):
            before = [name[:start] for name in reversed(names)]
            numbers = frozenset([name[start:end] for name in names])
            yield _Group(names, form, dict(zip(before, reversed(names), strict=True)), numbers, ending)


def _by_ending(names: list[str], alike: str, end: int) -> Iterable[tuple[str, list[str]]]:
    """Names by what follows their last number."""
    if "0" not in alike[end:]:
        return [(alike[end:], names)]
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        found[name[end:]].append(name)
    return found.items()


def _alike(groups: Iterable[_Group]) -> Iterator[tuple[str, tuple[int, list[str]]]]:
    """Lists whose numbers all have the same tensors."""
    members: defaultdict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        for at in group.firsts:
            members[at].append(group)
    counts: dict[tuple[int, ...], int] = {}  # most lists are of the same groups
    for at, own in members.items():
        key = tuple(map(id, own))
        if key not in counts:
            counts[key] = _count(own)
        if counts[key] > 1:
            yield at, (counts[key], list(dict.fromkeys(group.ending for group in own)))


def _count(groups: Iterable[_Group]) -> int:
    """The length of a list of alike numbers; else 0."""
    numbers: defaultdict[tuple[str, object], set[str]] = defaultdict(set)
    for group in groups:
        if not group.is_product:
            return 0
        numbers[group.ending, group.form] |= group.numbers
    count = len(next(iter(numbers.values())))
    alike = all(own == set(map(str, range(count))) for own in numbers.values())
    return count if alike and len({ending for ending, _ in numbers}) == len(numbers) else 0


def _without(headers: Iterable[Header], groups: Iterable[_Group], repeats: Mapping[str, int]) -> dict[str, Tensor]:
    """The tensors without those that number 0 stands for."""
    kept: set[str] = set()
    stands_for: dict[str, str] = {}
    for group in groups:
        here = {at: f"{at}0{group.ending}" for at in group.firsts if f"{at}0{group.ending}" in repeats}
        stands_for |= {group.firsts[at]: name for at, name in here.items()}
        if not here:
            kept.update(group.names)
        for at in group.firsts.keys() - here.keys() if here else ():
            kept.update([f"{at}{number}{group.ending}" for number in group.numbers])
    found: dict[str, Tensor] = {}
    wanted = kept | repeats.keys() | stands_for.keys()
    for tensor in (tensor for header in headers for tensor in header.tensors(wanted)):
        if tensor.name in repeats:
            found[tensor.name] = tensor._replace(repeats=repeats[tensor.name])
        elif tensor.name in kept:
            found[tensor.name] = tensor
        elif stands_for[tensor.name] not in found:
            return {}
    return found
