"""Parts of feed-forward matrices by their shapes, where names contradict those or say nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lorascope.model.types import Role
from lorascope.model.widths import StreamWidths
from lorascope.names import template

Shape = tuple[int, ...]
Parts = dict[str, tuple[str, bool]]


def ffn_parts(
    groups: Mapping[str, Sequence[str]],
    roles: Mapping[str, tuple[Role, bool]],
    shapes: Mapping[str, Shape],
    widths: StreamWidths,
) -> Parts:
    """Part of each matrix whose shape says another than its name; whether that is unsure.

    In a layer whose stream has a width, gate and up read it and down writes it, whatever they are called.

    Args:
        groups: Matrices of one feed-forward network, by a name for it.
        roles: Weight name to role and guess; the part is empty where the name says none.
        shapes: Weight name to shape.
        widths: Of the layers.
    """
    parts: Parts = {}
    decided: dict[object, tuple[tuple[str, bool], ...]] = {}
    for group, names in groups.items():
        key = (template(group), tuple((shapes[name], roles[name][0].part, name[len(group) :]) for name in names))
        if key not in decided:
            named = {name: roles[name][0].part for name in names}
            changed = _by_stream(named, shapes, widths.around(names[0]))
            named |= {name: part for name, (part, _) in changed.items()}
            changed |= _by_inner_width(named, shapes)
            decided[key] = tuple(changed.get(name, ("", False)) for name in names)
        parts |= {name: found for name, found in zip(names, decided[key], strict=True) if found[0]}
    return parts


def _by_stream(named: Mapping[str, str], shapes: Mapping[str, Shape], width: int) -> Parts:
    """Parts of two or three matrices of which one writes a stream that the others read."""
    readers = [name for name in named if shapes[name][1] == width != shapes[name][0]]
    writers = [name for name in named if shapes[name][0] == width != shapes[name][1]]
    if not width or len(writers) != 1 or not 1 <= len(readers) <= 2 or len(readers) + 1 != len(named):
        return {}
    inner = shapes[writers[0]][1]
    rows = {shapes[name][0] for name in readers}
    parts: Parts = {writers[0]: ("down", False)}
    if len(readers) == 1 and rows <= {inner, 2 * inner}:
        parts[readers[0]] = ("up" if rows == {inner} else "gate_up", False)
    elif len(readers) == 2 and rows == {inner}:
        parts |= _gate_and_up(readers, named)
    else:
        return {}
    return {name: (part, unsure) for name, (part, unsure) in parts.items() if unsure or named[name] != part}


def _gate_and_up(readers: Sequence[str], named: Mapping[str, str]) -> Parts:
    """Which of two alike matrices is the gate: by the names, or the first and unsure."""
    first, second = readers
    said = (named[first], named[second])
    if set(said) == {"gate", "up"}:
        return {}
    leaves = {name.rpartition(".")[2] for name in readers}
    if leaves in ({"linear_1", "linear_2"}, {"linear_1", "linear_3"}):  # as Llama's own w1 and w3
        return {name: ("gate" if name.endswith("1") else "up", False) for name in readers}
    if "gate" in said or "up" in said:
        known = first if said[0] in ("gate", "up") else second
        other = second if known == first else first
        return {known: (named[known], True), other: ("up" if named[known] == "gate" else "gate", True)}
    return {first: ("gate", True), second: ("up", True)}


def _by_inner_width(named: Mapping[str, str], shapes: Mapping[str, Shape]) -> Parts:
    """Parts of named matrices whose widths contradict their names.

    Of two matrices, the first holds gate and value both if it has twice as many rows as the last has columns; with as
    many there is no gate. Of three, one that is called the last and has the shape of the first is gate or value: which
    of the two does not show.
    """
    last = [name for name, part in named.items() if part == "down"]
    first = [name for name, part in named.items() if part in ("gate", "up")]
    if len(first) != 1 or len(first) + len(last) != len(named):
        return {}
    rows, width = shapes[first[0]][0], shapes[last[-1]][1] if last else 0
    alike = [name for name in last if shapes[name] == shapes[first[0]]]
    if len(last) == 1 and rows in (width, 2 * width):
        return {first[0]: ("up" if rows == width else "gate_up", False)}
    if len(last) == 2 and len(alike) == 1:
        part = named[first[0]]
        return {first[0]: (part, True), alike[0]: ("up" if part == "gate" else "gate", True)}
    return {}


def ffn_groups(
    roles: Mapping[str, tuple[Role, bool]], shapes: Mapping[str, Shape], opens: Callable[[str], bool]
) -> dict[str, list[str]]:
    """Matrices of each feed-forward network, by the module that holds them.

    Unnamed matrices beside named ones belong to them.

    Args:
        roles: Weight name to role and guess.
        shapes: Weight name to shape.
        opens: A word opens a feed-forward network.
    """
    groups: dict[str, list[str]] = {}
    beside: dict[str, list[str]] = {}
    for name, (role, guess) in roles.items():
        if len(shapes[name]) != 2:
            continue
        if role.block == "ffn":
            groups.setdefault(_owner(name, opens), []).append(name)
        elif guess and role.block == "other":
            beside.setdefault(name.rpartition(".")[0], []).append(name)
    for owner, names in beside.items():
        if owner in groups:
            groups[owner] += names
    return groups


def _owner(name: str, opens: Callable[[str], bool]) -> str:
    """The module of a network: up to the word that opens it, with the number of an expert."""
    words = name.split(".")
    for index in range(len(words) - 2, -1, -1):
        if opens(words[index]):
            end = index + 1
            if end < len(words) - 1 and words[end].isdecimal():
                end += 1
            return ".".join(words[:end])
    return name.rpartition(".")[0]
