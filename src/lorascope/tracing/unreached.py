"""Parts of a model that no call reached, as few names as possible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lorascope.names import template

# So many parts are named.
_MOST = 6


def unreached_note(names: Iterable[str], unreached: Iterable[str]) -> str:
    """The note on weights that no call reached; empty where all were.

    Args:
        names: All weights of the model.
        unreached: Those that no call reached.
    """
    every, missed = list(names), set(unreached)
    if not missed:
        return ""
    counts: dict[str, int] = {}
    for part, number in _parts("", every, missed):
        counts[template(part)] = counts.get(template(part), 0) + number
    # The largest first: a whole tower matters more than one matrix.
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{part} ({number})" for part, number in ordered[:_MOST])
    more = f" and {len(ordered) - _MOST} more parts" if len(ordered) > _MOST else ""
    share = f"{len(missed):,} of {len(every):,} weights"
    return f"No call reached these parts, so only their names speak: {listed}{more}. {share} were not executed."


def _parts(path: str, names: list[str], unreached: set[str]) -> Iterator[tuple[str, int]]:
    """The largest modules without a weight that was reached, each with the number of its weights."""
    if path and all(name in unreached for name in names):
        yield path, len(names)
        return
    below: dict[str, list[str]] = {}
    for name in names:
        if name != path:
            word = name[len(path) :].lstrip(".").partition(".")[0]
            below.setdefault(f"{path}.{word}" if path else word, []).append(name)
        elif name in unreached:
            yield name, 1
    for part, inner in below.items():
        if unreached.intersection(inner):
            yield from _parts(part, inner, unreached)
