"""From what single uses show of a weight to one role of it, or to why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.classify.annotations import Claim

# The letters of fused parts in the order in which the field writes them.
_LETTERS = ("q", "k", "v", "o")


@dataclasses.dataclass(frozen=True, slots=True)
class Settled:
    """What all uses of one weight show together.

    Attributes:
        block: The block, or empty where the uses contradict each other or show nothing.
        variant: The variant, or empty where it does not show.
        part: The part, or empty where it does not show.
        why: The clauses of the claims that it rests on, the weight being their subject.
        doubt: Why there is no role, or empty.
    """

    block: str
    variant: str
    part: str
    why: str
    doubt: str = ""


def settle(claims: Mapping[str, Sequence[Claim]]) -> dict[str, Settled]:
    """The role of every weight that has claims.

    Args:
        claims: Weight name to what its uses in all calls show.
    """
    return {name: _settled(mine) for name, mine in claims.items() if mine}


def _settled(claims: Sequence[Claim]) -> Settled:
    counted = Counter(claim.why for claim in claims)
    why = "; ".join(clause if times == 1 else f"{clause} ({times} times)" for clause, times in counted.items())
    claims = [claim for claim in claims if claim.block != "other"] or claims  # being data besides says nothing
    blocks = {claim.block for claim in claims}
    if blocks == {"embedding", "head"}:  # one table for both ends
        claims, blocks = [claim for claim in claims if claim.block == "embedding"], {"embedding"}
    if len(blocks) > 1:
        return Settled("", "", "", why, f"its uses belong to different blocks: {', '.join(sorted(blocks))}")
    block = blocks.pop()
    variants = {claim.variant for claim in claims if claim.variant}
    part = part_of({claim.part for claim in claims}, block)
    if part is None:
        parts = ", ".join(sorted({claim.part for claim in claims}))
        return Settled("", "", "", why, f"its uses show different parts: {parts}")
    return Settled(block, variants.pop() if len(variants) == 1 else "", part, why)


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
    if block in ("indexer", "mixer", "embedding") and len(found) > 1:
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
    if gate and half:  # the field names the first half after the queries alone, and the second without its half
        gate, half = half == "_b", "" if half == "_b" else half
    if not letters <= {"q", "k", "v", "o"} or ("o" in letters and letters != {"q", "k", "v", "o"}):
        return None
    joined = "".join(letter for letter in _LETTERS if letter in letters)
    return joined + ("_gate" if gate else "") + half
