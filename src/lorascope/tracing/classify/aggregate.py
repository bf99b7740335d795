"""Aggregates the annotations of a weight's uses into one role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.tracing.classify.annotations import Annotation

# Letters of fused parts, in the customary order.
_LETTERS = ("q", "k", "v", "o")


@dataclasses.dataclass(frozen=True, slots=True)
class Aggregate:
    """The role that all uses of a weight imply together.

    Attributes:
        block: The block; empty where the uses contradict each other or imply none.
        variant: The variant; empty where the uses leave it open.
        part: The part; empty where the uses leave it open.
        why: The evidence of all annotations, with the weight as its subject.
        ambiguity: Why there is no role; empty where there is one.
    """

    block: str
    variant: str
    part: str
    why: str
    ambiguity: str = ""


def aggregate(annotations: Mapping[str, Sequence[Annotation]]) -> dict[str, Aggregate]:
    """The role of every annotated weight.

    Args:
        annotations: Weight name to the annotations of its uses in all calls.
    """
    return {name: _aggregate(uses) for name, uses in annotations.items() if uses}


def _aggregate(annotations: Sequence[Annotation]) -> Aggregate:
    counts = Counter(annotation.why for annotation in annotations)
    why = "; ".join(clause if times == 1 else f"{clause} ({times} times)" for clause, times in counts.items())
    # Being used as data as well implies nothing.
    annotations = [annotation for annotation in annotations if annotation.block != "other"] or annotations
    blocks = {annotation.block for annotation in annotations}
    if blocks == {"embedding", "head"}:  # one table for both ends
        blocks = {"embedding"}
        annotations = [annotation for annotation in annotations if annotation.block == "embedding"]
    if len(blocks) > 1:
        return Aggregate("", "", "", why, f"its uses belong to different blocks: {', '.join(sorted(blocks))}")
    block = blocks.pop()
    variants = {annotation.variant for annotation in annotations if annotation.variant}
    part = part_of({annotation.part for annotation in annotations}, block)
    if part is None:
        parts = ", ".join(sorted({annotation.part for annotation in annotations}))
        return Aggregate("", "", "", why, f"its uses show different parts: {parts}")
    return Aggregate(block, variants.pop() if len(variants) == 1 else "", part, why)


def part_of(parts: Iterable[str], block: str) -> str | None:
    """The joined part of several: `qkv` for q, k and v.

    Args:
        parts: Parts of single uses; those of low rank end in `_a` (narrows) or `_b` (widens).
        block: The block that they belong to.

    Returns:
        The joined part; None where no such part exists.
    """
    known = {part for part in parts if part}
    if block == "attention":
        return _attention_part(known)
    if block == "ffn" and known == {"gate", "up"}:
        return "gate_up"
    if block in ("indexer", "mixer", "embedding") and len(known) > 1:
        return ""
    return next(iter(known), "") if len(known) < 2 else None


def _attention_part(parts: set[str]) -> str | None:
    halves = {part[-2:] for part in parts if part.endswith(("_a", "_b"))}
    letters = {part[:-2] if part.endswith(("_a", "_b")) else part for part in parts}
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
