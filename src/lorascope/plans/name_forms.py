"""Ways to name modules to PEFT, from name endings to full names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lorascope.model.types import ModelMap
from lorascope.names import NUMBER, count_endings, endings, interleave, split_numbers
from lorascope.peft_rules.matchers import LayerFilter
from lorascope.peft_rules.releases import NEWEST, release_of

# Endings that match well and say nothing to a reader.
_UNINFORMATIVE = ("weight",)


def module_forms(
    model: ModelMap, modules: set[str], *, layers: bool = True, excludes: bool = True, regex: bool = True
) -> Iterator[dict[str, Any]]:
    """Ways to name modules, the shortest first, as fields of `AdapterConfig`.

    Args:
        model: The map.
        modules: Names of modules that PEFT can adapt.
        layers: Include ways with `layers_to_transform`.
        excludes: Include ways with `exclude_modules`.
        regex: Include the one with a regular expression in `target_modules`.
    """
    if not modules:
        # An empty list keeps PEFT from adding its default targets to the parameters.
        yield {"target_modules": ()}
        return
    layer_of = LayerFilter((0,), None, release_of(NEWEST)).index
    for layered in (False, True) if layers else (False,):
        for excluding in (False, True) if excludes else (False,):
            form = _endings_form(model, modules, layer_of if layered else None, excluding)
            if form is not None:
                yield form
    if regex:
        yield {"target_modules": full_match(modules, (module.name for module in model.modules))}
    yield {"target_modules": tuple(sorted(modules))}


def _endings_form(
    model: ModelMap, modules: set[str], layer_of: Callable[[str], int | None] | None, excluding: bool
) -> dict[str, Any] | None:
    """Name endings, within the modules' layers or outside target-free branches if wanted."""
    form: dict[str, Any] = {}
    names = [module.name for module in model.modules]
    if layer_of is not None:
        layers = {layer_of(name) for name in modules}
        if None in layers or layers >= {layer for name in names if (layer := layer_of(name)) is not None}:
            return None
        form["layers_to_transform"] = tuple(sorted(layer for layer in layers if layer is not None))
        names = [name for name in names if layer_of(name) in layers]
    if excluding:
        leaves = {name.rpartition(".")[2] for name in modules}
        rivals = [name for name in names if name not in modules and name.rpartition(".")[2] in leaves]
        branches = _target_free_branches(rivals, modules)
        if not branches:
            return None
        form["exclude_modules"] = _either(sorted(branches)) + r"\..*"
        names = [name for name in names if not any(name.startswith(f"{branch}.") for branch in branches)]
    among = count_endings(names) if form else model.module_endings
    targets = shortest_endings(sorted(modules), among, numbers=False)
    return {"target_modules": targets, **form} if targets else None


def shortest_endings(wanted: Sequence[str], names: Iterable[str], *, numbers: bool = True) -> tuple[str, ...] | None:
    """The shortest dotted endings that match `wanted` and no other name, sorted.

    None if some name has no such ending without a number in it and `numbers` is off.

    Args:
        wanted: The names to match.
        names: All names, or what `count_endings` makes of them, to be reused.
        numbers: Endings may hold numbers.
    """
    among = names if isinstance(names, Counter) else count_endings(names)
    among_wanted = count_endings(wanted)
    chosen: set[str] = set()
    for name in wanted:
        for ending in endings(name):
            if not numbers and NUMBER.search(ending):
                return None
            if ending in _UNINFORMATIVE or (ending != name and NUMBER.match(ending)):
                continue
            if among[ending] == among_wanted[ending]:
                chosen.add(ending)
                break
        else:
            return None
    return tuple(sorted(chosen))


def _target_free_branches(rivals: Iterable[str], modules: set[str]) -> set[str]:
    """The shortest branches with rivals, without targets and numbers."""
    occupied = {name[:at] for name in modules for at in _dots(name)}
    branches: set[str] = set()
    for rival in rivals:
        branch = next((rival[:at] for at in _dots(rival) if rival[:at] not in occupied), "")
        if branch and not NUMBER.search(branch):
            branches.add(branch)
    return branches


def _dots(name: str) -> Iterator[int]:
    return (match.start() for match in re.finditer(r"\.", name))


def full_match(wanted: Iterable[str], names: Iterable[str]) -> str:
    """One regular expression whose full matches among `names` are `wanted`."""
    numbers_of = _numbers_by_pieces(names)
    leaves_of: dict[str, list[str]] = {}
    for pieces, rows in _numbers_by_pieces(wanted).items():
        escaped = [re.escape(piece) for piece in pieces]
        for numbers in _number_patterns(rows, numbers_of.get(pieces, rows)):
            stem, _, leaf = interleave(escaped, numbers).rpartition(r"\.")
            leaves_of.setdefault(stem, []).append(leaf)
    stems_of: dict[tuple[str, ...], list[str]] = {}
    for stem, leaves in leaves_of.items():
        stems_of.setdefault(tuple(sorted(set(leaves))), []).append(stem)
    branches: list[str] = []
    for ends, stems in stems_of.items():
        ending = _group(ends)
        branches.extend(f"{stem}\\.{ending}" if stem else ending for stem in sorted(stems))
    return "|".join(sorted(branches))


def _numbers_by_pieces(names: Iterable[str]) -> dict[tuple[str, ...], set[tuple[int, ...]]]:
    rows: dict[tuple[str, ...], set[tuple[int, ...]]] = {}
    for name in names:
        pieces, numbers = split_numbers(name)
        rows.setdefault(pieces, set()).add(numbers)
    return rows


def _number_patterns(rows: set[tuple[int, ...]], existing: set[tuple[int, ...]]) -> list[tuple[str, ...]]:
    """Patterns for rows of numbers, one per column."""
    if rows == existing:
        return [(r"\d+",) * len(next(iter(rows)))]
    lasts_of: dict[tuple[int, ...], list[int]] = {}
    for row in sorted(rows):
        lasts_of.setdefault(row[:-1], []).append(row[-1])
    merged: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for head, ends in lasts_of.items():
        merged.setdefault(tuple(ends), []).append(head)
    patterns: list[tuple[str, ...]] = []
    for lasts, heads in merged.items():
        ending = _group([str(number) for number in lasts])
        patterns.extend((*(str(number) for number in head), ending) for head in heads)
    return patterns


def _group(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else "(" + "|".join(words) + ")"


def _either(branches: Sequence[str]) -> str:
    return _group([re.escape(branch) for branch in branches])
