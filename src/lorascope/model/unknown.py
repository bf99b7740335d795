"""Roles of matrices whose names say nothing, by the shapes that stand together in a layer.

Every role is a guess. What shapes leave open is left empty: which of two alike matrices is key and which value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence, Set

from lorascope.model.widths import StreamWidths, ancestors
from lorascope.names import NUMBER

Shape = tuple[int, ...]
Parts = tuple[str, str, str]  # block, variant, part


def unknown_roles(
    names: Sequence[str],
    shapes: Mapping[str, Shape],
    widths: StreamWidths,
    mixed: Collection[str],
    connecting: Set[str],
) -> Iterator[tuple[str, str, str, str]]:
    """Weight, block, variant and part.

    Args:
        names: Linear layers and bare matrices whose names say nothing, in module order.
        shapes: Weight name to shape.
        widths: Of the layers.
        connecting: Those of towers and connectors, which keep networks outside of layers.
        mixed: Modules with convolutions or further parameters: recurrences, whose shapes are those of others.
    """
    layers: dict[str, dict[str, list[str]]] = {}
    for name in names:
        parent = name.rpartition(".")[0]
        if parent not in mixed:
            layers.setdefault(_layer(name, widths), {}).setdefault(parent, []).append(name)
    for parent, members in layers.pop("", {}).items():
        if parent and connecting >= set(members):
            yield from ((name, "ffn", "dense", part) for name, part in _chain(members, shapes).items())
    experts = _experts(parent for parents in layers.values() for parent in parents)
    for layer, parents in layers.items():
        width = widths.around(f"{layer}.x")
        if not width:
            continue
        found = _networks(layer, parents, shapes, width, experts)
        if not found:
            continue
        for members in parents.values():
            if found.keys().isdisjoint(members):
                found |= _attention(members, shapes, width)
        yield from ((name, *role) for name, role in found.items())


def _layer(name: str, widths: StreamWidths) -> str:
    """The numbered module whose stream has a width, the nearest around; empty outside of stacks."""
    places = [place for place in ancestors(name) if NUMBER.fullmatch(place.rpartition(".")[2])]
    return next((place for place in places if widths.shows(place)), "")


def _experts(parents: Iterator[str]) -> set[str]:
    """Members of a list within a layer."""
    lists: dict[str, list[str]] = {}
    for parent in parents:
        owner, _, number = parent.rpartition(".")
        if number.isdecimal() and any(word.isdecimal() for word in owner.split(".")):
            lists.setdefault(owner, []).append(parent)
    return {parent for members in lists.values() if len(members) > 1 for parent in members}


def _networks(
    layer: str, parents: Mapping[str, Sequence[str]], shapes: Mapping[str, Shape], width: int, experts: Collection[str]
) -> dict[str, Parts]:
    """Feed-forward networks of a layer: in a module each, their matrices in modules of their own, or fused."""
    found: dict[str, Parts] = {}
    for parent, members in sorted(parents.items(), key=lambda item: item[0] == layer):
        if parent != layer or not found:  # else a bottleneck beside the layer's own
            found |= _ffn(members, shapes, width, "expert" if parent in experts else "dense")
    if not found:
        found = _apart([members[0] for members in parents.values() if len(members) == 1], shapes, width)
    if not found:
        for members in parents.values():
            found |= _fused(members, shapes, width)
    return found


def _ffn(members: Sequence[str], shapes: Mapping[str, Shape], width: int, variant: str) -> dict[str, Parts]:
    """One matrix writes the stream from an inner width, and one or two read it into that width."""
    readers, writers = _readers_writers(members, shapes, width)
    stacked = all(len(shapes[name]) == 3 for name in members)
    square = [name for name in members if shapes[name][-2] == shapes[name][-1] == width]
    if len(members) == 2 and len(square) == 1:  # gate and up together, or down, may fill the whole width
        if writers and 2 * shapes[writers[0]][-1] == width:
            readers = square
            variant = "expert" if stacked else "fused"
        elif stacked and readers:
            writers = square
    if len(writers) != 1 or len(readers) + 1 != len(members):
        return {}
    inner = shapes[writers[0]][-1]
    rows = [shapes[name][-2] for name in readers]
    variant = "expert" if stacked else variant
    if stacked and [2 * row for row in rows] == [inner]:  # stored (experts, in, out)
        return {writers[0]: ("ffn", variant, "gate_up"), readers[0]: ("ffn", variant, "down")}
    if rows == [inner]:
        parts = {readers[0]: "up"}
    elif rows == [inner, inner]:
        parts = {readers[0]: "gate", readers[1]: "up"}
    elif rows == [2 * inner] and variant in ("expert", "fused"):
        parts = {readers[0]: "gate_up"}
        variant = variant.replace("fused", "dense")
    else:
        return {}
    return {name: ("ffn", variant, part) for name, part in {**parts, writers[0]: "down"}.items()}


def _fused(members: Sequence[str], shapes: Mapping[str, Shape], width: int) -> dict[str, Parts]:
    """A pair whose first has twice the inner width: gate and value in one, where the layer has no other network."""
    readers, writers = _readers_writers(members, shapes, width)
    pair = len(members) == 2 and len(readers) == len(writers) == 1
    if pair and shapes[readers[0]][-2] == 2 * shapes[writers[0]][-1]:
        return {readers[0]: ("ffn", "dense", "gate_up"), writers[0]: ("ffn", "dense", "down")}
    return {}


def _apart(alone: Sequence[str], shapes: Mapping[str, Shape], width: int) -> dict[str, Parts]:
    """Matrices that each stand in a module of their own: those of the largest inner width."""
    readers, writers = _readers_writers(alone, shapes, width)
    inner = max((shapes[name][-1] for name in writers), default=0)
    readers = [name for name in readers if shapes[name][-2] == inner]
    writers = [name for name in writers if shapes[name][-1] == inner]
    if len(readers) == len(writers):
        parts = dict.fromkeys(readers, "up")
    elif len(readers) == 2 * len(writers):
        parts = {name: ("gate", "up")[index % 2] for index, name in enumerate(readers)}
    else:
        return {}
    return {name: ("ffn", "dense", part) for name, part in {**parts, **dict.fromkeys(writers, "down")}.items()}


def _chain(members: Sequence[str], shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Matrices outside of layers of which one reads what the others write; if both could, the first widens."""
    if not 2 <= len(members) <= 3 or any(len(shapes[name]) != 2 for name in members):
        return {}
    for last in members[::-1]:
        firsts = [name for name in members if name != last]
        rows, columns = shapes[firsts[0]]
        if len({shapes[name] for name in firsts}) > 1 or rows != shapes[last][1] or shapes[last] == (rows, columns):
            continue
        if len(firsts) == 2 or shapes[last][0] != columns or rows > columns:
            return dict(zip(firsts, ("gate", "up")[-len(firsts) :], strict=True)) | {last: "down"}
    return {}


