"""Tied parameters, of which a checkpoint holds only one.

Restates `PreTrainedModel.get_expanded_tied_weights_keys` and the symmetric part of `tie_weights` (transformers 5.23) over
names instead of parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lorascope.names import template
from lorascope.sources.checkpoint.layout import Part
from lorascope.sources.checkpoint.layout_table import ties_embeddings

_SPECIAL = re.compile(r"[^\w.]|\.[*+?]")


def tied_parameters(parts: Sequence[Part], names: Iterable[str]) -> dict[str, str]:
    """Tied parameters, each with the one whose tensor it shares.

    Args:
        parts: The model and the models in it.
        names: The parameters that the checkpoint holds, by their names at run time.

    Returns:
        Parameter to source, by full names. At least one of each pair is among `names`.
    """
    present = frozenset(names)
    pairs: dict[str, str] = {}
    for part in parts:
        if not part.facts.ties or not ties_embeddings(part.config, part.model_type):
            continue
        prefix = f"{part.path}." if part.path else ""
        own = sorted(name[len(prefix) :] for name in present if name.startswith(prefix))
        for target, source in part.facts.ties.items():
            pairs.update((prefix + parameter, prefix + partner) for parameter, partner in _pairs(target, source, own))
    return {target: source for target, source in pairs.items() if target in present or source in present}


def _pairs(target: str, source: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(parameter, source) pairs of one entry of `_tied_weights_keys`.

    The partner of a name is found where both patterns differ only in what they begin with. Others (Zamba's, which
    speak of layer numbers) are left to `shared_blocks`.
    """
    start, rest = _literal(target)
    other, same = _literal(source)
    if rest != same:
        return
    for name in names:
        if re.match(source, name) and re.match(target, partner := start + name[len(other) :]):
            yield partner, name
        if re.match(target, name) and re.match(source, partner := other + name[len(start) :]):
            yield name, partner


def _literal(pattern: str) -> tuple[str, str]:
    """The literal start of a pattern, and the rest."""
    pattern = pattern.replace("\\.", ".").removeprefix("^").removesuffix("$")
    special = _SPECIAL.search(pattern)
    return (pattern, "") if special is None else (pattern[: special.start()], pattern[special.start() :])


def shared_blocks(parts: Sequence[Part], missing: Sequence[str], names: Iterable[str]) -> dict[str, str]:
    """Parameters of layers that share an earlier layer's block (Zamba).

    The n-th layer that lacks the block has that of the n-th layer that holds one, over and over, as Zamba2's
    `num_mem_blocks` blocks take turns.

    Args:
        parts: The model and the models in it, whose ties say which blocks are shared.
        missing: Parameters, or modules as `name.*`, that the model's classes have and the checkpoint does not.
        names: The parameters that the checkpoint holds.
    """
    shared = {
        template(f"{part.path}.{source}" if part.path else source)
        for part in parts
        for target, source in part.facts.ties.items()
        if _literal(target)[1] != _literal(source)[1] or template(target) == template(source)
    }
    present = sorted(names)
    lacking: dict[tuple[str, str], list[int]] = {}
    for name in missing:
        split = re.fullmatch(r"(.+?\.)(\d+)(\..+)\.\*", name)
        if split is not None and template(name.removesuffix(".*")) in shared:
            lacking.setdefault((split[1], split[3]), []).append(int(split[2]))
    pairs: dict[str, str] = {}
    for (before, after), numbers in lacking.items():
        held: dict[int, list[str]] = {}
        for name in present:
            split = re.match(rf"{re.escape(before)}(\d+){re.escape(after)}\.", name)
            if split is not None:
                held.setdefault(int(split[1]), []).append(name[split.end() :])
        givers = sorted(held)
        if not givers:
            continue
        for index, number in enumerate(sorted(numbers)):
            giver = givers[index % len(givers)]
            for rest in held[giver]:
                pairs[f"{before}{number}{after}.{rest}"] = f"{before}{giver}{after}.{rest}"
    return pairs


def tie_groups(pairs: Mapping[str, str], order: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Groups of names that share one tensor, in the parameters' order."""
    leader: dict[str, str] = {}

    def lead(name: str) -> str:
        while leader.get(name, name) != name:
            name = leader[name]
        return name

    for target, source in pairs.items():
        leader[lead(target)] = lead(source)
    by_leader: dict[str, list[str]] = {}
    tied_names = pairs.keys() | pairs.values()
    for name in order:
        if name in tied_names:
            by_leader.setdefault(lead(name), []).append(name)
    return tuple(tuple(group) for group in by_leader.values() if len(group) > 1)
