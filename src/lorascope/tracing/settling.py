"""From what single uses show of a parameter to one role of it, or to why there is none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from lorascope.tracing.deciding import Claim

# The letters of fused parts in the order in which the field writes them.
_LETTERS = ("q", "k", "v", "o")


@dataclasses.dataclass(frozen=True, slots=True)
class Settled:
    """What all uses of one parameter show together.

    Attributes:
        block: The block, or empty where the uses contradict each other or show nothing.
        variant: The variant, or empty where it does not show.
        part: The part, or empty where it does not show.
        why: The clauses of the claims that it rests on, the weight being their subject.
        doubt: Why there is no role, or empty.
        uses: How many uses there were.
    """

    block: str
    variant: str
    part: str
    why: tuple[str, ...]
    doubt: str = ""
    uses: int = 1


def settle(claims: Iterable[Claim]) -> dict[str, Settled]:
    """The role of every parameter that has claims, by its name.

    Args:
        claims: Of all calls.
    """
    by_name: dict[str, list[Claim]] = {}
    for claim in claims:
        by_name.setdefault(claim.name, []).append(claim)
    return {name: _settled(mine) for name, mine in by_name.items()}


def _settled(claims: Sequence[Claim]) -> Settled:
    why = tuple(dict.fromkeys(claim.why for claim in claims))
    uses = len({claim.node for claim in claims})
    blocks = sorted({claim.block for claim in claims})
    if len(blocks) > 1:
        return Settled("", "", "", why, f"its uses belong to different blocks: {', '.join(blocks)}", uses)
    variants = {claim.variant for claim in claims if claim.variant}
    part = part_of({claim.part for claim in claims}, blocks[0])
    if part is None:
        parts = ", ".join(sorted({claim.part for claim in claims}))
        return Settled("", "", "", why, f"its uses show different parts: {parts}", uses)
    return Settled(blocks[0], variants.pop() if len(variants) == 1 else "", part, why, "", uses)


def part_of(parts: Iterable[str], block: str) -> str | None:
    """The part that a weight is whose output plays several: `qkv` for q, k and v. None where no such part exists.

    Args:
        parts: Parts of single uses; those of low rank end in `_a` (narrows) or `_b` (widens).
        block: The block that they belong to.
    """
    found = {part for part in parts if part}
    if block == "attention":
        return _attention_part(found)
    if block == "ffn" and found == {"gate", "up"}:
        return "gate_up"
    if block == "indexer" and len(found) > 1:
        return _joined(found - {"weight"}) if found - {"weight"} <= {"q", "k", "v"} else ""
    if block == "mixer" and len(found) > 1:
        return ""
    return next(iter(found), "") if len(found) < 2 else None


def _attention_part(found: set[str]) -> str | None:
    halves = {part[-2:] for part in found if part.endswith(("_a", "_b"))}
    letters = {part[:-2] if part.endswith(("_a", "_b")) else part for part in found}
    half = "_b" if "_b" in halves else "_a" if halves else ""
    if "position" in letters and len(letters) > 1:
        letters.discard("position")  # the weight of the queries or keys projects the positions too
    if len(letters) < 2:
        return next(iter(letters), "") + half
    gate = "gate" in letters
    letters.discard("gate")
    if not letters <= {"q", "k", "v"}:
        return None
    return _joined(letters) + ("_gate" if gate else "") + half


def _joined(letters: Iterable[str]) -> str:
    return "".join(letter for letter in _LETTERS if letter in set(letters))


def merged(one: Mapping[str, Settled], other: Mapping[str, Settled]) -> dict[str, Settled]:
    """The first mapping with what only the second has."""
    return {**other, **one}