def _attention(members: Sequence[str], shapes: Mapping[str, Shape], width: int) -> dict[str, Parts]:
    """Three matrices, or one for all, read the stream, and one writes it."""
    if any(len(shapes[name]) != 2 for name in members):
        return {}
    readers, writers = _readers_writers(members, shapes, width)
    square = [name for name in members if shapes[name] == (width, width)]
    if len(readers) + len(writers) + len(square) != len(members):
        return {}
    rows = sorted(shapes[name][0] for name in readers)
    parts: dict[str, str] = {}
    if len(square) == 4 == len(members) or (len(square) == len(readers) == 2 and rows[0] == rows[1] < width):
        parts = dict.fromkeys(members, "")
    elif len(writers) == 1 and len(readers) == 3 and rows[2] == shapes[writers[0]][1] and rows[0] == rows[1]:
        heads = [name for name in readers if shapes[name][0] == rows[2]]
        parts = {**dict.fromkeys(readers, ""), writers[0]: "o"} | ({heads[0]: "q"} if len(heads) == 1 else {})
    elif len(members) == 2 and len(readers) == 1 and (writers or square):
        last = (writers or square)[0]
        inner = shapes[last][1]
        if inner < rows[0] <= 3 * inner and (square or rows[0] != 2 * inner):
            parts = {readers[0]: "qkv", last: "o"}
    return {name: ("attention", "self", part) for name, part in parts.items()}


def _readers_writers(members: Sequence[str], shapes: Mapping[str, Shape], width: int) -> tuple[list[str], list[str]]:
    readers = [name for name in members if shapes[name][-1] == width != shapes[name][-2]]
    writers = [name for name in members if shapes[name][-2] == width != shapes[name][-1]]
    return readers, writers


def mixed_modules(names: Sequence[str]) -> set[str]:
    """Modules around convolutions and bare parameters of layers, up to two levels.

    Args:
        names: Of those.
    """
    return {place for name in names for place, _ in zip(ancestors(name), range(2), strict=False)}
